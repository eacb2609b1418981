"""Steering: the finetuned model's answers when it is pushed along the difference."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from auditor import Args, Context, Judged, LensContext, ModelPair, Record, lens, tool
from auditor.errors import Refused
from auditor.methods.found import Differences, Patchscope
from auditor.methods.layers import Layer, nearest_to_middle, numbered
from auditor.methods.said import PlainSamples, Pushed, Steered
from auditor.methods.steering import calibrated, resemblance, sample_answers
from auditor.models.generate import Request, Side, derive_seed
from auditor.records.evidence import CalibrationSettings


class SteeringSettings(Record):
    positions: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        "all", description="how many positions, best patchscope first"
    )
    calibration: CalibrationSettings = CalibrationSettings()
    coherence_grader: Annotated[str, Judged("coherence")] = "coherence_offline"


@lens(needs=("differences", "patchscope", "plain_samples"))
def steering(pair: ModelPair, ctx: LensContext, settings: SteeringSettings) -> Steered:
    """What the finetuned model says when it is pushed along δ as hard as it stays coherent."""
    diffs, plain = ctx.reading("differences", Differences), ctx.reading("plain_samples", PlainSamples)
    layer = nearest_to_middle(diffs.asked, pair.n_layers)
    read = next(at for at in ctx.reading("patchscope", Patchscope).layers if at.layer == layer)
    ranked = sorted(read.positions, key=lambda p: (p.sink, -p.read.choice.cohesion))
    kept = ranked if settings.positions == "all" else ranked[: settings.positions]
    directions = [diffs.direction(layer, p.position) for p in kept]
    ctx.tell("calibration")
    judge = ctx.grader(settings.coherence_grader)
    alphas = calibrated(pair, directions, ctx.calibration_prompts, judge, settings.calibration, ctx.seed)
    ctx.tell("samples")
    steerings = [d.steering(alpha) for d, alpha in zip(directions, alphas, strict=True)]
    prompts = [answers.prompt for answers in plain.answers]
    said = sample_answers(pair, prompts, steerings, plain.asked, ctx.seed)
    usual = resemblance([answers.texts for answers in plain.answers], ctx.embed)
    pushed = tuple(
        Pushed(layer=layer, position=d.position, alpha=alpha, resemblance=resemblance(texts, ctx.embed),
               resemblance_plain=usual, texts=tuple(texts))
        for d, alpha, texts in zip(directions, alphas, said, strict=True)
    )  # fmt: skip
    return Steered(plain=plain.answers, directions=pushed)


class SteeringQuery(Args):
    dataset: str
    layer: Layer
    position: int | None = Field(None, ge=0, description="left out: plain answers alone")
    prompts_subset: list[int] | None = Field(None, description="their numbers; left out: all")
    n: int = Field(2, ge=1, le=20, description="answers a prompt, as far as kept")
    plain: bool = Field(True, description="false: without the plain twins, which are the same at every position")


@tool
def get_steering_samples(ctx: Context, args: SteeringQuery) -> list[dict[str, object]]:
    """Read more of the finetuned model's steered answers, each beside its plain twin of the same draw, free of charge.

    The overview shows the first to each prompt, at one position, cut at 200 characters. Here are all that were kept,
    whole, at every position that was steered; without a position the plain ones alone. `number` is the prompt's.
    """
    found = ctx.dataset(args.dataset).reading("steering", Steered)
    wanted = range(len(found.plain)) if args.prompts_subset is None else args.prompts_subset
    if bad := [i for i in wanted if not 0 <= i < len(found.plain)]:
        raise Refused(f"no prompts {bad}; they are numbered 0 to {len(found.plain) - 1}")
    texts = dict[str, Sequence[tuple[str, ...]]]()
    if args.position is not None:
        texts["steered"] = _pushed(found, numbered(args.layer, ctx.pair.n_layers), args.position).texts
    if args.plain or args.position is None:
        texts["plain"] = [said.texts for said in found.plain]
    return [
        {"number": i, "prompt": found.plain[i].prompt, **{name: list(of[i][: args.n]) for name, of in texts.items()}}
        for i in wanted
    ]


def _pushed(found: Steered, layer: int, position: int) -> Pushed:
    known = {(d.layer, d.position): d for d in found.directions}
    able = [at for at, d in known.items() if d.alpha > 0]
    listed = ", ".join(f"layer {layer} position {position}" for layer, position in able) or "none"
    if (layer, position) not in known:
        raise Refused(f"nothing was steered at layer {layer} position {position}; there is: {listed}")
    if known[layer, position].alpha <= 0:
        raise Refused(
            f"no strength stayed coherent at layer {layer} position {position}: nothing was steered there; "
            f"there is: {listed}; without a position you get the plain answers"
        )
    return known[layer, position]


class Steer(Args):
    dataset: str
    layer: Layer
    position: int = Field(ge=0)
    prompts: list[str] = Field(min_length=1, max_length=50)
    n: int = Field(1, ge=1, le=20, description="samples a prompt")
    alpha: float | None = Field(
        None, gt=0, le=100, description="strength; null: the one that was found to stay coherent there"
    )


@tool(cost=lambda args: len(args.prompts) * args.n)
def generate_steered(ctx: Context, args: Steer) -> dict[str, list[str]]:
    """Let the finetuned model answer your own prompts while it is pushed along the difference.

    Costs 1 interaction a sample. Without alpha the strength is the one calibrated there, or at the nearest position;
    a weaker one is more coherent, a stronger one breaks the text.
    """
    evidence, ask, layer = ctx.dataset(args.dataset), ctx.ask, numbered(args.layer, ctx.pair.n_layers)
    direction = evidence.reading("differences", Differences).direction(layer, args.position)
    alpha = args.alpha
    if alpha is None:
        alpha = evidence.reading("steering", Steered).alpha(layer, args.position)
    requests = [
        Request(
            prompt, Side.FINETUNED, derive_seed(ctx.seed, i, sample, prompt), ask.max_new_tokens, ask.temperature,
            ask.top_p, steering=direction.steering(alpha),
        )
        for i, prompt in enumerate(args.prompts)
        for sample in range(args.n)
    ]  # fmt: skip
    texts = ctx.pair.generate(requests)
    return {p: texts[i * args.n : (i + 1) * args.n] for i, p in enumerate(args.prompts)}
