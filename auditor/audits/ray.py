"""`--engine ray`: model actors on a cluster make the audits of their pair; the driver alone writes the ledger."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from itertools import groupby
from pathlib import Path
from typing import Any

from auditor.audits.audit import failed
from auditor.audits.jobs import JobSpec
from auditor.audits.ray_post import FarLedger, Forward, Post, answered
from auditor.audits.run import WAIT, Engine
from auditor.audits.shop import Shop
from auditor.config import Settings
from auditor.errors import AuditorError, UsageError
from auditor.ledger.database import LedgerBroken
from auditor.records.results import AuditRecord

REACH = 10.0  # seconds that a cluster may take to answer
DEATHS = 3  # of actors that had a job in hand, before it is the job that is to blame


def engine(root: Path | None) -> Engine:
    """An engine over the cluster of RAY_ADDRESS, or one of this machine. Raises UsageError if Ray is missing."""
    if "ray" not in sys.modules:  # which reads it once
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ImportError as error:
        raise UsageError("--engine ray needs Ray: pip install 'auditor-adl[ray]'") from error

    def run(jobs: Sequence[JobSpec], shop: Shop) -> None:
        # Ray says on stdout what befalls its workers; that is the result's alone.
        with redirect_stdout(sys.stderr), _cluster(ray), _served(ray, shop) as post:
            groups = [list(group) for _, group in groupby(jobs, key=lambda job: job.target)]
            slots, gpus = _slots(ray)
            replicas = max(1, slots // len(groups))
            at_once = max(1, slots // replicas)
            for start in range(0, len(groups), at_once):
                crews = [
                    _Crew(ray, group, shop, root, post, replicas, gpus) for group in groups[start : start + at_once]
                ]
                _work(ray, crews, shop)

    return run


@contextmanager
def _cluster(ray: Any) -> Iterator[None]:
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _demand_reachable(address)
    try:
        ray.init(
            address=address or "local", log_to_driver=False, logging_level="ERROR", include_dashboard=False,
            ignore_reinit_error=True, configure_logging=False,
        )  # fmt: skip
    except Exception as error:  # Ray has its own for every way in which a cluster is not to be had
        told = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        where = f"the cluster at {address}" if address else "a cluster of this machine"
        raise UsageError(f"--engine ray: {where}: {told} (RAY_ADDRESS, RAY_AUTH_TOKEN)") from error
    try:
        yield
    finally:
        ray.shutdown()


def _demand_reachable(address: str) -> None:
    """Raises UsageError if nobody listens there: Ray itself would wait for minutes."""
    host, colon, port = address.rpartition("://")[2].partition(":")
    if not colon or not port.isdigit():  # `auto`, say
        return
    try:
        socket.create_connection((host, int(port)), timeout=REACH).close()
    except OSError as error:
        raise UsageError(f"--engine ray: nobody answers at RAY_ADDRESS {address} ({error})") from error


@contextmanager
def _served(ray: Any, shop: Shop) -> Iterator[Any]:
    """The post, whose calls are answered by a thread of this process until the block ends."""
    post = ray.remote(Post).options(num_cpus=0, max_concurrency=1000).remote()
    ledger, over, problems = shop.ledger, threading.Event(), list[BaseException]()
    parts = {"jobs": ledger.jobs, "events": ledger.events, "transcripts": ledger.transcripts, "calls": ledger.calls,
             "spends": ledger.spends, "answers": ledger.answers, "meter": shop.meter}  # fmt: skip

    def serve() -> None:
        try:
            while not over.is_set():
                if calls := ray.get(post.fetch.remote()):
                    ray.get(post.answer.remote([answered(call, parts) for call in calls]))
        except BaseException as error:  # a full disk, say: told by whoever waits
            problems.append(error)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield post
    finally:
        over.set()
        thread.join()
        if problems and isinstance(problems[0], LedgerBroken):
            raise problems[0]


def _slots(ray: Any) -> tuple[int, bool]:
    """How many actors there is room for, and whether each gets a GPU."""
    has = ray.cluster_resources()
    gpus = int(has.get("GPU", 0)) if os.environ.get("AUDITOR_DEVICE") != "cpu" else 0
    return max(1, gpus or int(has.get("CPU", 1))), bool(gpus)


class PairActor:
    """One pair's models on a node, and the audits that are made there at once."""

    def __init__(self, root: Path | None, settings: dict[str, Any], folder: str, post: Any, specs: list[str]) -> None:
        from auditor.runtime import quiet_libraries, tune_process

        tune_process()
        quiet_libraries()
        import ray
        from langgraph.checkpoint.memory import InMemorySaver

        from auditor import telemetry
        from auditor.audits.bench import Bench
        from auditor.audits.threads import material
        from auditor.config import load_settings
        from auditor.workspace import load_workspace

        def ask(*call: Any) -> Any:
            return ray.get(post.ask.remote(*call))

        telemetry.start()
        ledger: Any = FarLedger(ask, Path(folder))
        meter: Any = Forward(ask, "meter")
        bench = Bench(load_workspace(root), load_settings(**settings), ledger.calls)
        self._shop = Shop(bench, ledger, InMemorySaver(), meter, claims=None, workers=1, head=False)  # type: ignore[arg-type]
        self._problem = ""
        try:
            self._pair, self._materials = material([JobSpec.model_validate_json(spec) for spec in specs], self._shop)
        except AuditorError as error:
            self._problem = str(error)

    def make(self, spec: str) -> tuple[str, str]:
        """The record's JSON, or why every audit here would fail."""
        from auditor import telemetry
        from auditor.audits.threads import make

        if self._problem:
            return "", self._problem
        try:
            job = JobSpec.model_validate_json(spec)
            return make(job, self._pair, self._materials[job.agent.name], self._shop).model_dump_json(), ""
        except UsageError as error:
            return "", str(error)
        finally:
            telemetry.flush()


class _Crew:
    """The actors of one pair, and its jobs that nobody has in hand."""

    def __init__(
        self, ray: Any, jobs: Sequence[JobSpec], shop: Shop, root: Path | None, post: Any, replicas: int, gpus: bool
    ) -> None:
        self.pending = deque(jobs)
        agents = {job.agent.name: job for job in jobs}.values()
        settings = _travelling(shop.bench.settings, gpus=gpus)
        given = (root, settings, str(shop.ledger.folder), post, [job.model_dump_json() for job in agents])
        count = min(replicas, len(jobs))
        self.each = max(1, -(-min(shop.workers, len(jobs)) // count))
        options = {"num_cpus": 1, "num_gpus": int(gpus), "max_concurrency": self.each}
        self._new: Callable[[], Any] = lambda: ray.remote(PairActor).options(**options).remote(*given)
        self.actors = [self._new() for _ in range(count)]

    def replace(self, actor: Any) -> None:
        """An actor died: another one takes its place."""
        if actor in self.actors:
            self.actors[self.actors.index(actor)] = self._new()


def _travelling(settings: Settings, *, gpus: bool) -> dict[str, Any]:
    """The settings for another machine, whose own device is used."""
    told = settings.model_dump(exclude_none=True)
    return {**told, "device": "auto" if gpus else "cpu", "cache_dir": settings.cache_dir}


def _work(ray: Any, crews: Sequence[_Crew], shop: Shop) -> None:
    """Hand out jobs, take in records, replace actors that die. Raises UsageError if nothing can be made at all."""
    in_hand: dict[Any, tuple[JobSpec, Any, _Crew]] = {}
    deaths = Counter[str]()
    while not shop.meter.gone() or in_hand:
        for crew in crews:
            _hand_out(crew, in_hand, shop)
        if not in_hand:
            break
        done, _ = ray.wait(list(in_hand), num_returns=1, timeout=WAIT)
        for ref in done:
            job, actor, crew = in_hand.pop(ref)
            try:
                text, problem = ray.get(ref)
            except ray.exceptions.RayError as error:  # of the actor, its process or its node
                deaths[job.name] += 1
                crew.replace(actor)
                if deaths[job.name] < DEATHS:
                    crew.pending.appendleft(job)
                    continue
                text, problem = "", f"its process died {DEATHS} times: {type(error).__name__}"
            if problem and "done" not in shop.ledger.jobs.states().values():
                raise UsageError(problem)
            shop.finish(failed(job, problem) if problem else AuditRecord.model_validate_json(text), job)
    for crew in crews:
        for actor in crew.actors:
            ray.kill(actor)


def _hand_out(crew: _Crew, in_hand: dict[Any, tuple[JobSpec, Any, _Crew]], shop: Shop) -> None:
    load = Counter(id(actor) for _, actor, _ in in_hand.values())
    for actor in crew.actors:
        while crew.pending and load[id(actor)] < crew.each and not shop.meter.gone():
            job = crew.pending.popleft()
            if shop.begin(job):
                in_hand[actor.make.remote(job.model_dump_json())] = job, actor, crew
                load[id(actor)] += 1
