"""The notebooks in docs/: one is run from top to bottom, of the other all that can be checked without weights is."""

import re
import shlex

import pytest

from tests.pages import ROOT, check_command, check_names

nbformat = pytest.importorskip("nbformat", reason="needs nbformat (extra dev)")
NOTEBOOKS = ROOT / "docs/notebooks"


def code_of(name):
    return [cell.source for cell in nbformat.read(NOTEBOOKS / name, 4).cells if cell.cell_type == "code"]


@pytest.mark.embedded
@pytest.mark.timeout(1200)
def test_one_audit_runs_from_top_to_bottom(tmp_path, real_settings, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient (extra dev)")
    monkeypatch.setenv("AUDITOR_CACHE", str(real_settings.cache_dir))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOKS / "one_audit.ipynb", 4)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3", resources=where).execute()
    shown = {cell.source: [o.data for o in cell.outputs if "data" in o] for cell in notebook.cells if "outputs" in cell}
    page = next(outputs for source, outputs in shown.items() if source.endswith("\nfound"))
    assert page[0]["text/html"].startswith("<iframe")
    graded = next(outputs for source, outputs in shown.items() if "run.frame()" in source)[0]["text/html"]
    assert graded.count("<td>done</td>") == 4
    assert (tmp_path / "runs/cake-alone/report.html").is_file()


def test_the_one_for_a_gpu_calls_what_there_is():
    for source in code_of("public_organism.ipynb"):
        for line in re.findall(r"^!(.*)$", source, re.M):
            check_command(shlex.split(line))
        check_names("\n".join(line for line in source.splitlines() if not line.startswith(("!", "%"))))


def test_a_kept_output_is_not_large():
    for path in NOTEBOOKS.glob("*.ipynb"):
        assert path.stat().st_size < 60_000, path
        assert "Traceback" not in path.read_text()
