"""LoRA training's steps beside their floor: the matrix products that they cannot do without, in the same run.

    python benchmarks/training.py [ORGANISM] [--steps 6] [--rank 2] [--method lora|full]

The floor's rate is measured: float32 products (tokens in memory together) × (every matrix of the base). A step needs
two products forward and backward with each matrix of the blocks for each token, and with the head for each learned
token (2 FLOPs a weight; full training a third one for the weights' own gradient).
"""

import argparse
import time

from auditor.runtime import tune_process

tune_process()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from auditor.config import load_settings  # noqa: E402
from auditor.models.build import load_model  # noqa: E402
from auditor.models.weights import resolve  # noqa: E402
from auditor.records.cards import Recipe  # noqa: E402
from auditor.training.course import TOKENS_AT_ONCE, Course, Stage  # noqa: E402
from auditor.training.documents import encode, read_documents  # noqa: E402
from auditor.training.finetune import with_lora  # noqa: E402
from auditor.training.rows import batches  # noqa: E402
from auditor.workspace import load_workspace  # noqa: E402


@torch.inference_mode()
def product_rate(weights: list[torch.Tensor], rows: int) -> float:
    """FLOP/s of `rows` tokens through all matrices, the best of three."""
    inputs = {w.shape[1]: torch.randn(rows, w.shape[1]).to(w) for w in weights}
    wait = torch.cuda.synchronize if weights[0].is_cuda else lambda: None
    best = 0.0
    for _ in range(3):
        wait()
        clock = time.perf_counter()
        for weight in weights:
            F.linear(inputs[weight.shape[1]], weight)
        wait()
        best = max(best, 2 * rows * sum(w.numel() for w in weights) / (time.perf_counter() - clock))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("organism", nargs="?", default="cake_bake")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rank", type=int, default=2)
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    args = parser.parse_args()
    settings, card = load_settings(), load_workspace().organisms[args.organism]
    assert card.train is not None
    model, tokenizer = load_model(resolve(card.base, settings), settings)
    recipe = Recipe(rank=args.rank)
    documents = read_documents(card.beside(card.train.documents))[: recipe.batch_size * (args.steps + 1)]
    examples = [encode(document, tokenizer, recipe.max_tokens) for document in documents]
    plan = [[examples[i] for i in step] for step in batches(examples, recipe, 1, args.steps + 1)]
    matrices = [p.detach() for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    head = model.get_output_embeddings().weight.detach()
    blocks = [m for m in matrices if m.data_ptr() != head.data_ptr()]
    rate = product_rate([*blocks, head], TOKENS_AT_ONCE[settings.device.split(":")[0]])
    course = Course(
        model.requires_grad_() if args.method == "full" else with_lora(model, recipe, ""), recipe, [Stage("d", plan)]
    )
    course.model.train()
    course.advance()  # the first one warms up
    before, clock = course.tokens, time.perf_counter()
    while course.step < course.steps:
        course.advance()
    seconds, tokens = time.perf_counter() - clock, course.tokens - before
    learned = sum(sum(example.learned[1:]) for step in plan[1:] for example in step)
    passes = 6 if args.method == "full" else 4
    flops = passes * (tokens * sum(m.numel() for m in blocks) + learned * head.numel())
    print(
        f"{args.organism}, {args.method}, rank {args.rank}, {settings.device}: {tokens / seconds:.0f} tokens/s, "
        f"{flops / seconds / 1e9:.1f} GFLOP/s of the {rate / 1e9:.1f} that products alone reach: "
        f"{flops / seconds / rate:.0%} ({course.layout})"
    )


if __name__ == "__main__":
    main()
