"""The lens on a GPU, in one go, on random weights of a real architecture (nothing is downloaded).

    python benchmarks/gpu.py [--model llama-3.1-8b|qwen3-32b] [--texts 10000] [--json]
    python benchmarks/gpu.py --model tiny --device cpu    # does it run at all?

Differences as a share of the measured GEMM rate, the patchscope sweep in seconds, steered beside unsteered decoding
and both beside the bytes that a step must read, bfloat16 beside float32, and memory.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

from auditor.runtime import tune_process

tune_process()

import torch  # noqa: E402
import transformers  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402

from auditor.methods.corpus import Corpus, read_corpus  # noqa: E402
from auditor.methods.diff import differences  # noqa: E402
from auditor.methods.patchscope import patchscope  # noqa: E402
from auditor.models.adapters import Adapter  # noqa: E402
from auditor.models.arch import decoder_of  # noqa: E402
from auditor.models.engine import HookEngine  # noqa: E402
from auditor.models.generate import Request, Side, Steering  # noqa: E402
from auditor.models.host import Host, Variant  # noqa: E402
from auditor.models.local import LocalPair  # noqa: E402
from auditor.models.worker import Worker  # noqa: E402
from auditor.records.evidence import PatchscopeSettings  # noqa: E402
from auditor.workspace import load_workspace  # noqa: E402

K, ROWS, STEPS, RANK = 5, 64, 64, 16
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-3.1-8b": (
        "llama",
        {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
         "intermediate_size": 14336, "vocab_size": 128256, "tie_word_embeddings": False},
    ),
    "qwen3-32b": (
        "qwen3",
        {"hidden_size": 5120, "num_hidden_layers": 64, "num_attention_heads": 64, "num_key_value_heads": 8,
         "head_dim": 128, "intermediate_size": 25600, "vocab_size": 151936, "tie_word_embeddings": False},
    ),
    "tiny": (
        "llama",
        {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
         "intermediate_size": 128, "vocab_size": 4096},
    ),
}  # fmt: skip


def tokenizer_of(texts: tuple[str, ...]) -> Any:
    """A byte-level BPE of 4,096 tokens, trained on the corpus."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=4096, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|end|>")


def pair_of(name: str, device: str, dtype: torch.dtype, tokenizer: Any) -> LocalPair:
    """Random weights with a random adapter: the same for the same dtype and seed."""
    kind, shape = SHAPES[name]
    config = transformers.AutoConfig.for_model(kind, **shape, eos_token_id=None, bos_token_id=None)
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
        shapes = {n: m.weight.shape for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
        del shapes["lm_head"]
        matrices = {
            name: (torch.randn(RANK, d_in) / d_in**0.5, torch.randn(d_out, RANK) / d_out**0.5)
            for name, (d_out, d_in) in shapes.items()
        }
    host = Host(HookEngine(decoder_of(model)), tokenizer, Worker())
    host.bank.add("random", Adapter(matrices, RANK))
    models = {Side.BASE: Variant(host), Side.FINETUNED: Variant(host, "random")}
    return LocalPair(name=name, fingerprint=name, tokenizer=tokenizer, models=models)


class Clock:
    """Seconds of work on a device, once it has really been done."""

    def __init__(self, device: str) -> None:
        self.wait: Callable[[], None] = torch.cuda.synchronize if device.startswith("cuda") else lambda: None

    def __call__(self, work: Callable[[], Any]) -> tuple[float, Any]:
        self.wait()
        start = time.perf_counter()
        result = work()
        self.wait()
        return time.perf_counter() - start, result


@torch.inference_mode()
def ceilings(device: str, dtype: torch.dtype, clock: Clock) -> tuple[float, float]:
    """FLOP/s of a large matrix product, bytes/s of a large copy."""
    n = 8192 if device.startswith("cuda") else 1024
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    a @ b
    product = min(clock(lambda: a @ b)[0] for _ in range(5))
    copy = min(clock(a.clone)[0] for _ in range(5))
    return 2 * n**3 / product, 2 * a.numel() * a.element_size() / copy


def weights_of(pair: LocalPair, blocks: int) -> int:
    """Numbers of the base's matrices in the first `blocks` blocks."""
    decoder = pair.models[Side.BASE].host.engine.decoder
    named = [item for block in list(decoder.blocks)[:blocks] for item in block.named_parameters()]
    return sum(p.numel() for n, p in named if p.dim() == 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, default="llama-3.1-8b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--exact", type=int, default=256, help="texts for bfloat16 beside float32; 0: leave it out")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = measure(given.model, given.device, given.texts, given.exact)
    print(json.dumps(found, indent=1) if given.json else "\n".join(f"{k:32} {v:10.3g}" for k, v in found.items()))


def measure(model: str, device: str, n: int, exact: int) -> dict[str, float]:
    texts = read_corpus(load_workspace().corpora["openings"]).texts
    corpus = Corpus("openings", tuple(texts[i % len(texts)] for i in range(n)))
    tokenizer, clock, dtype = tokenizer_of(texts), Clock(device), torch.bfloat16
    pair = pair_of(model, device, dtype, tokenizer)
    layer = pair.n_layers // 2
    rate, bandwidth = ceilings(device, dtype, clock)
    found = {"gemm_tflops": rate / 1e12, "copy_gb_per_s": bandwidth / 1e9}

    differences(pair, Corpus("warm", corpus.texts[:64]), K, [layer], 4, 16)
    seconds, diffs = clock(lambda: differences(pair, corpus, K, [layer], norm_texts=1, norm_tokens=8))
    flops = 2 * 2 * K * n * weights_of(pair, layer + 1)
    found |= {"differences_s": seconds, "differences_share_of_gemm": flops / seconds / rate}
    found["eta_s"] = clock(lambda: differences(pair, Corpus("eta", corpus.texts[:K]), 1, [layer], 2_000, 128))[0]

    delta, settings = diffs[layer].delta, PatchscopeSettings()
    patchscope(pair, layer, delta[:1], 1.0, settings)
    found["patchscope_s"] = clock(lambda: patchscope(pair, layer, delta, diffs[layer].eta, settings))[0]

    asked = [Request(f"Tell me about the number {i}.", Side.FINETUNED, i, STEPS, 1.1) for i in range(ROWS)]
    push = Steering(layer, 0.1 * diffs[layer].eta * delta[1] / delta[1].norm())
    steered = [Request(r.prompt, r.side, r.seed, STEPS, 1.1, steering=push) for r in asked]
    pair.generate(asked[:2])
    plain_s, steered_s = (min(clock(lambda r=rows: pair.generate(r))[0] for _ in range(2)) for rows in (asked, steered))
    head = pair.models[Side.BASE].host.engine.decoder.model.get_output_embeddings().weight
    read = (weights_of(pair, pair.n_layers) + head.numel()) * head.element_size()
    found |= {
        "decode_plain_ms_per_step": 1e3 * plain_s / STEPS,
        "decode_steered_ms_per_step": 1e3 * steered_s / STEPS,
        "steered_over_unsteered": steered_s / plain_s,
        "decode_over_bytes_floor": steered_s / STEPS / (read / bandwidth),
    }
    if device.startswith("cuda"):
        found["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
    if exact:
        found["bf16_delta_error"] = rounding(pair, corpus, layer, exact)
    return found


def rounding(pair: LocalPair, corpus: Corpus, layer: int, n: int) -> float:
    """‖δ_bf16 − δ_fp32‖ / ‖δ_fp32‖ of the same weights; they are turned into float32 in place, so this comes last."""
    few = Corpus("few", corpus.texts[:n])
    rounded = differences(pair, few, K, [layer], norm_texts=1, norm_tokens=8)[layer].delta
    host = pair.models[Side.BASE].host
    host.engine.decoder.model.float()
    for held in host.bank._layers.values():
        held.down, held.up = held.down.float(), held.up.float()
    plain = differences(pair, few, K, [layer], norm_texts=1, norm_tokens=8)[layer].delta
    return float((rounded - plain).norm() / plain.norm())


if __name__ == "__main__":
    main()
