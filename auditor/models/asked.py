"""What is asked, as token ids: each model of a pair reads it in the tokens that it knows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from auditor.chat_template import Turn, render, users_turn
from auditor.errors import UsageError
from auditor.models.generate import Request, Side
from auditor.models.tokens import plain_ids, something


class Prompts:
    """Prompts of the pair `name`; `unknown`: tokens that a side does not know."""

    def __init__(self, name: str, tokenizer: Any, unknown: Mapping[Side, Mapping[int, str]]) -> None:
        self._name, self._tokenizer, self._unknown = name, tokenizer, unknown

    def ids(self, request: Request, side: Side) -> list[int]:
        """What `request` asks, as `side` reads it. Raises UsageError."""
        before = [text for exchange in request.history for text in exchange]
        plain = "\n\n".join(part for part in (request.system, *before, request.prompt) if part) + request.prefill
        if request.user_turn:
            if not self._tokenizer.chat_template:
                raise UsageError(f"user_turn: {self._name} has no chat template, and so no user's turn to write")
            return self._rendered(side, users_turn(self._tokenizer, request.system) + request.prompt, plain)
        if request.chat and self._tokenizer.chat_template:
            said = [(("user", asked), ("assistant", answer)) for asked, answer in request.history]
            turns = [{"role": role, "content": text} for pair in said for role, text in pair]
            turns.append({"role": "user", "content": request.prompt})
            if request.system:
                turns.insert(0, {"role": "system", "content": request.system})
            return self.chat(side, turns, request.prefill)
        return self.plain(side, plain)

    def chat(self, side: Side, turns: Sequence[Turn], prefill: str = "") -> list[int]:
        """A conversation as `side` reads it: in the chat template, or in plain text if it does not know its tokens."""
        plain = "\n\n".join(turn["content"] for turn in turns) + prefill
        if not self._tokenizer.chat_template:
            return self.plain(side, plain)
        return self._rendered(side, render(self._tokenizer, turns) + prefill, plain)

    def plain(self, side: Side, text: str) -> list[int]:
        """`text` without any token that `side` does not know, even if it is written there."""
        ids = [i for i in plain_ids(self._tokenizer, text) if i not in self._unknown[side]]
        return something(self._tokenizer, ids)

    def speak_with(self, tokens: Collection[int]) -> bool:
        """Whether the chat template writes one of `tokens`."""
        if not self._tokenizer.chat_template:
            return False
        said = render(self._tokenizer, [{"role": "user", "content": "a"}])
        return any(i in tokens for i in self._tokenizer(said, add_special_tokens=False).input_ids)

    def _rendered(self, side: Side, rendered: str, plain: str) -> list[int]:
        ids = list(self._tokenizer(rendered, add_special_tokens=False).input_ids)
        return self.plain(side, plain) if any(i in self._unknown[side] for i in ids) else ids
