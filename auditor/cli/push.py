"""`auditor push`: a run or a report as a dataset of the hub."""

from __future__ import annotations

import json as jsonlib
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from auditor.cli.runs import RUNS, In, RunArgument
from auditor.cli.shared import JsonFlag, err, out, print_json, settings, workspace
from auditor.errors import UsageError
from auditor.files import write_atomically
from auditor.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from auditor.hub.bundle import Bundle
    from auditor.hub.client import Place

PUSHED = "pushed.json"  # in a run's folder: where it was pushed to last
YesFlag = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def push(
    run: RunArgument,
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The dataset; it is made, or brought up to date.")],
    transcripts: Annotated[
        bool, typer.Option("--transcripts", help="With all that agents were sent, and the audited models answered.")
    ] = False,
    public: Annotated[bool, typer.Option("--public", help="Make it for all to see; default: private.")] = False,
    licence: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="Of the dataset, as the hub knows it (cc-by-4.0).")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Keep the files there, too: an empty folder, or none yet.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be pushed; ask no hub.")] = False,
    yes: YesFlag = False,
    out_dir: In = RUNS,
    json: JsonFlag = False,
) -> None:
    """Push a run, or what `auditor audit` made, as a dataset: tables, records, report and a card (docs/hub.md).

    Keys and paths of this machine are taken out. What is pushed is told first, and asked for.
    """
    from auditor.audits.runs import find_run
    from auditor.hub.bundle import Wanted, bundle
    from auditor.hub.client import Place, demand_new, place_of, push_folder, repository

    name, found = repository(repo), find_run(run, out_dir)
    place = Place(name, "dataset") if dry_run else place_of(name, "dataset")
    if not dry_run and not place.exists:
        demand_new(place)
    demand_ours(place, public=public)
    with _folder(to) as folder:
        wanted = Wanted(found, name, transcripts, licence, place.card)
        made = bundle(wanted, folder, workspace(), settings().cache_dir / "evidence")
        place = place if place.exists else Place(name, "dataset", private=not public)
        gone = sorted(file for file in ours_of(place) if file not in made.files)
        told = {"repo": name, "exists": place.exists, "private": place.private, "files": made.files,
                "rows": made.rows, "removed": gone, "notes": made.notes}  # fmt: skip
        if not (json and yes):
            tell(err if json else out, made, place, gone)
        if dry_run:
            print_json({**told, "pushed": None}) if json else None
            return
        consent("Push this?", yes=yes)
        done = push_folder(place, folder, made.files, gone, f"{found.name}, by auditor push")
    note = {"repo": name, "commit": done.commit, "private": place.private, "url": done.url,
            "at": datetime.now(UTC).isoformat(timespec="seconds")}  # fmt: skip
    write_atomically(found / PUSHED, jsonlib.dumps(note, indent=1))
    if json:
        print_json({**told, "pushed": note})
    else:
        out.print(f"{escape(done.url)} (commit {done.commit[:10]})", highlight=False, soft_wrap=True)


def demand_ours(place: Place, *, public: bool) -> None:
    """Raises UsageError for a dataset that `auditor push` did not make, or one that would have to be made public."""
    from auditor.hub.block import has_block

    others = place.files and set(place.files) != {".gitattributes"}
    if place.exists and others and not has_block(place.card or b""):
        raise UsageError(f"{place.repo} is a dataset that auditor did not make: nothing of it is overwritten; choose "
                         "another name")  # fmt: skip
    if place.exists and place.private and public:
        raise UsageError(f"{place.repo} is private: make it public on its page first, or leave --public out")


def ours_of(place: Place) -> set[str]:
    """What an earlier push has left there."""
    from auditor.hub.bundle import OURS

    return set(place.files) & set(OURS)


def tell(to: Console, made: Bundle, place: Place, gone: list[str]) -> None:
    """What is about to be pushed, where, and who will see it."""
    state = ("private" if place.private else "PUBLIC") + (", is there already" if place.exists else ", to be made")
    to.print(f"[bold]{escape(place.repo)}[/] (dataset, {state})", highlight=False)
    for file, size in made.files.items():
        rows = f", rows: {made.rows[Path(file).stem]}" if file.startswith("data/") else ""
        to.print(f"  {escape(file)}  {told_size(size)}{rows}", highlight=False)
    for file in gone:
        to.print(f"  {escape(file)}  is taken away", highlight=False)
    to.print(f"  {told_size(made.size)} in all", highlight=False)
    for note in made.notes:
        to.print(escape(visible(note, 1_000)), style="yellow", highlight=False, soft_wrap=True)


def told_size(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def consent(question: str, *, yes: bool) -> None:
    """Ask, unless `yes`. Raises UsageError without an answer, or with another."""
    if yes:
        return
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:
        err.print()
        agreed = False
    if not agreed:
        raise UsageError("nothing was pushed (--yes: do not ask)")


@contextmanager
def _folder(to: Path | None) -> Iterator[Path]:
    """Where the files are written: the user's, if it is empty, else one that is gone afterwards."""
    if to is None:
        with tempfile.TemporaryDirectory(prefix="auditor-push-") as folder:
            yield Path(folder)
        return
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"--to {to}: give an empty folder, or one that is not there yet")
    to.mkdir(parents=True, exist_ok=True)
    yield to
