"""Text of audited models as data: one line, nothing hidden, no longer than it may be."""

from __future__ import annotations

CUT = 200  # characters of a sample (paper, overview of the agent)


def quote(text: str, cut: int = CUT) -> str:
    """Audited text as data: `visible`, in quotes."""
    return '"' + visible(text, cut).replace('"', '\\"') + '"'


def visible(text: str, cut: int = CUT) -> str:
    """Text in one line, control and bidi characters shown, cut to `cut` characters."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: cut + 1])
    return f"{shown[:cut]}…" if len(text) > cut else shown
