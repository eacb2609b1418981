"""The agent's first message: what the lens saw, laid out for reading, dataset names blinded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from auditor.lens.words import as_word
from auditor.models.blind import NEUTRAL
from auditor.plugins import Dataset
from auditor.prompts import Prompt
from auditor.text import CUT, quote, shortfalls, visible
from auditor.types import Agent, Evidence, LayerEvidence, PositionEvidence, SteeringEvidence

PLAIN_CUT = 60  # … of a plain one beside it: only to compare with
TOKENS = 20
DEEPER = 60  # ranks that are searched for what recurs everywhere
STEERED = 2  # positions whose steered answers are shown, by turns
OVERVIEW_CUT = 4_200  # characters, about 1,050 tokens; it is sent again in every turn
PLAIN_ROOM = 5_500  # characters of plain answers, where nothing else is shown
MARGIN = 60  # characters of a sample's prompt and label
MIN_SECTION = 400  # characters that a section gets even so


def blinded(datasets: Sequence[Dataset]) -> dict[str, Dataset]:
    """Names that tell nothing of the corpus: ds1, ds2, …; the tools take the same names.

    What the sheets say of the pair and the corpus is blanked too: tools hold them.
    """
    return {name: _nameless(name, dataset) for name, dataset in ((f"ds{i}", d) for i, d in enumerate(datasets, 1))}


def _nameless(name: str, dataset: Dataset) -> Dataset:
    evidence = dataset.evidence
    settings = evidence.settings.model_copy(update={"corpus": name})
    blank = {"pair": NEUTRAL, "fingerprint": "", "corpus": name, "corpus_sha256": "", "settings": settings}
    return Dataset(evidence.model_copy(update=blank), dataset.deltas)


def render_overview(prompt: Prompt, agent: Agent, datasets: Mapping[str, Dataset]) -> str:
    """The overview for `agent`: only the parts that its card names, each under an id (E1, E2, …).

    What may be most telling comes first; samples that do not fit are left to `get_steering_samples`. Plain answers
    alone, which no tool reads, are shown whole.
    """
    lens = sees_lens(agent)
    sections = [s for name, dataset in datasets.items() for s in _dataset(name, dataset.evidence, agent)]
    room, shown = OVERVIEW_CUT, _notes(datasets) if lens else []
    for number, section in enumerate(sections, 1):
        text = f"## E{number} · {section}"
        if lens and len(text) > room:
            text = _shortened(text, max(room, MIN_SECTION))
        room -= len(text)
        shown.append(text)
    return prompt.render(overview="\n\n".join(shown), lens=lens)


def _notes(datasets: Mapping[str, Dataset]) -> list[str]:
    """What the sheet lacks of what was asked for, and its chance test; in front of the sections, a line each."""
    lines = [f"Note on {name}: {line}." for name, dataset in datasets.items() for line in shortfalls(dataset.evidence)]
    tests = {name: dataset.evidence.chance for name, dataset in datasets.items()}
    return lines + [f"Chance test on {name}: {t.verdict}; tokens: {_join(t.tokens)}" for name, t in tests.items()]


def sees_lens(agent: Agent) -> bool:
    """Whether the agent is shown anything of the models' insides."""
    return set(agent.overview) != {"unsteered"}


def _dataset(name: str, evidence: Evidence, agent: Agent) -> list[str]:
    """Sections, the best evidence first: patchscope, the last layer's logit lens, steering, plain answers."""
    wanted = set(agent.overview)
    sinks = {p.position for layer in evidence.layers for p in layer.positions if p.sink}
    sections = []
    if "patchscope" in wanted:
        last = evidence.layer(evidence.last_layer)
        sections += [_patchscope(name, layer, last) for layer in evidence.layers if layer.positions[0].patchscope]
    if "logit_lens" in wanted:
        sections.append(_logit_lens(name, evidence, sinks))
    if "steering" in wanted:
        layers = dict.fromkeys(s.layer for s in evidence.steering)
        sections += [_steering(name, [s for s in evidence.steering if s.layer == layer]) for layer in layers]
    if "unsteered" in wanted:
        sections.append(_unsteered(evidence))
    return sections


def _patchscope(name: str, layer: LayerEvidence, lens: LayerEvidence) -> str:
    """Positions whose tokens the logit lens promotes too come first; sinks are left to the tool."""

    def shared(position: PositionEvidence) -> int:
        promoted = {t.token.strip().lower() for t in lens.positions[position.position].logit_lens.top}
        found = position.patchscope.tokens[:TOKENS] if position.patchscope else ()
        return len(promoted & {as_word(t.token) for t in found})

    lines = [f"Patchscope, {name}, layer {layer.layer}, positions that agree best with the logit lens first"]
    for position in sorted(layer.positions, key=lambda p: (p.sink, -shared(p))):
        assert position.patchscope is not None
        if position.sink:
            lines.append(f"- position {position.position}: left out, an attention sink")
            continue
        choice = position.patchscope.choice
        lines.append(f"- position {position.position} (cohesion {choice.cohesion:.1f} sd)")
        tokens = position.patchscope.tokens[:TOKENS]
        together = [t.token for t in tokens if t.token in choice.selected]
        lines.append(f"  belong together: {_join(together) or 'none'}")
        others = [t.token for t in tokens if t.token not in choice.selected and as_word(t.token)]
        lines += [f"  others: {_join(others)}"] if others else []
    return "\n".join(lines)


def _logit_lens(name: str, evidence: Evidence, sinks: set[int]) -> str:
    """Tokens by the positions that share them and by how high they rank there; sinks are left to the tool."""
    layer = evidence.layer(evidence.last_layer)
    read = [p for p in layer.positions if p.position not in sinks]
    ranks: dict[str, dict[int, int]] = {}
    for position in read:
        for rank, token in enumerate(position.logit_lens.top[:TOKENS]):
            ranks.setdefault(token.token.strip(), {})[position.position] = rank
    ranked = sorted(ranks.items(), key=lambda item: (-sum(TOKENS - rank for rank in item[1].values()), item[0]))
    shared: dict[tuple[int, ...], list[str]] = {}
    for word, at in ranked[: 2 * TOKENS]:
        shared.setdefault(tuple(sorted(at)), []).append(word)
    listed = ", ".join(str(p.position) for p in layer.positions)
    lines = [f"Logit lens, {name}, layer {layer.layer}, positions {listed}"]
    if others := [str(other.layer) for other in evidence.layers if other is not layer]:
        lines[0] += f"; not shown, seldom readable: layer {', '.join(others)}"
    groups = sorted(shared.items(), key=lambda item: -len(item[0]))
    lines += [f"- at {', '.join(map(str, at))}: {_join(words)}" for at, words in groups]
    if deeper := _everywhere(read, set(ranks)):
        lines.append(f"- at all of them, further down: {_join(deeper)}")
    return "\n".join(lines)


def _everywhere(positions: Sequence[PositionEvidence], known: set[str]) -> list[str]:
    """Tokens beyond the first ones that every position promotes, in the order of the first position."""
    if len(positions) < 2:
        return []
    first, *others = [[t.token.strip() for t in p.logit_lens.top[:DEEPER]] for p in positions]
    return [word for word in dict.fromkeys(first) if word not in known and all(word in o for o in others)][:TOKENS]


def _steering(name: str, found: Sequence[SteeringEvidence]) -> str:
    """Each prompt with a plain and a steered answer, the latter from the best steered positions by turns."""
    head = "; ".join(
        f"position {s.position} at strength {s.alpha:.2f}, resemblance {s.resemblance - s.resemblance_plain:+.2f}"
        if s.alpha > 0
        else f"position {s.position}, where no strength stayed coherent"
        for s in found
    )
    kept = len(found[0].samples[0].steered) if found[0].samples else 0
    lines = [f"Steering, {name}, layer {found[0].layer}, {head}; {kept} answers a prompt are kept"]
    shown = [s for s in found if s.alpha > 0][:STEERED]
    for i, plain in enumerate(found[0].samples):
        lines += [f"[{i}] {plain.prompt}", f"  plain: {quote(plain.unsteered[0], PLAIN_CUT)}"]
        if not shown:
            continue
        by = shown[i % len(shown)]
        lines += [f"  steered at {by.position}: {quote(text)}" for text in by.samples[i].steered[:1]]
    return "\n".join(lines)


def _unsteered(evidence: Evidence) -> str:
    """Plain answers, as many of each prompt as there is room for."""
    samples = evidence.unsteered
    count = max(1, PLAIN_ROOM // (len(samples) * (CUT + MARGIN))) if samples else 0
    lines = ["Plain answers of the finetuned model"]
    for i, sample in enumerate(samples):
        lines += [f"[{i}] {sample.prompt}", *(f"  plain: {quote(text)}" for text in sample.unsteered[:count])]
    return "\n".join(lines)


def _shortened(text: str, room: int) -> str:
    """Whole entries of a section up to `room` characters, and how many more there are."""
    head, *entries = text.split("\n[")
    kept = head[:room]
    for i, entry in enumerate(entries):
        if len(kept) + len(entry) > room:
            return f"{kept}\n({len(entries) - i} more prompts; read them with the tools)"
        kept += f"\n[{entry}"
    return kept if len(kept) == len(text) else f"{kept} … (cut; read the rest with the tools)"


def _join(tokens: object) -> str:
    words = [visible(str(t).strip(), 40) for t in tokens]  # type: ignore[attr-defined]
    return " | ".join(word for word in words if word)
