"""`auditor show`: one audit's transcript, readable on its own."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.panel import Panel

from auditor.cli.shared import JsonFlag, out, print_json

STYLES = {"system": "dim", "human": "cyan", "ai": "green", "tool": "yellow"}
NAMES = {"system": "system prompt", "human": "to the agent", "ai": "agent", "tool": "result"}
CUT = 4_000


def show(
    run: Annotated[Path, typer.Argument(help="The run's folder, or its name in runs/.")],
    audit: Annotated[str | None, typer.Argument(help="The audit's id; without it, the run's ids are listed.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Do not cut long messages.")] = False,
    json: JsonFlag = False,
) -> None:
    """Print an audit's messages, tool calls, costs, budgets and timings."""
    from auditor.audits.runs import find_run, records_of, transcript_of

    folder = find_run(run, Path("runs"))
    if audit is None:
        known = [record.id for record in records_of(folder)]
        print_json(known) if json else out.print("\n".join(known), markup=False, highlight=False)
        return
    transcript = transcript_of(folder, audit)
    if json:
        print_json(transcript)
        return
    for message in transcript["messages"]:
        out.print(_panel(message, full=full))
    for key in ("spent", "error", "checks"):
        if transcript.get(key):
            out.print(f"[bold]{key}[/]: {escape(jsonlib.dumps(transcript[key], ensure_ascii=False))}", highlight=False)


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
    body = "\n".join([escape(text), *(f"[bold]→ {escape(call)}[/]" for call in calls)]).strip()
    return Panel(body, title=escape(name), title_align="left", subtitle=escape(" · ".join(notes)) or None,
                 subtitle_align="right", border_style=STYLES.get(kind, ""))  # fmt: skip
