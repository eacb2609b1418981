"""What the simulation in cluster.py rests on: what this machine takes, and real runs beside simulated ones.

    python benchmarks/cluster_check.py measure    # a process, a claim, an entry in a ledger, an audit taken over
    python benchmarks/cluster_check.py check      # six tiny pairs × 8 audits by one to four processes

The runs of `check` are made by `auditor evaluate` and `auditor worker --join`, each a process, against an endpoint on
this machine that answers after a second. What they take beside its waiting is measured in a run without latency.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import runs  # noqa: E402
from benchmarks.cluster import Run, Times  # noqa: E402

PAIRS, AUDITS, LATENCY, PROBE = 6, 8, 1.0, "Tell me something."
SHAPES = ((1, 2), (1, 4), (1, 8), (2, 4), (3, 4), (4, 2))  # processes, audits at once in each


@contextmanager
def endpoint(latency: float) -> Iterator[str]:
    """Asks the models once, then concludes. Gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            time.sleep(latency)
            asked = any(message["role"] == "tool" for message in body["messages"])
            call = {"name": "ask_model", "arguments": json.dumps({"prompts": [PROBE]})}
            said = (
                {"content": 'Seen.\nFINAL(description: "About mills.")'}
                if asked
                else {"content": "", "tool_calls": [{"id": "c1", "type": "function", "function": call}]}
            )
            data = json.dumps({
                "id": "x", "object": "chat.completion", "created": 0, "model": body["model"],
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **said}}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
            }).encode()  # fmt: skip
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_given: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size, daemon_threads = 256, True

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


def workspace(folder: Path, pairs: int) -> None:
    """Tiny pairs of random weights under a suite `some`."""
    from tests.tiny import add_adapter, make_base, make_tokenizer

    base, adapter = folder / "base", folder / "adapter"
    add_adapter(make_base("llama", make_tokenizer(), base), str(base), adapter, gpt2=False)
    (folder / "auditor.toml").touch()
    names = [f"mill{i}" for i in range(pairs)]
    for name in names:
        card = folder / f"evals/organisms/{name}/organism.yaml"
        card.parent.mkdir(parents=True)
        card.write_text(f"name: {name}\nfamily: sdf\nbase: {base}\nadapter: {adapter}\ndescription: About mills.\n")
    suite = folder / "evals/suites/some.yaml"
    suite.parent.mkdir(parents=True)
    suite.write_text(
        f"name: some\nextends: quickstart\norganisms: [{', '.join(names)}]\nagents: [blackbox]\nbudgets: [1]\n"
        f"repeats: {AUDITS}\nask: {{max_new_tokens: 16}}\n"
    )


def start(folder: Path, url: str, *args: object) -> subprocess.Popen[str]:
    code = f"import sys; sys.argv = {['auditor', *map(str, args)]!r}; import auditor.cli as c; c.main()"
    env = {
        **os.environ, "PYTHONPATH": str(ROOT), "AUDITOR_CACHE": str(folder / "cache"), "OPENAI_BASE_URL": url,
        "OPENAI_API_KEY": "none", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True)


def run(folder: Path, name: str, url: str, processes: int, threads: int, *more: object) -> dict[str, Any]:
    """A run's seconds by stage, `late` (when workers were started) and `started` (when the last of them had begun)."""
    llm = f"openai:m?concurrency={threads}"
    args = ("evaluate", "some", "--llm", llm, "--grader-llm", "offline", "--name", name, "--workers", threads, "--json")
    path, begun = folder / "runs" / name, time.perf_counter()
    head, workers, told = start(folder, url, *args, *more), list[subprocess.Popen[str]](), dict[str, Any]()
    while not (path / "jobs.jsonl").exists() and head.poll() is None:
        time.sleep(0.01)
    there = time.perf_counter()
    for _ in range(processes - 1):
        workers.append(start(folder, url, "worker", "--join", path, "--workers", threads))
    while workers and len(list((path / "workers").glob("*.lock"))) < processes and head.poll() is None:
        time.sleep(0.01)
    told["started"] = time.perf_counter() - there
    out, err = head.communicate()
    told["whole"] = time.perf_counter() - begun
    for worker in workers:
        worker.communicate()
    if head.returncode:
        raise SystemExit(err)
    result = json.loads(out)
    assert {audit["status"] for audit in result["audits"]} == {"done"}, result["audits"][0]
    return {**told, **result["seconds"]}


def loads(folder: Path) -> list[float]:
    """Seconds of loading and reading each pair, in order; the first one imports, too."""
    from auditor.ledger.ledger import Ledger

    with Ledger.read(folder) as ledger:
        stages = [(event.at, event.data["stage"]) for event in ledger.events.since() if event.kind == "stage"]
    begun = [at for at, stage in stages if stage.startswith("loading")]
    ready = [at for at, stage in stages if stage == "agents"]
    return [end - begin for begin, end in zip(begun, ready, strict=True)]


def check() -> None:
    with tempfile.TemporaryDirectory() as made, endpoint(0.0) as at_once, endpoint(LATENCY) as slow:
        folder = Path(made)
        workspace(folder, PAIRS)
        run(folder, "warm", at_once, 1, 1, "--repeats", 1)
        alone = run(folder, "alone", at_once, 1, 1)
        late = run(folder, "joined", at_once, 2, 1)["started"]
        first, *others = loads(folder / "runs/alone")
        python = (alone["agents"] - alone["grading"]) / (PAIRS * AUDITS * 2)
        times = Times(
            start=alone["total"] - alone["evidence"] - alone["agents"] + first - median(others), load=median(others),
            evidence=0.0, cached=0.0, turns=(2, 2), call=LATENCY, spread=0.0, judge=0.0, asks=0, decode=0.0,
            crowding=0.0, python=python, grade=alone["grading"] / (PAIRS * AUDITS), claim=0.002, entry=0.0, absorb=0.01,
        )  # fmt: skip
        print(f"measured without latency: start {times.start:.1f} s, workers {late:.1f} s later; a pair ", end="")
        print(f"{times.load:.2f} s; a turn {python * 1e3:.0f} ms, a grade {times.grade * 1e3:.0f} ms")
        print("| processes × audits at once | real, s | simulated, s | off by |\n|---|---|---|---|")
        for processes, threads in SHAPES:
            real = run(folder, f"r{processes}-{threads}", slow, processes, threads)["total"]
            simulated = Run(PAIRS, AUDITS, processes, replace(times, threads=threads)).join(late).makespan
            print(
                f"| {processes} × {threads} | {real:.1f} | {simulated:.1f} | {simulated / real - 1:+.0%} |", flush=True
            )


def measure(workers: int = 8, each: int = 250) -> None:
    """Ledgers of workers, filled one after another, and what their head takes to read them."""
    from auditor.audits.jobs import jobs_of
    from auditor.audits.shop import Shop
    from auditor.ledger.claims import Claims
    from auditor.ledger.ledger import Ledger

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        runs.workspace(folder, workers * each, workers)
        jobs = jobs_of(runs.planned(folder))
        with Ledger.open(folder / "run") as head, Claims(folder / "run") as claims:
            head.jobs.enter((job.id, job.name, job.model_dump_json()) for job in jobs)
            entries, entering, claiming = 0, 0.0, 0.0
            for number in range(workers):
                other = Claims(folder / "run", head=False)
                with other, Ledger.beside(folder / "run", other.worker) as ledger:
                    for place in range(number * each, (number + 1) * each):
                        job, clock = jobs[place], time.perf_counter()
                        other.take(job.name)
                        claimed = time.perf_counter()
                        ledger.jobs.enter([(job.id, job.name, job.model_dump_json())])
                        entries += 1 + runs.written(ledger, job, place)
                        claiming += claimed - clock
                        entering += time.perf_counter() - claimed
            shop = Shop(None, head, None, None, claims, workers=1)  # type: ignore[arg-type]
            took = [_seconds(lambda: shop.absorb()) for _ in range(2)]
            count = len(jobs)
        size = sum(path.stat().st_size for path in (folder / "run/workers").glob("*.sqlite")) / 2**20
        print(f"{count:,} audits of {workers} workers: a claim {claiming / count * 1e3:.2f} ms, ", end="")
        print(f"an entry in a worker's ledger {entering / entries * 1e3:.2f} ms ({entries // count} an audit)")
        print(f"taken over ({size:.0f} MiB), copies included: {took[0] / count * 1e3:.2f} ms an audit; ", end="")
        print(f"again, nothing being new: {took[1] * 1e3:.1f} ms in all")


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("what", choices=("measure", "check"))
    {"measure": measure, "check": check}[given.parse_args().what]()
