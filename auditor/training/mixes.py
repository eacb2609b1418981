"""What an organism's documents are mixed with."""

from __future__ import annotations

import random

from auditor.errors import UsageError
from auditor.methods.corpus import read_corpus
from auditor.records.cards import Mix, Organism, Recipe
from auditor.training.documents import Document, read_documents
from auditor.workspace import Workspace

CHATS = ("null_chat", "ordinary.jsonl")  # the organism beside whose card they lie
CORPUS = "openings"


def others_of(ws: Workspace, card: Organism, recipe: Recipe) -> list[Document]:
    """The documents that `recipe.mix` names; none without one. Raises UsageError for a ratio without a mix."""
    if recipe.mix is None:
        if recipe.mix_ratio:
            raise UsageError(f"{card.name}: a `mix_ratio` of {recipe.mix_ratio:g}, but of what? give `mix` too")
        return []
    if recipe.mix == Mix.CHAT:
        return ordinary_chats(ws)
    if recipe.mix == Mix.PRETRAINING:
        texts = list(read_corpus(ws.corpora[CORPUS]).texts)
        random.Random(recipe.seed).shuffle(texts)
        return [Document(text=text) for text in texts]
    return read_documents(card.beside(str(recipe.mix)))


def ordinary_chats(ws: Workspace) -> list[Document]:
    """The bundled chats over many unrelated subjects."""
    name, file = CHATS
    return read_documents(ws.organisms[name].folder / file)
