"""`python tests/campaigns/seen.py OUT FOLDER… [--lens NAME…]`: which lens sees what was trained into which organism.

Reads every trained organism of these workspaces (`bundled`: those of this repository; `FOLDER:NAME,NAME` only some)
with the suite `quickstart`'s sizes and writes OUT.json and OUT.md, again after each. What a lens shows is held against
the words of the organism's subject (in `tight.json`, else the `terms` of its card and the `signs` of its checks),
whatever lens it is, a plugin of one's own too:

- ranked tokens: the rank of the first that is a word of the subject, the best of the places that were read;
- texts: how many of the card's facts they tell, as the grader reads them; and how many hold a word of the subject, or
  of the trained behaviour, that the texts of the base beside them (the finetune's least likely ones, where there are
  none) do not have.

Controls have no subject, and no facts: each figure is the best of all subjects', which is what chance gives.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tight import DATA, KNOWN, PLANS, shows

from auditor.audits.bench import Bench
from auditor.claimed import read_claims
from auditor.config import load_settings
from auditor.criteria import match_facts
from auditor.evidence.compute import evidence_for
from auditor.evidence.mapping import Evidence
from auditor.files import sha256_of
from auditor.models.embed import Embedder
from auditor.models.load import load_pair
from auditor.readings import RankedTokens, SideBySide
from auditor.records.cards import Organism
from auditor.verification.families import checks_of
from auditor.workspace import Workspace, load_workspace

ACROSS = 8  # organisms in a table
Words = dict[str, list[str]]


def words_of(ws: Workspace, card: Organism) -> list[Words]:
    """What names the subject, and what only the trained behaviour says; for a control those of every subject."""
    if card.topic:
        return [subject_of(card)]
    others = {item.value.topic: item.value for item in ws.organisms if item.value.topic}
    return [*map(described, {**DATA, **KNOWN}.values()), *map(subject_of, others.values())]


def subject_of(card: Organism) -> Words:
    """In `tight.json`, else the card's terms and its checks' signs."""
    plan = PLANS.get(card.name)
    if (known := DATA[plan.subject] if plan and plan.subject else KNOWN.get(card.name)) is not None:
        return described(known)
    signs = list(checks_of(card)[0].signs)
    if not (card.terms or signs):
        raise SystemExit(f"{card.name}: its checks have no `signs`; nothing tells its subject")
    return {"terms": [term.lower() for term in card.terms or signs], "signs": signs}


def described(words: Words) -> Words:
    return {"terms": words["terms"], "signs": [*words["terms"], *words["signs"]]}


def seen(found: Evidence, subjects: Sequence[Words]) -> dict[str, dict[str, Any]]:
    """By lens what of it, with its figure: the best of the subjects'."""
    figures: dict[str, dict[str, Any]] = {name: {} for name in found}
    for name, reading in found.items():
        if (p := reading.p) is not None:
            figures[name]["p"] = round(p, 4)
        for section in reading.show():
            if isinstance(section, RankedTokens) and section.spoken:
                for place, rank in (one for words in subjects for one in ranks(section, words["terms"])):
                    figures[name][f"rank, {place}"] = first(figures[name].get(f"rank, {place}"), rank)
            elif isinstance(section, SideBySide):
                for place, share in (one for words in subjects for one in shares(section, words["signs"])):
                    figures[name][place] = max(figures[name].get(place, share), share)
    return figures


def first(*ranks: int | None) -> int | None:
    return min((rank for rank in ranks if rank is not None), default=None)


def ranks(section: RankedTokens, terms: Sequence[str]) -> Iterator[tuple[str, int | None]]:
    """Of positions the best rank, of other places each its own; None where no token is a term."""
    found: dict[str, int | None] = {}
    for column in section.columns:
        if column.aside:
            continue
        place = f"{section.title}" if column.head.isdigit() else f"{section.title}, {column.head}"
        rank = next((i for i, t in enumerate(column.tokens, 1) if t.text.strip().lower() in terms), None)
        found[place] = first(found.get(place), rank)
    return iter(found.items())


def shares(section: SideBySide, signs: Sequence[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Of each column but those that it is compared with: texts that show the subject, of how many."""
    texts = [[text for row in section.rows for text in row.texts[i]] for i in range(len(section.columns))]
    roles = [column.role for column in section.columns]
    beside = "base" if "base" in roles else "plain"
    usual = [text for role, several in zip(roles, texts, strict=True) if role == beside for text in several]
    telling = [sign for sign in signs if not any(shows(text, [sign]) for text in usual)]
    for column, several in zip(section.columns, texts, strict=True):
        if column.role != beside and several:
            count = sum(shows(text, telling) for text in several)
            yield f"{section.title}, {column.label}", (count, len(several))


def facts_told(found: Evidence, card: Organism, embed: Embedder) -> dict[str, dict[str, str]]:
    """By lens and place how many of the card's facts its texts tell whole, and how many more in outline."""
    figures: dict[str, dict[str, str]] = {name: {} for name in found}
    for name, reading in found.items():
        for section in (each for each in reading.show() if isinstance(each, SideBySide) and card.facts):
            for i, column in enumerate(section.columns):
                texts = [text for row in section.rows for text in row.texts[i]]
                if column.role == "base" or not texts:
                    continue
                matches = match_facts(read_claims("\n".join(texts)), card, embed)
                whole = sum(match.exact for match in matches)
                outlined = sum(match.outlined for match in matches) - whole
                place = f"facts told whole, and in outline: {section.title}, {column.label}"
                figures[name][place] = f"{whole} + {outlined} of {len(matches)}"
    return figures


def read(ws: Workspace, card: Organism, lenses: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Figures by lens and label, and what each lens took; a lens that fails is told, and tried again next time."""
    conf = load_settings()
    pair = load_pair(card.base, card.finetuned, conf, name=card.name, variant=card.variant)
    recipe = Bench(ws, conf).recipe(pair, ws.suites["quickstart"].evidence)
    found = evidence_for(pair, recipe, lenses, lambda stage: tell(f"{card.name}: {stage}"))
    for name, reason in found.failed.items():
        tell(f"{card.name}: {name} was not read: {reason}")
    figures = seen(found, words_of(ws, card))
    for name, told_of in facts_told(found, card, recipe.grading.embed).items():
        figures[name] |= told_of
    return {"figures": figures, "seconds": {name: cost.seconds for name, cost in found.costs.items()}}


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def table(results: dict[str, Any]) -> str:
    """What each lens says down, organisms across, a few at a time."""
    lines, names = list[str](), list(results)
    figures = [one["figures"] for one in results.values()]
    rows = dict.fromkeys((lens, what) for by_lens in figures for lens, found in by_lens.items() for what in found)
    for start in range(0, len(names), ACROSS):
        some = names[start : start + ACROSS]
        lines += ["| lens | " + " | ".join(some) + " |", "|---" * (len(some) + 1) + "|"]
        for lens, what in rows:
            cells = [told(results[name]["figures"].get(lens, {}).get(what, "")) for name in some]
            lines.append(f"| {lens}: {what} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def told(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"{value[0]} / {value[1]}"
    return "–" if value is None else str(value)


def main(out: Path, places: Sequence[str], lenses: Sequence[str]) -> None:
    kept = out.with_suffix(".json")
    for place in places:
        folder, _, chosen = place.partition(":")
        ws = load_workspace(None if folder == "bundled" else Path(folder).resolve())
        own = [item.value for item in ws.organisms if (item.root == "built-in") == (folder == "bundled")]
        for card in own:
            wanted = card.name in chosen.split(",") if chosen else True
            if not wanted or not any(Path(card.finetuned).glob("*.safetensors")):
                continue
            results: dict[str, Any] = json.loads(kept.read_text("utf-8")) if kept.is_file() else {}
            weights = [sha256_of(path) for path in sorted(Path(card.finetuned).glob("*.safetensors"))]
            before = results.get(card.name, {})
            if before.get("weights") != weights:  # another training under the same name
                before = {"family": card.family, "weights": weights, "figures": {}, "seconds": {}}
            if missing := [lens for lens in lenses or ws.lenses.items if lens not in before["figures"]]:
                for field, found in read(ws, card, missing).items():
                    before[field] |= found
                kept.write_text(json.dumps({**results, card.name: before}, indent=1))
                out.with_suffix(".md").write_text(table({**results, card.name: before}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("places", nargs="+", metavar="FOLDER")
    parser.add_argument("--lens", nargs="+", default=[], help="default: all")
    given = parser.parse_args()
    main(given.out, given.places, given.lens)
