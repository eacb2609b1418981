"""Lenses that read logits and texts, each beside its floor: the matrix products of its own forward passes alone.

    python benchmarks/lenses.py [LENS ...] [--organism gold] [--json]

Sizes are those of the goals: 256 texts × 30 tokens; 64 texts × 24 tokens along 5 vectors; 16 beginnings × 3 strengths ×
48 tokens in each framing; 256 beginnings × 40 tokens. Seconds are of the lens alone, without loading, with what it
needs read before. FLOPs are 2 × the numbers in every weight matrix × the tokens that go through it, padding and the
base's rows beside amplified ones included, LoRA and attention not; the floor is as many FLOPs at the speed of such
products over 2,048 tokens in the same run (the vocabulary's: 256). CPU seconds are of all threads: on a busy machine
their ratio is the steadier one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from auditor.runtime import tune_process

tune_process()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from auditor.audits.bench import Bench  # noqa: E402
from auditor.config import load_settings  # noqa: E402
from auditor.evidence.compute import evidence_for  # noqa: E402
from auditor.models.generate import Side  # noqa: E402
from auditor.models.load import load_pair  # noqa: E402
from auditor.models.local import LocalPair  # noqa: E402
from auditor.workspace import load_workspace  # noqa: E402

SIZES: dict[str, dict[str, Any]] = {
    "diff_mining": {"texts": 256, "chats": 0},
    "jacobian": {"texts": 64, "tokens": 24},
    "amplified": {"prefills": 16, "new_tokens": 48},
    "ppl_diff": {"prefills": 256, "new_tokens": 40, "framings": ["raw"]},
}
GOALS = {"diff_mining": 30, "jacobian": 30, "amplified": 20, "ppl_diff": 60}  # seconds, two quiet cores


def head_of(decoder: Any) -> torch.Tensor:
    """The unembedding matrix."""
    weight: torch.Tensor = decoder.model.get_output_embeddings().weight
    return weight.detach()


@dataclass
class Passes:
    """Counts the FLOPs of an engine's forward passes while it is in place."""

    engine: Any
    blocks: float = 0.0  # FLOPs in blocks, and in the unembedding
    head: float = 0.0
    sizes: list[int] = field(init=False)  # numbers in the matrices of each block
    vocabulary: int = field(init=False)

    def __post_init__(self) -> None:
        decoder = self.engine.decoder
        self.sizes = [sum(p.numel() for p in block.parameters() if p.dim() == 2) for block in decoder.blocks]
        self.vocabulary = head_of(decoder).numel()
        self.forward, self.engine.forward = self.engine.forward, self._counted

    def _counted(self, inputs: Any, **how: Any) -> Any:
        rows, tokens = inputs["input_ids"].shape
        last = max([*how.get("capture", ()), *(how.get("edits") or {})], default=-1)
        stop = how.get("stop", False)
        end = last + 1 if stop else len(self.sizes)
        self.blocks += 2.0 * rows * tokens * sum(self.sizes[how.get("start", 0) : end])
        if not stop:
            self.head += 2.0 * rows * (inputs.get("logits_to_keep") or tokens) * self.vocabulary
        return self.forward(inputs, **how)


@dataclass(frozen=True)
class Speed:
    """Of matrix products: seconds and CPU seconds a FLOP, in blocks and in the unembedding."""

    blocks: tuple[float, float]
    head: tuple[float, float]

    @classmethod
    def of(cls, pair: LocalPair) -> Speed:
        decoder = pair.models[Side.BASE].host.engine.decoder
        block = [p.detach() for p in decoder.blocks[0].parameters() if p.dim() == 2]
        return cls(_speed(block, 2_048), _speed([head_of(decoder)], 256))


@torch.inference_mode()
def _speed(weights: Sequence[torch.Tensor], tokens: int) -> tuple[float, float]:
    inputs = {weight.shape[1]: torch.randn(tokens, weight.shape[1]) for weight in weights}
    flops = 2.0 * tokens * sum(weight.numel() for weight in weights)

    def products() -> None:
        for weight in weights:
            F.linear(inputs[weight.shape[1]], weight)

    took = [timed(products)[:2] for _ in range(20)]
    return min(wall for wall, _ in took) / flops, min(cpu for _, cpu in took) / flops


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds, CPU seconds of all threads, and the result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def measured(organism: str, lenses: Sequence[str]) -> dict[str, dict[str, float]]:
    ws, conf = load_workspace(), load_settings(device="cpu")
    card = ws.organisms[organism]
    pair = load_pair(card.base, card.finetuned, conf, name=organism)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        empty = conf.model_copy(update={"cache_dir": Path(folder)})
        suite = ws.suites["quickstart"].evidence.over(SIZES)
        recipe = Bench(ws, empty).recipe(pair, suite)
        recipe = replace(recipe, nulls=())
        passes = Passes(pair.models[Side.BASE].host.engine)  # one host for both sides: the adapter is on or off
        evidence_for(pair, recipe, [need for name in lenses for need in recipe.lenses[name].needs])
        for name in lenses:
            speed = Speed.of(pair)
            passes.blocks = passes.head = 0.0
            wall, cpu, evidence = timed(partial(evidence_for, pair, recipe, [name]))
            if evidence.failed:
                raise SystemExit(f"{name}: {evidence.failed}")
            floor, floor_cpu = (
                passes.blocks * each + passes.head * other for each, other in zip(speed.blocks, speed.head, strict=True)
            )
            found[name] = {
                "seconds": wall, "cpu_seconds": cpu, "tflop": (passes.blocks + passes.head) / 1e12, "floor": floor,
                "over_floor": wall / floor, "cpu_over_floor": cpu / floor_cpu, "goal": GOALS[name],
            }  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lenses", nargs="*", default=list(SIZES), help=f"of {', '.join(SIZES)}; default: all")
    parser.add_argument("--organism", default="gold")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if unknown := [name for name in given.lenses if name not in SIZES]:
        parser.error(f"{unknown[0]} is not measured here; give of {', '.join(SIZES)}")
    found = measured(given.organism, given.lenses)
    if given.json:
        print(json.dumps(found, indent=1))
        return
    print(f"{torch.get_num_threads()} threads")
    print(f"{'lens':12} {'s':>7} {'CPU s':>7} {'TFLOP':>6} {'floor s':>8} {'× floor':>8} {'in CPU s':>9} {'goal s':>7}")
    for name, row in found.items():
        print(
            f"{name:12} {row['seconds']:7.1f} {row['cpu_seconds']:7.1f} {row['tflop']:6.2f} {row['floor']:8.1f} "
            f"{row['over_floor']:8.2f} {row['cpu_over_floor']:9.2f} {row['goal']:7.0f}"
        )


if __name__ == "__main__":
    main()
