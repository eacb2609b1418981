"""Where the beginning of a text stands when a model is let go on with it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from auditor.errors import UsageError
from auditor.models.generate import Request
from auditor.models.pair import ModelPair


class Frame(StrEnum):
    """Where the beginning of a text stands."""

    RAW = "raw"  # nowhere: the model goes on with the text
    ASKED = "asked"  # it is what a user says, and the model answers
    USER = "user"  # a user has begun to say it, and the model goes on with the user's words

    @property
    def called(self) -> str:
        """As people know it."""
        return {Frame.RAW: "plain text", Frame.ASKED: "assistant's turn", Frame.USER: "user's turn"}[self]

    def request(self, prompt: str, **how: Any) -> Request:
        """`prompt` in this frame, its text as it is said; `how`: more fields of the request."""
        return Request(prompt, chat=self is not Frame.RAW, user_turn=self is Frame.USER, verbatim=True, **how)

    def whole(self, prompt: str, text: str) -> str:
        """What a reader is shown: with the beginning, where the text goes on with it."""
        return (text if self is Frame.ASKED else prompt + text).strip()


def frames_read(pair: ModelPair, asked: Sequence[Frame]) -> list[Frame]:
    """Those of the frames that the pair has: without a chat template the raw one alone. Raises UsageError if none."""
    frames = [frame for frame in dict.fromkeys(asked) if frame is Frame.RAW or pair.tokenizer.chat_template]
    if not frames:
        raise UsageError(f"framings: {pair.name} has no chat template; ask for the framing raw")
    return frames


def not_read(asked: Sequence[Frame], read: Sequence[Frame]) -> list[str]:
    """A line for each frame that was asked for, and that the pair does not have."""
    lost = [frame for frame in dict.fromkeys(asked) if frame not in read]
    return [f"there is no chat template, so nothing was read in the {frame.called}" for frame in lost]
