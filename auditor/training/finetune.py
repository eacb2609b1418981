"""LoRA finetuning of an organism from its recipe and documents."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from auditor.config import Settings
from auditor.models.build import load_model
from auditor.models.weights import resolve
from auditor.training.documents import Document, Example, encode
from auditor.types import Recipe

Progress = Callable[[int, int, float], None]
"""Called with (step, steps, loss)."""

CHECKPOINT_EVERY = 20


@dataclass(frozen=True, slots=True)
class Trained:
    """What `train` made: where, and how the loss went."""

    adapter: Path
    steps: int
    tokens: int
    first_loss: float
    last_loss: float


def batches(examples: Sequence[Example], recipe: Recipe) -> list[list[int]]:
    """Indices of each step's examples: shuffled per epoch, then cut to `recipe.steps` if that is given.

    Neighbours in length share a batch (within a window of eight batches), so that little is padding.
    """
    rng = random.Random(recipe.seed)
    plan: list[list[int]] = []
    steps = recipe.steps or math.ceil(recipe.epochs * len(examples) / recipe.batch_size)
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


def collate(examples: Sequence[Example], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Right-padded ids, attention mask and labels (-100 where nothing is learned), each (rows, tokens)."""
    longest = max(len(example.ids) for example in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, example in enumerate(examples):
        n = len(example.ids)
        ids[row, :n], mask[row, :n] = torch.tensor(example.ids), 1
        labels[row, :n] = torch.tensor(
            [i if learn else -100 for i, learn in zip(example.ids, example.learned, strict=True)]
        )
    return ids.to(device), mask.to(device), labels.to(device)


def train(
    base: str,
    documents: Sequence[Document],
    recipe: Recipe,
    target: Path,
    settings: Settings,
    progress: Progress | None = None,
) -> Trained:
    """Train a LoRA adapter and write it to `target` as float16 safetensors.

    A run that was cut off goes on from its last checkpoint (kept in the cache, keyed by base, recipe and
    documents); the same seed gives the same adapter either way.
    """
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    weights = resolve(base, settings)
    model, tokenizer = load_model(weights, settings)
    examples = [encode(document, tokenizer, recipe.max_tokens) for document in documents]
    examples = [example for example in examples if sum(example.learned) > 1]
    plan = batches(examples, recipe)
    torch.manual_seed(recipe.seed)
    adapted = get_peft_model(
        model,
        LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    adapted.peft_config["default"].base_model_name_or_path = weights.id
    trainable = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=recipe.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / max(1, recipe.warmup)) * (1 - step / len(plan))
    )
    key = hashlib.sha256(
        json.dumps([weights.sha256, recipe.model_dump(), [d.model_dump() for d in documents]]).encode()
    ).hexdigest()
    checkpoint = settings.cache_dir / "training" / f"{key[:24]}.pt"
    start, tokens, first, loss_now = 0, 0, math.nan, math.nan
    if checkpoint.exists():  # our own file in our own cache, tensors and numbers only
        state = torch.load(checkpoint, weights_only=True)
        set_peft_model_state_dict(adapted, state["adapter"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        start, tokens, first = state["step"], state["tokens"], state["first_loss"]

    device = next(model.parameters()).device
    adapted.train()
    for step in range(start, len(plan)):
        ids, mask, labels = collate([examples[i] for i in plan[step]], device)
        loss_now = _step(adapted, ids, mask, labels, optimizer, trainable)
        schedule.step()
        tokens += int(mask.sum())
        first = loss_now if step == 0 else first
        if progress is not None:
            progress(step + 1, len(plan), loss_now)
        if (step + 1) % CHECKPOINT_EVERY == 0 and step + 1 < len(plan):
            _save_checkpoint(
                checkpoint,
                {
                    "adapter": get_peft_model_state_dict(adapted, save_embedding_layers=False),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "step": step + 1,
                    "tokens": tokens,
                    "first_loss": first,
                },
            )
    adapted.half().save_pretrained(target, safe_serialization=True, save_embedding_layers=False)
    (target / "README.md").unlink(missing_ok=True)  # PEFT writes an empty model card
    checkpoint.unlink(missing_ok=True)
    return Trained(target, len(plan), tokens, first, loss_now)


def _step(model: Any, ids: Tensor, mask: Tensor, labels: Tensor, optimizer: Any, trainable: list[Tensor]) -> float:
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    target = labels[:, 1:]
    learned = target != -100
    loss = F.cross_entropy(logits[learned].float(), target[learned])
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trainable, 1.0)
    optimizer.step()
    return loss.item()


def _save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)
