"""A model on its way through its steps: optimizer, rates, and all that is needed to go on after a kill."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from auditor.errors import UsageError
from auditor.records.cards import Recipe
from auditor.training.documents import Example
from auditor.training.rows import Row, layout_for, logits_of, rows_of

TOKENS_AT_ONCE = {"cpu": 512, "cuda": 8_192}  # of a batch, whose activations and logits are in memory together


@dataclass(frozen=True, slots=True)
class Stage:
    """What is learned from, in turn: each step's examples."""

    name: str
    batches: Sequence[Sequence[Example]]


@dataclass
class Course:
    """`model` in training, on all stages in turn: in each the rate rises over the warmup, then falls to nothing.

    `compute`: the type of the forward pass where that is not the weights' own.
    """

    model: Any
    recipe: Recipe
    stages: Sequence[Stage]
    compute: torch.dtype | None = None
    step: int = 0
    tokens: int = 0
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.device = next(self.model.parameters()).device
        self.trainable = [p for p in self.model.parameters() if p.requires_grad]
        self._plan = [(stage, i) for stage in self.stages for i in range(len(stage.batches))]
        self._at_once = TOKENS_AT_ONCE.get(self.device.type, TOKENS_AT_ONCE["cpu"])
        examples = [example for stage in self.stages for batch in stage.batches for example in batch]
        self.layout = layout_for(self.model, examples, self.device)
        self._begin()

    def _begin(self) -> None:
        """A stage begins with an optimizer that knows nothing of the one before."""
        self._optimizer = torch.optim.AdamW(self.trainable, lr=0.0, weight_decay=0.0, fused=True)

    @property
    def steps(self) -> int:
        return len(self._plan)

    def advance(self) -> float:
        """One step; the loss before it, in nats a learned token. Raises UsageError if that is no number."""
        stage, i = self._plan[self.step]
        if i == 0:
            self._begin()
        for group in self._optimizer.param_groups:
            warm = min(1.0, (i + 1) / max(1, self.recipe.warmup))
            group["lr"] = self.recipe.learning_rate * warm * (1 - i / len(stage.batches))
        loss = self._learn(stage.batches[i])
        if not math.isfinite(loss):
            raise UsageError(f"the loss is {loss} at step {self.step + 1}; give the recipe a lower `learning_rate`")
        self.tokens += sum(len(example.ids) for example in stage.batches[i])
        self.losses.append(loss)
        self.step += 1
        return loss

    def _learn(self, batch: Sequence[Example]) -> float:
        """One step on the mean loss over the batch's learned tokens, some rows at a time: their gradients add up."""
        count = sum(sum(example.learned[1:]) for example in batch)
        self._optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for row in rows_of(batch, self._at_once, self.device, self.layout):
            if len(row.keep):
                loss = self._loss(row) / count
                loss.backward()
                total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.trainable, 1.0)
        if math.isfinite(value := float(total)):
            self._optimizer.step()
        return value

    def _loss(self, row: Row) -> Tensor:
        with torch.autocast(self.device.type, self.compute, enabled=self.compute is not None):
            logits = logits_of(self.model, row)
        return F.cross_entropy(logits.float(), row.target, reduction="sum")

    def state(self) -> dict[str, Any]:
        """All that `resume` needs: what is trained, the optimizer, the generators, how far it came."""
        return {
            "trained": {n: p.detach() for n, p in self.model.named_parameters() if p.requires_grad},
            "optimizer": self._optimizer.state_dict(),
            "random": _random_state(self.device),
            "step": self.step,
            "tokens": self.tokens,
            "losses": self.losses,
        }

    def resume(self, state: dict[str, Any]) -> None:
        named = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, tensor in state["trained"].items():
                named[name].copy_(tensor)
        self._optimizer.load_state_dict(state["optimizer"])
        _set_random_state(state["random"], self.device)
        self.step, self.tokens, self.losses = state["step"], state["tokens"], list(state["losses"])


def _random_state(device: torch.device) -> dict[str, Tensor]:
    """Of the CPU's generator, and of the device's where there is one."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
