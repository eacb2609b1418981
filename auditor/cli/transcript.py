"""`auditor show`: a run's audits, and one audit's transcript, readable on its own."""

from __future__ import annotations

import json as jsonlib
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from auditor.cli.runs import RUNS, In, RunArgument
from auditor.cli.shared import JsonFlag, err, out, plain, print_json
from auditor.errors import UsageError

if TYPE_CHECKING:
    from auditor.records.results import AuditRecord

STYLES = {"system": "dim", "human": "cyan", "ai": "green", "tool": "yellow"}
NAMES = {"system": "system prompt", "human": "to the agent", "ai": "agent", "tool": "result"}
CUT = 4_000
LINE = 200  # characters of a conclusion in the list


def show(
    run: RunArgument,
    audit: Annotated[
        str | None, typer.Argument(help="The audit's id, or a part that only one has; default: all, with their grades.")
    ] = None,
    out_dir: In = RUNS,
    full: Annotated[bool, typer.Option("--full", help="Do not cut long messages.")] = False,
    open_: Annotated[
        bool, typer.Option("--open", help="Write the transcript as a page beside it, and open it in the browser.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """A run's audits with their grades, or one audit's messages, tool calls, costs and grades."""
    from auditor.audits.runs import find_run, own_run, records_of, states_of, transcript_of

    folder = own_run(run, out_dir) if open_ else find_run(run, out_dir)
    records, states = {record.id: record for record in records_of(folder)}, states_of(folder)
    if audit is None:
        if open_:
            raise UsageError("--open opens one audit: name it; `auditor view` shows all of them in the browser")
        print_json(list(records)) if json else _list(states, records)
        return
    name = one_of(audit, states)
    transcript = transcript_of(folder, name)
    if json:
        print_json(transcript)
        return
    record = records.get(name)
    if open_:
        _opened(folder, name, record, transcript)
        return
    for message in transcript["messages"]:
        out.print(_panel(message, full=full))
    for key in ("spent", "error", "checks"):
        if transcript.get(key):
            out.print(f"[bold]{key}[/]: {plain(jsonlib.dumps(transcript[key], ensure_ascii=False))}", highlight=False)
    for grade in record.grades if record else ():
        judge = f" ({escape(grade.judge)})" if grade.judge else ""
        told = f"[bold]{escape(grade.grader)}[/]{judge}: {grade.score:g} of 5. {plain(grade.reasoning)}"
        out.print(told, highlight=False, soft_wrap=True)


def one_of(audit: str, known: Mapping[str, object]) -> str:
    """The id that is meant: this one, or the only one that has it as a part."""
    found = [name for name in known if audit in name]
    if audit not in known and len(found) > 1:
        raise UsageError(f"{audit} is a part of {len(found)} audits' ids: {', '.join(found[:8])}")
    return audit if audit in known or not found else found[0]


def _list(states: Mapping[str, str], records: Mapping[str, AuditRecord]) -> None:
    table = Table()
    for head in ("audit", "status", "grades", "what it concluded"):
        table.add_column(head)
    for name, state in states.items():
        record = records.get(name)
        grades = ", ".join(f"{grade.score:g} {grade.grader}" for grade in record.grades) if record else ""
        said = " ".join((record.error or record.hypothesis).split()) if record else ""
        table.add_row(escape(name), state, escape(grades), plain(said[:LINE]))
    out.print(table)


def _opened(folder: Path, name: str, record: AuditRecord | None, transcript: dict[str, Any]) -> None:
    from auditor.files import write_atomically
    from auditor.reports.page import transcript_page

    if record is None:
        raise UsageError(f"{name} has not ended; `auditor view` shows it while it goes on")
    path = folder / "transcripts" / f"{name}.html"
    write_atomically(path, transcript_page(record, transcript))
    out.print(escape(str(path)), highlight=False)
    if not webbrowser.open(path.resolve().as_uri()):
        err.print("no browser can be opened here: open that file in one", style="dim")


def _panel(message: dict[str, Any], *, full: bool) -> Panel:
    kind, data = message["type"], message["data"]
    content = data["content"] if isinstance(data["content"], str) else jsonlib.dumps(data["content"])
    shown = content if full or len(content) <= CUT else f"{content[:CUT]}… ({len(content) - CUT} more characters)"
    text = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in shown)
    calls = [f"{c['name']}({jsonlib.dumps(c['args'], ensure_ascii=False)})" for c in data.get("tool_calls") or []]
    took = (data.get("response_metadata") or {}).get("call")
    notes = []
    if took:
        tokens = [n if n is not None else "?" for n in took["tokens"]]
        notes.append(f"{took['seconds']:.1f} s, {tokens[0]} tokens in, {tokens[1]} out, attempt {took['attempts']}")
        if took["cost_usd"] is not None:
            notes.append(f"{took['cost_usd']:.5f} USD")
    name = f"{NAMES.get(kind, kind)}{' of ' + data['name'] if kind == 'tool' and data.get('name') else ''}"
    body = "\n".join([escape(text), *(f"[bold]→ {plain(call)}[/]" for call in calls)]).strip()
    return Panel(body, title=escape(name), title_align="left", subtitle=escape(" · ".join(notes)) or None,
                 subtitle_align="right", border_style=STYLES.get(kind, ""))  # fmt: skip
