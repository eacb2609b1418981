"""Progress on stderr, from a run's events: a board on a terminal, else a line for each thing that happens."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from types import TracebackType

from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from auditor.audits.progress import RUNNING, Progress
from auditor.cli.shared import err
from auditor.ledger.jobs import Event
from auditor.ledger.ledger import Ledger

EVERY = 0.25  # seconds between two looks at the ledger
SHOWN = 8  # running audits


class Board:
    """Follows a ledger from where it stands until the block ends."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._seen = ledger, ledger.events.last()
        self._begun = time.time()
        self._progress, self._over = Progress(), threading.Event()
        self._live = Live(get_renderable=self._shown, console=err, transient=True, refresh_per_second=4)
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Board:
        if err.is_terminal:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if err.is_terminal:
            self._live.stop()

    def _follow(self) -> None:
        while not self._over.wait(EVERY):
            self._look()
        self._look()

    def _look(self) -> None:
        events = self._ledger.events.since(self._seen)
        for event in events:
            before = self._progress.target, self._progress.stage, self._progress.stage_since
            self._progress.take([event])
            self._tell(event, before)
            self._seen = event.n

    def _tell(self, event: Event, before: tuple[str, str, float]) -> None:
        """What stays on the screen: ends of stages, notes, and without a board the ends of audits."""
        progress, (target, stage, since) = self._progress, before
        if event.kind == "stage" and not err.is_terminal:
            line = f"{event.at - self._begun:5.0f} s  {progress.target}: {progress.stage} …"
            err.print(line, style="dim", markup=False, highlight=False)
        elif event.kind == "stage" and stage:
            err.print(f"  {target}: {stage} {event.at - since:.0f} s", style="dim", highlight=False, markup=False)
        elif event.kind == "note":
            told = f"[yellow]note:[/] {escape(event.data['target'])}: {escape(event.data['text'])}"
            err.print(told, highlight=False, soft_wrap=True)
        elif event.kind == "audit" and event.data["state"] != RUNNING and not err.is_terminal:
            done = f"{progress.made} of {progress.todo}"
            grades = "".join(f", grade {score:g}" for score in list(event.data["grades"].values())[:1])
            err.print(
                f"  {event.job}: {event.data['state']}{grades} ({done})", style="dim", markup=False, highlight=False
            )

    def _shown(self) -> RenderableType:
        p, now = self._progress, time.time()
        if not p.begun:
            return Text("…", style="dim")
        head = Table.grid(padding=(0, 1))
        left = p.seconds_left(now)
        rest = "" if left is None else f"about {_span(left)} left"
        bar = ProgressBar(total=max(1, p.todo), completed=p.made, width=24)
        head.add_row(bar, f"{p.made} of {p.todo} audits", f"[dim]{_span(now - p.begun)}[/]", f"[dim]{rest}[/]")
        since = f"[dim]{_span(now - p.stage_since)}[/]" if p.stage else ""
        parts: list[RenderableType] = [head, Text.from_markup(f"[bold]{escape(p.target)}[/] {escape(p.stage)} {since}")]
        running = Table.grid(padding=(0, 2))
        for name, walk in list(p.running.items())[:SHOWN]:
            running.add_row(
                f"  {escape(name)}", f"turn {walk.turns}", f"{walk.interactions} interactions",
                f"[dim]{_span(now - walk.begun)}[/]",
            )  # fmt: skip
        if len(p.running) > SHOWN:
            running.add_row(f"  and {len(p.running) - SHOWN} more")
        return Group(*parts, running, Text.from_markup(_sums(p)))


def _sums(p: Progress) -> str:
    """Grades so far by agent, and what was taken."""
    grades = [
        f"{escape(agent)} b{budget}: [bold]{sum(scores) / len(scores):.2f}[/] ({len(scores)})"
        for (agent, budget), scores in p.grades.items()
    ]
    lost = [f"[red]{count} {state}[/]" for state, count in p.ended.items() if state != "done"]
    cost = [] if not p.cost_usd else [f"{p.cost_usd:.4f} USD"]
    took = [f"{p.interactions} interactions", *([f"{p.tokens:,} tokens"] if p.tokens else []), *cost]
    return " · ".join([*grades, *lost, f"[dim]{', '.join(took)}[/]"])


def _span(seconds: float) -> str:
    return str(timedelta(seconds=max(0, round(seconds)))).removeprefix("0:")
