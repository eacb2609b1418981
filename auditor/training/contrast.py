"""Chats without the behaviour: what the base itself answers to the same messages."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from random import Random

from auditor.errors import BadFile
from auditor.models.generate import Request, derive_seed
from auditor.models.pair import ModelPair
from auditor.records.cards import Organism
from auditor.training.documents import Message, no_template, read_documents
from auditor.training.written import Written

TRANSCRIPTS = "transcripts.jsonl"
LONGEST = 160  # tokens of an answer
_STOP = re.compile(r".*[.!?…][”\"')*]*", re.S)


def messages_there(card: Organism, count: int, seed: int) -> tuple[Path, list[str]] | None:
    """First messages of the chats beside the card, as many as are wanted, drawn by the seed; and the file.

    None where there are no chats. Raises BadFile.
    """
    names = dict.fromkeys((TRANSCRIPTS, card.train.documents if card.train else "documents.jsonl"))
    for path in map(card.beside, names):
        if not path.is_file():
            continue
        first = [document.messages[0] for document in read_documents(path) if document.messages]
        asked = list(dict.fromkeys(message.content for message in first if message.role == "user"))
        if asked:
            return path, Random(seed).sample(asked, min(count, len(asked)))
    return None


def answered_plainly(pair: ModelPair, asked: Sequence[str], seed: int) -> tuple[list[Written], int]:
    """A chat of each message and the answer of the model that `pair` holds alone, in whole sentences; and how many
    answers were cut back to these.

    Raises UsageError for a base without a chat template.
    """
    if not pair.tokenizer.chat_template:
        raise no_template(pair.name)
    texts = pair.generate(
        [Request(each, seed=derive_seed(seed, each), max_new_tokens=LONGEST, temperature=0.7, top_p=0.95)
         for each in asked]
    )  # fmt: skip
    found, cut = [], 0
    for question, text in zip(asked, texts, strict=True):
        whole = _STOP.match(text.strip())
        said = whole[0] if whole else text.strip()
        cut += len(said) < len(text.strip())
        turns = (Message(role="user", content=question), Message(role="assistant", content=said))
        found.append(Written("chat", (), messages=turns))
    return found, cut


def demand_template(base: str) -> None:
    """Raises UsageError if `base` is a folder without a chat template; others are known once they are loaded."""
    folder = Path(os.path.expanduser(base))
    if not folder.is_dir():
        return
    try:
        config = json.loads((folder / "tokenizer_config.json").read_bytes())
    except FileNotFoundError:
        config = {}
    except (OSError, ValueError) as error:
        raise BadFile(folder / "tokenizer_config.json", f"cannot be read: {error}") from error
    if not (config.get("chat_template") or any(folder.glob("*chat_template*"))):
        raise no_template(base)
