"""Reading and editing the residual stream: plain hooks (fast) and nnsight (reference), one interface.

Both stop the forward pass at the highest block that is needed, and undo themselves: the user's model is
never changed. `tests/test_models.py` holds them equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Protocol

from torch import Tensor, nn

from auditor.models.arch import Decoder

Edit = Callable[[Tensor], Tensor]
"""Takes a block's output (rows, tokens, d_model) and returns what replaces it."""


def replace(stream: Tensor, hidden: Tensor) -> Tensor:
    """An edit, once `stream` is given: it takes the place of the block's output."""
    return stream.to(hidden.device).expand_as(hidden)


@dataclass(frozen=True, slots=True)
class Forward:
    """Residuals after each captured block, (rows, tokens, d_model), and the logits unless stopped early."""

    residuals: dict[int, Tensor]
    logits: Tensor | None = None


class Engine(Protocol):
    """One forward pass with reads and edits of the residual stream after the blocks named.

    `stop`: the pass ends at the highest of them. `start`: blocks before it need not run, because the edit after
    block `start` - 1 replaces the whole stream.
    """

    decoder: Decoder

    def forward(
        self,
        inputs: Mapping[str, Any],
        *,
        capture: Sequence[int] = (),
        edits: Mapping[int, Edit] | None = None,
        stop: bool = False,
        start: int = 0,
    ) -> Forward: ...


class _Stop(Exception):
    """Everything that was asked for has been seen."""


@dataclass
class HookEngine:
    """Forward hooks on the blocks that matter."""

    decoder: Decoder
    _packed: bool | None = field(default=None, init=False)  # blocks give a tuple; unknown before the first pass

    def forward(
        self,
        inputs: Mapping[str, Any],
        *,
        capture: Sequence[int] = (),
        edits: Mapping[int, Edit] | None = None,
        stop: bool = False,
        start: int = 0,
    ) -> Forward:
        edits = edits or {}
        residuals: dict[int, Tensor] = {}
        last = max([*capture, *edits], default=-1)

        def hook_for(layer: int) -> Callable[[nn.Module, Any, Any], Any]:
            def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
                self._packed = isinstance(output, tuple)
                hidden = output[0] if isinstance(output, tuple) else output
                if layer in edits:
                    hidden = edits[layer](hidden)
                if layer in capture:
                    residuals[layer] = hidden
                if stop and layer == last:
                    raise _Stop
                return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

            return hook

        handles = [
            self.decoder.blocks[layer].register_forward_hook(hook_for(layer)) for layer in sorted({*capture, *edits})
        ]
        logits: Tensor | None = None
        try:
            with _passed_over(list(self.decoder.blocks[:start]), self._packed):
                logits = self.decoder.model(**self.decoder.named(inputs)).logits
        except _Stop:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return Forward(residuals, logits)


@contextmanager
def _passed_over(blocks: Sequence[nn.Module], packed: bool | None) -> Iterator[None]:
    """Inside, `blocks` hand on what they get. While nobody has seen whether they give tuples, they run as ever."""
    if packed is None or not blocks:
        yield
        return
    before = [block.__dict__.get("forward") for block in blocks]  # accelerate puts its own there
    for block in blocks:
        block.forward = lambda hidden, *_args, **_more: (hidden,) if packed else hidden
    try:
        yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            del block.forward
            if forward is not None:
                block.forward = forward


@dataclass
class NnsightEngine:
    """The same through `nnsight.TransformersModel` traces; here every block runs."""

    decoder: Decoder
    tokenizer: Any
    _traced: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        from nnsight import TransformersModel

        self._traced = TransformersModel(self.decoder.model, tokenizer=self.tokenizer)

    def forward(
        self,
        inputs: Mapping[str, Any],
        *,
        capture: Sequence[int] = (),
        edits: Mapping[int, Edit] | None = None,
        stop: bool = False,
        start: int = 0,
    ) -> Forward:
        edits = edits or {}
        model = self._traced
        blocks = reduce(getattr, self.decoder.blocks_path.split("."), model)
        wanted = sorted({*capture, *edits})
        residuals: dict[int, Tensor] = {}
        logits = None
        given = self.decoder.named(_fully_masked(inputs))
        with model.trace(**given) as tracer:
            for layer in wanted:
                output = blocks[layer].output
                packed = isinstance(output, tuple)
                hidden = output[0] if packed else output
                if layer in edits:
                    hidden = edits[layer](hidden)
                    blocks[layer].output = (hidden, *output[1:]) if packed else hidden
                if layer in capture:
                    residuals[layer] = hidden
            if stop:
                tracer.stop()
            logits = model.output.logits.save()
        return Forward(residuals, logits)


def _fully_masked(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """With a mask that spans the cache: nnsight 0.8 makes one of the new tokens alone where none is given."""
    if "cache" not in inputs or "attention_mask" in inputs:
        return inputs
    ids: Tensor = inputs["input_ids"]
    return {**inputs, "attention_mask": ids.new_ones(len(ids), inputs["cache"].get_seq_length() + ids.shape[1])}
