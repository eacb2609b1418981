"""Text of audited models as data: one line, nothing hidden, no longer than it may be."""

from __future__ import annotations

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


def shown(text: str, cut: int) -> str:
    """Text in its lines, other control and bidi characters shown, cut to about `cut` characters."""
    more = f" … ({len(text) - cut} more characters)" if len(text) > cut else ""
    return "\n".join(visible(line.replace("\t", " "), cut) for line in text[:cut].splitlines()) + more
