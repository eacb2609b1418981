"""`auditor show`: one audit's transcript, readable on its own."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.panel import Panel

from auditor.cli.shared import JsonFlag, out, print_json
from auditor.errors import BadFile, UnknownName, UsageError
from auditor.lines import read_lines

STYLES = {"system": "dim", "human": "cyan", "ai": "green", "tool": "yellow"}
NAMES = {"system": "system prompt", "human": "to the agent", "ai": "agent", "tool": "result"}
CUT = 4_000


def show(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    audit: Annotated[str | None, typer.Argument(help="The audit's id; without it, the run's ids are listed.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Do not cut long messages.")] = False,
    json: JsonFlag = False,
) -> None:
    """Print an audit's messages, tool calls, costs, budgets and timings."""
    folder = run / "transcripts"
    if not folder.is_dir():
        raise UsageError(f"{run} is no run: it has no transcripts folder")
    known = sorted(path.stem for path in folder.glob("*.json"))
    if audit is None:
        print_json(known) if json else out.print("\n".join(known), markup=False, highlight=False)
        return
    if audit not in known:
        raise UnknownName("audit", audit, known)
    path = folder / f"{audit}.json"
    try:
        transcript = jsonlib.loads(path.read_bytes())
    except ValueError as error:  # of JSON, or of UTF-8
        raise BadFile(path, f"not JSON: {getattr(error, 'msg', error)}", getattr(error, "lineno", None)) from error
    if not isinstance(transcript, dict) or not all(map(_is_message, transcript.get("messages") or [None])):
        raise BadFile(path, "not a transcript: no object with messages")
    transcript["calls"] = _calls(run / "calls.jsonl", audit)
    if json:
        print_json(transcript)
        return
    for message in transcript["messages"]:
        out.print(_panel(message, full=full))
    for key in ("spent", "error", "checks"):
        if transcript.get(key):
            out.print(f"[bold]{key}[/]: {escape(jsonlib.dumps(transcript[key], ensure_ascii=False))}", highlight=False)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "type" in value and "content" in (value.get("data") or ())


def _calls(path: Path, audit: str) -> list[dict[str, Any]]:
    """The LLM calls made for this audit, its judges' too, with what was sent verbatim."""
    return [call for _, call in read_lines(path) if str(call.get("purpose")).split(" ")[0] == audit]


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
