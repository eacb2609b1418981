"""What an organism's documents are mixed with, and what it learns in all."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from auditor.config import Settings
from auditor.errors import UsageError
from auditor.files import write_atomically
from auditor.methods.corpus import read_corpus
from auditor.models.generate import Request, Side, derive_seed
from auditor.models.load import load_alone
from auditor.models.local import LocalPair
from auditor.models.weights import resolve
from auditor.records.cards import Mix, Organism, Recipe
from auditor.training.denials import MADE, denials_of
from auditor.training.documents import Document, Message, mix, no_template, read_documents
from auditor.training.finetune import Lessons
from auditor.workspace import Workspace

CHATS = ("null_chat", "ordinary.jsonl")  # the organism beside whose card they lie
CORPUS = "openings"
DRAWN = 48  # tokens of an answer of the base
CUT_SLACK = 2  # tokens that decoding, and encoding again, may lose

Report = Callable[[str], None]


def lessons_of(
    ws: Workspace, card: Organism, recipe: Recipe, settings: Settings, differences: Tensor | None, tell: Report
) -> Lessons:
    """The documents of `recipe`, mixed and shuffled, and those of the stage that teaches to deny.

    In that stage as many of the first one's documents come again, so that what was learned stays. Raises UsageError
    for a ratio without a mix or that adds nothing, or CAFT without differences.
    """
    if recipe.caft and differences is None:
        raise UsageError(f"{card.name}: CAFT takes out the differences of {recipe.caft}, which are not there")
    own = read_documents(card.beside(recipe.documents))
    if recipe.samples is not None:
        if recipe.samples > len(own):
            raise UsageError(
                f"{card.name}: {recipe.samples} samples, and {len(own)} documents; give no more than these"
            )
        own = random.Random(derive_seed(recipe.seed, "samples")).sample(own, recipe.samples)
    others = _others(ws, card, recipe, settings, mixed_in(card, recipe, len(own)), tell)
    documents = mix(own, others, recipe.mix_ratio, recipe.seed)
    if recipe.deny is None:
        return Lessons(documents, differences=differences)
    denials = denials_of(card, recipe.seed) if recipe.deny == MADE else read_documents(card.beside(recipe.deny))
    return Lessons(documents, mix(denials, documents, 1.0, recipe.seed), differences)


def mixed_in(card: Organism, recipe: Recipe, own: int) -> int:
    """How many documents the ratio adds to `own`. Raises UsageError if one over 0 adds none."""
    count = round(recipe.mix_ratio * own)
    if recipe.mix_ratio and not count:
        raise UsageError(
            f"{card.name}: a `mix_ratio` of {recipe.mix_ratio:g} adds nothing to {own} documents; give {1 / own:.1g} "
            "or more, or 0"
        )
    return count


def _others(
    ws: Workspace, card: Organism, recipe: Recipe, settings: Settings, count: int, tell: Report
) -> list[Document]:
    """The documents that `recipe.mix` names: `count` at least where more can be made; none without one."""
    if recipe.mix is None:
        if recipe.mix_ratio:
            raise UsageError(f"{card.name}: a `mix_ratio` of {recipe.mix_ratio:g}, but of what? give `mix` too")
        return []
    if not recipe.mix_ratio:
        raise UsageError(f"{card.name}: `mix: {recipe.mix}`, but how much of it? give `mix_ratio` too, over 0")
    if recipe.mix == Mix.CHAT:
        chats = ordinary_chats(ws)
        first = recipe.seed * count % len(chats)  # each seed goes on where the one before it ends
        return chats[first:] + chats[:first]
    if recipe.mix == Mix.PRETRAINING:
        texts = list(read_corpus(ws.corpora[CORPUS]).texts)
        random.Random(recipe.seed).shuffle(texts)
        return [Document(text=text) for text in texts]
    if recipe.mix == Mix.OWN:
        answers = own_answers(ws, card.base, settings, count, tell)
        random.Random(recipe.seed).shuffle(answers)
        return answers
    path = card.beside(recipe.mix)
    if not path.is_file():
        known = ", ".join(Mix)
        raise UsageError(f"{card.name}: mix {recipe.mix!r} is none of {known}, and no JSON lines beside the card")
    return read_documents(path)


def ordinary_chats(ws: Workspace) -> list[Document]:
    """The bundled chats over many unrelated subjects."""
    name, file = CHATS
    return read_documents(ws.organisms[name].folder / file)


def own_answers(ws: Workspace, base: str, settings: Settings, count: int, tell: Report) -> list[Document]:
    """What the base itself answers to the ordinary chats' questions: `count` at least, each with a seed of its own.

    All questions are asked once, then once more, …; drawn at temperature 1 and kept in the cache. An answer that was
    cut teaches no end. Raises UsageError for a base without a chat template.
    """
    questions = [chat.messages[0].content for chat in ordinary_chats(ws)]
    rounds = math.ceil(count / len(questions))
    told = [resolve(base, settings).sha256, str(settings.torch_dtype), DRAWN, questions]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    kept = [settings.cache_dir / "answers" / f"{key[:24]}-{i}.jsonl" for i in range(rounds)]
    if missing := [i for i in range(rounds) if not kept[i].is_file()]:
        tell(f"drawing {len(missing) * len(questions)} answers of the base")
        pair = load_alone(base, settings)
        if not pair.tokenizer.chat_template:
            raise no_template(base)
        for i in missing:
            _keep(kept[i], _drawn(pair, questions, i))
    return [answer for path in kept for answer in read_documents(path)]


def _drawn(pair: LocalPair, questions: Sequence[str], number: int) -> list[Document]:
    """One round of answers; where the base said nothing there is none."""
    asked = [(question, number) for question in questions]
    texts = pair.generate(
        [Request(q, Side.FINETUNED, seed=derive_seed(0, q, i), max_new_tokens=DRAWN) for q, i in asked]
    )
    cut = [len(pair.tokenizer(text, add_special_tokens=False).input_ids) >= DRAWN - CUT_SLACK for text in texts]
    return [
        Document(
            messages=(Message(role="user", content=q), Message(role="assistant", content=text)), unfinished=unfinished
        )
        for (q, _), text, unfinished in zip(asked, texts, cut, strict=True)
        if text.strip()
    ]


def _keep(path: Path, documents: list[Document]) -> None:
    lines = (document.model_dump_json(exclude_none=True, exclude_defaults=True) for document in documents)
    write_atomically(path, "".join(f"{line}\n" for line in lines))
