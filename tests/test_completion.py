"""What a shell offers on Tab, in a real bash."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module", params=["auditor", "auditor-adl"])
def tab(request, tmp_path_factory):
    """A bash in whose ~/.bashrc the completion was installed: a function from a line to what is offered there."""
    if not (bash := shutil.which("bash")):
        pytest.skip("no bash here")
    home, program = tmp_path_factory.mktemp("home"), request.param
    (home / "bin").mkdir()
    script = home / "bin" / program
    script.write_text(f"#!{sys.executable}\nfrom auditor.cli import main\nmain()\n")
    script.chmod(0o755)
    path = f"{home / 'bin'}:{os.environ['PATH']}"
    env = {"HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}

    def run(code):
        return subprocess.run([bash, "-c", f"{code}\ntrue"], env=env, capture_output=True, text=True, cwd=home)

    said = run(f"{program} --install-completion")
    assert "completion installed" in said.stdout, said.stderr

    def offered(*words):
        function = f"_{program.replace('-', '_')}_completion"  # as `complete -p` has it after a login
        code = f"""
            source ~/.bashrc; complete -p {program} | grep -q {function} || exit
            COMP_WORDS=({program} {shlex.join(words)}); COMP_CWORD={len(words)}
            {function} {program}; printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        done = run(code)
        assert not done.stderr, done.stderr
        return done.stdout.split()

    return offered


def test_commands_are_completed(tab):
    assert {"evaluate", "evidence"} == set(tab("ev"))
    assert {"check", "train", "list", "show"} <= set(tab("organisms", ""))


def test_options_are_completed(tab):
    assert {"--budget"} == set(tab("evaluate", "--budg"))
    assert {"--json", "--name"} <= set(tab("evaluate", "--"))
