"""The lens as one would write it down first, with transformers alone: the yardstick of `lens.py`.

Both models are loaded whole, every text runs through all blocks of both, the patchscope's prompt runs whole for each
position, scale and triple, strengths are tried one after another, and plain answers are sampled again for each
position. Slow on purpose; the results are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from auditor.methods.patchscope import TRIPLES, identity_prompt
from auditor.methods.said import PlainSettings
from auditor.records.evidence import CalibrationSettings, PatchscopeSettings

BATCH = 32  # answers
TEXTS = 8  # texts in one forward pass, as in the trial that set the target (method.md, section 11)
TOKENS = 128  # of each text


@dataclass
class Plain:
    """Two whole models and their tokenizer."""

    base: Any
    finetuned: Any
    tokenizer: Any
    name: str = "plain"
    fingerprint: str = "plain"
    has_base: bool = True
    base_sources: tuple[str, ...] = ()
    dtype: str = "torch.float32"
    note: str = ""

    @property
    def n_layers(self) -> int:
        return int(self.base.config.num_hidden_layers)

    @property
    def d_model(self) -> int:
        return int(self.base.config.hidden_size)

    @torch.no_grad()
    def mean_nll(self, side: str, texts: Sequence[str]) -> list[float]:
        """What the coherence grader asks of a pair: mean negative log-likelihood per token, text by text."""
        model = self.base if side == "base" else self.finetuned
        encoded = [self.tokenizer(text, truncation=True, max_length=256, return_tensors="pt") for text in texts]
        return [
            float(model(**ids, labels=ids.input_ids).loss) if ids.input_ids.shape[1] > 1 else float("inf")
            for ids in encoded
        ]


def load(base: Path, adapter: Path) -> Plain:
    """The base, and a second copy of it with the adapter merged in."""
    from peft import PeftModel

    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    models = [AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval() for _ in range(2)]
    merged = PeftModel.from_pretrained(models[1], adapter).merge_and_unload().eval()
    return Plain(models[0], merged, tokenizer)


@torch.no_grad()
def differences(
    pair: Plain, texts: Sequence[str], k: int, layer: int, batch_size: int = TEXTS
) -> tuple[Tensor, Tensor, float]:
    """Both models' mean activations (k, d_model) after block `layer`, and η: all hidden states, kept to the end."""
    base, finetuned, norms = [], [], []
    for start in range(0, len(texts), batch_size):
        batch = pair.tokenizer(
            list(texts[start : start + batch_size]), truncation=True, max_length=TOKENS, return_tensors="pt"
        )
        base.append(pair.base(**batch, output_hidden_states=True).hidden_states[layer + 1])
        finetuned.append(pair.finetuned(**batch, output_hidden_states=True).hidden_states[layer + 1])
        norms.append(finetuned[-1][:, 3:].norm(dim=-1))
    means = (torch.cat(states)[:, :k].mean(0) for states in (base, finetuned))
    return *means, float(torch.cat(norms).mean())


@torch.no_grad()
def patchscope(
    pair: Plain, layer: int, directions: Tensor, eta: float, settings: PatchscopeSettings
) -> list[list[list[str]]]:
    """The likeliest tokens at each scale: [direction][scale][rank]."""
    found = []
    for direction in directions:
        by_scale = []
        for scale in settings.scales:
            probs, common = [], None
            for words in TRIPLES:
                ids = pair.tokenizer(identity_prompt(words), return_tensors="pt").input_ids
                patch = eta * scale * direction / direction.norm()
                with _edited(pair.finetuned, layer, lambda h, p=patch: torch.cat([h[:, :-1], p[None, None]], 1)):
                    probs.append(torch.softmax(pair.finetuned(ids).logits[0, -1], -1))
                seen = torch.zeros_like(probs[-1], dtype=torch.bool)
                seen[probs[-1].topk(min(settings.common_top, len(seen))).indices] = True
                common = seen if common is None else common & seen
            mean = torch.where(common, sum(probs) / len(TRIPLES), 0.0)
            by_scale.append([pair.tokenizer.decode([i]) for i in mean.topk(settings.keep).indices.tolist()])
        found.append(by_scale)
    return found


@torch.no_grad()
def answers(
    pair: Plain, prompts: Sequence[str], steering: tuple[int, Tensor] | None, samples: int, new: int, temperature: float
) -> list[str]:
    """`samples` answers of the finetuned model to each prompt, in batches of 32."""
    texts = []
    asked = [
        pair.tokenizer.apply_chat_template([{"role": "user", "content": p}], tokenize=False, add_generation_prompt=True)
        for p in prompts
        for _ in range(samples)
    ]
    for start in range(0, len(asked), BATCH):
        batch = pair.tokenizer(asked[start : start + BATCH], return_tensors="pt", padding=True)
        layer, vector = steering or (0, torch.zeros(pair.finetuned.config.hidden_size))
        with _edited(pair.finetuned, layer, lambda h, v=vector: h + v):
            out = pair.finetuned.generate(
                **batch, do_sample=True, temperature=temperature, top_k=0, max_new_tokens=new,
                pad_token_id=pair.tokenizer.pad_token_id,
            )  # fmt: skip
        texts += pair.tokenizer.batch_decode(out[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
    return texts


def calibrate(
    pair: Plain, layer: int, unit: Tensor, prompts: Sequence[str], coherent: Callable[[Sequence[str]], Sequence[bool]],
    settings: CalibrationSettings,
) -> float:  # fmt: skip
    """The mean of the largest coherent strengths, one bisection after another. `unit`: (d_model,) of norm η."""
    found: list[float] = []
    for i, prompt in enumerate(prompts):
        low, high = 0.0, settings.upper if i == 0 else 2 * found[0]
        for _ in range(settings.iterations if i == 0 else settings.more_iterations):
            middle = (low + high) / 2
            texts = answers(pair, [prompt], (layer, middle * unit), settings.generations,
                            settings.max_new_tokens, settings.temperature)  # fmt: skip
            share = sum(coherent(texts)) / len(texts)
            low, high = (middle, high) if share >= settings.coherent_share else (low, middle)
        found.append(low)
    return sum(found) / len(found)


def steer(
    pair: Plain, layer: int, units: Sequence[Tensor], prompts: Sequence[str], calibration_prompts: Sequence[str],
    coherent: Callable[[Sequence[str]], Sequence[bool]], settings: PlainSettings, search: CalibrationSettings,
) -> list[tuple[float, list[str], list[str]]]:  # fmt: skip
    """Strength, steered and plain answers, position by position."""
    out = []
    for unit in units:
        alpha = calibrate(pair, layer, unit, calibration_prompts, coherent, search)
        sampled = [
            answers(pair, prompts, steering, settings.samples, settings.max_new_tokens, settings.temperature)
            for steering in ((layer, alpha * unit), None)
        ]
        out.append((alpha, *sampled))
    return out


@contextmanager
def _edited(model: Any, layer: int, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)

    handle = model.model.layers[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
