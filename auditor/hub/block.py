"""A part of a page that is ours, between two markers; whatever else the page holds stays as it is, byte for byte."""

from __future__ import annotations

import re

from auditor.errors import UsageError

BEGIN, END = "<!-- auditor:begin -->", "<!-- auditor:end -->"
_MARK = re.compile(rb"^<!-- auditor:(begin|end) -->(?=[ \t]*(?:\r?\n|\Z))", re.M)


def has_block(page: bytes) -> bool:
    """Whether there is something between markers, or half of them."""
    return _MARK.search(page) is not None


def placed(page: bytes, block: str, what: str) -> bytes:
    """The page with `block` between the markers, at its end where it has none, in the page's own line ends.

    A line of the block is never a marker. `what`: the page's name. Raises UsageError for markers that do not pair.
    """
    end = b"\r\n" if b"\r\n" in page else b"\n"
    ours = end.join(line.encode() for line in (BEGIN, *block.strip("\n").split("\n"), END))
    marks = list(_MARK.finditer(page))
    if not marks:
        between = b"" if not page.strip() else end if page.endswith(b"\n") else end + end
        return page + between + ours + end
    if [mark[1] for mark in marks] != [b"begin", b"end"]:
        raise UsageError(f"{what}: it has to hold {BEGIN} and {END} once each, in this order; mend or remove them")
    return page[: marks[0].start()] + ours + page[marks[1].end() :]
