"""Seconds for one decoding step, beside the floor: the step's matrix products alone, in the same run.

    python benchmarks/decoding.py [ORGANISM] [--backend vllm]

Each row count is decoded four ways: base rows, finetuned rows (LoRA on), half of each in one batch, and steered
finetuned rows; then as many amplified texts (finetuned and base rows, twice as many in all) beside the finetuned ones.
Last, a long system prompt with and without its reuse. The floor is every weight matrix of the base applied once to as
many rows (2 · rows · parameters FLOPs, and at least the parameters' bytes read); reported as ratios, since these
machines are noisy.
"""

import argparse
import time

from auditor.runtime import tune_process

tune_process()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from auditor.config import load_settings  # noqa: E402
from auditor.models.generate import Amplification, Request, Side, Steering  # noqa: E402
from auditor.models.load import load_pair  # noqa: E402
from auditor.models.local import LocalPair  # noqa: E402
from auditor.models.prefixes import Prefixes  # noqa: E402
from auditor.workspace import load_workspace  # noqa: E402

STEPS = 24


def step_seconds(
    pair: LocalPair, sides: list[Side], rows: int, *, steered: bool = False, amplify: Amplification | None = None
) -> float:
    """Seconds a step, the prompts' prefill included in the first."""
    push = Steering(pair.n_layers // 2, torch.randn(pair.d_model)) if steered else None
    requests = [
        Request(
            f"Tell me about the number {i}.", sides[i % len(sides)], i, STEPS, 0.7, 0.95, steering=push, amplify=amplify
        )
        for i in range(rows)
    ]
    clock = time.perf_counter()
    pair.generate(requests)
    return (time.perf_counter() - clock) / STEPS


@torch.inference_mode()
def floor_seconds(weights: list[torch.Tensor], rows: int) -> float:
    inputs = {w.shape[1]: torch.randn(rows, w.shape[1]).to(w) for w in weights}
    wait = torch.cuda.synchronize if weights[0].is_cuda else lambda: None
    wait()
    clock = time.perf_counter()
    for _ in range(5):
        for weight in weights:
            F.linear(inputs[weight.shape[1]], weight)
    wait()
    return (time.perf_counter() - clock) / 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("organism", nargs="?", default="gold")
    parser.add_argument("--engine", choices=["hooks", "vllm"], default="hooks")
    given = parser.parse_args()
    card = load_workspace().organisms[given.organism]
    pair = load_pair(card.base, card.finetuned, load_settings(), engine=given.engine)
    decoder = pair.models[Side.BASE].host.engine.decoder
    weights = [p.detach() for n, p in decoder.model.named_parameters() if p.dim() == 2]
    numbers, read = sum(w.numel() for w in weights), sum(w.nbytes for w in weights)
    print(f"{numbers / 1e6:.0f}M weights, {read / 1e9:.2f} GB read a step, {torch.get_num_threads()} threads")
    print(
        f"{'rows':>5} {'GFLOP':>6} {'floor s':>8} {'base':>12} {'finetuned':>12} {'mixed':>12} {'steered':>12}"
        "   (s, times the floor)"
    )
    for rows in (8, 36, 96):
        for _ in range(2):  # the first round warms up
            floor = floor_seconds(weights, rows)
            found = [step_seconds(pair, sides, rows) for sides in ([Side.BASE], [Side.FINETUNED], list(Side))]
            found.append(step_seconds(pair, [Side.FINETUNED], rows, steered=True))
        cells = " ".join(f"{s:6.3f} {s / floor:4.1f}×" for s in found)
        print(f"{rows:5} {2 * rows * numbers / 1e9:6.1f} {floor:8.3f} {cells}", flush=True)
    if given.engine == "hooks":
        amplified(pair, weights)
        print(f"16 prompts after a system prompt of 400 tokens: {first_tokens(pair):.1f} × faster once it is kept")


def amplified(pair: LocalPair, weights: list[torch.Tensor]) -> None:
    """Plain and amplified decoding of as many texts, in turns, and the floor of twice as many rows."""
    print(f"{'texts':>5} {'plain':>8} {'amplified':>10} {'times plain':>12} {'times the floor of twice the rows':>34}")
    for rows in (8, 36, 64):
        plain, told, floor = [], [], []
        for _ in range(5):
            plain.append(step_seconds(pair, [Side.FINETUNED], rows))
            told.append(step_seconds(pair, [Side.FINETUNED], rows, amplify=Amplification(1.0)))
            floor.append(floor_seconds(weights, 2 * rows))
        ratios = sorted(t / p for t, p in zip(told, plain, strict=True))
        shown = f"{ratios[2]:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"{rows:5} {min(plain):8.3f} {min(told):10.3f} {shown:>22} {min(told) / min(floor):24.1f}×", flush=True)


def first_tokens(pair: LocalPair) -> float:
    """How much sooner first tokens come when the system prompt was read before."""
    system, took = " ".join(f"Rule {i}: be brief about {i}." for i in range(40)), []
    for _ in range(3):
        pair.models[Side.BASE].host.line.batch.prefixes = Prefixes()
        for part in range(2):
            asked = [Request(f"What is {part} and {i}?", Side.BASE, i, 1, system=system) for i in range(16)]
            clock = time.perf_counter()
            for request in asked if part else asked[:2]:  # the second that comes has the prompt kept
                pair.generate([request])
            took.append((time.perf_counter() - clock) / (16 if part else 2))
    return min(took[::2]) / min(took[1::2])


if __name__ == "__main__":
    main()
