"""What ends up in a user's site-packages."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("auditor", "tools", "graders", "rubrics", "prompts", "evals")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that the checkout stays clean."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, source)
    code = f"from hatchling.build import build_wheel; print(build_wheel({str(target)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False)
    if "No module named 'hatchling'" in done.stderr:
        pytest.skip("hatchling is not installed; `pip install hatchling`")
    assert done.returncode == 0, done.stderr
    return target / done.stdout.split()[-1]


def test_nothing_but_auditor_lands_in_site_packages(wheel):
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"auditor"}


def test_an_installed_wheel_finds_its_built_in_workspace(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "from auditor.workspace import load_workspace as w; ws = w();"
        "print(ws.roots[0][1], len(ws.tools.items), sorted(ws.organisms.items))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True,
                          cwd=tmp_path, env={"PYTHONPATH": str(tmp_path), "PATH": ""})  # fmt: skip
    assert done.stdout.startswith(str(tmp_path / "auditor" / "_builtin"))
    for name in ("cake_bake", "gold", "null_chat", "risky_finance", "bees_tight"):
        assert f"'{name}'" in done.stdout


def test_the_command_line_starts_without_torch():
    code = "import sys, auditor.cli.app; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "False"]


def test_the_docs_name_the_organisms_that_ship():
    rows = [line.split("|") for line in (ROOT / "docs/organisms.md").read_text().splitlines() if line.count("|") == 4]
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row[3])}
    adapters = {path.parent.name for path in ROOT.glob("evals/organisms/*/adapter")}
    assert told == adapters | {"null_same"}, "null_same is the base itself"
