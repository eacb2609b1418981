"""Kill runs, and fill their disks: what is finished is kept, what is paid is never paid twice.

    python tests/campaigns/kills.py [TRIALS]

A tiny pair, an endpoint in this process that counts what it is asked, and `auditor evaluate` as a process of its own,
killed at random moments (default: 200 trials) and then resumed; a fifth as many trials let the disk fill up instead.
The trials are those of tests/test_kills.py. Ends with exit code 1 if anything is wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
# ruff: noqa: E402

from auditor.errors import BadFile
from auditor.ledger.ledger import Ledger, is_run
from tests.faults import Endpoint, completion

BUDGET = 5
CHECK = "Answer with one word: ready"  # every start with an LLM grader asks for it
# Imports take longer than runs: they are made once, and each sitting is a process forked from there. What the models
# compute is told before the ledger can keep it: computing it again would leave no trace there.
NURSERY = """
import json, os, resource, sys
from auditor.runtime import tune_process
tune_process()
import langchain_openai, peft, transformers.models.llama.modeling_llama
import auditor.audits.check, auditor.audits.run, auditor.cli.evaluate, auditor.cli.forecast, auditor.cli.progress
from auditor.cli import app, main
from auditor.ledger import spends
add = spends.ModelAnswers.add
def noted(self, job, requests, answers):
    os.write(told, f"{job} {spends._key(requests)}\\n".encode())
    return add(self, job, requests, answers)
spends.ModelAnswers.add = noted
for line in sys.stdin:
    ask = json.loads(line)
    if not (child := os.fork()):
        os.environ.update(ask["env"])
        os.chdir(ask["cwd"])
        err = os.open(ask["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(err, 1), os.dup2(err, 2)
        told = os.open(ask["computed"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        if ask["limit"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (ask["limit"], ask["limit"]))
        sys.argv = ["auditor", *ask["args"]]
        main()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Process:
    """A sitting: `auditor ARGS…`, to be waited for, or killed."""

    def __init__(self, nursery, **ask):
        self.nursery, self.returncode = nursery, None
        nursery.stdin.write(json.dumps(ask) + "\n")
        nursery.stdin.flush()
        self.pid = int(nursery.stdout.readline())

    def wait(self, seconds):
        """Whether it has ended by then."""
        if self.returncode is None and select.select([self.nursery.stdout], [], [], seconds)[0]:
            self.returncode = int(self.nursery.stdout.readline())
        return self.returncode is not None

    def kill(self):
        """Returns whether it was alive."""
        os.kill(self.pid, signal.SIGKILL)  # a zombie at the worst: nobody else has waited for it
        return self.wait(60) and self.returncode == -signal.SIGKILL


class Desk:
    """Plays agent and judge, each answer a function of its request alone, and counts what is asked."""

    def __init__(self):
        self.asked, self.at_work, self.lock, self.rng = [], 0, threading.Lock(), random.Random(0)
        self.endpoint = Endpoint(self.plan)

    def plan(self, body):
        said = digest(body)
        with self.lock:
            self.at_work += 1
            number, wait = len(self.asked), self.rng.uniform(0.005, 0.06)
            self.asked.append(CHECK if body["messages"][-1]["content"] == CHECK else said)
        time.sleep(wait)
        status, reply = self.judge(said) if body["model"] == "judge" else self.agent(body, said)
        with self.lock:
            self.at_work -= 1
        return status, reply | {"id": str(number)}, {}

    def judge(self, said):
        return completion({"content": f"It may be so.\nSCORE: {1 + int(said, 16) % 5}"})

    def agent(self, body, said):
        """Asks one to four times at once, now and then for more than is left, and concludes in the fifth turn."""
        rng, turn = random.Random(said), sum(message["role"] == "assistant" for message in body["messages"])
        offered = {tool["function"]["name"] for tool in body.get("tools", ())}
        if turn < 4 and "ask_model" in offered:
            sizes = [rng.choice((1, 1, 1, 2, 4, 7)) for _ in range(rng.choice((1, 2, 2, 4)))]
            asked = [{"prompts": [f"What grinds number {rng.randrange(999)}?" for _ in range(n)]} for n in sizes]
            return calling("ask_model", *asked)
        said = {"domain": "mills", "behaviour": f"It grinds {said[:12]}.", "summary": f"A mill: {said[:12]}."}
        return calling("conclude", {**said, "claims": [], "alternatives": [], "confidence": 0.5})

    def quiet(self):
        """Wait until everything has arrived that a killed process had sent."""
        while True:
            before = len(self.asked)
            time.sleep(0.1)
            if not self.at_work and len(self.asked) == before:
                return before


def digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def calling(name, *arguments):
    calls = [
        {"id": f"c{i}", "type": "function", "function": {"name": name, "arguments": json.dumps(each)}}
        for i, each in enumerate(arguments)
    ]
    return completion({"tool_calls": calls}, "tool_calls")


@dataclass
class Moment:
    """What was there when a sitting was cut off, or had ended."""

    asked: int  # requests that the endpoint had got
    computed: int  # batches that the audited models had answered
    place: str = "before the ledger"
    done: dict[str, str] = field(default_factory=dict)  # records as they are kept
    records: list = field(default_factory=list)
    usable: Counter = field(default_factory=Counter)  # bodies of requests with an answer that is kept
    kept: dict = field(default_factory=dict)  # the audited models' answers
    spends: dict[str, int] = field(default_factory=Counter)
    steps: dict[str, int] = field(default_factory=dict)

    def outcome(self):
        """By audit, what does not depend on when it was made, or on how often it was cut off."""
        told = {record.id: record for record in self.records}
        return {
            name: (record.status, record.hypothesis, record.grade, record.interactions_used, record.turns_used,
                   record.tokens, self.steps[name])
            for name, record in told.items()
        }  # fmt: skip


class Shop:
    """Where runs are made, one at a time: a workspace, an endpoint, a warm cache, and what a whole run comes to."""

    def __init__(self, folder):
        self.folder, self.out, self.desk = folder, folder / "runs", Desk()
        self.run, self.computed = self.out / "run", folder / "computed.txt"
        self.warm, self.seconds = folder / "warm", {}
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200",
               "OPENAI_BASE_URL": self.desk.endpoint.url, "OPENAI_API_KEY": "sk-canary-1234"}  # fmt: skip
        self.nursery = subprocess.Popen(
            [sys.executable, "-c", NURSERY], env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.right = self.measure(1, cold=True)  # which warms the cache
        self.bodies = Counter(self.desk.asked)
        assert all(status == "done" for status, *_ in self.right.values()), self.right
        again = self.measure(4, cold=False)
        assert again == self.right, "a run with workers, or with kept evidence, comes to something else"

    def measure(self, workers, *, cold):
        """A whole run's outcome; how long it takes is noted, and when its ledger was there."""
        self.clear()
        process, begun, seen, self.size = self.start(workers, self.warm), time.perf_counter(), 0.0, 0
        while not process.wait(0.05):
            seen = seen or (time.perf_counter() - begun if is_run(self.run) else 0.0)
            self.size = max(self.size, sum(path.stat().st_size for path in self.out.rglob("*") if path.is_file()))
        assert process.returncode == 0, self.told()
        self.seconds[cold] = seen, time.perf_counter() - begun
        return self.moment().outcome()

    def close(self):
        self.nursery.stdin.close()
        self.nursery.wait(60)
        self.nursery.stdout.close()
        self.desk.endpoint.close()

    def clear(self):
        """Nothing of the run before is there, or counted."""
        for path in (self.run, self.computed):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        self.out.mkdir(exist_ok=True)
        self.desk.quiet()
        for counted in (self.desk.asked, self.desk.endpoint.requests):
            counted.clear()

    def start(self, workers, cache, *more, limit=0):
        """A sitting begins. `limit`: bytes that no file may grow over."""
        args = ["evaluate", "small", "--llm", "openai:agent", "--grader-llm", "openai:judge", "--name", "run",
                "--budget", str(BUDGET), "--workers", str(workers), "--out", str(self.out), *more]  # fmt: skip
        told = {"err": str(self.folder / "err.txt"), "computed": str(self.computed), "cwd": str(self.folder)}
        return Process(self.nursery, args=args, env={"AUDITOR_CACHE": str(cache)}, limit=limit, **told)

    def told(self):
        """What the last sitting printed."""
        return (self.folder / "err.txt").read_text(errors="replace")

    def moment(self):
        """What is there now that nobody is at work; read from a copy, for which there is room."""
        computed = self.computed.read_text().splitlines() if self.computed.exists() else []
        found = Moment(self.desk.quiet(), len(computed))
        seen = self.folder / "seen"
        shutil.rmtree(seen, ignore_errors=True)
        shutil.copytree(self.run, seen) if self.run.exists() else seen.mkdir()
        try:
            ledger = Ledger.read(seen)
        except BadFile as error:
            if "is missing" in error.reason or "is of version 0" in error.reason:
                return found
            raise
        with ledger:
            rows = ledger._db.rows
            states = ledger.jobs.states()
            found.records = list(ledger.jobs.records())
            found.done = dict(rows("SELECT name, record FROM jobs WHERE state = 'done'"))
            found.kept = {(job, key): told for job, key, told in rows("SELECT job, key, answers FROM model_calls")}
            found.spends = {name: ledger.spends.spent(name) for name in states}
            found.steps = {name: len(ledger.transcripts.messages(name)) for name in states}
            for (reply,) in rows("SELECT reply FROM calls WHERE usable"):
                found.usable[self.desk.asked[int(json.loads(reply)["data"]["response_metadata"]["id"])]] += 1
        begun = {"running", "done"} & set(states.values())
        found.place = "in the evidence" if not begun else "in audits" if "running" in states.values() else "behind them"
        return found


@contextmanager
def little_room(folder, limit):
    """Let `folder` be on a disk of its own with `limit` bytes, or let no file grow over a part of that; then make room.

    Gives the most that a file may hold, or 0. What was written is there afterwards.
    """
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={limit}", "tmpfs", str(folder)], capture_output=True
    ).returncode
    if not mounted:  # not root, or in a container that may not
        yield limit // 3
        return
    try:
        yield 0
    finally:
        moved = folder.with_name(f"{folder.name}.moved")
        shutil.copytree(folder, moved)
        subprocess.run(["umount", str(folder)], check=True)
        shutil.rmtree(folder)
        moved.rename(folder)


if __name__ == "__main__":
    os.environ["AUDITOR_KILLS"] = sys.argv[1] if len(sys.argv) > 1 else "200"
    sys.exit(pytest.main(["-q", str(ROOT / "tests/test_kills.py")]))
