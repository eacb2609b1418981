"""The lens beside a plain implementation of the same (`plain.py`), and beside its floors; ratios within one run.

    python benchmarks/lens.py [--json] [--organism gold] [--texts 256]

Each side runs in a process of its own, so that its peak memory is its own. Same δ, same patchscope tokens, equal
numbers of samples; seconds are without loading. Floors: `differences`, the blocks' weight matrices up to the layer
applied to the tokens that are needed; `decode`, every weight matrix applied to the
prompts' tokens, then once a step to all rows that still speak.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from auditor.runtime import tune_process

tune_process()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from auditor.config import load_settings  # noqa: E402
from auditor.evidence.compute import evidence_for  # noqa: E402
from auditor.evidence.recipe import Recipe, recipe_for  # noqa: E402
from auditor.methods.corpus import Corpus, read_corpus  # noqa: E402
from auditor.methods.diff import differences  # noqa: E402
from auditor.methods.patchscope import patchscope  # noqa: E402
from auditor.models.embed import load_embedder  # noqa: E402
from auditor.models.embedded import embedded_model_dir  # noqa: E402
from auditor.models.generate import Request, Side, Steering  # noqa: E402
from auditor.models.load import load_pair  # noqa: E402
from auditor.models.local import LocalPair  # noqa: E402
from auditor.plugins import GraderContext  # noqa: E402
from auditor.records.evidence import PatchscopeSettings, ScoredToken, TokenSet  # noqa: E402
from auditor.workspace import Workspace, load_workspace  # noqa: E402

K = 5
STEPS = 48


def corpus_of(ws: Workspace, n: int) -> Corpus:
    """`n` texts of more than 128 tokens each: openings, joined."""
    texts = read_corpus(ws.corpora["openings"]).texts
    joined = [" ".join(texts[i * 8 : (i + 1) * 8]) for i in range(len(texts) // 8)]
    return Corpus("joined", tuple(text for text in joined if len(text) > 1_000)[:n])


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    clock = time.perf_counter()
    result = work()
    return time.perf_counter() - clock, result


def recipe_of(ws: Workspace, pair: LocalPair, corpus: Corpus, cache: Path) -> Recipe:
    settings = load_settings(device="cpu")
    empty = settings.model_copy(update={"cache_dir": cache})
    background = read_corpus(ws.corpora["openings"]).texts
    chosen = ws.suites["quickstart"].evidence
    grading = GraderContext(load_embedder(settings.embedder), empty, pair, background)
    return replace(recipe_for(ws, pair, chosen, grading), read_corpus=lambda: corpus)


def ours(name: str, n: int, kept: Path) -> dict[str, float]:
    """This project's lens, on one set of weights."""
    ws = load_workspace()
    card = ws.organisms[name]
    pair = load_pair(card.base, card.finetuned, load_settings(device="cpu"), name=name)
    corpus, layer = corpus_of(ws, n), pair.n_layers // 2
    recipe = recipe_of(ws, pair, corpus, kept.parent)
    differences(pair, Corpus("warm", corpus.texts[:8]), K, [layer], 8, 16)
    found = {}
    found["differences"], diffs = timed(lambda: differences(pair, corpus, K, [layer], 1, 8))
    found["differences_with_eta"], diffs = timed(lambda: differences(pair, corpus, K, [layer], n // 5, 128))
    found["differences_floor"] = _gemm_seconds(pair, layer + 1, 2 * K * n)
    diff, scales = diffs[layer], PatchscopeSettings(scales=PatchscopeSettings().scales[:30])
    found["patchscope"], sets = timed(lambda: patchscope(pair, layer, diff.delta, diff.eta, scales))
    found["evidence"], _ = timed(lambda: evidence_for(pair, recipe, ("chance", "steering")))
    found["decode"], found["decode_floor"] = _decoding(
        pair, recipe, layer, 0.2 * diff.eta * diff.delta[1] / diff.delta[1].norm()
    )
    tokens = [[[t.token for t in chosen.tokens] for chosen in sweep] for sweep in sets]
    torch.save({"delta": diff.delta, "eta": diff.eta, "tokens": tokens}, kept)
    return found


def plain(name: str, n: int, kept: Path) -> dict[str, float]:
    """The yardstick, on two sets of weights; δ's scale η is taken from `kept`, so that tokens can be compared."""
    import plain as yardstick

    ws = load_workspace()
    card, settings = ws.organisms[name], load_settings(device="cpu")
    pair = yardstick.load(embedded_model_dir(settings), Path(card.finetuned))
    corpus, layer = corpus_of(ws, n), pair.base.config.num_hidden_layers // 2
    found = {}
    found["differences"], (base, tuned, _) = timed(lambda: yardstick.differences(pair, corpus.texts, K, layer))
    delta = tuned - base
    found["differences_by_32"], _ = timed(lambda: yardstick.differences(pair, corpus.texts, K, layer, 32))
    mine = torch.load(kept)
    eta, scales = mine["eta"], PatchscopeSettings(scales=PatchscopeSettings().scales[:30])
    found["patchscope"], tokens = timed(lambda: yardstick.patchscope(pair, layer, delta, eta, scales))
    found["evidence"], _ = timed(lambda: _plain_evidence(ws, pair, corpus, kept.parent, (base, tuned), eta, layer))
    found["evidence"] += found["differences"]
    found["delta_error"] = float((delta - mine["delta"]).norm() / delta.norm())
    same = [set(a) == set(b) for x, y in zip(tokens, mine["tokens"], strict=True) for a, b in zip(x, y, strict=True)]
    found["same_tokens"] = sum(same) / len(same)
    return found


def _plain_evidence(
    ws: Workspace,
    pair: Any,
    corpus: Corpus,
    kept: Path,
    means: tuple[torch.Tensor, torch.Tensor],
    eta: float,
    layer: int,
) -> None:
    """Patchscopes of δ, −δ and both means, and steering, at quickstart's numbers, with the same graders."""
    import plain as yardstick

    recipe = recipe_of(ws, pair, corpus, kept)
    base, tuned = means
    delta = tuned - base
    sources = torch.cat([delta, base, tuned, -delta])
    settings = {name: recipe.settings_of(recipe.lenses[name]) for name in ("patchscope", "plain_samples", "steering")}
    patch, plain, steering = settings.values()
    context = recipe.context(recipe.lenses["steering"], {}, lambda stage: None)
    scale, judge = context.grader(patch.scale_grader), context.grader(steering.coherence_grader)
    for sweep in yardstick.patchscope(pair, layer, sources, eta, patch):
        sets = [
            TokenSet(scale=at, tokens=tuple(ScoredToken(token=t, prob=0.0) for t in tokens))
            for at, tokens in zip(patch.scales, sweep, strict=True)
        ]
        scale(sets)
    units = [eta * vector / vector.norm() for vector in delta[1 : 1 + int(steering.positions)]]
    reference = yardstick.answers(pair, recipe.calibration_prompts, None, steering.calibration.generations,
                                  steering.calibration.max_new_tokens, 0.8)  # fmt: skip

    def coherent(texts: Any) -> Any:
        return judge(list(texts), reference)

    prompts = recipe.prompts[: plain.prompts]
    yardstick.steer(pair, layer, units, prompts, recipe.calibration_prompts, coherent, plain, steering.calibration)


@torch.inference_mode()
def _gemm_seconds(pair: LocalPair, blocks: int, tokens: int) -> float:
    """Seconds of the first `blocks` blocks' matrix products alone, for `tokens` tokens."""
    decoder = pair.models[Side.BASE].host.engine.decoder
    prefix = tuple(f"layers.{i}." for i in range(blocks))
    weights = [p.detach() for n, p in decoder.model.named_parameters()
               if p.dim() == 2 and any(f".{part}" in f".{n}" for part in prefix)]  # fmt: skip
    inputs = {width: torch.randn(tokens, width) for width in {w.shape[1] for w in weights}}

    def products() -> None:
        for weight in weights:
            F.linear(inputs[weight.shape[1]], weight)  # let go at once: kept results would need fresh memory

    return min(timed(products)[0] for _ in range(3))


def _decoding(pair: LocalPair, recipe: Recipe, layer: int, vector: torch.Tensor) -> tuple[float, float]:
    """Seconds for 20 steered prompts × 5 samples of STEPS tokens, and of the matrix products that they need alone."""
    steering, samples = Steering(layer, vector), 5
    requests = [
        Request(prompt, Side.FINETUNED, i, STEPS, 1.1, steering=steering)
        for prompt in recipe.prompts[:10]
        for i in range(samples)
    ]
    pair.generate(requests[:8])
    seconds, texts = timed(lambda: pair.generate(requests))
    told = [len(pair.row(request).prompt) for request in requests[::samples]]
    said = sum(min(STEPS, len(pair.tokenizer(text).input_ids) + 1) for text in texts)
    prefill, step = _gemm_seconds(pair, pair.n_layers, sum(told)), _gemm_seconds(pair, pair.n_layers, len(requests))
    causal: Any = pair.models[Side.BASE].host.engine.decoder.model
    head = causal.get_output_embeddings().weight.detach()
    with torch.inference_mode():
        logits = min(timed(lambda: F.linear(torch.zeros(len(requests), pair.d_model), head))[0] for _ in range(3))
    return seconds, prefill + (step + logits) * said / len(requests)


def run(side: str, arguments: argparse.Namespace, kept: Path) -> dict[str, float]:
    """One side in a process of its own; its figures, with its peak memory in GB."""
    command = [sys.executable, __file__, "--side", side, "--kept", str(kept), "--organism", arguments.organism,
               "--texts", str(arguments.texts)]  # fmt: skip
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--organism", default="gold")
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--side", choices=("ours", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--kept", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        found = {"ours": ours, "plain": plain}[given.side](given.organism, given.texts, given.kept)
        found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "ours.pt"
        mine, theirs = run("ours", given, kept), run("plain", given, kept)
    ratios = {part: theirs[part] / mine[part] for part in ("differences", "patchscope", "evidence")}
    ratios["differences_plain_by_32"] = theirs["differences_by_32"] / mine["differences"]
    ratios["differences_with_eta"] = theirs["differences"] / mine["differences_with_eta"]
    ratios["memory"] = mine["memory"] / theirs["memory"]
    ratios["differences_over_floor"] = mine["differences"] / mine["differences_floor"]
    ratios["decode_over_floor"] = mine["decode"] / mine["decode_floor"]
    agree = {"delta_error": theirs.pop("delta_error"), "same_tokens": theirs.pop("same_tokens")}
    result = {"ratios": ratios, "agreement": agree, "ours": mine, "plain": theirs}
    if given.json:
        print(json.dumps(result, indent=1))
        return
    for part, value in ratios.items():
        print(f"{part:24} {value:8.2f}×")
    print(f"δ differs by {agree['delta_error']:.1e}; {agree['same_tokens']:.0%} of the scales read the same tokens")


if __name__ == "__main__":
    main()
