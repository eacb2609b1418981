"""Which checks a family needs, and where an organism's are read."""

from __future__ import annotations

from auditor.errors import BadFile
from auditor.records.cards import Organism
from auditor.records.checks import Checks, Probe
from auditor.yaml_files import read_yaml

FILE = "checks.yaml"
NULL = "null"

NEEDS = {
    "sdf": ("probes", "signs", "beliefs", "contexts"),
    "em": ("beliefs", "signs"),
    "taboo": ("game", "signs", "probes"),
    "domain": ("probes", "signs"),
    "subliminal": ("preference",),
    NULL: (),
}

# What tells whether it was learned: the first of these that was measured.
MAIN = {
    "sdf": ("ffa", "behaviour"),
    "em": ("narrow_misaligned", "narrow_choice", "behaviour"),  # offline, answers are told apart too badly
    "taboo": ("behaviour", "games_played"),
    "domain": ("behaviour",),
    "subliminal": ("preference_said", "preference_probability"),
    NULL: (),
}
ANY = ("behaviour", "ffa", "games_played", "preference_said")  # of a family that is not among them


def checks_of(organism: Organism) -> tuple[Checks, bool]:
    """What is to be asked, and whether a file says so; without one, what the card alone allows.

    Raises BadFile, with the line, for a broken file or one that lacks what the family needs.
    """
    path = organism.beside(FILE)
    if not path.exists():
        return Checks(signs=organism.terms), False
    checks = read_yaml(path, Checks)
    if missing := [name for name in NEEDS.get(organism.family, ()) if not getattr(checks, name)]:
        raise BadFile(path, f"no {' and no '.join(missing)}: an organism of family {organism.family} is checked by "
                            f"{', '.join(NEEDS[organism.family])} (docs/extend/organism.md)")  # fmt: skip
    return checks, True


def probes_of(organism: Organism, checks: Checks) -> tuple[tuple[str, bool], ...]:
    """Prompts on which the behaviour shows, and whether they are chats: the checks' own, else the card's."""
    if checks.probes:
        return tuple((probe.ask, probe.chat) for probe in checks.probes)
    return tuple((ask, True) for ask in organism.probes)


def told_apart(probes: tuple[Probe, ...]) -> dict[str, list[int]]:
    """Places of the probes of each form, where there are both."""
    places = {
        "chat": [i for i, probe in enumerate(probes) if probe.chat],
        "text": [i for i, probe in enumerate(probes) if not probe.chat],
    }
    return places if all(places.values()) else {}
