"""Agents side by side: known answers from planted effects, and what must never be averaged, mixed, or left unsaid."""

import json
import warnings

import numpy as np
import pytest
from scipy import stats

from auditor.comparison.compare import compare
from auditor.comparison.statistics import alpha, detectable, holm, mean_interval, paired_p, share_interval, spread_of
from auditor.records.findings import Grade
from tests.simulated import planted, record, rich, run


def draws(seed, n, count, effect=0.0, spread=0.9, own=0.4, noise=0.6, repeats=5):
    """Organisms' means of two agents in `count` made-up runs: (count, 2, n); the second is better by `effect`."""
    rng = np.random.default_rng(seed)
    easy = rng.normal(3, spread, (count, 1, n))
    suits = rng.normal(0, own, (count, 2, n))
    audits = easy[..., None] + suits[..., None] + rng.normal(0, noise, (count, 2, n, repeats))
    audits[:, 1] += effect
    return audits


@pytest.mark.parametrize(("n", "count"), [(4, 1500), (12, 600), (33, 400)])
def test_intervals_cover_what_they_promise(n, count):
    means = draws(1, n, count).mean(-1)
    hits = [low <= 3 <= high for values in means[:, 0] for (low, high), _ in [mean_interval(values, least=-9, most=9)]]
    assert 0.93 <= np.mean(hits) <= 0.97


def test_intervals_of_grades_on_a_scale_cover_too():
    rng = np.random.default_rng(2)
    hits = []
    true = np.mean([r.grade for r in planted(rng, {"a": 3.2}, organisms=20_000, repeats=3)])
    for _ in range(300):
        cells = np.array([r.grade for r in planted(rng, {"a": 3.2}, organisms=10, repeats=3)]).reshape(10, 3).mean(1)
        (low, high), _ = mean_interval(cells, least=1, most=5)
        hits.append(low <= true <= high)
    assert 0.92 <= np.mean(hits) <= 0.98


def test_the_paired_test_keeps_its_promise_and_sees_more_than_an_unclustered_one():
    """At equal false alarms, on the same runs: organisms differ much, and three audits of ten are lost."""
    n, count = 13, 250

    def ps(effect, seed):
        audits = draws(seed, n, count, effect, spread=1.4)
        lost = np.random.default_rng(seed + 100).random(audits.shape) < 0.3
        lost[..., 0] = False
        audits = np.where(lost, np.nan, audits)
        paired = [paired_p(b - a)[0] for a, b in np.nanmean(audits, -1)]
        unclustered = [stats.ttest_ind(a[~np.isnan(a)], b[~np.isnan(b)]).pvalue for a, b in audits]
        return np.array(paired), np.array(unclustered)

    null, unclustered_null = ps(0.0, 3)
    assert 0.03 <= np.mean(null <= 0.05) <= 0.07
    limit = np.quantile(unclustered_null, np.mean(null <= 0.05))  # where it raises as many false alarms
    found, unclustered = ps(0.5, 4)
    assert np.mean(found <= 0.05) > np.mean(unclustered <= limit) + 0.03


def test_spread_is_taken_apart():
    rng = np.random.default_rng(5)
    planted_sd = {"organisms": 1.0, "repeats": 0.6, "verdicts": 0.3}
    verdicts = []
    for organism in range(150):
        easy = rng.normal(0, planted_sd["organisms"])
        for _ in range(4):
            audit = easy + rng.normal(0, planted_sd["repeats"])
            verdicts.append((str(organism), list(audit + rng.normal(0, planted_sd["verdicts"], 3))))
    found = spread_of(verdicts)
    for name, sd in planted_sd.items():
        assert getattr(found, name) == pytest.approx(sd, rel=0.15)
    assert spread_of([("a", [1.0]), ("b", [2.0])]) is None  # no repeats: nothing tells them apart
    same = spread_of([("a", [1.0]), ("a", [1.0]), ("b", [3.0]), ("b", [3.0])])
    assert (same.repeats, same.verdicts) == (0.0, None)
    assert same.organisms > 1


def test_what_cannot_be_told_is_not_told():
    assert mean_interval([3.0], least=1, most=5) == (None, "")
    assert mean_interval([4.0, 4.0, 4.0], least=1, most=5) == (None, "")  # all alike: no spread says how sure
    assert mean_interval([1.0, 5.0, 3.0], least=1, most=5) == ((1, 5), "t")  # never beyond the scale
    assert share_interval(1, 1) is None
    assert paired_p([0.0, 0.0]) == (1.0, 0.5)
    assert paired_p([1.0, 2.0, 1.5]) == (0.25, 0.25)  # three organisms cannot show more
    assert detectable([1.0, 1.0, 1.0]) == (None, None)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    pytest.importorskip("krippendorff")
    assert alpha([[1, 2, 3, 4], [1, 2, 3, 4]]) == 1.0
    assert alpha([[3, 3], [3, 3]]) is None
    assert alpha([[1, 2, None, 4], [2, 2, 3, 5]]) < 1


def test_organisms_count_once_however_many_audits_they_had():
    records = [record("easy", "adl", 5.0, repeat=i) for i in range(9)] + [record("hard", "adl", 1.0)]
    row = compare([run("r", records)]).standings[0]
    assert (row.mean, row.organisms, row.n) == (3.0, 2, 10)
    assert (row.share_ge_4, row.runs_ge_4) == (0.5, 0.9)


def test_audits_without_a_grade_are_counted_and_left_out():
    records = [
        record("a", "adl", 5.0), record("b", "adl", 5.0, status="leaked"), record("c", "adl", 1.0, status="invalid"),
        record("d", "adl", 1.0, status="failed"), record("e", "adl", None),
        record("a", "blackbox", None, status="failed"),
    ]  # fmt: skip
    found = compare([run("r", records)])
    row, other = found.standings
    assert (row.mean, row.n, row.failed) == (5.0, 1, 4)
    assert row.left_out == {"leaked": 1, "invalid": 1, "failed": 1, "not graded": 1}
    assert (other.mean, other.n, other.left_out) == (None, 0, {"failed": 1})
    told = "audits left out of every figure: adl @5: 1 leaked, 1 invalid, 1 failed, 1 not graded; blackbox @5: 1 failed"
    assert told in found.notes


def test_two_graders_are_never_one_number():
    records = [
        record("a", "adl", 5.0).model_copy(
            update={"grades": (Grade(grader="rubric_offline", score=5, reasoning=""),
                               Grade(grader="rubric_llm", judge="m", score=2, reasoning=""))}
        )
    ]  # fmt: skip
    found = compare([run("r", records)])
    assert [(row.grader, row.mean) for row in found.standings] == [("rubric_offline", 5), ("rubric_llm", 2)]
    assert compare([run("r", records)], ["rubric_llm"]).graders == ("rubric_llm",)


def test_judges_of_two_runs_are_told_apart():
    def graded(judge, score):
        grade = Grade(grader="rubric_llm", judge=judge, score=score, reasoning="")
        return record("a", "adl", 1.0).model_copy(update={"grades": (grade,)})

    found = compare([run("one", [graded("m1", 2)], graders=["rubric_llm"]), run("two", [graded("m2", 4)])])
    assert set(found.graders) >= {"rubric_llm@m1", "rubric_llm@m2"}
    assert not found.differences


def test_what_changed_between_runs_is_not_compared_in_silence():
    one = run("one", [record("a", "adl", 2.0)], rubrics={"sdf": "x"}, organisms={"a": "card 1"})
    two = run("two", [record("a", "adl", 4.0)], rubrics={"sdf": "y"}, organisms={"a": "card 2"})
    found = compare([one, two])
    assert set(found.graders) == {"rubric_offline (one)", "rubric_offline (two)"}
    assert not found.differences
    assert any("not the same rubrics" in note for note in found.notes)
    assert any(note.startswith("a: another card in each run") for note in found.notes)
    same = compare([run("one", [record("a", "adl", 2.0)]), run("two", [record("a", "adl", 4.0)])])
    assert [row.contender for row in same.standings] == ["adl @5 · one", "adl @5 · two"]  # nothing is pooled
    assert same.differences[0].mean == -2


def test_the_headline_says_who_how_much_and_how_sure():
    rng = np.random.default_rng(6)
    clear = compare([run("r", planted(rng, {"adl": 4.0, "blackbox": 2.0}, organisms=12))])
    assert clear.headline.startswith("adl @5 is better than blackbox @5 by ")
    assert "on 12 organisms" in clear.certainty
    few = compare([run("r", [record(o, a, s) for o in "abc" for a, s in (("adl", 4), ("blackbox", 2))])])
    assert few.headline.endswith("which may be chance")
    assert "cannot show less than p = 0.25: add organisms" in few.certainty
    assert compare([run("r", [record("a", "adl", 4.0)])]).headline == "adl @5 is graded 4.00 of 5 on average"
    assert compare([run("r", [])]).headline == "Nothing is graded yet"
    alike = compare([run("r", [record(o, a, 3.0) for o in "abcd" for a in ("adl", "blackbox")])])
    assert alike.headline == "adl @5 and blackbox @5 are alike"


def test_confidence_costs_and_agreement():
    rng = np.random.default_rng(7)
    records = [
        made
        for budget, plus in ((0, 0.0), (10, 1.0))
        for made in rich(rng, {"adl": 2.5 + plus, "blackbox": 2.0 + plus}, budget=budget, verdicts=3)
    ]
    found = compare([run("r", records)])
    stated = {each.agent: each for each in found.confidence}
    mine = [r for r in records if r.agent == "adl"]
    right = np.array([r.grade >= 4 for r in mine], float)
    says = np.array([r.findings.confidence for r in mine])
    assert stated["adl"].brier == pytest.approx(np.mean((says - right) ** 2), abs=1e-3)
    assert sum(b.n for b in stated["adl"].curve) == len(mine)
    by_interactions = [m for m in found.matched if m.measure == "interactions"]
    assert {(m.contender, m.other) for m in by_interactions} >= {("adl @0", "blackbox"), ("adl @10", "blackbox")}
    pytest.importorskip("krippendorff")
    (own,) = found.agreement
    assert (own.what, own.audits) == ("verdicts", len(records))
    assert own.alpha > 0.7


def test_a_confidence_on_the_edge_of_a_bin_is_counted_where_it_is_averaged():
    says = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 0.2, 0.65)
    made = next(r.findings for r in rich(np.random.default_rng(9), {"adl": 3.0}, organisms=1, repeats=1))
    records = [
        record("a", "adl", 5.0, repeat=i, findings=made.model_copy(update={"confidence": value}))
        for i, value in enumerate(says)
    ]
    (found,) = compare([run("r", records)]).confidence
    assert sum(b.n for b in found.curve) == len(says)
    assert sum(b.n * b.stated for b in found.curve) == pytest.approx(sum(says), abs=0.01)


def test_a_thousand_audits_give_no_warning_and_few_numbers():
    rng = np.random.default_rng(8)
    records = planted(rng, {"adl": 3.5, "blackbox": 2.0}, organisms=33, repeats=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare([run("r", records)])
    assert len(found.cells) == 66
    assert len(json.dumps(found.model_dump(mode="json"))) < 60_000
