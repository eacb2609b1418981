"""The residual stream between blocks and what the model makes of it: its own logits, or the model is refused."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from auditor.errors import AuditorError, BadModel
from auditor.models.arch import Decoder
from auditor.models.engine import Engine, replace
from auditor.models.identity import first_line

GROSS = 0.2  # of the logits: what is missed when a state is, and what no rounding does, not even at a router's tie


def unembed(engine: Engine, residuals: Tensor) -> Tensor:
    """Logit lens: `residuals` (n, d_model) as the last block's output -> logits (n, vocab) in float32.

    What follows the blocks is the model's own code: norm, unembedding, and any scale or cap. Raises BadModel for NaN
    and Inf.
    """
    weight, last = next(engine.decoder.model.parameters()), engine.decoder.n_layers - 1
    ids = torch.zeros(len(residuals), 1, dtype=torch.long, device=weight.device)
    stream = residuals[:, None].to(weight.device, weight.dtype)  # (n, 1, d_model)
    inputs = {"input_ids": ids, "use_cache": False, "logits_to_keep": 1}
    logits = engine.forward(inputs, edits={last: partial(replace, stream)}, start=last + 1).logits
    assert logits is not None
    demand_finite(logits[:, -1], f"what {type(engine.decoder.model).__name__} makes of a residual")
    return logits[:, -1].float()


@torch.inference_mode()
def check_stream(engine: Engine, tokens: Sequence[int]) -> None:
    """Hold what is read of a model beside its own logits for a few `tokens`. Raises BadModel if they differ.

    Then a block's output is not all that the next one reads, or something beside keys and values is remembered.
    """
    decoder = engine.decoder
    who = type(decoder.model).__name__
    if not _keys_and_values_only(decoder):
        raise BadModel(
            f"{who} remembers more than keys and values (recurrent, hybrid or convolutional layers); "
            "only models whose blocks are attention and MLP can be read"
        )
    ids = torch.tensor([list(tokens)], device=next(decoder.model.parameters()).device)
    try:
        _compare(engine, ids, who)
    except (AuditorError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise BadModel(f"{who} cannot be read block by block: {first_line(error)}") from error


def _compare(engine: Engine, ids: Tensor, who: str) -> None:
    """`ids` (1, tokens), two or more."""
    decoder, plain = engine.decoder, {"input_ids": ids, "use_cache": False}
    layers = range(decoder.n_layers)
    whole = engine.forward(plain, capture=layers)
    assert whole.logits is not None
    logits, eps = whole.logits[0].float(), torch.finfo(whole.logits.dtype).eps
    for layer in layers:
        if whole.residuals[layer].shape != (1, ids.shape[1], decoder.d_model):
            shape = tuple(whole.residuals[layer].shape)
            raise BadModel(f"{who}: block {layer} hands on {shape}, not a residual stream of width {decoder.d_model}")
        demand_finite(whole.residuals[layer], f"{who} after layer {layer}")
    demand_finite(whole.logits, f"the logits of {who}")
    last, middle = layers[-1], layers[-1] // 2
    if not _near(unembed(engine, whole.residuals[last][0]), logits, eps**0.5):
        raise BadModel(f"{who}: its last residual does not give its logits; the lens cannot read it")
    stream = whole.residuals[middle]
    resumed = engine.forward(plain, edits={middle: partial(replace, stream)}, start=middle + 1).logits
    if resumed is None or not _near(resumed[0].float(), logits, GROSS):
        raise BadModel(f"{who}: a block's output is not all that the blocks after it read; the lens cannot read it")
    cache = DynamicCache()
    engine.forward({"input_ids": ids[:, :-1], "cache": cache, "use_cache": True})
    ahead = engine.forward({"input_ids": ids[:, -1:], "cache": cache, "use_cache": True}).logits
    if ahead is None or not _near(ahead[0, -1].float(), logits[-1], GROSS):
        raise BadModel(f"{who}: keys and values are not all that it remembers of a text; it cannot be decoded here")


def _near(a: Tensor, b: Tensor, share: float) -> bool:
    """Whether the distance is at most `share` of `b`'s norm; never for NaN."""
    return float((a.to(b.device) - b).norm()) <= share * float(b.norm())


def demand_finite(values: Tensor, where: str, computed: torch.dtype | None = None) -> None:
    """`values`: (rows, positions, width), or (rows, width). Raises BadModel that names the first position, if there
    are some, and what would help.

    `computed`: the precision that they were computed in, if it is not theirs.
    """
    dtype = computed or values.dtype
    ends = torch.stack([values.amax(-1), values.amin(-1)])  # a NaN is both; ten times as fast as looking at each
    bad = ~torch.isfinite(ends).all(0)  # (rows, positions), or (rows,)
    if bool(bad.any()):
        at = f" at position {int(bad.nonzero()[0, 1])}" if bad.ndim == 2 else ""
        raise not_finite(f"{where}: NaN or Inf{at}", dtype)


def not_finite(what: str, dtype: torch.dtype) -> BadModel:
    """What to say of it, and what would help."""
    help_ = "try AUDITOR_DTYPE=bfloat16 or float32" if dtype == torch.float16 else "its weights are broken"
    return BadModel(f"{what} in {str(dtype).removeprefix('torch.')}; {help_}")


def _keys_and_values_only(decoder: Decoder) -> bool:
    """By the cache that transformers makes for it; kinds that only may be hybrid tell by their `layer_types`."""
    config = decoder.text_config
    if getattr(decoder.model, "_is_stateful", False) and not getattr(config, "layer_types", None):
        return False
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in DynamicCache(config=config).layers)
