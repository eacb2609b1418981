"""Many hands at one run: workers beside it, Slurm arrays, Ray clusters; nothing is lost or paid twice when one dies."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import psutil
import pytest

from auditor.ledger.claims import LENT
from auditor.ledger.ledger import Ledger
from auditor.workspace import builtin_root

FINAL = 'Seen.\nFINAL(description: "About mills.")'


def essence(audits):
    kept = ("id", "status", "hypothesis", "grade", "interactions_used", "turns_used")
    return sorted(json.dumps({key: audit[key] for key in kept}) for audit in audits)


@pytest.fixture
def start(settings, monkeypatch):
    """A function that starts `auditor ARGS…` as a process of its own; they are killed at the end."""
    started = []

    def run(*args):
        code = f"import sys; sys.argv = {['auditor', *map(str, args)]!r}; import auditor.cli as c; c.main()"
        env = {**os.environ, "AUDITOR_CACHE": str(settings.cache_dir), "PYTHONPATH": str(builtin_root())}
        pipe = subprocess.PIPE
        started.append(subprocess.Popen([sys.executable, "-c", code], env=env, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def slow(serve, seconds=1.0):
    """An endpoint whose every answer takes a while."""

    def reply(_body):
        time.sleep(seconds)
        return {"content": FINAL}

    return serve(reply)


def until(what, seconds=60.0):
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends, "nothing came of it"
        time.sleep(0.02)


def ended(folder):
    """States of the run's jobs."""
    try:
        with Ledger.read(folder) as ledger:
            return list(ledger.jobs.states().values())
    except Exception:
        return []


ARGS = [
    "evaluate",
    "small",
    "--llm",
    "openai:m?concurrency=1",
    "--name",
    "run",
    "--repeats",
    4,
    "--workers",
    1,
    "--json",
]


def test_workers_join_and_nothing_is_made_twice_though_one_dies(workspace_folder, serve, start):
    endpoint, folder = slow(serve), workspace_folder / "runs/run"
    head = start(*ARGS)
    until(lambda: endpoint.requests)
    dying, worker = (start("worker", "--join", folder, "--workers", 1, "--json") for _ in range(2))
    until(lambda: list((folder / "workers").glob(f"*-{dying.pid}-*.sqlite")) and len(endpoint.requests) > 2)
    dying.send_signal(signal.SIGKILL)
    out, err = head.communicate(timeout=120)
    assert head.returncode == 0, err
    _, told = worker.communicate(timeout=60)
    assert worker.returncode == 0, told
    result = json.loads(out)
    assert [audit["status"] for audit in result["audits"]] == ["done"] * 8
    assert len({audit["id"] for audit in result["audits"]}) == 8
    assert len(endpoint.requests) <= 9  # only what was in flight was asked again
    assert result["llm_use"]["agent"]["calls"] == 8
    assert len(list((folder / "transcripts").iterdir())) == 8
    assert not [path for path in (folder / "claims").iterdir() if not path.name.startswith(".")]


def test_a_head_that_dies_is_followed_by_one_that_takes_the_workers_results_over(
    workspace_folder, serve, start, run_cli
):
    endpoint, folder = slow(serve), workspace_folder / "runs/run"
    head = start(*ARGS)
    until(lambda: endpoint.requests)
    worker = start("worker", "--join", folder, "--json")
    until(lambda: list((folder / "workers").glob("*.sqlite")))
    head.send_signal(signal.SIGKILL)
    made, told = worker.communicate(timeout=60)  # it goes on alone
    assert worker.returncode == 0, told
    code, _, err = run_cli("merge", "run")
    assert code == 0, err
    assert ended(folder).count("done") >= json.loads(made)["done"] > 0
    code, out, err = run_cli(*ARGS, "--resume")
    assert code == 0, err
    assert [audit["status"] for audit in json.loads(out)["audits"]] == ["done"] * 8
    assert len(endpoint.requests) <= 9


def test_another_request_does_not_join(workspace_folder, run_cli):
    assert run_cli("evaluate", "small", "--name", "run", "--json")[0] == 0
    code, _, err = run_cli("evaluate", "small", "--name", "run", "--join", "--seed", 9)
    assert (code, "that is another run: seed differ" in err) == (2, True), err
    (workspace_folder / "prompts").mkdir()
    (workspace_folder / "prompts/agent_nudge.md").write_text("---\nvariables: [fault]\n---\nGo on. {{ fault }}\n")
    code, _, err = run_cli("worker", "--join", "runs/run")
    assert (code, "prompt agent_nudge differ" in err) == (2, True), err
    code, _, err = run_cli("worker", "--join", "runs/none")
    assert (code, "no run lies there" in err) == (2, True), err


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is an extra")
def test_rays_actors_give_what_threads_give(workspace_folder, run_cli):
    args = ("evaluate", "small", "--json", "--agent", "adl", "--repeats", 1, "--name")
    code, out, err = run_cli(*args, "threads")
    assert code == 0, err
    code, other, err = run_cli(*args, "cluster", "--engine", "ray")
    assert code == 0, err
    assert essence(json.loads(other)["audits"]) == essence(json.loads(out)["audits"])


@pytest.mark.parametrize(("engine", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_an_extra_that_is_not_installed_is_named(engine, package, workspace_folder, run_cli, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    code, _, err = run_cli("evaluate", "small", "--engine", engine)
    assert (code, f"pip install 'auditor-adl[{engine}]'" in err.splitlines()[-1]) == (2, True), err


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is an extra")
def test_a_cluster_that_cannot_be_had_is_told_in_one_line(workspace_folder, run_cli, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    code, _, err = run_cli("evaluate", "small", "--engine", "ray")
    assert (code, "nobody answers at RAY_ADDRESS 127.0.0.1:9" in err.splitlines()[-1]) == (2, True), err


def pids(name):
    """Processes of this machine that are called so."""
    return [
        process.pid for process in psutil.process_iter(["cmdline"]) if name in " ".join(process.info["cmdline"] or [])
    ]


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is an extra")
def test_an_actor_that_dies_is_replaced_and_nothing_is_paid_twice(workspace_folder, serve, start):
    endpoint = slow(serve)
    head = start(*ARGS, "--agent", "blackbox", "--engine", "ray")
    until(lambda: len(endpoint.requests) > 1, 200)
    os.kill(pids("ray::PairActor")[0], signal.SIGKILL)
    out, err = head.communicate(timeout=250)
    assert (head.returncode, out[:1]) == (0, "{"), out + err
    assert [audit["status"] for audit in json.loads(out)["audits"]] == ["done"] * 4
    assert 4 <= len(endpoint.requests) <= 6  # what the dead one had in flight


def test_a_job_of_the_array_that_dies_is_submitted_again(workspace_folder, serve, start):
    pytest.importorskip("submitit")
    endpoint, folder = slow(serve), workspace_folder / "runs/run"
    head = start(*ARGS, "--agent", "blackbox", "--engine", "slurm")
    until(lambda: len(endpoint.requests) > 1, 200)
    (worker,) = (path for path in (folder / "workers").glob("*.sqlite") if path.stem != LENT)
    os.kill(int(worker.stem.split("-")[-2]), signal.SIGKILL)
    out, err = head.communicate(timeout=250)
    assert head.returncode == 0, err
    assert "no sbatch here" in err  # submitit's local executor stands for a cluster
    assert [audit["status"] for audit in json.loads(out)["audits"]] == ["done"] * 4
    assert 4 <= len(endpoint.requests) <= 5


def test_submitits_parameters_are_checked(workspace_folder, run_cli):
    pytest.importorskip("submitit")
    code, _, err = run_cli("evaluate", "small", "--engine", "slurm", "--max-tokens", 9)
    assert (code, "give N/audit" in err.splitlines()[-1]) == (2, True), err
    code, _, err = run_cli("evaluate", "small", "--name", "bad", "--engine", "slurm", "--slurm", "slurm_colour=red")
    assert (code, "--slurm" in err.splitlines()[-1]) == (2, True), err
