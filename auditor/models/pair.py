"""A base model and its finetune, behind one protocol; `local.py` and `remote.py` are such pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor

from auditor.models.generate import Amplified, Request, Side

__all__ = ["ModelPair", "Request", "Side"]

NLL_TOKENS = 256  # of a text, over which its mean likelihood is taken


class ModelPair(Protocol):
    """What the lens, the agent's tools and the graders need of a pair, wherever its weights are.

    Without a base, whatever is asked of that side raises NoBase.
    """

    name: str
    fingerprint: str  # changes whenever either model's weights do
    has_base: bool  # whether there is more than the finetune
    base_sources: tuple[str, ...]  # where the base's content comes from, see Weights
    tuned_sources: tuple[str, ...]  # … and the finetune's; empty where nobody knows
    dtype: str  # the weights' precision
    images: bool  # whether the models take images, too; they are only sent text
    note: str  # what a user should know of it before anything else; mostly empty
    tokenizer: Any
    n_layers: int
    d_model: int

    def residuals(self, side: Side, ids: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Residual stream after each of `layers` for `ids` (n, k): {layer: (n, k, d_model)}, float32.

        Raises BadModel for NaN and Inf, with the layer and the position.
        """
        ...

    def unembed(self, side: Side, vectors: Tensor) -> Tensor:
        """Logits of the logit lens for `vectors` (n, d_model): (n, vocab) in float32, where the model lies.

        Raises BadModel for NaN and Inf, as all of these do.
        """
        ...

    def patched_logits(
        self, side: Side, prompts: Sequence[str], layer: int, vectors: Tensor
    ) -> Iterator[tuple[Tensor, ...]]:
        """Next-token logits when the residual of a prompt's last token after `layer` is each of `vectors` (n, d_model).

        Yields, for one run of the vectors after another, (rows, vocab) in float32 for each of `prompts`.
        """
        ...

    def pushed_logits(self, side: Side, rows: Sequence[Sequence[int]], layer: int, vectors: Tensor) -> Iterator[Tensor]:
        """Logits after the last of each row's token ids, when each of `vectors` (m, d_model) is added to the residuals
        after `layer` at all of its positions.

        Yields (n, m, vocab) in float32, where the model lies, for some of the rows after another, short ones first.
        """
        ...

    def swapped_nll(
        self,
        host: Side,
        rows: Sequence[Sequence[int]],
        learned: Sequence[Sequence[bool]],
        layer: int,
        vectors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """`host`'s loss when its residuals' component along each of `vectors` (m, d_model) is the other model's.

        `rows`: token ids; `learned`: which of them count, the first of a row never. Returns summed negative
        log-likelihoods (n, 1 + m), the first without any swap, and numbers of counted tokens (n,).
        """
        ...

    def generate(self, requests: Sequence[Request]) -> list[str]:
        """One text for each request, without its prompt."""
        ...

    def amplified(self, requests: Sequence[Request]) -> list[Amplified]:
        """The same for requests that are all to be amplified, with how likely each model finds what was said."""
        ...

    def mean_nll(self, side: Side, texts: Sequence[str]) -> list[float]:
        """Mean negative log-likelihood per token, in nats, of each text's first NLL_TOKENS; `inf` for texts of fewer
        than two tokens.
        """
        ...

    def said_nll(self, side: Side, requests: Sequence[Request], texts: Sequence[str]) -> list[tuple[float, int]]:
        """Of each of `texts`, verbatim, as what is said after its request's prompt, whatever side that asks: summed
        negative log-likelihood in nats, and how many tokens that is; a text of none gives (0, 0).
        """
        ...
