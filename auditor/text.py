"""Text of audited models as data: one line, nothing hidden, no longer than it may be."""

from __future__ import annotations

from collections.abc import Sequence

CUT = 200  # characters of a sample (paper, overview of the agent)
MOST = 20_000  # characters of a text that is shown whole


def quote(text: str, cut: int = CUT) -> str:
    """Audited text as data: `visible`, in quotes."""
    return '"' + visible(text, cut).replace('"', '\\"') + '"'


def visible(text: str, cut: int = CUT) -> str:
    """Text in one line, control and bidi characters shown, cut to `cut` characters."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: cut + 1])
    return f"{shown[:cut]}…" if len(text) > cut else shown


def readable(text: str, most: int = MOST) -> str:
    """Lines and tabs stay, other control and bidi characters become escapes; a long text is cut, which is said."""
    told = f"… ({len(text) - most:,} more characters: transcripts have them)" if len(text) > most else ""
    lines = text[:most].replace("\r\n", "\n").split("\n")
    shown = [line if line.isprintable() else "\t".join(visible(p, len(p)) for p in line.split("\t")) for line in lines]
    return "\n".join(shown) + told


Span = tuple[int, int]


def around(text: str, spans: Sequence[Span], room: int) -> tuple[str, tuple[Span, ...]]:
    """About `room` characters of `text` with what `spans` mark in their middle, and the spans therein.

    The whole text where it fits; what is left out is counted.
    """
    if len(text) <= room:
        return text, tuple(spans)
    first, last = (spans[0][0], spans[-1][1]) if spans else (0, 0)
    if last - first > room:
        last = first + room
    start = max(0, min((first + last - room) // 2, len(text) - room))
    end = start + room
    start, end = _at_word(text, start, first), len(text) - _at_word(text[::-1], len(text) - end, len(text) - last)
    before = f"({start} characters before) … " if start else ""
    after = f" … ({len(text) - end} more characters)" if end < len(text) else ""
    moved = tuple((a - start + len(before), b - start + len(before)) for a, b in spans if start <= a and b <= end)
    return f"{before}{text[start:end]}{after}", moved


def _at_word(text: str, start: int, latest: int) -> int:
    """The next beginning of a word from `start` on, if one comes soon and not after `latest`."""
    if start == 0:
        return 0
    space = text.find(" ", start, min(latest, start + 40))
    return start if space < 0 else space + 1


def shown(text: str, cut: int) -> str:
    """Text in its lines, other control and bidi characters shown, cut to about `cut` characters."""
    return "\n".join(visible(line.replace("\t", " "), cut) for line in around(text, (), cut)[0].splitlines())
