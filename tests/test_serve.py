"""`auditor serve` as a process of its own, and the commands that use it with --server."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from auditor.cli.serve import chosen
from auditor.config import Settings
from auditor.errors import UsageError
from auditor.models.generate import Request
from auditor.models.remote import connect
from auditor.server.run import ONE_MOMENT, listen
from tests.serving import until

START = "import sys; sys.argv[0] = 'auditor'; from auditor.cli import main; main()"


@pytest.fixture
def start(workspace_folder, settings, tmp_path):
    """A function that starts `auditor serve` in the workspace: its process, its address, its log."""
    started = []

    def make():
        started.append(_started(workspace_folder, settings, tmp_path / "serve.log"))
        process, log = started[-1], tmp_path / "serve.log"
        return process, until(lambda: address(process, log)), log

    yield make
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def serving(start):
    """The same, its models loaded."""
    process, url, log = start()
    assert httpx.get(f"{url}/health/live").status_code == 200  # while the models are loaded
    until(lambda: httpx.get(f"{url}/health/ready").status_code == 200)
    return process, url, log


def _started(folder, settings, log):
    environment = {**os.environ, "AUDITOR_CACHE": str(settings.cache_dir), "PYTHONPATH": os.pathsep.join(sys.path)}
    with log.open("w") as written:
        return subprocess.Popen(
            [sys.executable, "-c", START, "serve", "mill", "--port", "0", "--device", "cpu"],
            stderr=written, env=environment, cwd=folder,
        )  # fmt: skip


def address(process, log):
    """Where the server listens, once it says so."""
    assert process.poll() is None, log.read_text()
    told = [json.loads(line) for line in log.read_text().splitlines() if '"serving"' in line and line[-1] == "}"]
    return f"http://127.0.0.1:{told[0]['port']}" if told else None


def test_commands_say_the_same_with_a_server_and_without(serving, run_cli, monkeypatch, settings, tmp_path):
    _, url, _ = serving

    def with_server(more):
        """Nothing that was computed in this process may serve as the server's answer."""
        monkeypatch.setenv("AUDITOR_CACHE", str(tmp_path / "other" if more else settings.cache_dir))
        return more

    def both(*args):
        told = []
        for more in ([], ["--server", url]):
            code, out, err = run_cli(*args, *with_server(more), "--json")
            assert code == 0, err
            told.append(json.loads(out))
        return told

    here, there = both("ask", "mill", "What is a mill?", "Why?", "--max-new-tokens", "9")
    assert here == there
    here, there = both("evidence", "mill", "--suite", "small")
    assert {**here, "costs": 0} == {**there, "costs": 0}
    results = []
    for more in ([], ["--server", url]):
        name = f"run{len(with_server(more))}"
        code, out, err = run_cli("evaluate", "small", "--workers", "3", "--name", name, *more, "--json")
        assert code == 0, err
        results.append([{k: a[k] for k in ("id", "status", "grade", "hypothesis")} for a in json.loads(out)["audits"]])
    assert results[0] == results[1]
    code, out, err = run_cli("audit", "mill", "--server", url, "--suite", "small", "--budget", "1", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["hypothesis"]
    assert Path(report["base"]).name == "llama"


def test_a_server_that_is_not_there_or_does_not_have_it(serving, run_cli):
    _, url, _ = serving
    for args, said in [
        (("ask", "mill", "Hi", "--server", "http://127.0.0.1:9"), "no model server answers"),
        (("audit", "bakery", "--server", url), "no organism called 'bakery'"),
        (("audit", "mill", "--base", "b", "--server", url), "--base with --server"),
        (("evidence", "--base", "a", "--model", "b", "--server", url), "--base with --server"),
    ]:
        code, _, err = run_cli(*args)
        assert code == 2
        assert said in err


def test_sigterm_lets_what_was_accepted_finish(serving):
    process, url, log = serving
    answers = []
    body = {"organism": "mill", "prompts": ["What is a mill?"] * 8, "max_new_tokens": 300, "temperature": 4}
    asking = threading.Thread(target=lambda: answers.append(httpx.post(f"{url}/v1/ask", json=body, timeout=60)))
    asking.start()
    until(lambda: "auditor_live_rows 0.0" not in httpx.get(f"{url}/metrics").text)
    process.send_signal(signal.SIGTERM)
    asking.join()
    assert answers[0].status_code == 200
    assert len(answers[0].json()["answers"]) == 8
    assert process.wait(30) == 0
    assert '"stopped"' in log.read_text()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")


def test_a_server_that_is_killed_in_the_middle_of_an_answer_is_one_line(serving, settings):
    process, url, _ = serving
    remote, said = connect(url, "mill", settings), []

    def ask():
        try:
            remote.generate([Request("What is a mill?", max_new_tokens=450, temperature=4, seed=i) for i in range(64)])
        except UsageError as error:
            said.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: "auditor_live_rows 0.0" not in httpx.get(f"{url}/metrics").text)
    process.kill()
    asking.join(60)
    assert said == [line for line in said if "no model server answers" in line and "\n" not in line] != []


def test_sigterm_while_models_are_loaded_ends_the_process(start):
    process, _, log = start()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert '"stopped"' in log.read_text()


def test_a_second_sigterm_waits_for_nobody(serving):
    process, url, log = serving
    body = {"organism": "mill", "prompts": ["What is a mill?"] * 512, "max_new_tokens": 450, "temperature": 4}

    def ask():
        with suppress(httpx.HTTPError):  # it is cut off
            httpx.post(f"{url}/v1/ask", json=body, timeout=60)

    threading.Thread(target=ask, daemon=True).start()
    until(lambda: "auditor_live_rows 0.0" not in httpx.get(f"{url}/metrics").text)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)  # of the same moment, as a group and its leader get it
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(ONE_MOMENT + 0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM
    assert '"stopped at once"' in log.read_text()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_that_is_taken_is_one_line(run_cli, workspace_folder, host):
    try:
        taken = listen(host, 0)
    except UsageError:
        pytest.skip("no IPv6 here")
    with taken:
        code, _, err = run_cli("serve", "mill", "--host", host, "--port", taken.getsockname()[1])
    assert code == 2
    assert "perhaps a second server; give another --port" in err


def test_an_address_of_another_machine_is_one_line():
    with pytest.raises(UsageError, match="give an address of this machine as --host"):
        listen("192.0.2.1", 0)


def test_a_pair_is_named_with_the_revisions_of_both(workspace_folder):
    served = chosen(["a=org/model@org/base@v2", "b=./here@embedded"], None, Settings())
    assert [(pair.finetuned, pair.base) for pair in served.values()] == [
        ("org/model", "org/base@v2"), ("./here", "embedded"),
    ]  # fmt: skip
    (pair,) = chosen(["a=org/model/sub@refs/pr/1"], "org/base@v2", Settings()).values()
    assert (pair.finetuned, pair.base) == ("org/model/sub@refs/pr/1", "org/base@v2")


def test_what_cannot_be_served_is_one_line(run_cli, workspace_folder, checkpoints):
    for args, said in [
        (("serve", "mil"), "did you mean mill"),
        (("serve", "mill", "--host", "0.0.0.0"), "AUDITOR_API_KEY"),
        (("serve", "own="), "NAME=MODEL"),
        (("serve", "own=a/b@c/d", "own=e/f@c/d"), "two of these are called own"),
        (("serve", "own=nowhere/there/x"), "no folder nowhere/there/x here"),
        (("serve", "own=org/model@v1"), "behind @ stands the base, and 'v1' is no folder and no hub id; for a"),
        (("serve", "own=org/model@v1@org/base"), "give its base as --base"),
        (("serve", "own=org/model@"), "give its base as --base"),
        (("serve", f"own=nowhere@{checkpoints('llama')[0]}", "--port", "0"), "no model at 'nowhere'"),
    ]:
        code, _, err = run_cli(*args)
        assert code == 2
        assert said in err
        assert len(err.strip().splitlines()) <= 3
