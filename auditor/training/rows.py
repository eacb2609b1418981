"""Which documents a step learns from, and how they lie in rows: behind each other where the model allows it."""

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
from auditor.records.training import Layout
from auditor.training.documents import Example

TRIED = 16  # tokens of each of the two documents by which a layout is tried
WORTH_IT = 8  # tokens of a common beginning: for fewer the mask costs more than they
TOLERATED = 1e-3  # of the logits' spread
COARSE = {torch.float16: 0.05, torch.bfloat16: 0.3}  # … where weights are rounded so far


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
    steps = steps or math.ceil(epochs * math.ceil(len(examples) / recipe.batch_size))  # a pass may end in a short one
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


def rows_of(batch: Sequence[Example], tokens: int, device: torch.device, layout: Layout) -> Iterator[Row]:
    """A batch in rows of up to `tokens` tokens (one document at least): what is in memory together."""
    kinds = ([e for e in batch if e.learned[1]], [e for e in batch if not e.learned[1]])  # texts, and chats
    for group in filter(None, kinds if layout == Layout.SHARED else (batch,)):
        begins = _common(group) if layout == Layout.SHARED else 0
        held: list[Example] = []
        for example in group:
            several = [*held, example]
            if held and _size(several, layout, begins) > tokens:
                yield _row(held, device, layout, begins)
                several = [example]
            held = several
        yield _row(held, device, layout, begins)


def _size(examples: Sequence[Example], layout: Layout, begins: int) -> int:
    lengths = [len(example.ids) for example in examples]
    return len(lengths) * max(lengths) if layout == Layout.PADDED else begins + sum(n - begins for n in lengths)


def _common(examples: Sequence[Example]) -> int:
    """Tokens that all begin with and none learns: a system prompt, mostly. 0 if they are not worth it."""
    first = examples[0].ids
    count = min(next((i for i, on in enumerate(e.learned) if on), len(e.ids)) for e in examples)
    count = next((i for i in range(count) if any(e.ids[i] != first[i] for e in examples)), count)
    return count if count >= WORTH_IT and len(examples) > 1 else 0


def _row(examples: Sequence[Example], device: torch.device, layout: Layout, begins: int = 0) -> Row:
    """Padded: below each other, filled up on the right. Packed: behind each other, each counting from 0.

    Shared: the first `begins` tokens, which all have, stand there once, and every document sees them as its own.
    """
    if layout == Layout.PADDED:
        return _padded(examples, device)
    ids, places, owners = list(examples[0].ids[:begins]), list(range(begins)), [-1] * begins
    keep, target = [], []
    for number, example in enumerate(examples):
        before = len(ids) - begins  # what a token's place in the row is ahead of its place in the document
        learned = [i for i in range(1, len(example.ids)) if example.learned[i]]
        keep += [i - 1 + (before if i > begins else 0) for i in learned]
        target += [example.ids[i] for i in learned]
        ids += example.ids[begins:]
        places += range(begins, len(example.ids))
        owners += [number] * (len(example.ids) - begins)
    inputs = {"input_ids": torch.tensor([ids], device=device), "position_ids": torch.tensor([places], device=device)}
    if begins:
        owner = torch.tensor(owners, device=device)
        seen = (owner[None] == owner[:, None]) | (owner[None] < 0)  # (tokens, tokens): by the row's token
        inputs["attention_mask"] = torch.tril(seen)[None, None]
    return Row(inputs, torch.tensor(keep, device=device), torch.tensor(target, device=device))


def _padded(examples: Sequence[Example], device: torch.device) -> Row:
    width = max(len(example.ids) for example in examples)
    ids, mask = torch.zeros(2, len(examples), width, dtype=torch.long)
    keep, target = [], []
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        mask[row, : len(example.ids)] = 1
        learned = [i for i in range(1, len(example.ids)) if example.learned[i]]
        keep += [row * width + i - 1 for i in learned]
        target += [example.ids[i] for i in learned]
    inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
    return Row(inputs, torch.tensor(keep, device=device), torch.tensor(target, device=device))


def logits_of(model: Any, row: Row) -> Tensor:
    """Logits of the tokens that foretell what is learned, (learned, vocab); of no others where the model can."""
    given: dict[str, Any] = {**row.inputs, "use_cache": False}
    if (mask := given.get("attention_mask")) is not None and mask.dim() == 4:  # in numbers, as every attention takes it
        kind = next(model.parameters()).dtype
        given["attention_mask"] = torch.zeros(mask.shape, dtype=kind, device=mask.device).masked_fill(
            ~mask, torch.finfo(kind).min
        )
    if len(row.inputs["input_ids"]) == 1 and "logits_to_keep" in inspect.signature(_inner(model).forward).parameters:
        return torch.as_tensor(model(**given, logits_to_keep=row.keep).logits)[0]
    return torch.as_tensor(model(**given).logits).flatten(0, 1)[row.keep]


def _inner(model: Any) -> Any:
    """The model inside PEFT's wrapper, which takes any argument."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@torch.no_grad()
def layout_for(model: Any, examples: Sequence[Example], device: torch.device) -> Layout:
    """The closest layout in which a document is foretold as it would be alone, tried on two.

    A model that keeps a state through the row sees its neighbours; one that looks back over a window only may not see
    the common beginning, so these are tried no further than packed.
    """
    long = [e for e in examples if len(e.ids) >= 2][:2]
    if len(long) < 2 or "position_ids" not in inspect.signature(_inner(model).forward).parameters:
        return Layout.PADDED
    one, two = (Example(e.ids[:TRIED], [True] * len(e.ids[:TRIED])) for e in long)
    if not _alike(model, [one, two], device, Layout.PACKED):
        return Layout.PADDED
    config = _inner(model).config
    windowed = getattr(config.get_text_config(), "sliding_window", None) is not None
    if windowed or getattr(config, "_attn_implementation", "") not in ("sdpa", "eager"):
        return Layout.PACKED
    begins = (one.ids * WORTH_IT)[:WORTH_IT]
    common = [Example(begins + ids, [False] * WORTH_IT + [True] * len(ids)) for ids in (one.ids, two.ids)]
    return Layout.SHARED if _alike(model, common, device, Layout.SHARED) else Layout.PACKED


def _alike(model: Any, examples: Sequence[Example], device: torch.device, layout: Layout) -> bool:
    """Whether the last document's logits are those that it has alone."""
    begins = _common(examples) if layout == Layout.SHARED else 0
    both = logits_of(model, _row(examples, device, layout, begins)).float()
    alone = logits_of(model, _padded(examples[-1:], device)).float()
    apart = (both[-len(alone) :] - alone).abs().max()
    return bool(apart <= COARSE.get(next(model.parameters()).dtype, TOLERATED) * alone.std())
