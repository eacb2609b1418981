"""`auditor ask ORGANISM` without a prompt: a chat with both models, pushed or amplified beside as they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from auditor.cli.shared import err, out
from auditor.cli.speakers import Chat
from auditor.errors import AuditorError, TooLong, UsageError
from auditor.text import visible

NARROWEST = 28  # characters of a column; narrower ones are put below one another
HELP = """\
Each model answers in a conversation of its own. Ctrl-D ends. Commands:
/amplify A                     a column that is amplified A times (log p + A · (log p − the base's log p)); off: none
/steer LAYER POSITION ALPHA    a column that is pushed along the difference; off: none
/seed N    /system TEXT        what is drawn from N on, and what all are told first; both begin anew
/new                           begin anew
/help    /quit                 //text is sent as /text"""


class _Ended(Exception):
    """The user wants to leave."""


def lines(*, json: bool) -> Iterable[str]:
    """What a user types, edited with readline where there is one, or what is piped in. Raises UsageError for nothing,
    and for JSON of what is not at its end.
    """
    if sys.stdin.isatty():
        if json:
            raise UsageError("--json: give the PROMPTS, or pipe them in, a line each")
        return _typed()
    if not (first := sys.stdin.readline()):
        raise UsageError("no prompts: give some, pipe some in, a line each, or chat on a terminal")
    return chain([first], sys.stdin)


def talk(chat: Chat, typed: Iterable[str], *, quiet: bool = False) -> list[dict[str, str]]:
    """Answer prompts and do commands until they end; all that was said, which is shown as it comes unless `quiet`.

    On a terminal what fails is told, and the chat goes on; else raises what failed.
    """
    asked, turns = sys.stdin.isatty(), []
    if asked:
        err.print(f"{chat.pair.name}: {_who(chat)}; /help tells the commands", markup=False, highlight=False)
    for line in map(str.strip, typed):
        try:
            if not (prompt := _prompt(chat, line)):
                continue
            with err.status("answering"):
                texts = chat.answer(prompt)
        except _Ended:
            break
        except (AuditorError, KeyboardInterrupt) as error:
            if not asked:
                raise
            said = "stopped, and nothing was said" if isinstance(error, KeyboardInterrupt) else str(error)
            hint = " (/new begins anew)" if isinstance(error, TooLong) else ""
            err.print(f"[red]error:[/] {escape(said)}{hint}", highlight=False, soft_wrap=True)
            continue
        turns.append({"prompt": prompt, **{who.key: text for who, text in zip(chat.speakers, texts, strict=True)}})
        if not quiet:
            named = {who.name: readable(text) for who, text in zip(chat.speakers, texts, strict=True)}
            _show("" if asked else prompt, named)
    return turns


def _typed() -> Iterator[str]:
    with suppress(ImportError):
        import readline  # noqa: F401 (input uses it)
    while True:
        try:
            yield input("> ")
        except EOFError:
            out.print()
            return
        except KeyboardInterrupt:
            out.print()


def _prompt(chat: Chat, line: str) -> str:
    """What is to be asked; nothing if the line was a command, which is done. Raises AuditorError."""
    if not line.startswith("/") or line.startswith("//"):
        return line.removeprefix("/")
    name, _, given = line[1:].partition(" ")
    match name, given.split():
        case "quit" | "exit", []:
            raise _Ended
        case "help", []:
            err.print(HELP, markup=False, highlight=False)
            return ""
        case "new", []:
            chat.begin()
        case "amplify", [alpha]:
            chat.dismiss("amplified") if alpha == "off" else chat.amplify(_number(float, alpha))
        case "steer", ["off"]:
            chat.dismiss("steered")
        case "steer", [layer, position, alpha]:
            chat.steer(_number(int, layer), _number(int, position), _number(float, alpha))
        case "seed", [seed]:
            chat.seed = _number(int, seed)
            chat.begin()
        case "system", _:
            chat.request = replace(chat.request, system=given.strip())
            chat.begin()
        case _:
            raise UsageError(f"{line[:40]}: no such command, or not with these words; /help tells them")
    err.print(_who(chat), style="dim", markup=False, highlight=False)
    return ""


def _number(kind: Callable[[str], Any], text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{text!r} is no {'whole number' if kind is int else 'number'}") from None


def _who(chat: Chat) -> str:
    turns = len(chat.speakers[0].said)
    begun = f"turn {turns + 1} of a conversation" if turns else "a new conversation"
    system = f", system prompt {visible(chat.request.system, 60)!r}" if chat.request.system else ""
    return f"{begun} with {', '.join(speaker.name for speaker in chat.speakers)}; seed {chat.seed}{system}"


def readable(text: str) -> str:
    """In lines as it was said, control characters shown."""
    return "\n".join(visible(line, len(line)) for line in text.splitlines())


def _show(prompt: str, answers: dict[str, str]) -> None:
    """Side by side where there is room, else below one another."""
    if prompt:
        out.print(Text(f"> {visible(prompt)}", style="bold"))
    if not out.is_terminal or out.width // len(answers) < NARROWEST:
        for name, text in answers.items():
            out.print(Text.assemble((f"{name}: ", "bold cyan"), text), soft_wrap=not out.is_terminal)
        out.print()
        return
    table = Table(expand=True)
    for name in answers:
        table.add_column(escape(name), ratio=1)
    table.add_row(*map(Text, answers.values()))
    out.print(table)
