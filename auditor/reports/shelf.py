"""Runs as `auditor view` shows them: put together in a thread of their own, and anew when their events say so."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from auditor.audits.progress import Progress
from auditor.audits.runs import compared, run_folders, summary_of, transcripts_of
from auditor.comparison.compare import compare
from auditor.comparison.scores import Run
from auditor.errors import AuditorError
from auditor.ledger.jobs import ENDED
from auditor.ledger.ledger import Ledger, is_run
from auditor.reports import page
from auditor.reports.readings import kept_readings
from auditor.reports.write import about_organisms, index_of
from auditor.workspace import Workspace

EVERY = 1.0  # seconds between two looks at the events
AGAIN = 5.0  # seconds after which a run that goes on is put together anew


@dataclass(slots=True)
class Kept:
    """One run, put together. `version`: of its events, or of its files."""

    run: Run
    html: str
    index: str
    organisms: list[dict[str, Any]]
    headline: str
    made: float
    version: float


@dataclass(slots=True)
class Followed:
    """How a run stands, by its events up to `seen`."""

    progress: Progress = field(default_factory=Progress)
    seen: int = 0
    states: dict[str, int] = field(default_factory=dict)


class Shelf:
    """The runs of a folder. Whoever asks gets what is there; a thread keeps it up to date until it is closed."""

    def __init__(self, folder: Path, workspace: Workspace, cache: Path) -> None:
        self._folder, self._workspace, self._cache = folder, workspace, cache
        self._kept: dict[str, Kept] = {}
        self._problems: dict[str, str] = {}
        self._standing: dict[str, Followed] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join(timeout=5)

    def get(self, name: str) -> Kept | None:
        """None while it is put together for the first time, or if it cannot be."""
        return self._kept.get(name)

    def problem(self, name: str) -> str:
        return self._problems.get(name, "")

    def has(self, name: str) -> bool:
        return any(path.name == name for path in run_folders(self._folder))

    def overview(self) -> list[dict[str, Any]]:
        """All runs, the newest first."""
        found: list[dict[str, Any]] = []
        for path in run_folders(self._folder):
            try:
                told = summary_of(path).model_dump()
            except AuditorError as error:
                told = {"name": path.name, "suite": "", "llm": "", "begun": None, "states": {}, "problem": str(error)}
            kept = self._kept.get(path.name)
            when = told["begun"]
            found.append({
                "problem": self._problems.get(path.name, ""), **told, "headline": kept.headline if kept else "",
                "at": when or 0, "begun": f"{datetime.fromtimestamp(when):%Y-%m-%d %H:%M}" if when else "",
            })  # fmt: skip
        return sorted(found, key=lambda run: -run["at"])

    def status(self, name: str) -> dict[str, Any]:
        """How far a run is, in a line."""
        standing = self._standing.get(name) or Followed()
        ended = sum(count for state, count in standing.states.items() if state in ENDED)
        jobs, progress = sum(standing.states.values()), standing.progress
        doing = f"{progress.target}: {progress.stage} · " if progress.stage else ""
        left = progress.seconds_left(time.time())
        told = f"{doing}{ended} of {jobs} audits have ended, {len(progress.running)} are running"
        told += f", about {left / 60:.0f} min left" if left and ended < jobs else ""
        return {"jobs": jobs, "ended": ended, "open": ended < jobs, "line": told}

    def audit(self, name: str, number: int) -> str | None:
        """One audit's fragment; None if there is none."""
        kept = self._kept.get(name)
        if kept is None or not 0 <= number < len(kept.run.records):
            return None
        record = kept.run.records[number]
        with transcripts_of(self._folder / name) as transcripts:
            return page.audit_fragment(record, transcripts(record.id))

    def organism(self, name: str, number: int) -> str | None:
        """What was read in one organism; None if there is none."""
        kept = self._kept.get(name)
        if kept is None or not 0 <= number < len(kept.organisms):
            return None
        organism = kept.organisms[number]["name"]
        sections, notes = kept_readings(kept.run, self._workspace, self._cache)(organism)
        return page.organism_fragment(organism, sections, notes)

    def _follow(self) -> None:
        while not self._over.is_set():
            for path in sorted(run_folders(self._folder), key=_changed, reverse=True):
                if self._over.is_set():
                    return
                try:
                    self._look(path)
                    self._problems.pop(path.name, None)
                except Exception as error:  # of one run: the others are shown
                    known = isinstance(error, AuditorError)
                    self._problems[path.name] = str(error) if known else f"internal error: {error!r}"
            self._over.wait(EVERY)

    def _look(self, path: Path) -> None:
        kept, version = self._kept.get(path.name), _changed(path)
        if is_run(path):
            version = self._told(path)
        if kept is not None and (version == kept.version or time.time() - kept.made < AGAIN):
            return
        run = compared(path, self._folder)
        comparison = compare([run])
        organisms = about_organisms(run, comparison)
        told = {"organisms": organisms, "audits": bool(run.records), "base_url": f"/runs/{path.name}"}
        html = page.head(path.name, comparison, live=True, **told) + page.foot()
        headline = f"{comparison.headline}. {comparison.certainty}"
        index = page.as_data(index_of(run.records))
        self._kept[path.name] = Kept(run, html, index, organisms, headline, time.time(), version)

    def _told(self, path: Path) -> float:
        """Go on by the run's events; the newest one's number."""
        standing = self._standing.setdefault(path.name, Followed())
        with Ledger.read(path) as ledger:
            events = ledger.events.since(standing.seen)
            states = list(ledger.jobs.states().values())
        standing.progress.take(events)
        standing.seen = events[-1].n if events else standing.seen
        standing.states = {state: states.count(state) for state in set(states)}
        return float(standing.seen)


def _changed(path: Path) -> float:
    return max((file.stat().st_mtime for file in path.iterdir() if file.is_file()), default=0.0)
