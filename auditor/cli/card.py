"""`auditor card`: how a model was audited, for its card."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from auditor.cli.push import PUSHED, YesFlag, consent
from auditor.cli.runs import RUNS, In, RunArgument
from auditor.cli.shared import err, out
from auditor.errors import UsageError
from auditor.files import write_atomically
from auditor.text import visible

if TYPE_CHECKING:
    from auditor.hub.client import Place
    from auditor.records.results import VetReport


def card(
    run: RunArgument,
    push: Annotated[
        str | None, typer.Option(metavar="ORG/MODEL", help="Write it into this model's README.md, by a pull request.")
    ] = None,
    commit: Annotated[bool, typer.Option("--commit", help="With --push: at once, without a pull request.")] = False,
    to: Annotated[Path | None, typer.Option(help="Write it into this file, which is made if it is not there.")] = None,
    yes: YesFlag = False,
    out_dir: In = RUNS,
) -> None:
    """Print the block for a model's card that says how it was audited, or write it between its markers (docs/hub.md).

    RUN is what `auditor audit` made. Whatever else the page holds stays as it is.
    """
    from auditor.audits.runs import find_run
    from auditor.hub.block import BEGIN, END, placed
    from auditor.hub.bundle import about_run, report_of
    from auditor.hub.client import place_of, push_card, repository
    from auditor.hub.model_card import block
    from auditor.hub.scrub import Scrubber

    if commit and push is None:
        raise UsageError("--commit goes with --push ORG/MODEL")
    folder = find_run(run, out_dir)
    report = report_of(folder)
    if report is None:
        raise UsageError(f"{folder}: it has no report.json; give the folder of an `auditor audit`")
    if report.error:
        raise UsageError(f"{folder}: that audit failed, so that a card has nothing to say ({visible(report.error)})")
    text = Scrubber([folder]).clean(block(report, about_run(folder), _pushed(folder)))
    if to is not None:
        write_atomically(to, placed(to.read_bytes() if to.is_file() else b"", text, str(to)))
        err.print(escape(str(to)), style="dim", highlight=False, soft_wrap=True)
    if push is None:
        if to is None:
            out.print("\n".join((BEGIN, text, END)), markup=False, highlight=False, soft_wrap=True)
        return
    place = place_of(repository(push), "model")
    page = placed(_page_of(place, push), text, f"README.md of {push}")
    if page == place.card:
        out.print(f"{escape(push)}: its README.md has this block already", highlight=False)
        return
    _tell(text, report, place, commit=commit)
    consent("Push this?", yes=yes)
    about = "The block between `auditor:begin` and `auditor:end` is new; nothing else is changed."
    done = push_card(place, page, "How this model was audited, by auditor", about, pull=not commit)
    out.print(escape(done.url), highlight=False, soft_wrap=True)


def _page_of(place: Place, name: str) -> bytes:
    if not place.exists:
        raise UsageError(f"{name} is no model on the hub, or your token may not see it: check the name")
    return place.card or b""


def _tell(text: str, report: VetReport, place: Place, *, commit: bool) -> None:
    """What is about to be written, where; and whether it is the model that was audited."""
    how = "a commit" if commit else "a pull request"
    state = "private" if place.private else "PUBLIC"
    out.print(text, markup=False, highlight=False, soft_wrap=True)
    out.print(f"\n[bold]{escape(place.repo)}[/] (model, {state}): into its README.md, by {how}", highlight=False)
    sources = " ".join(report.sources.get("finetuned", ())).partition(" ")[0]
    if not sources.startswith((f"hub:{place.repo}@", f"hub:{place.repo}/")):
        err.print(f"[yellow]note:[/] what was audited is {escape(visible(report.model))}: is that the same model?",
                  highlight=False, soft_wrap=True)  # fmt: skip


def _pushed(folder: Path) -> dict[str, Any] | None:
    """Where the audit was pushed to, if it was."""
    try:
        return dict(jsonlib.loads((folder / PUSHED).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
