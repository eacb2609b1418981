"""The text protocol: a turn ends in `CALL(tool: {json})` or `FINAL(…)`, at the beginning of a line, outside code.

Accepts what a person would (several lines, quotes inside, a bracket that is missing at the very end), and refuses
the rest with one sentence that the agent can act on.
"""

from __future__ import annotations

import ast
import json
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

_START = re.compile(r"^[ \t]*(?:\*\*|`)?(CALL|FINAL)[ \t]*\(", re.M)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~).*$", re.M)
_TAIL = re.compile(r"[\s`*]*")
_NAME = re.compile(r"\s*[\"'`]?([A-Za-z_][\w.-]*)[\"'`]?\s*[:,]?\s*")
_LABEL = re.compile(r"\s*(?:description\s*[:=]\s*)?")
_CLOSED = re.compile(r"\s*\)")
UNREAD = 'the server could not read your tool call; write CALL(tool: {"argument": value}) as the last line'
_UNREAD = re.compile(r"(?:\[TOOL_REQUEST\]|<tool_call>)(.*?)(?:\[END_TOOL_REQUEST\]|</tool_call>|\Z)", re.S)
_MOST = 100  # statements of a message: each is read, and may run to its end


@dataclass(frozen=True, slots=True)
class TextCall:
    """A tool call in words."""

    name: str
    args: Any


@dataclass(frozen=True, slots=True)
class TextFinal:
    """The end: `{"description": "…"}`, or the fields of a structured hypothesis."""

    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """A statement that cannot be read, and what would be right."""

    reason: str


Statement = TextCall | TextFinal | Fault


def parse_turn(text: str) -> Statement | None:
    """The statement that `text` ends in; None if it has none."""
    marks = [m.start() for m in _FENCE.finditer(text)]
    starts = list(_START.finditer(text))
    outside = [m for m in starts if bisect_right(marks, m.start()) % 2 == 0]  # not behind a fence that opens
    if len(outside) > _MOST:
        return Fault(f"there are {len(outside)} statements; write one, as the last line")
    if not outside:
        if starts and not text[starts[-1].start() :].strip("`~ \n").count("\n\n"):
            return Fault("the statement stands in a code block; write it as plain text on the last line")
        return None
    last = outside[-1]
    found = _statement(last[1], text[last.end() :])
    if found is None:  # it does not reach the end of the message: an earlier one may enclose it
        for start in reversed(outside[:-1]):
            if (earlier := _strict(start[1], text[start.end() :])) is not None:
                return earlier
        return _fault(last[1], text[last.end() :])
    for start in outside[:-1]:
        if not _is_closed(start[1], text[start.end() : last.start()]):
            if (whole := _strict(start[1], text[start.end() :])) is not None:
                return whole
            return Fault("there are several statements, one inside another; escape quotes, and end in one statement")
    return found


def unread_calls(text: str) -> list[TextCall] | Fault:
    """Calls in the model's own notation that its server should have read, and left as text: in JSON, between marks.

    LM Studio and vLLM do so where a call is not well formed, or their parser is another model's.
    """
    found = []
    for match in _UNREAD.finditer(text):
        try:
            call = json.loads(match[1], strict=False)
        except (ValueError, RecursionError):
            call = None
        args = call.get("arguments", call.get("parameters", {})) if isinstance(call, dict) else None
        if not isinstance(args, dict) or not isinstance(call.get("name"), str):
            return Fault(
                'the server could not read your tool call; write CALL(tool: {"argument": value}) as the last line'
            )
        found.append(TextCall(call["name"], args))
    return found


def _statement(kind: str, rest: str) -> TextCall | TextFinal | None:
    """What `rest`, the text behind the opening bracket, says up to the end of the message; None if unreadable."""
    strict = _strict(kind, rest)
    if strict is not None:
        return strict
    if kind == "CALL":
        return _mended_call(rest)
    body = _untailed(rest[_end(_LABEL, rest) :]).strip()
    quoted = len(body) > 1 and body[0] in "\"“'" and body[-1] in "\"”'"
    said = body[1:-1].strip() if quoted else ""
    return TextFinal({"description": said}) if said else None


def _strict(kind: str, rest: str) -> TextCall | TextFinal | None:
    """As `_statement`, with an argument that is JSON."""
    found = _value(kind, rest)
    if found is None:
        return None
    statement, end = found
    closed = _CLOSED.match(rest, end)
    return statement if _end(_TAIL, rest, closed.end() if closed else end) == len(rest) else None


def _value(kind: str, rest: str) -> tuple[TextCall | TextFinal, int] | None:
    """The statement and where its argument ends, if the argument is JSON."""
    decoder = json.JSONDecoder(strict=False)  # line breaks in strings may be plain
    if kind == "CALL":
        name = _NAME.match(rest)
        if name is None:
            return None
        if rest[name.end() :].lstrip()[:1] in ("", ")"):
            return TextCall(name[1], {}), name.end()
        try:
            args, end = decoder.raw_decode(rest, name.end())
        except (ValueError, RecursionError):  # a number of thousands of digits is a plain ValueError
            return None
        return TextCall(name[1], args), end
    try:
        said, end = decoder.raw_decode(rest, _end(_LABEL, rest))
    except (ValueError, RecursionError):
        return None
    if isinstance(said, str) and said.strip():
        return TextFinal({"description": said.strip()}), end
    return (TextFinal(said), end) if isinstance(said, dict) and said else None


def _mended_call(rest: str) -> TextCall | None:
    """A call whose last brackets are missing, or whose argument is written as Python writes it."""
    name = _NAME.match(rest)
    if name is None:
        return None
    body = _untailed(rest[name.end() :])
    for candidate in (body, body + _missing(body)):
        for read in (lambda s: json.loads(s, strict=False), ast.literal_eval):
            try:
                args = json.loads(json.dumps(read(candidate)))  # Python's sets and bytes are no JSON
            except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(args, dict):
                return TextCall(name[1], args)
    return None


def _untailed(text: str) -> str:
    """`text` without the last bracket, and without what may stand behind it."""
    return text[: len(text) - _end(_TAIL, text[::-1])].removesuffix(")")


def _missing(text: str) -> str:
    """The brackets that would close what is open at the end of `text`."""
    stack: list[str] = []
    quoted = escaped = False
    for char in text:
        if quoted:
            quoted = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            quoted = True
        elif char in "{[":
            stack.append("}" if char == "{" else "]")
        elif char in "}]" and stack:
            stack.pop()
    return "".join(reversed(stack)) if not quoted else ""


def _is_closed(kind: str, rest: str) -> bool:
    """Whether the statement ends within `rest`: then it was an example in the reasoning."""
    found = _value(kind, rest)
    if found is not None:
        return _CLOSED.match(rest, found[1]) is not None
    return ")" in rest.split("\n", 1)[0]  # not JSON, but over before the line was


def _fault(kind: str, rest: str) -> Statement | None:
    lines = [line for line in rest.splitlines() if line.strip()]
    if len(lines) > 1 and ")" in lines[0]:
        return None  # an example in the reasoning: the message goes on behind it
    if kind == "CALL":
        return Fault('the call cannot be read; write CALL(tool: {"argument": value}) with valid JSON as the last line')
    return Fault('the conclusion cannot be read; write FINAL(description: "…") or FINAL({…}) as the last line')


def _end(pattern: re.Pattern[str], text: str, start: int = 0) -> int:
    match = pattern.match(text, start)
    return match.end() if match else start
