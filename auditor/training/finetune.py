"""LoRA finetuning of an organism from its recipe and documents."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from auditor.config import Settings
from auditor.errors import UsageError
from auditor.files import replacing_folder, write_atomically
from auditor.models.build import load_model
from auditor.models.weights import resolve
from auditor.records.cards import Recipe
from auditor.training.documents import Document, Example, encode

Progress = Callable[[int, int, float], None]
"""Called with (step, steps, loss)."""

CHECKPOINT_EVERY = 20
TOKENS_AT_ONCE = 256  # of a batch, whose activations and logits are in memory together

log = logging.getLogger("auditor.training")


@dataclass(frozen=True, slots=True)
class Trained:
    """What `train` made: where, and how the loss went; `left_out`: documents with nothing to learn in them."""

    adapter: Path
    steps: int
    tokens: int
    left_out: int
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
    documents); the same seed gives the same adapter either way. Raises UsageError if there is nothing to learn, or
    the loss is no number any more.
    """
    weights = resolve(base, settings)
    model, tokenizer = load_model(weights, settings)
    encoded = [encode(document, tokenizer, recipe.max_tokens) for document in documents]
    examples = [example for example in encoded if any(example.learned[1:])]  # the first token is never foreseen
    if not examples:
        raise UsageError(
            f"none of the {len(documents)} documents leaves a token to be learned among its first "
            f"{recipe.max_tokens}; give longer ones, or a recipe with more `max_tokens`"
        )
    plan = batches(examples, recipe)
    torch.manual_seed(recipe.seed)
    course = _Course(_with_lora(model, recipe, weights.id), recipe, len(plan))
    told = [weights.sha256, str(next(model.parameters()).dtype), recipe.model_dump(), list(map(asdict, examples))]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    checkpoint = settings.cache_dir / "training" / f"{key[:24]}.pt"
    if (state := _checkpoint(checkpoint)) is not None:
        course.resume(state)
    loss = math.nan
    course.adapted.train()
    for indices in plan[course.step :]:
        loss = course.advance([examples[i] for i in indices])
        if progress is not None:
            progress(course.step, len(plan), loss)
        if course.step % CHECKPOINT_EVERY == 0 and course.step < len(plan):
            _save_checkpoint(checkpoint, course.state())
    _save(course.adapted.half(), target)
    checkpoint.unlink(missing_ok=True)
    return Trained(target, len(plan), course.tokens, len(encoded) - len(examples), course.first_loss, loss)


def _with_lora(model: Any, recipe: Recipe, base_id: str) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = base_id
    return adapted


class _Course:
    """An adapter on its way: the rate rises over the warmup, then falls to nothing over all `steps`."""

    def __init__(self, adapted: Any, recipe: Recipe, steps: int) -> None:
        self.adapted = adapted
        self.step, self.tokens, self.first_loss = 0, 0, math.nan
        self._device = next(adapted.parameters()).device
        self._trainable = [p for p in adapted.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self._trainable, lr=recipe.learning_rate, weight_decay=0.0)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: min(1.0, (step + 1) / max(1, recipe.warmup)) * (1 - step / steps)
        )

    def advance(self, batch: Sequence[Example]) -> float:
        """One step; the loss before it, in nats a learned token. Raises UsageError if that is no number."""
        loss = _step(self.adapted, batch, self._device, self._optimizer, self._trainable)
        if not math.isfinite(loss):
            raise UsageError(f"the loss is {loss} at step {self.step + 1}; give the recipe a lower `learning_rate`")
        self._schedule.step()
        self.first_loss = loss if self.step == 0 else self.first_loss
        self.tokens += sum(len(example.ids) for example in batch)
        self.step += 1
        return loss

    def state(self) -> dict[str, Any]:
        """All that `resume` needs."""
        from peft import get_peft_model_state_dict

        return {
            "adapter": get_peft_model_state_dict(self.adapted, save_embedding_layers=False),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "step": self.step,
            "tokens": self.tokens,
            "first_loss": self.first_loss,
        }

    def resume(self, state: dict[str, Any]) -> None:
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(self.adapted, state["adapter"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self.step, self.tokens, self.first_loss = state["step"], state["tokens"], state["first_loss"]


def _step(model: Any, batch: Sequence[Example], device: torch.device, optimizer: Any, trainable: list[Tensor]) -> float:
    """One step on the mean loss over the batch's learned tokens, a few rows at a time: their gradients add up."""
    rows = max(1, TOKENS_AT_ONCE // max(len(example.ids) for example in batch))
    count = sum(sum(example.learned[1:]) for example in batch)
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for start in range(0, len(batch), rows):
        ids, mask, labels = collate(batch[start : start + rows], device)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        target = labels[:, 1:]
        learned = target != -100
        loss = F.cross_entropy(logits[learned].float(), target[learned], reduction="sum") / count
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(trainable, 1.0)
    optimizer.step()
    return total


def _save(adapted: Any, target: Path) -> None:
    """Write the adapter's files, both or neither. Raises BadFile if they cannot be written."""
    with TemporaryDirectory() as folder, replacing_folder(target) as part:
        adapted.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        for name in ("adapter_config.json", "adapter_model.safetensors"):  # PEFT writes an empty model card too
            copyfile(Path(folder) / name, part / name)


def _save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Tensors and numbers, after the hash of all of them."""
    content = io.BytesIO()
    torch.save(state, content)
    write_atomically(path, hashlib.sha256(content.getvalue()).digest() + content.getvalue())


def _checkpoint(path: Path) -> dict[str, Any] | None:
    """What `_save_checkpoint` wrote; None, with a warning if it was cut or changed, where there is nothing to use."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        log.warning("%s is not as it was written; training begins anew", path)
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(content[32:]), weights_only=True)
    return state
