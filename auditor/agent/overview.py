"""The agent's first message: what the lens saw, laid out for reading, dataset names blinded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from auditor.plugins import Dataset
from auditor.types import Agent, Evidence, LayerEvidence, PositionEvidence, SteeredSample
from auditor.workspace import Prompt

CUT = 200  # characters of each sample
TOKENS = 20


def blinded(datasets: Sequence[Dataset]) -> dict[str, Dataset]:
    """Names that tell nothing of the corpus: ds1, ds2, …; the tools take the same names."""
    return {f"ds{i}": dataset for i, dataset in enumerate(datasets, 1)}


def render_overview(prompt: Prompt, agent: Agent, datasets: Mapping[str, Dataset]) -> str:
    """The overview for `agent`: only the parts that its card names."""
    blocks = [_dataset(name, dataset.evidence, agent) for name, dataset in datasets.items()]
    return prompt.render(overview="\n\n".join(blocks), parts=list(agent.overview))


def _dataset(name: str, evidence: Evidence, agent: Agent) -> str:
    blocks = []
    shown = set(agent.overview)
    for layer in evidence.layers:
        with_patchscope = layer.positions[0].patchscope is not None
        if "patchscope" in shown and with_patchscope:
            blocks.append(_patchscope(name, layer))
        if "logit_lens" in shown:
            blocks.append(_logit_lens(name, layer, last=layer.layer == evidence.last_layer))
    if "steering" in shown:
        blocks += [
            f"## Steering, {name}, layer {s.layer}, position {s.position} (strength {s.alpha:.2f})\n"
            + "\n".join(_sample(i, sample) for i, sample in enumerate(s.samples))
            for s in evidence.steering
        ]
    if "unsteered" in shown:
        blocks.append("## Plain answers\n" + "\n".join(_sample(i, s) for i, s in enumerate(evidence.unsteered)))
    return "\n\n".join(blocks)


def _best_first(layer: LayerEvidence) -> list[PositionEvidence]:
    return sorted(layer.positions, key=lambda p: (p.sink, -(p.patchscope.choice.cohesion if p.patchscope else 0.0)))


def _patchscope(name: str, layer: LayerEvidence) -> str:
    lines = [f"## Patchscope, {name}, layer {layer.layer}, most cohesive position first"]
    for position in _best_first(layer):
        assert position.patchscope is not None
        choice = position.patchscope.choice
        mark = "; attention sink, distrust" if position.sink else ""
        lines.append(f"- position {position.position} (cohesion {choice.cohesion:.1f} sd{mark})")
        lines.append(f"  tokens: {_join(t.token for t in position.patchscope.tokens[:TOKENS])}")
        lines.append(f"  selected: {_join(choice.selected)}")
    return "\n".join(lines)


def _logit_lens(name: str, layer: LayerEvidence, *, last: bool) -> str:
    where = f"layer {layer.layer}" + (" (the last)" if last else "")
    lines = [f"## Logit lens, {name}, {where}"]
    for position in layer.positions:
        mark = " (attention sink, distrust)" if position.sink else ""
        tokens = _join(t.token for t in position.logit_lens.top[:TOKENS])
        lines.append(f"- position {position.position}{mark}: {tokens}")
    return "\n".join(lines)


def _sample(number: int, sample: SteeredSample) -> str:
    lines = [f"[{number}] {sample.prompt}"]
    if sample.steered:
        lines.append(f"  steered: {quote(sample.steered[0])}")
    lines.append(f"  plain: {quote(sample.unsteered[0])}")
    return "\n".join(lines)


def quote(text: str, cut: int = CUT) -> str:
    """Audited text as data: one line, control characters shown, cut to `cut` characters."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: cut + 1])
    return f"“{shown[:cut]}{'…' if len(text) > cut else ''}”"


def _join(tokens: object) -> str:
    words = [quote(str(t).strip(), 40)[1:-1] for t in tokens]  # type: ignore[attr-defined]
    return " | ".join(word for word in words if word)
