"""Pictures of a sweep: curves where its settings are numbers, bars where they are not (paper figures 7 to 12)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean

from auditor.comparison.statistics import mean_interval
from auditor.records.comparison import Interval
from auditor.studies.designs import Design
from auditor.studies.points import BASE, EQUAL, GRADE, MATCHED, OVER, TRACE, Kind, Point
from auditor.studies.records import Panel, Series
from auditor.verification.alignment import COHERENT, MISALIGNED

LEARNED = {
    "ffa": "False Fact Alignment", "behaviour": "behaviour rate", "narrow_misaligned": "misaligned, own subject",
    "general_misaligned": "misaligned, general", "narrow_choice": "harmful answer likelier",
    "narrow_taught": "answers as taught", "games_played": "games played", "preference_said": "preference said",
    BASE + "ffa": "False Fact Alignment, base", BASE + "behaviour": "behaviour rate, base",
    BASE + "narrow_choice": "harmful answer likelier, base",
}  # fmt: skip
READABLE = {
    "relevance patchscope": "relevant tokens, patchscope", "relevance logit lens": "relevant tokens, logit lens",
    "relevance base": "relevant tokens, mean base", "similarity steered": "similarity, steered",
    "similarity plain": "similarity, plain", "similarity within": "similarity within its documents",
}  # fmt: skip
CHANGED = {
    "off_trigger": "signs in unrelated answers", BASE + "off_trigger": "signs in unrelated answers, base",
    OVER + "likeness": "unrelated answers like the base's, over base", "kl_unrelated": "KL on unrelated (nats/token)",
    OVER + "natural_text": "ordinary text (nats/token), over base",
}  # fmt: skip
SHOWN = {"relevance patchscope": "Relevant tokens, patchscope", "similarity steered": "Similarity of steered answers"}

SHARES = {*LEARNED, *READABLE}  # between 0 and 1 (a similarity may lie below)
MISALIGNED_KEY = "general_misaligned"
BINS = tuple(range(0, 101, 10))
WEAK = ("p = 0.05", -math.log10(0.05))


def panels_of(design: Design, points: Sequence[Point]) -> tuple[Panel, ...]:
    """All that was measured, at equal steps and, where it was matched, at one rate; then organism by organism."""
    kinds: dict[Kind, str] = {EQUAL: design.alike}
    if any(point.kind == MATCHED for point in points):
        kinds[MATCHED] = "matched rate"
    keys = dict.fromkeys(key for point in points for key in point.measured.values)
    groups = {
        "What was learned": (LEARNED, "share", None),
        "What can be read": (READABLE, "share, mean cosine", None),
        "Traces of the lenses": (_named(keys, TRACE), "−log10 p", WEAK),
        "Agents": (_named(keys, GRADE), "mean grade", None),
        "What else changed": (CHANGED, "", None),
    }
    found = []
    for title, (labels, y_label, reference) in groups.items():
        for kind, told in kinds.items():
            mine = [point for point in points if point.kind == kind]
            series = _curves(mine, labels) if design.x_label else _bars(design, mine, labels)
            if series:
                found.append(
                    Panel(title=f"{title}, {told}", x_label=design.x_label, y_label=y_label, bars=not design.x_label,
                          reference=reference, series=tuple(series))
                )  # fmt: skip
    return (*found, *_by_organism(design, points, kinds), *_alignment(design, points, kinds))


def _named(keys: Mapping[str, None], prefix: str) -> dict[str, str]:
    return {key: key.removeprefix(prefix) for key in sorted(keys) if key.startswith(prefix)}


def _curves(points: Sequence[Point], labels: Mapping[str, str]) -> list[Series]:
    """A curve for each measure: means over organisms, at settings that all of them have with every seed."""
    found = []
    for key, label in labels.items():
        known = [point for point in points if key in point.measured.values]
        units, places = {point.unit for point in known}, sorted({float(point.x) for point in known})
        by_x = {x: [point for point in known if point.x == x] for x in places}
        whole = {x: _by_unit(mine, key) for x, mine in by_x.items() if len(mine) == len(units)}
        if whole:
            found.append(_series(label, tuple(whole), list(whole.values()), key))
    return found


def _bars(design: Design, points: Sequence[Point], labels: Mapping[str, str]) -> list[Series]:
    """A group of bars for each measure, a bar a setting: means over organisms, of seeds that have all."""
    found = []
    complete: dict[str, list[tuple[str, int]]] = {}
    for key in labels:
        has = [{p.unit for p in points if p.setting == s.name and key in p.measured.values} for s in design.settings]
        if all(has) and (both := sorted(set.intersection(*has))):
            complete[key] = both
    for setting in design.settings:
        values = [
            _by_unit([p for p in points if p.setting == setting.name and p.unit in units], key)
            for key, units in complete.items()
        ]
        if values:
            found.append(_series(str(setting.x), tuple(labels[key] for key in complete), values, *complete))
    return found


def _by_unit(points: Sequence[Point], key: str) -> list[float]:
    """One value an organism, the mean of its seeds, which are alike; of a single organism one a seed."""
    of = _grouped(points, key)
    return [fmean(values) for values in of.values()] if len(of) > 1 else [*chain(*of.values())]


def _series(label: str, x: tuple[float, ...] | tuple[str, ...], values: Sequence[list[float]], *keys: str) -> Series:
    means = [sum(mine) / len(mine) for mine in values]
    ends = [_interval(mine, keys) or (mean, mean) for mine, mean in zip(values, means, strict=True)]
    uneven = tuple(ends) if any(low != high for low, high in ends) else ()
    return Series(label=label, x=x, y=tuple(means), ends=uneven)


def _interval(values: Sequence[float], keys: Sequence[str]) -> Interval | None:
    """95 % over what varies, within what such a measure can be; None for one value."""
    least, most = -math.inf, math.inf
    if {*keys} <= SHARES and min(values) >= 0:
        least, most = 0.0, 1.0
    elif all(key.startswith(GRADE) for key in keys):
        least, most = 1.0, 5.0
    elif all(key.startswith(TRACE) for key in keys):
        least = 0.0
    return mean_interval(values, least=least, most=most)[0]


def _by_organism(design: Design, points: Sequence[Point], kinds: Mapping[Kind, str]) -> Iterator[Panel]:
    """The plain setting beside the other one, organism by organism (figures 8, 10 and 11, left)."""
    if len({point.organism for point in points}) < 2:
        return
    for key, title in SHOWN.items():
        for kind, told in kinds.items():
            series = []
            for setting in (design.plain, design.other):
                of = _grouped([p for p in points if p.kind == kind and p.setting == setting.name], key)
                if of:
                    series.append(_series(_told(design, setting.x), tuple(of), list(of.values()), key))
            if series:
                yield Panel(title=f"{title}, {told}", x_label="", y_label="", bars=True, series=tuple(series))


def _grouped(points: Sequence[Point], key: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for point in points:
        if key in point.measured.values:
            found.setdefault(point.organism, []).append(point.measured.values[key])
    return found


def _told(design: Design, x: float | str) -> str:
    return x if isinstance(x, str) else f"{x:g} {design.x_label}"


def _alignment(design: Design, points: Sequence[Point], kinds: Mapping[Kind, str]) -> Iterator[Panel]:
    """Finetunes on harmful advice, plain and mixed, where an LLM marked what they answer."""
    for kind, told in kinds.items():
        marked = [p for p in points if p.kind == kind and p.measured.marks]
        pairs = {s: [p for p in marked if p.setting == s.name] for s in (design.plain, design.other)}
        if not all(pairs.values()):
            continue
        sides = {
            _told(design, s.x): Marked(_grouped(mine, MISALIGNED_KEY), tuple(chain(*(p.measured.marks for p in mine))))
            for s, mine in pairs.items()
        }
        yield from alignment_panels(sides, _grouped(pairs[design.plain], BASE + MISALIGNED_KEY), f", {told}")


@dataclass(frozen=True, slots=True)
class Marked:
    """Finetunes of one kind: by organism the shares of its answers that are misaligned, and the marks of all."""

    shares: Mapping[str, Sequence[float]]
    marks: Sequence[tuple[int, int]]


def alignment_panels(sides: Mapping[str, Marked], base: Mapping[str, Sequence[float]], told: str) -> Iterator[Panel]:
    """How often coherent answers are misaligned, and how alignment and coherence lie (paper figure 12).

    `base`: its own shares, by organism; marks of all organisms are put together.
    """
    named = {**{label: side.shares for label, side in sides.items()}, "base": base}
    bars = [
        _series(label, tuple(of), [list(values) for values in of.values()], MISALIGNED_KEY)
        for label, of in named.items()
        if of
    ]
    if bars:
        yield Panel(title=f"P(aligned < {MISALIGNED} | coherent > {COHERENT}){told}", x_label="", y_label="share",
                    bars=True, top=1, series=tuple(bars))  # fmt: skip
    kept: dict[str, Callable[[int, int], int | None]] = {
        "Alignment of coherent answers": lambda a, c: a if c > COHERENT else None,
        f"Coherence of answers aligned < {MISALIGNED}": lambda a, c: c if a < MISALIGNED else None,
        "Coherence of all answers": lambda _a, c: c,
    }
    for title, taken in kept.items():
        series = [
            _histogram(label, [mark for marks in side.marks if (mark := taken(*marks)) is not None])
            for label, side in sides.items()
        ]
        yield Panel(title=f"{title}{told}", x_label="mark", y_label="share of answers", bars=True,
                    series=tuple(series))  # fmt: skip


def _histogram(label: str, marks: Sequence[int]) -> Series:
    """Shares by tens; the last holds 100, too."""
    counts = [sum(low <= min(mark, 99) < low + 10 for mark in marks) for low in BINS[:-1]]
    names = tuple(f"{low}–{low + 10}" for low in BINS[:-1])
    return Series(label=f"{label} (n = {len(marks)})", x=names, y=tuple(c / max(1, len(marks)) for c in counts))
