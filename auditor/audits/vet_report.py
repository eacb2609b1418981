"""The report on a pair of one's own, for readers who never heard of a logit lens: what stands in it, in what order."""

from __future__ import annotations

from collections.abc import Sequence

from auditor.agent.content import Span
from auditor.agent.hypothesis import NOTHING, names_nothing
from auditor.agent.observed import BASE, FINETUNED, TOKENS, utterances
from auditor.agent.statements import SAYS
from auditor.audits.vet_advice import lead, next_steps, subject_of, telling, verdict
from auditor.llm.spec import OFFLINE
from auditor.records.findings import ClaimCheck, Passage
from auditor.records.report import (
    Block,
    Claimed,
    Document,
    Exchange,
    Part,
    Point,
    Points,
    Read,
    Said,
    Standing,
    Stretch,
    Words,
)  # fmt: skip
from auditor.records.results import VetReport
from auditor.text import shown, visible

LINE, TEXT, ANSWER = 300, 2_000, 4_000  # characters of a name or a claim, of a paragraph, and of an answer

HOW = """\
The two models read ordinary texts, or were given prompts, that have nothing to do with any training. What was learned \
shows all the same, in these readings. An agent was shown them, put a few questions to the models, and concluded. \
Nobody told it anything about the finetune. It can be wrong: a claim is as good as the observations under it."""

HOW_ALONE = """\
No base was known, so nothing could be compared with one. The model was given ordinary texts and prompts, and what it \
said was read in these ways. An agent was shown the readings, put a few questions to the model, and concluded. Nobody \
told it anything about the finetune. What the model had before the finetune looks the same here as what was trained: a \
claim says what the model does, and seldom why."""

CLAIMS = """\
Each claim was held against the passages that it names, by rules. “Quoted word for word”: the model did say this. \
“Counted anew”: so many answers do say it. “Looks supported”: words and meaning are near, which is a rule of thumb, so \
read the passage. “Only echoes the question”: the question had put the words into the model's mouth, which is no \
evidence. “Not borne out” does not mean false. What of a passage has the claim's words is marked."""
PUSHED = """\
Texts of the model “pushed” were made by shifting its inner state the way training shifted it. They come out garbled, \
and are not what users would see: they tell what training was about."""

READINGS = "What the lenses read, for specialists"
ASKED = "What was asked, and what the models answered"


def sureness(confidence: float) -> str:
    """A confidence in words."""
    steps = ((0.9, "almost certain"), (0.7, "likely"), (0.5, "more likely than not"), (0.25, "a guess"))
    return next((word for least, word in steps if confidence >= least), "hardly more than chance")


def document(report: VetReport) -> Document:
    """The whole report as data; what models wrote is in `Said`, or cut and made visible."""
    headline, tone = verdict(report)
    first, *others = _trained(report)
    parts = [
        Part(title=first.title, blocks=first.blocks),
        Part(title="What to do next", blocks=(Points(points=_plain(next_steps(report)), ordered=True),)),
        *others, *_asked(report), *_readings(report), _made(report),
    ]  # fmt: skip
    top = tuple(Words(head=_line(words.head), text=shown(words.text, TEXT)) for words in lead(report))
    title = f"What was {_line(report.model)} finetuned for?"
    return Document(title=title, verdict=_line(headline), tone=tone, lead=top, parts=tuple(parts))


def _trained(report: VetReport) -> list[Part]:
    """What the agent concludes, its claims, what else it could be, and its own words."""
    found, title = report.findings, "What it was trained to do"
    if found is None:
        text = report.hypothesis or "There is no hypothesis."
        return [Part(title=title, blocks=(Words(text=shown(text, TEXT)),))]
    nothing = names_nothing(found)
    what = "that subject and behaviour are right"
    if nothing:
        what = "that nothing narrow was trained in, which says nothing of safety"
    sure = f"The agent's own estimate {what}: {found.confidence:.0%} ({sureness(found.confidence)})"
    blocks: list[Block] = [
        Words(head=_subject(report), text=_sentence(NOTHING if nothing else found.domain)),
        Words(head="Behaviour", text=_sentence(found.behaviour)),
        Words(head="How sure", text=f"{sure}{_borne_out(report)}."),
    ]
    parts = [Part(title=title, blocks=tuple(blocks))]
    if report.checks:
        legend = [Words(text=CLAIMS), *([Words(text=PUSHED)] if _has_pushed(report.checks) else [])]
        claims = [_claimed(i, check) for i, check in enumerate(report.checks, 1)]
        parts.append(Part(title="The claims, and what they rest on", blocks=(*legend, *claims)))
    if found.alternatives:
        points = tuple(Point(text=_sentence(text)) for text in found.alternatives)
        parts.append(Part(title="What else it could be", blocks=(Points(points=points),)))
    parts.append(Part(title="In the agent's own words", blocks=(Words(text=shown(found.summary, TEXT)),), aside=True))
    return parts


def _subject(report: VetReport) -> str:
    guess = subject_of(report) == "named" and report.checks and not telling(report)
    return "Subject, a guess that no claim bears out" if guess else "Subject"


def _borne_out(report: VetReport) -> str:
    checks = report.checks
    if not checks:
        return "; it found nothing specific to quote"
    held = [check for check in checks if check.holds and not check.shared]
    pushed = [check for check in held if _is_pushed(check)]
    compared = [check for check in held if check not in pushed and any(p.base is not None for p in check.passages)]
    counts = {
        "on ordinary answers, with other answers of the base beside them": len(compared),
        "on what was seen, with no answer of the base beside it": len(held) - len(pushed) - len(compared),
        "on texts of the model pushed, which no user would see": len(pushed),
        "on what the base says too": sum(check.holds and check.shared for check in checks),
        "on nothing that bears them out": sum(not check.holds for check in checks),
    }
    told = ", ".join(f"{count} {where}" for where, count in counts.items() if count)
    proves = ". That the model says so does not prove what the stand-in makes of it" if (
        held and report.llm == OFFLINE) else ""  # fmt: skip
    return f". Its {len(checks)} claims rest: {told}{proves}"


def _has_pushed(checks: Sequence[ClaimCheck]) -> bool:
    return any(map(_is_pushed, checks))


def _is_pushed(check: ClaimCheck) -> bool:
    """Whether it rests on texts of the model pushed alone, as the offline agent says of its own claims."""
    speakers = [passage.speaker for passage in check.passages]
    return check.claim.startswith(SAYS["pushed"].partition("“")[0]) or (
        bool(speakers) and all(map(speaker_is_pushed, speakers))
    )


def speaker_is_pushed(speaker: str) -> bool:
    """Whether the finetuned model speaks as no user would hear it."""
    return speaker.startswith(("steered", "amplified"))


def _claimed(number: int, check: ClaimCheck) -> Claimed:
    standing, why = _standing(check)
    shown_of = check.passages[:1] if standing == "open" else check.passages
    exchanges = tuple(_passage(passage) for passage in shown_of)
    return Claimed(number=number, text=_sentence(shown(check.claim, TEXT)), standing=standing, why=why,
                   exchanges=exchanges)  # fmt: skip


def _standing(check: ClaimCheck) -> tuple[Standing, str]:
    little = "; the base says much the same: by itself it tells little of the training"
    too = little if check.shared else ""
    held: Standing = "shared" if check.shared else "likely" if check.basis in ("alike", "absent") else "holds"
    if check.holds:
        why = {
            "quoted": "Quoted word for word", "counted": "Counted anew", "alike": "Looks supported",
            "absent": "Looks supported: nothing of what it denies stands where it points", "": "Held",
        }[check.basis]  # fmt: skip
        return held, f"{why}{too}."
    if check.echo:
        return "echo", "Only echoes the question: no evidence."
    nearest = " Nearest to it:" if check.passages else ""
    return "open", f"Not borne out: {visible(check.problem, LINE)}.{nearest}"


def _passage(passage: Passage) -> Exchange:
    said = [Said(speaker=_speaker(passage.speaker), text=_stretches(passage.text, passage.spans))]
    if passage.base is not None:
        said.append(Said(speaker=_speaker(BASE), text=_stretches(passage.base, ())))
    return Exchange(source=_line(passage.observation), prompt=shown(passage.prompt, TEXT), said=tuple(said))


def _speaker(speaker: str) -> str:
    if speaker_is_pushed(speaker):
        return f"Finetuned model, pushed ({_line(speaker)})"
    if speaker.startswith(TOKENS):
        return f"Word pieces that a lens reads, {_line(speaker.removeprefix(TOKENS).strip() or 'ranked')}"
    known = {FINETUNED: "Finetuned model", "plain": "Finetuned model", BASE: "Base model", "reading": "A lens tells"}
    return known.get(speaker, _line(speaker))


def _stretches(text: str, spans: Sequence[Span]) -> tuple[Stretch, ...]:
    """The text cut at the spans, each piece made visible on its own."""
    out, at = [], 0
    for start, end in spans:
        out += [Stretch(text=text[at:start]), Stretch(text=text[start:end], marked=True)]
        at = end
    out.append(Stretch(text=text[at:]))
    return tuple(Stretch(text=_lines(s.text), marked=s.marked) for s in out if s.text)


def _lines(text: str) -> str:
    return "\n".join(visible(line.replace("\t", " "), ANSWER) for line in text.split("\n"))


def _asked(report: VetReport) -> list[Part]:
    """Every question that the agent put, with all answers; what lenses had the model say is with the readings."""
    found: dict[tuple[str, str], list[Said]] = {}
    for name in sorted(report.observations, key=lambda name: (name[:1], len(name), name)):
        if not name.startswith("O"):
            continue
        for said in utterances(name, report.observations[name]):
            if said.prompt and (said.base is not None or said.speaker in (BASE, FINETUNED)):
                text = _stretches(shown(said.text, ANSWER), ())
                found.setdefault((name, said.prompt), []).append(Said(speaker=_speaker(said.speaker), text=text))
    base = _speaker(BASE)
    ordered = {asked: tuple(sorted(said, key=lambda s: s.speaker == base)) for asked, said in found.items()}
    exchanges = tuple(
        Exchange(source=name, prompt=shown(prompt, TEXT), said=said) for (name, prompt), said in ordered.items()
    )
    return [Part(title=ASKED, blocks=exchanges, aside=True)] if exchanges else []


def _readings(report: VetReport) -> list[Part]:
    lines = [f"{_line(lens)}: {_line(told)}" for lens, told in report.verdicts.items()]
    blocks: list[Block] = [Points(points=tuple(Point(text=line) for line in lines))] if lines else []
    if report.sections:
        blocks.append(Read(sections=report.sections))
    return [Part(title=READINGS, blocks=tuple(blocks), aside=True)] if blocks else []


def _made(report: VetReport) -> Part:
    cost = "" if report.cost_usd is None else f", {report.cost_usd:.4f} USD"
    used = f"{report.tokens_used.input} tokens in, {report.tokens_used.output} out{cost}"
    who = "offline, the rule-based stand-in" if report.llm == OFFLINE else report.llm
    facts = [
        *(f"note: {line}" for line in report.notes),
        *(f"{name}: {' '.join(told.split())}" for name, told in report.lenses.items()),
        f"model: {report.model}, base: {report.base or 'not known'}",
        *([f"the pair: {report.about}"] if report.about else []),
        *(f"{side}: {' = '.join(told)}" for side, told in report.sources.items() if told),
        f"agent: {report.agent}, played by {who}; {report.interactions_used} of {report.budget} model interactions, "
        f"{report.turns_used} turns, {used}",
        f"seed {report.seed}; {', '.join(f'{stage} {s:.0f} s' for stage, s in report.seconds.items())}",
    ]
    points = tuple(Point(text=visible(line, TEXT)) for line in facts)
    how = HOW if report.base else HOW_ALONE
    return Part(title="How this was found", blocks=(Words(text=how), Points(points=points)))


def _plain(points: Sequence[Point]) -> tuple[Point, ...]:
    return tuple(
        Point(text=visible(p.text, TEXT), commands=tuple(visible(c, TEXT) for c in p.commands)) for p in points
    )


def _line(text: str) -> str:
    return visible(text, LINE)


def _sentence(text: str) -> str:
    text = shown(text, TEXT).strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?", ".”", "!”", "?”")) else ".")
