"""Unrelated text over which activation differences are averaged."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from auditor.errors import BadFile
from auditor.models.generate import Request, Side, derive_seed
from auditor.models.pair import ModelPair


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts, what to call them, and the hash of all of them."""

    name: str
    texts: tuple[str, ...]

    @property
    def sha256(self) -> str:
        return hashlib.sha256("\x00".join(self.texts).encode()).hexdigest()

    def take(self, n: int, seed: int) -> Corpus:
        """`n` texts drawn without replacement (all of them if there are fewer)."""
        if n >= len(self.texts):
            return self
        return Corpus(self.name, tuple(random.Random(seed).sample(self.texts, n)))


def read_corpus(path: Path) -> Corpus:
    """A .txt file (a text a line) or a .jsonl file (objects with `text`), either also gzipped."""
    if not path.is_file():
        raise BadFile(path, "no such corpus; give a .jsonl or .txt file, or `sampled`")
    opener: Callable[..., object] = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as stream:  # type: ignore[attr-defined]
            lines = [line.strip() for line in stream]
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(path, f"not readable as UTF-8 text: {error}") from error
    texts = []
    is_json = ".jsonl" in path.suffixes
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        if not is_json:
            texts.append(line)
            continue
        try:
            texts.append(str(json.loads(line)["text"]))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise BadFile(path, 'not an object with a "text" field', number) from error
    if not texts:
        raise BadFile(path, "holds no text; give at least one text of a few words")
    return Corpus(path.name.split(".")[0], tuple(texts))


def sampled_corpus(pair: ModelPair, n: int, tokens: int, seed: int) -> Corpus:
    """Texts that the base model writes from nothing: the corpus for a pair without one (method 11)."""
    start = pair.tokenizer.bos_token or pair.tokenizer.eos_token or ""
    requests = [
        Request(start, Side.BASE, derive_seed(seed, "corpus", i), tokens, temperature=1.0, chat=False) for i in range(n)
    ]
    return Corpus("sampled", tuple(text for text in pair.generate(requests) if text))
