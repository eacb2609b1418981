"""How a run of many organisms scales over many GPUs, simulated by the rules of auditor's own scheduling.

    python benchmarks/cluster.py [--engine join|slurm|ray]  # 1,000 organisms × 40 audits on 1 to 256 GPUs
    python benchmarks/cluster_check.py measure              # what this machine takes for what is measured
    python benchmarks/cluster_check.py check                # simulated beside real runs of tiny models

Measured on this machine: Python's share of an audit, ledgers, claims, taking over, starting. Assumed, and said in the
table's head: the model, the GPU, the LLM's endpoint. Simulated: everything else, by these rules of the real code:

- A worker is a process with one GPU and one pair in memory. The pair's models are loaded anew, also where the base is
  the same, its evidence is read (or comes from the cache that all share), then `threads` threads make its audits in
  their order. The next pair is begun once the last of them has ended (audits/threads.py).
- join: each worker takes the first pair that nobody has begun, claiming its first audit before it loads; if there is
  none, it helps where most audits are unclaimed (audits/run.py). Two that read one pair at once both read it.
- slurm: a process a pair, as many at once as there are GPUs; the head makes none. ray: the same, but the next lot of
  pairs begins once the last of this one has ended, and the driver makes all entries of the ledger (audits/ray.py).
- A claim is a file written under one lock of the run, for which others wait in steps of 50 ms (ledger/claims.py).
- A process' ledger takes one entry at a time; the head takes over what others did once its own audits are made (join),
  or as they end (slurm).
- Decoding shares passes: rows of one GPU slow each other by `crowding` for each that is there when one begins.
- Limits of an endpoint hold in each process. What an endpoint is asked beyond `endpoint` calls at once waits there in
  order; a real one may refuse it instead, and is asked again after up to 30 s.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.simulated import Clock, Gpu, Latch, Queue, Walk

POLL = 0.05  # seconds between two looks at a lock that somebody holds (filelock)


@dataclass(frozen=True)
class Times:
    """Seconds, but for what is counted."""

    start: float  # of a process, until a pair can be loaded
    load: float  # a pair's models
    evidence: float
    cached: float  # evidence that is in the cache
    turns: tuple[int, int]  # of an audit: at least, at most
    call: float  # an LLM's answer; nothing for the offline agent
    spread: float  # of it: the standard deviation of its logarithm
    judge: float  # of a call that grades
    asks: int  # turns in which the models are asked
    decode: float  # their answer to one of these, alone
    crowding: float
    python: float  # of a turn, one after another in a process
    grade: float  # the same of a grade
    claim: float  # under the lock of all
    entry: float  # in a ledger; each turn and each end is one
    absorb: float  # an audit of another worker, copies included
    endpoint: int | None = None  # calls at once; none: as many as one likes
    threads: int = 8


@dataclass
class Outcome:
    """Shares are of the makespan, over all GPUs, all calls that the endpoint takes at once, the busiest ledger."""

    makespan: float
    gpu: float
    endpoint: float
    ledger: float
    idle: float  # of the GPUs' time, without a process
    loads: int


class Run:
    """A matrix of pairs and audits, on so many GPUs."""

    def __init__(self, pairs: int, audits: int, workers: int, times: Times, seed: int = 0) -> None:
        self.clock, self.t, self.audits, self.workers, self.seed = Clock(), times, audits, workers, seed
        self.free = {pair: deque(range(audits)) for pair in range(pairs)}  # audits that nobody has claimed
        self.untouched = deque(range(pairs))
        self.read = set[int]()  # pairs whose evidence is in the cache
        self.endpoint = Queue(self.clock, times.endpoint)
        self.lock = Queue(self.clock)
        self.gpus, self.ledgers = list[Gpu](), list[Queue]()
        self.ends, self.loads = list[float](), 0  # when audits of others than the head ended
        self.held = 0.0  # seconds that processes were there

    def _audit(self, pair: int, number: int, gpu: Gpu, python: Queue, ledger: Queue) -> Walk:
        t, rng = self.t, random.Random(f"{self.seed} {pair} {number}")
        for turn in range(rng.randint(*t.turns)):
            if t.call:
                yield from self.endpoint.hold(t.call * rng.lognormvariate(0, t.spread))
            yield from python.hold(t.python)
            if turn < t.asks:
                yield from gpu.work(t.decode, t.crowding)
            yield from ledger.hold(t.entry)
        yield from python.hold(t.grade)
        if t.judge:
            yield from self.endpoint.hold(t.judge * rng.lognormvariate(0, t.spread))
        yield from ledger.hold(t.entry)

    def _claim(self) -> Walk:
        while self.lock.inside:
            yield POLL
        yield from self.lock.hold(self.t.claim)

    def _thread(self, pair: int, gpu: Gpu, python: Queue, ledger: Queue, head: bool, latch: Latch) -> Walk:
        while self.free[pair]:
            number = self.free[pair].popleft()
            yield from self._claim()
            yield from self._audit(pair, number, gpu, python, ledger)
            if not head:
                self.ends.append(self.clock.now)
        latch.ended()

    def _pair(self, pair: int, gpu: Gpu, python: Queue, ledger: Queue, head: bool = False) -> Walk:
        """Load, read, and all audits that are left."""
        t = self.t
        self.loads += 1
        yield from gpu.work(t.load)
        yield from gpu.work(t.cached if pair in self.read else t.evidence)
        self.read.add(pair)
        latch = Latch(self.clock, min(t.threads, len(self.free[pair])))
        for _ in range(latch.count):
            self.clock.go(self._thread(pair, gpu, python, ledger, head, latch))
        yield latch

    def _worker(self, ledger: Queue, *, head: bool) -> Walk:
        """A process that takes one pair after another, and helps at the end."""
        begun, gpu, python = self.clock.now, Gpu(self.clock), Queue(self.clock)
        self.gpus.append(gpu)
        yield self.t.start
        while (pair := self._next_or_help()) is not None:
            yield from self._pair(pair, gpu, python, ledger, head)
        self.held += self.clock.now - begun

    def _process(self, pair: int, ledger: Queue) -> Walk:
        """A process of one pair."""
        begun, gpu = self.clock.now, Gpu(self.clock)
        self.gpus.append(gpu)
        yield self.t.start
        yield from self._pair(pair, gpu, Queue(self.clock), ledger)
        self.held += self.clock.now - begun

    def _next_or_help(self) -> int | None:
        if self.untouched:
            return self.untouched.popleft()
        pair = max(self.free, key=lambda each: len(self.free[each]))
        return pair if self.free[pair] else None

    def _taken_over(self, since: float) -> float:
        """When the head has taken over the last audit of the others, one after another, from `since` on."""
        for end in sorted(self.ends):
            since = max(since, end) + self.t.absorb
        return since

    def join(self, late: float = 0.0) -> Outcome:
        """The first worker is the head. `late`: how much later the others are started."""
        for number in range(self.workers):
            self.ledgers.append(Queue(self.clock))
            self.clock.go(self._worker(self.ledgers[-1], head=not number), late if number else 0.0)
        return self._outcome(self._taken_over(self.clock.run()))

    def slurm(self) -> Outcome:
        def place() -> Walk:
            while self.untouched:
                self.ledgers.append(Queue(self.clock))
                yield from self._process(self.untouched.popleft(), self.ledgers[-1])

        for _ in range(self.workers):
            self.clock.go(place())
        self.clock.run()
        return self._outcome(self._taken_over(0.0))

    def ray(self) -> Outcome:
        self.ledgers.append(Queue(self.clock))

        def actor(pair: int, latch: Latch) -> Walk:
            yield from self._process(pair, self.ledgers[0])
            latch.ended()

        def driver() -> Walk:
            while self.untouched:
                latch = Latch(self.clock, min(self.workers, len(self.untouched)))
                for _ in range(latch.count):
                    self.clock.go(actor(self.untouched.popleft(), latch))
                yield latch

        self.clock.go(driver())
        makespan = self.clock.run()
        self.ends.clear()  # nobody takes anything over
        return self._outcome(makespan)

    def _outcome(self, makespan: float) -> Outcome:
        whole = makespan * self.workers
        limit = self.t.endpoint or self.workers * self.t.threads
        busiest = max(len(self.ends) * self.t.absorb, *(ledger.busy for ledger in self.ledgers))
        return Outcome(
            makespan, sum(gpu.busy for gpu in self.gpus) / whole, self.endpoint.busy / (limit * makespan),
            busiest / makespan, 1 - self.held / whole, self.loads,
        )  # fmt: skip


def bottleneck(outcome: Outcome) -> str:
    shares = {"GPUs": outcome.gpu, "endpoint": outcome.endpoint, "ledger": outcome.ledger}
    name, share = max(shares.items(), key=lambda each: each[1])
    if share > 0.85:
        return name
    return "the end" if outcome.idle > 0.15 else "audits at once"


# Measured by cluster_check.py on two shared cores, and `start` by `auditor worker --join` on them.
MEASURED = {"python": 0.07, "claim": 0.0014, "entry": 0.0074, "absorb": 0.0067, "start": 13.0}
DRIVER = (
    0.0009  # an entry of Ray's driver, which keeps the run's own ledger (runs.py ledger); the way to it is not in it
)

# Assumed: a pair of 7B in bfloat16 on an H100 (3.35 TB/s, half of it reached: 8 ms a step), weights from a shared disk
# at 2 GB/s; evidence at the paper's sizes by auditor/estimate.py; answers of 512 tokens, both models in one batch.
GB, STEP = 14.0, 14e9 / (0.5 * 3.35e12)
CLUSTER: dict[str, Any] = {
    "load": GB / 2.0 + 5, "cached": 1.0, "decode": 512 * STEP, "crowding": 0.02, "spread": 0.35, "grade": 0.3,
    "threads": 8, **MEASURED,
}  # fmt: skip
LLM: dict[str, Any] = {"turns": (4, 8), "asks": 5, "call": 12.0, "judge": 10.0}
OFFLINE: dict[str, Any] = {"turns": (3, 3), "asks": 3, "call": 0.0, "judge": 0.0}
SIZES = (1, 4, 16, 32, 64, 128, 256)


def evidence_seconds() -> float:
    """By the suite `paper`, at least."""
    from auditor.estimate import gpu_seconds
    from auditor.evidence.recipe import chosen, closure, named_by
    from auditor.workspace import load_workspace

    ws = load_workspace(None)
    suite = ws.suites["paper"]
    order, _ = closure(ws.lenses.by_name(), named_by(ws, [ws.agents["adl"]]))
    settings = {lens.name: chosen(lens, suite.evidence.lenses.get(lens.name, {}), {}) for lens in order}
    return gpu_seconds(suite.evidence.texts, settings, 7.0)


def cases(evidence: float) -> Iterator[tuple[str, Times]]:
    yield "offline agent", Times(**CLUSTER, **OFFLINE, evidence=evidence)
    for limit in (8, 64, 512):
        yield f"LLM, {limit} calls at once", Times(**CLUSTER, **LLM, evidence=evidence, endpoint=limit)


def simulate(engine: str, pairs: int, audits: int) -> None:
    evidence = evidence_seconds()
    print(
        f"{pairs:,} pairs × {audits} audits, {engine}; assumed: {GB:.0f} GB loaded in {CLUSTER['load']:.0f} s, "
        f"evidence {evidence:.0f} s, an answer of the models {CLUSTER['decode']:.1f} s, an LLM's {LLM['call']:.0f} s"
    )
    print("| agent | GPUs | hours | × faster | GPU busy | endpoint | ledger | bottleneck |")
    print("|---|---|---|---|---|---|---|---|")
    for name, times in cases(evidence):
        alone = None
        if engine == "ray":
            times = replace(times, entry=DRIVER)
        for workers in SIZES:
            out: Outcome = getattr(Run(pairs, audits, workers, times), engine)()
            alone = alone or out.makespan
            print(
                f"| {name} | {workers} | {out.makespan / 3600:.1f} | {alone / out.makespan:.1f} | {out.gpu:.0%} | "
                f"{f'{out.endpoint:.0%}' if times.call else ''} | {out.ledger:.1%} | {bottleneck(out)} |", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--engine", choices=("join", "slurm", "ray"), default="join")
    given.add_argument("--pairs", type=int, default=1000)
    given.add_argument("--audits", type=int, default=40)
    asked = given.parse_args()
    simulate(asked.engine, asked.pairs, asked.audits)
