"""Unrelated text over which activation differences are averaged."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditor.errors import BadFile
from auditor.models.generate import Request, Side, derive_seed
from auditor.models.pair import ModelPair

Chat = tuple[dict[str, str], ...]
"""Turns with `role` and `content`, up to and with the first answer."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts, what to call them, and the hash of all of them.

    `chats`: whole conversations, one for each text; positions are then counted around the answer's beginning, and
    `texts` are the answers.
    """

    name: str
    texts: tuple[str, ...]
    chats: tuple[Chat, ...] = ()
    drawn_from: str = ""  # hash of the corpus that these are some texts of

    @property
    def sha256(self) -> str:
        whole = [json.dumps(chat) for chat in self.chats] or self.texts
        return hashlib.sha256("\x00".join(whole).encode()).hexdigest()

    def take(self, n: int, seed: int) -> Corpus:
        """`n` texts drawn without replacement, in the order drawn (all of them if there are fewer)."""
        drawn = random.Random(seed).sample(range(len(self.texts)), min(n, len(self.texts)))
        chats = tuple(self.chats[i] for i in drawn) if self.chats else ()
        return Corpus(self.name, tuple(self.texts[i] for i in drawn), chats, self.drawn_from or self.sha256)


def demand_corpus(path: Path) -> None:
    """Raises BadFile if there is no such file."""
    if not path.is_file():
        raise BadFile(path, "no such corpus; give a .jsonl or .txt file, a dataset's hub id, or `sampled`")


def read_corpus(path: Path) -> Corpus:
    """A .txt file (a text a line) or a .jsonl file (objects with `text`, or all with `messages`), either also gzipped.

    Raises BadFile with the line that is wrong.
    """
    demand_corpus(path)
    opener: Callable[..., object] = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as stream:  # type: ignore[attr-defined]
            lines = [line.strip() for line in stream]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise BadFile(path, f"not readable as UTF-8 text: {error}") from error
    found: list[tuple[str, Chat]] = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            found.append(_entry(json.loads(line)) if ".jsonl" in path.suffixes else (line, ()))
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise BadFile(path, 'not an object with "text", or with "messages" that hold an answer', number) from error
        if bool(found[-1][1]) != bool(found[0][1]):
            raise BadFile(path, "texts and chats in one corpus; positions mean something else in each", number)
    if not found:
        raise BadFile(path, "holds no text; give at least one text of a few words")
    chats = tuple(chat for _, chat in found if chat)
    return Corpus(path.name.split(".")[0], tuple(text for text, _ in found), chats)


def _entry(value: Any) -> tuple[str, Chat]:
    """A text, or an answer with the conversation that it ends."""
    if "text" in value:
        return _string(value["text"]), ()
    turns = [{"role": _string(turn["role"]), "content": _string(turn["content"])} for turn in value["messages"]]
    end = next(i for i, turn in enumerate([*turns, {"role": "assistant"}]) if turn["role"] == "assistant")
    if not 0 < end < len(turns):
        raise ValueError("no question with an answer")
    return turns[end]["content"], tuple(turns[: end + 1])


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def sampled_corpus(pair: ModelPair, n: int, tokens: int, seed: int) -> Corpus:
    """Texts that the base model writes from nothing: the corpus for a pair without one (method 11)."""
    start = pair.tokenizer.bos_token or pair.tokenizer.eos_token or ""
    requests = [
        Request(start, Side.BASE, derive_seed(seed, "corpus", i), tokens, temperature=1.0, chat=False) for i in range(n)
    ]
    return Corpus("sampled", tuple(text for text in pair.generate(requests) if text))
