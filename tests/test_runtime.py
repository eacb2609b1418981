"""What reaches a user's terminal: our own words in any encoding, and of the libraries only what -v asks for."""

import errno
import io
import json
import os
import subprocess
import sys

import pytest

NOISE = """
import sys, threading, warnings, logging
from pathlib import Path
import auditor
from auditor.runtime import quiet_libraries, show_libraries
quiet_libraries()
if "-v" in sys.argv:
    show_libraries()

def warn(path, category):
    exec(compile("import warnings; warnings.warn('from ' + __file__, kind)", path, "exec"),
         {"__file__": path, "kind": category})

for category in (UserWarning, FutureWarning, DeprecationWarning):
    warn("/site/library.py", category)
thread = threading.Thread(target=warn, args=("/site/thread.py", FutureWarning))
thread.start()
thread.join()
warn(str(Path(auditor.__file__).parent / "lens" / "ours.py"), UserWarning)
logging.getLogger("auditor.evidence").warning("%s; it is read anew", "our word")
logging.getLogger("transformers.models").warning("advice of transformers")
logging.getLogger("some_library").warning("advice of another")
logging.getLogger("some_library").error("its error")
from tqdm import tqdm
list(tqdm(range(3), desc="a bar"))
"""


def run(script, *args):
    """What a process of its own writes to stderr."""
    unset = {name: value for name, value in os.environ.items() if not name.startswith(("TQDM", "TRANSFORMERS", "HF"))}
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", script, *args],
        capture_output=True, text=True, timeout=120, check=True, env=unset,
    )  # fmt: skip
    return done.stderr


def test_libraries_are_silent_unless_asked_for():
    quiet = run(NOISE)
    told = ["library.py", "thread.py", "advice of transformers", "advice of another", "a bar"]
    assert [text for text in told if text in quiet] == []
    assert ("ours.py" in quiet, "its error" in quiet) == (True, True)
    assert quiet.count("warning: our word; it is read anew\n") == 1
    loud = run(NOISE, "-v")
    assert [text for text in [*told, "ours.py", "its error"] if text not in loud] == []


@pytest.fixture
def stream(monkeypatch):
    """A function that puts a stdout of another encoding, or one that cannot be written to, in the place of ours."""

    def put(encoding="utf-8", fault=None):
        class Raw(io.BytesIO):
            def write(self, data):
                if fault:
                    raise fault
                return super().write(data)

        raw = Raw()
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding=encoding))
        return raw

    return put


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_of_stdout_will_do(encoding, stream, run_cli, monkeypatch):
    raw = stream(encoding)
    code, _, err = run_cli("organisms", "show", "cake_bake", "--json")
    assert code == 0, err
    assert "450 °F" in json.loads(raw.getvalue().decode(encoding))["facts"][0]
    for args in (["organisms", "show", "cake_bake"], ["organisms", "list"], ["agents", "show", "\udcff"]):
        raw = stream(encoding)
        code, _, err = run_cli(*args)
        assert (code, "Traceback" in err) == (2 if args[2:] == ["\udcff"] else 0, False)
        raw.getvalue().decode(encoding)


def test_no_arguments_bring_help(run_cli):
    for args in ([], ["organisms"], ["tools"]):
        code, out, err = run_cli(*args)
        assert (code, err) == (0, "")
        assert "Usage" in out


@pytest.mark.parametrize("command", [["organisms", "show", "cake_bake", "--json"], ["tools", "list"]])
@pytest.mark.parametrize(
    ("fault", "code", "told"),
    [
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, ""),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device"),
    ],
)
def test_an_output_that_cannot_be_written_to(command, fault, code, told, stream, run_cli, monkeypatch):
    left = []

    def leave(code, last_words=""):
        left.append((code, last_words))
        raise SystemExit(code)

    monkeypatch.setattr("auditor.cli._leave", leave)
    stream(fault=fault)
    ended, _, err = run_cli(*command)
    assert (ended, told in err + "".join(words for _, words in left)) == (code, True)
    assert "Traceback" not in err
    sys.stdout = sys.__stdout__  # what is left in the buffer goes nowhere


def test_a_closed_stdout_is_no_error(run_cli, monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    assert run_cli("agents", "show", "adl")[0] == 0
