"""Which documents a step learns from, and how they lie in rows: packed behind each other where the model allows it."""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from auditor.records.cards import Recipe
from auditor.training.documents import Example

TRIED = 16  # tokens of each of the two documents by which packing is tried
TOLERATED = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.3}  # of the logits' spread


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids (rows, tokens), what else the model is given, and of the flat tokens which foretell what.

    Token `keep[i]` of the flattened rows is followed by `target[i]`, which is learned.
    """

    inputs: dict[str, Tensor]
    keep: Tensor
    target: Tensor


def batches(examples: Sequence[Example], recipe: Recipe, epochs: float, steps: int | None) -> list[list[int]]:
    """Indices of each step's examples: shuffled per epoch, then cut to `steps` if that is given.

    Neighbours in length share a batch (within a window of eight batches), so that rows are of one length.
    """
    rng = random.Random(recipe.seed)
    plan: list[list[int]] = []
    steps = steps or math.ceil(epochs * len(examples) / recipe.batch_size)
    while len(plan) < steps:
        order = list(range(len(examples)))
        rng.shuffle(order)
        window = 8 * recipe.batch_size
        epoch = []
        for start in range(0, len(order), window):
            near = sorted(order[start : start + window], key=lambda i: len(examples[i].ids))
            epoch += [near[i : i + recipe.batch_size] for i in range(0, len(near), recipe.batch_size)]
        rng.shuffle(epoch)
        plan += epoch
    return plan[:steps]


def rows_of(batch: Sequence[Example], tokens: int, device: torch.device, *, packed: bool) -> Iterator[Row]:
    """A batch in rows of up to `tokens` tokens (one document at least): what is in memory together."""
    held: list[Example] = []
    for example in batch:
        several = [*held, example]
        size = sum(len(e.ids) for e in several) if packed else len(several) * max(len(e.ids) for e in several)
        if held and size > tokens:
            yield _row(held, device, packed=packed)
            several = [example]
        held = several
    yield _row(held, device, packed=packed)


def _row(examples: Sequence[Example], device: torch.device, *, packed: bool) -> Row:
    """Behind each other in one row, each counting its positions from 0; or below each other, padded on the right."""
    lengths = [len(example.ids) for example in examples]
    width = sum(lengths) if packed else max(lengths)
    ids = torch.zeros(1 if packed else len(examples), width, dtype=torch.long)
    places, mask, flat = torch.zeros_like(ids), torch.zeros_like(ids), ids.view(-1)
    keep, target, start = [], [], 0
    for example, length in zip(examples, lengths, strict=True):
        flat[start : start + length] = torch.tensor(example.ids)
        places.view(-1)[start : start + length] = torch.arange(length)
        mask.view(-1)[start : start + length] = 1
        keep += [start + i - 1 for i in range(1, length) if example.learned[i]]
        target += [example.ids[i] for i in range(1, length) if example.learned[i]]
        start += length if packed else width
    given = {"input_ids": ids, "position_ids": places} if packed else {"input_ids": ids, "attention_mask": mask}
    inputs = {name: tensor.to(device) for name, tensor in given.items()}
    return Row(inputs, torch.tensor(keep, device=device), torch.tensor(target, device=device))


def logits_of(model: Any, row: Row) -> Tensor:
    """Logits of the tokens that foretell what is learned, (learned, vocab); of no others where the model can."""
    given = {**row.inputs, "use_cache": False}
    if len(row.inputs["input_ids"]) == 1 and "logits_to_keep" in inspect.signature(_inner(model).forward).parameters:
        return torch.as_tensor(model(**given, logits_to_keep=row.keep).logits)[0]
    return torch.as_tensor(model(**given).logits).flatten(0, 1)[row.keep]


def _inner(model: Any) -> Any:
    """The model inside PEFT's wrapper, which takes any argument."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@torch.no_grad()
def can_pack(model: Any, examples: Sequence[Example], device: torch.device) -> bool:
    """Whether the documents of one row leave each other alone, tried on two: models that keep a state do not."""
    long = [e for e in examples if len(e.ids) >= 2][:2]
    if len(long) < 2 or "position_ids" not in inspect.signature(_inner(model).forward).parameters:
        return False
    one, two = (Example(e.ids[:TRIED], [True] * len(e.ids[:TRIED])) for e in long)
    both = logits_of(model, _row([one, two], device, packed=True)).float()
    alone = logits_of(model, _row([two], device, packed=False)).float()
    apart = (both[-len(alone) :] - alone).abs().max()
    return bool(apart <= TOLERATED[next(model.parameters()).dtype] * alone.std())
