"""Figures of both models, and their intervals over questions."""

import numpy as np
import pytest

from auditor.verification import figures


class TestFigures:
    @pytest.mark.parametrize("make", [figures.share, figures.mean])
    def test_intervals_cover_the_difference_that_there_is(self, make):
        rng, hits, runs = np.random.default_rng(0), 0, 40
        for _ in range(runs):
            base, tuned = rng.random(16) < 0.3, rng.random(16) < 0.6
            found = make("k", "n", figures.Sides(base.astype(float).tolist(), tuned.astype(float).tolist()), by="words")
            low, high = found.difference.ci95
            hits += low <= 0.3 <= high
        assert hits / runs >= 0.88

    def test_differences_have_newcombes_interval(self):
        """His example of 36 pairs that agree on yes, 12 and 2 that do not agree, none that agree on no (table II)."""
        one, other = [1.0] * 48 + [0.0] * 2, [1.0] * 36 + [0.0] * 12 + [1.0] * 2
        found = figures.share("k", "n", figures.Sides(other, one), by="words")
        assert found.difference.ci95 == (0.057, 0.34)

    def test_a_few_questions_that_agree_leave_something_open(self):
        low, high = figures.share("k", "n", figures.Sides([1.0, 0.0], [1.0, 0.0]), by="words").difference.ci95
        assert low < -0.5 < 0.5 < high

    def test_the_question_is_the_unit(self):
        once = figures.share("k", "n", figures.Sides([0.0] * 8, [1.0, 0.0] * 4, (8, 8)), by="words")
        often = figures.share("k", "n", figures.Sides([0.0] * 8, [1.0, 0.0] * 4, (800, 800)), by="words")
        assert once.finetuned.ci95 == often.finetuned.ci95

    def test_the_same_answers_lie_nowhere(self):
        found = figures.share("k", "n", figures.Sides([1.0, 0.0, 1.0], [1.0, 0.0, 1.0]), by="words")
        assert (found.difference.value, found.clearly) == (0.0, "")
        alone = figures.share("k", "n", figures.Sides([0.0], [1.0]), by="words")
        assert (alone.difference.ci95, alone.clearly) == (None, "")

    def test_questions_without_a_value_are_left_out_on_both_sides(self):
        found = figures.mean("k", "n", figures.Sides([None, 1.0, 2.0], [9.0, 2.0, 3.5]), by="words")
        assert (found.base.n, found.finetuned.n, found.difference.n, found.difference.value) == (2, 3, 2, 1.25)

    def test_a_share_counts_on_its_side_what_the_other_has_no_value_for(self):
        found = figures.share("k", "n", figures.Sides([None, 0.0, 0.0, 1.0], [1.0, 1.0, None, 0.0]), by="words")
        assert found.difference.value == pytest.approx(found.finetuned.value - found.base.value, abs=2e-3)
        apart = figures.share("k", "n", figures.Sides([None] * 6 + [0.0] * 6, [1.0] * 6 + [None] * 6), by="words")
        assert (apart.difference.value, apart.clearly, apart.difference.n) == (1.0, "above", 6)

    def test_intervals_cover_where_many_answers_say_neither(self):
        rng, hits, runs = np.random.default_rng(0), 0, 400
        for _ in range(runs):
            hard = rng.random(18)  # both models find the same questions hard
            sides = [
                [float(h < rate) if rng.random() < heard else None for h in 0.5 * hard + 0.5 * rng.random(18)]
                for rate, heard in ((0.4, 0.4), (0.6, 0.6))
            ]
            found = figures.share("k", "n", figures.Sides(*sides), by="words").difference
            truth = (1 - 2 * 0.4**2) - 2 * 0.4**2  # of a sum of two halves, each uniform
            hits += found.ci95 is not None and found.ci95[0] <= truth <= found.ci95[1]
        assert hits / runs >= 0.93

    def test_parts_that_move_together_tell_no_more_than_one(self):
        sides = figures.Sides([0.0, 1.0, 0.0, 0.0] * 4, [1.0, 1.0, 0.0, 1.0] * 4)
        part = figures.share("k", "n", sides, by="words")

        def joined(*over):
            return figures.averaged("m", "mean", [(part, sides, name) for name in over], by="words")

        assert joined("a", "a").difference.ci95 == pytest.approx(part.difference.ci95, abs=2e-3)
        apart = joined("a", "b").difference.ci95
        assert joined("a", "b").difference.value == part.difference.value
        assert apart[1] - apart[0] == pytest.approx(
            (part.difference.ci95[1] - part.difference.ci95[0]) / 2**0.5, abs=2e-3
        )
