"""A row's text while it grows, token by token: each costs about the same, however long the text is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from auditor.models.row import Row

BROKEN = "\ufffd"  # what part of a character decodes to
WINDOW = 48  # tokens that are decoded again with every new one
APART = 16  # tokens from the end of what is settled to the last one, and to the beginning of the window
LONGEST_STOP = 200  # characters
CLEANED = 4  # characters at the end that cleaning up spaces may still change
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")  # a token of SentencePiece's byte fallback


class Detokenizer:
    """The same text as decoding all tokens at once gives.

    What a token says depends on its neighbours: characters are split, leading spaces dropped, and a run of byte
    tokens is read only as a whole. So the last tokens are decoded anew, from a token that says something by itself,
    and only what lies before another such token is settled. `tokenizers`' own DecodeStream raises on broken UTF-8.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._settled, self._known = "", ""  # what the tokens before `_end` say; what those in the window say of it
        self._begin, self._end = 0, 0  # the window's beginning, and what is settled
        self._read, self._text = 0, ""

    def read(self, ids: Sequence[int]) -> str:
        """What `ids`, which begin with those of the last call, say so far; the last tokens may have to wait."""
        new = len(ids) - self._read
        # A window that cannot be moved, of garbage or of one long run of byte tokens, is looked at less often.
        if new <= 0 or new < (len(ids) - self._begin) // WINDOW or not self._is_read(ids[-1]):
            return self._text
        self._read = len(ids)
        self._text = self._settled + self._decoded(ids[self._begin :])[len(self._known) :]
        if len(ids) - self._begin > WINDOW:
            self._settle(ids)
        return self._text

    def whole(self, ids: Sequence[int]) -> str:
        """What all of `ids` say, the last ones too."""
        return self._settled + self._decoded(ids[self._begin :])[len(self._known) :]

    def _settle(self, ids: Sequence[int]) -> None:
        end = self._place(ids, len(ids) - APART, self._end)
        begin = self._place(ids, end - APART, self._begin) if end is not None else None
        if end is None or begin is None:
            return
        more, known = self._decoded(ids[self._begin : end])[len(self._known) :], self._decoded(ids[begin:end])
        # Not where cleaning up spaces joins what lies on both sides.
        if self._text.startswith(more, len(self._settled)) and self._decoded(ids[begin:]).startswith(known):
            self._settled += more
            self._begin, self._end, self._known = begin, end, known

    def _place(self, ids: Sequence[int], last: int, first: int) -> int | None:
        """The last place before which nothing can change any more, whatever follows: that of a token of whole words."""
        for place in range(last, first, -1):
            said = self._decoded([ids[place]])
            if said.strip() and BROKEN not in said and self._is_read(ids[place]):
                return place
        return None

    def _is_read(self, token: int) -> bool:
        """Whether what it says is certain: it is no byte of a run, and not skipped."""
        named = str(self._tokenizer.convert_ids_to_tokens(token))
        return not _BYTE.fullmatch(named) and bool(self._decoded([token]))

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


@dataclass
class Speech:
    """A row's text as it grows: without space at both ends, ended before any stop text."""

    tokenizer: Any
    stops: Sequence[str]
    text: str = ""
    stopped: bool = False
    sent: int = 0

    def __post_init__(self) -> None:
        self._words, self._searched = Detokenizer(self.tokenizer), 0
        self._cleans = bool(getattr(self.tokenizer, "clean_up_tokenization_spaces", False))

    def hear(self, row: Row) -> bool:
        """Read the row so far; True if a stop text ends it."""
        return self._heard(self._words.read(row.out).lstrip())

    def finish(self, row: Row) -> str:
        """The whole text."""
        if not self.stopped:
            self._heard(self._words.whole(row.out).lstrip())
        self.text = self.text.rstrip()
        return self.text

    def reason(self, row: Row) -> str:
        """Why it ended: a stop text may have come in the last tokens, which are heard at the end."""
        return "stop" if self.stopped else row.finish

    def _heard(self, text: str) -> bool:
        begin = max(0, self._searched - 2 * LONGEST_STOP)
        places = [text.find(stop, begin) for stop in self.stops]
        found = min((place for place in places if place >= 0), default=None)
        self._searched = len(text.rstrip(BROKEN))
        self.text, self.stopped = text[:found].rstrip() if found is not None else text, found is not None
        return self.stopped

    def more(self, *, last: bool = False) -> str:
        """What can be said since the last call, holding back what the next tokens may still change."""
        end = len(self.text)
        if not last and not self.stopped:
            text = self.text.rstrip().rstrip(BROKEN)
            tail = text[-LONGEST_STOP:]
            begun = max((k for stop in self.stops for k in range(1, len(stop)) if tail.endswith(stop[:k])), default=0)
            if self._cleans and (space := text.rfind(" ", -CLEANED)) >= 0:
                begun = max(begun, len(text) - space)
            end = len(text[: len(text) - begun].rstrip())
        said = self.text[self.sent : max(end, self.sent)]
        self.sent += len(said)
        return said
