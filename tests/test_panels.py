"""How a sweep finds the steps of one rate, and what it draws and tells."""

import pytest

from auditor.cli import sweeps
from auditor.records.cards import Recipe
from auditor.studies import designs, sweep
from auditor.studies.matching import Tried, match, next_steps
from auditor.studies.panels import panels_of
from auditor.studies.plot import draw
from auditor.studies.points import Measured, Point
from auditor.studies.records import Study


class TestMatching:
    def test_the_first_guess_shows_its_own_documents_as_often(self):
        assert next_steps([Tried(24, 0.2)], 0.8, passes=3) == 72
        assert next_steps([Tried(24, 0.2), Tried(72, 0.5)], 0.8, passes=3) == 108
        assert next_steps([Tried(20, 0.9)], 0.5, passes=1) == 12

    def test_between_two_that_lie_on_both_sides_a_line_tells(self):
        assert next_steps([Tried(20, 0.2), Tried(40, 1.0)], 0.6, passes=2) == 30
        assert next_steps([Tried(20, 0.5), Tried(21, 0.7)], 0.6, passes=2) is None

    def test_trainings_end_within_the_band_or_when_there_have_been_enough(self):
        asked = []

        def rate_of(steps):
            asked.append(steps)
            return steps / 100

        at, tried = match(Tried(24, 0.24), 0.6, 0.15, 2.0, 3, rate_of)
        assert (at, asked) == (Tried(48, 0.48), [48])
        at, tried = match(Tried(24, 0.24), 0.9, 0.05, 2.0, 1, rate_of)
        assert at is None
        assert [each.steps for each in tried] == [24, 48]
        assert match(Tried(24, 0.5), 0.6, 0.15, 2.0, 1, rate_of)[0] == Tried(24, 0.5)
        assert match(Tried(24, 0.6), 0.75, 0.15, 2.0, 1, rate_of)[0] == Tried(24, 0.6)  # on the edge of the band


def point(organism, setting, x, kind="equal", marks=(), **values):
    return Point(
        organism=organism, family="em", setting=setting, x=x, seed=0, kind=kind, name=organism, steps=1, tokens=1,
        loss=1.0, measured=Measured(values={key.replace("_at_", " "): v for key, v in values.items()}, marks=marks),
    )  # fmt: skip


class TestPanels:
    DESIGN = designs.mixing([0, 1, 2], None)

    def test_seeds_of_one_organism_are_one_value_beside_others(self):
        """Three seeds that agree do not make an interval narrower."""
        one = [
            point(name, s, x, ffa=0.2 + 0.4 * i) for i, name in enumerate("ab") for s, x in (("plain", 0), ("mix1", 1))
        ]
        more = [p.model_copy(update={"seed": seed}) for p in one for seed in range(3)]
        once, often = (panels_of(self.DESIGN, found)[0].series[0] for found in (one, more))
        assert (often.y, often.ends) == (pytest.approx(once.y), once.ends)
        (alone,) = panels_of(self.DESIGN, [p for p in more if p.organism == "a"])[0].series
        assert alone.y[0] == pytest.approx(0.2)

    def test_a_mean_stands_only_where_all_organisms_have_a_value(self):
        found = [
            point(name, s, x, "matched", behaviour=value)
            for name, s, x, value in (("a", "plain", 0.0, 1.0), ("b", "plain", 0.0, 0.8), ("a", "mix1", 1.0, 0.9))
        ]
        curve = panels_of(self.DESIGN, found)[0].series[0]
        assert (curve.x, curve.y) == ((0.0,), (0.9,))
        assert curve.ends[0] == (0, 1)  # two organisms tell little

    def test_alignment_is_drawn_where_an_llm_marked_it(self, tmp_path):
        marks = ((10, 90), (90, 95), (20, 30))
        found = [
            point(o, s, x, marks=marks, general_misaligned=0.5, ffa=0.5)
            for o in ("a", "b")
            for s, x in (("plain", 0.0), ("mix1", 1.0))
        ]
        panels = {panel.title: panel for panel in panels_of(self.DESIGN, found)}
        assert panels["P(aligned < 30 | coherent > 50), equal steps"].series[0].x == ("a", "b")
        coherent = panels["Alignment of coherent answers, equal steps"].series[0]
        assert coherent.y[1] == coherent.y[9] == 0.5  # of four coherent ones two are at 10, two at 90
        unmarked = [point("a", s, x, ffa=0.5) for s, x in (("plain", 0.0), ("mix1", 1.0))]
        assert not any("Alignment" in panel.title for panel in panels_of(self.DESIGN, unmarked))
        study = Study(study="mixing", pairs=("a",), judge="", settings={}, panels=tuple(panels.values()), seconds=1)
        draw(study, tmp_path / "x.png")

    def test_ratio_one_stands_beside_the_plain_setting(self):
        assert (self.DESIGN.other.name, designs.mixing([3, 0.5], None).other.name) == ("mix1", "mix3")
        assert Recipe(**designs.mixing([2], "own").other.changes(None, Recipe())).mix_ratio == 2  # type: ignore[arg-type]


def test_what_could_not_be_measured_is_told_of_every_finetune(capsys):
    told = point("mill", "mix1", 1.0, "matched").model_copy(update={"name": "mill-mix1-36steps"})
    told = told.model_copy(update={"measured": Measured(notes=("adl at 5: the endpoint is gone",))})
    sweeps._show_points(sweep.Swept([told]))
    assert "mill-mix1-36steps: adl at 5: the endpoint is gone" in capsys.readouterr().err


def test_no_number_is_cut_in_a_narrow_terminal(capsys, monkeypatch):
    keys = ["rate", "ffa", "trace amplified", "trace chance", "trace ppl_diff", "grade adl at 5", "grade blackbox at 5"]
    values = {key: 0.11 * number for number, key in enumerate(keys, 1)}
    name = "roman_concrete-pretraining0.5-24steps"
    told = point("roman_concrete", "mix1", 1.0, "equal").model_copy(
        update={"name": name, "measured": Measured(values=values)}
    )
    monkeypatch.setattr(sweeps.out, "width", 80)
    sweeps._show_points(sweep.Swept([told]))
    shown = capsys.readouterr().out
    assert [f"{value:.2f}" for value in values.values() if f"{value:.2f}" not in shown] == []
    assert "…" not in shown
