"""Texts as token ids, and which ids each model of a pair can be given."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from auditor.config import Settings
from auditor.errors import BadModel, UsageError
from auditor.models.identity import first_line, some_of

_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """`text` as a model reads what is to go on: with what the tokenizer puts before it (BOS), not after it (EOS)."""
    return all_plain_ids(tokenizer, [text])[0]


def all_plain_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The same for many texts at once."""
    appended = _appended(tokenizer)
    return [list(ids[: len(ids) - appended]) for ids in (tokenizer(list(texts)).input_ids if texts else [])]


@lru_cache(maxsize=16)
def _appended(tokenizer: Any) -> int:
    """How many tokens the tokenizer puts after a text of its own accord."""
    bare, whole = (list(tokenizer("a", add_special_tokens=special).input_ids) for special in (False, True))
    for start in range(len(whole) - len(bare) + 1):
        if bare and whole[start : start + len(bare)] == bare:
            return len(whole) - start - len(bare)
    return 0


def something(tokenizer: Any, ids: list[int]) -> list[int]:
    """`ids`, or a token to begin with where there are none. Raises UsageError if the tokenizer has none for that."""
    first = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    found = ids or [i for i in first if i is not None][:1]
    if not found:
        raise UsageError("the prompt is empty, and the model's tokenizer has no token for the beginning of a text")
    return found


def adapters_tokenizer(folder: Path, usual: Any, settings: Settings) -> Any:
    """The tokenizer and chat template that were saved with an adapter; `usual`, its base's, for what was not.

    Raises BadModel if they cannot be loaded.
    """
    from transformers import AutoTokenizer

    if any((folder / name).exists() for name in _VOCABULARIES):
        try:
            found = AutoTokenizer.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
        except Exception as error:
            raise BadModel(
                f"the tokenizer saved with the adapter {folder} cannot be read: {first_line(error)}"
            ) from error
        if not found.chat_template:
            found.chat_template = usual.chat_template
        return found
    if (template := folder / "chat_template.jinja").exists():
        found = copy.deepcopy(usual)
        found.chat_template = template.read_text(encoding="utf-8")
        return found
    return usual


def foreign_tokens(base: Any, tuned: Any, who: str) -> dict[int, str]:
    """Special tokens that only the finetune's tokenizer knows, by id; everything else must be the same.

    Chat training often adds a few. Texts are read without them, and the base is never given one. Raises BadModel.
    """
    ours, theirs = _by_id(base), _by_id(tuned)
    added = set(tuned.get_added_vocab()) | set(base.get_added_vocab())
    moved = [token for token, i in theirs.items() if token in ours and ours[token] != i]
    alone = [token for token in {**ours, **theirs} if (token in ours) != (token in theirs) and token not in added]
    sample = "A river, 12 mills;\n  naïve tests…"
    same_ids = base(sample, add_special_tokens=False).input_ids == tuned(sample, add_special_tokens=False).input_ids
    if moved or alone or not same_ids:
        example = (moved or alone or ["the way text is cut"])[0]
        raise BadModel(
            f"{who} have different tokenizers ({example!r} and others), so their activations cannot be "
            "subtracted token by token; name the base that it was finetuned from"
        )
    return {i: token for token, i in theirs.items() if token not in ours}


def without_embeddings(tokenizer: Any, rows: int) -> dict[int, str]:
    """Tokens for which a model of `rows` embeddings has none, by id."""
    return {i: token for token, i in _by_id(tokenizer).items() if i >= rows}


def _by_id(tokenizer: Any) -> dict[str, int]:
    """The vocabulary in the order of its ids; tokenizers give it in an order of the moment."""
    return dict(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))


def told_of(who: str, unknown: dict[int, str], in_chats: bool) -> str:
    """What a user should know of tokens that a model does not know."""
    then = "it is asked in plain text" if in_chats else "it is never given one"
    return f"{who} does not know {len(unknown)} tokens ({some_of(list(unknown.values()))}); {then}"
