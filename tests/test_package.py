"""What ends up in a user's site-packages."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("auditor", "tools", "graders", "rubrics", "prompts", "evals")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy, so that the checkout stays clean."""
    source = tmp_path_factory.mktemp("source")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, source)
    return source


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    return built("wheel", source, tmp_path_factory.mktemp("wheel"))


def built(what, source, target):
    code = f"from hatchling.build import build_{what} as build; print(build({str(target)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False)
    if "No module named 'hatchling'" in done.stderr:
        pytest.skip("hatchling is not installed; `pip install hatchling`")
    assert done.returncode == 0, done.stderr
    return target / done.stdout.split()[-1]


def files_in(wheel):
    """Those that land in site-packages, and their bytes; not what is told of them."""
    with zipfile.ZipFile(wheel) as archive:
        return {i.filename: i.file_size for i in archive.infolist() if ".dist-info/" not in i.filename}


def test_the_wheel_is_the_tree_and_nothing_else(wheel):
    """Each file that git knows in these folders, the built-in ones under `auditor/_builtin`."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *FOLDERS]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("no git, or no checkout")
    tree = {path: (ROOT / path).stat().st_size for path in done.stdout.splitlines() if (ROOT / path).exists()}
    assert files_in(wheel) == {
        path if path.startswith("auditor/") else f"auditor/_builtin/{path}": size for path, size in tree.items()
    }
    assert wheel.stat().st_size < 100e6, "more than PyPI takes"


def test_the_source_archive_makes_the_same_wheel(wheel, source, tmp_path):
    with tarfile.open(built("sdist", source, tmp_path)) as archive:
        archive.extractall(tmp_path, filter="data")
        (top,) = {name.split("/")[0] for name in archive.getnames()}
    assert files_in(built("wheel", tmp_path / top, tmp_path)) == files_in(wheel)


def test_uvx_finds_a_script_that_is_called_as_the_package_is(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (told,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        (about,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        scripts = dict(re.findall(r"^(\S+) = (\S+)$", archive.read(told).decode(), re.M))
        name = re.search(r"^Name: (\S+)$", archive.read(about).decode(), re.M)[1]
    assert scripts == {"auditor": "auditor.cli:main", name: "auditor.cli:main"}


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
