"""The gate: p-values over lenses at a family-wise level, what could not be tested, exit codes, and bad requests."""

import json

import pytest

from auditor.audits.gate import Ask, judged
from auditor.audits.gate_report import document, headline
from auditor.errors import UsageError
from auditor.evidence.mapping import Cost, Evidence
from auditor.lenses import Lens
from auditor.readings import Basis, Column, RankedTokens, Reading, Token
from auditor.records.record import Record
from auditor.views.report import to_markdown
from tests.drift import add_drift

ROUND = 1e-9


class Fake(Reading):
    """What a lens with this p read; held against `finetunes`."""

    given: float | None = None
    finetunes: int = 25
    least: float = 0.0
    words: tuple[str, ...] = ("oven", "flour")

    @property
    def p(self):
        return self.given

    @property
    def basis(self):
        return Basis(finetunes=self.finetunes, least=self.least)

    def held_against(self, pair, ctx, nulls):
        return self

    def show(self):
        tokens = tuple(Token(text=word) for word in self.words)
        columns = (Column(head="1", tokens=tokens),)
        return [RankedTokens(title="Words", tested=self.given is not None, about="held", columns=columns)]


def lens(name, needs=(), kind=Fake):
    return Lens(name, name, Record, kind, needs, lambda *given: Fake(), __file__)


def gate(readings, *, level=0.05, strict=False, failed=None, missing=None, needs=None, asked=()):
    lenses = {name: lens(name, (needs or {}).get(name, ())) for name in (*readings, *(failed or {}))}
    cost = Cost(seconds=2.0, base_tokens=1, finetuned_tokens=1, judged=0)
    evidence = Evidence("pair", "f", "openings", readings, failed or {}, dict.fromkeys(readings, cost), lenses=lenses)
    ask = Ask("mine", "mine", "base", "quickstart", level, asked, strict)
    return judged(ask, evidence, tuple(lenses), missing or {})


def states(report):
    return {found.lens: found.state for found in report.lenses}


def test_the_level_is_shared_by_all_tests():
    report = gate({"a": Fake(given=0.02), "b": Fake(given=0.03), "c": Fake(given=0.9)})
    assert report.p == pytest.approx(0.06)  # the least of three
    assert report.passed
    assert not report.readable
    report = gate({"a": Fake(given=0.01), "b": Fake(given=0.024), "c": Fake(given=0.9)})
    assert [found.corrected for found in report.lenses] == pytest.approx([0.03, 0.048, 0.9])  # Holm, not Bonferroni
    assert states(report) == {"a": "readable", "b": "readable", "c": "quiet"}
    assert not report.passed
    assert "p = 0.030 over 3 tests; the strongest: a" in headline(report)


def test_a_trace_is_below_the_level_as_everywhere_here():
    assert not gate({"a": Fake(given=0.05)}).readable
    assert gate({"a": Fake(given=0.05 - ROUND)}).readable


def test_a_null_that_cannot_reach_the_level_is_no_pass():
    """Its test gives no p below 0.005, so that at 0.005 it finds nothing, ever."""
    alone = gate({"chance": Fake(given=0.005, least=0.005)}, level=0.005)
    assert states(alone) == {"chance": "untested"}
    assert not alone.passed
    assert "no p below 0.005" in alone.lenses[0].why
    readings = {"chance": Fake(given=0.03, least=0.005), "b": Fake(given=0.4)}
    assert gate(readings, level=0.05).passed
    beside = gate(readings, level=0.01)  # one of two: 0.005 twice is not below 0.01
    assert states(beside) == {"chance": "untested", "b": "quiet"}
    assert beside.passed
    assert not gate(readings, level=0.01, strict=True).passed


def test_what_has_no_null_is_told_and_fails_a_strict_gate():
    missing = {"mining": "no finetunes without a subject"}
    noise = {"chance": Fake(given=0.4, finetunes=0, least=0.005)}
    report, strict = (gate(noise, missing=missing, strict=strict) for strict in (False, True))
    assert states(report) == {"chance": "quiet", "mining": "untested"}
    assert (report.passed, strict.passed) == (True, False)
    text = to_markdown(document(report))
    assert "Held against noise only" in text
    assert "mining: not read: no finetunes without a subject" in text
    assert "could not be tested: not passed (--strict)" in headline(strict)
    named = gate(noise, missing=missing, strict=True, asked=("chance",))  # nobody asked for the other
    assert named.passed


def test_a_gate_that_tested_nothing_does_not_pass():
    report = gate({"logits": Fake()}, missing={"logits": "no test"})
    assert states(report) == {"logits": "untested"}
    assert report.p is None
    assert not report.passed
    assert "nothing could be tested" in headline(report)


def test_a_lens_that_could_not_be_read_is_no_pass():
    report = gate({"a": Fake(given=0.9)}, failed={"b": "out of memory"})
    assert states(report) == {"a": "quiet", "b": "failed"}
    assert not report.passed
    assert "b: out of memory" in to_markdown(document(report))


def test_a_lens_over_the_same_needs_is_tested_by_another_and_tells_the_place():
    readings = {"delta": Fake(), "chance": Fake(given=0.001), "logits": Fake(words=("flour", "town", "oven"))}
    report = gate(readings, needs={"chance": ("delta",), "logits": ("delta",)})
    found = {each.lens: each for each in report.lenses}
    assert found["logits"].state == "covered"
    assert found["logits"].why == "tested by chance"
    assert [(c.where, c.words) for c in found["chance"].carriers] == [
        ("position 1", ("oven", "flour")), ("position 1", ("flour", "oven")),
    ]  # fmt: skip


def test_what_a_model_wrote_is_data_in_the_report():
    report = gate({"a": Fake(given=0.001, words=("# head\x1b[31m", "", "<b>", "[x](y)"))})
    text = to_markdown(document(report))
    assert "\x1b" not in text
    assert "\n# head" not in text
    assert "\\[x\\](y)" in text
    assert len(report.lenses[0].carriers[0].words) == 3  # what is no word is left out
    assert "| --- | --- |" in text


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 5.0, float("nan")])
def test_a_level_is_a_probability(level):
    with pytest.raises(UsageError, match="between 0 and 1"):
        Ask("a", "a", "b", "quickstart", level)


@pytest.fixture
def mill(workspace_folder, checkpoints, settings):
    """A function that prepares a null in which finetunes are about `usual` apart, and gives options for the gate."""

    def prepare(usual, count=8):
        add_drift(workspace_folder, checkpoints("llama")[0], settings, usual, count)
        return ("gate", "mill", "--suite", "small", "--lens", "drift")

    return prepare


def test_a_trace_is_an_exit_1_and_its_report_says_what_gives_it_away(mill, run_cli, tmp_path):
    code, said, _ = run_cli(*mill(usual=0.0), "--out", tmp_path / "gate", "--html", tmp_path / "page.html")
    assert code == 1
    assert "A trace is readable at 0.05: p < 0.001 (drift)." in said
    assert "plain text: mill, [red]flour, bread" in said
    written = {path.name: path.read_text() for path in (tmp_path / "gate").iterdir()}
    assert sorted(written) == ["gate.html", "gate.json", "gate.md"]
    assert written["gate.html"] == (tmp_path / "page.html").read_text()
    kept = json.loads(written["gate.json"])
    assert (kept["passed"], kept["readable"], kept["tested"]) == (False, True, 1)
    assert kept["lenses"][0]["rests_on"][0].startswith("apart by")


def test_what_is_like_others_is_an_exit_0(mill, run_cli, tmp_path, checkpoints):
    shared = json.loads(run_cli(*mill(usual=0.0), "--json")[1])["lenses"][0]["rests_on"][0]
    code, said, _ = run_cli(*mill(usual=float(shared.removeprefix("apart by ")) - 0.01), "--json")
    report = json.loads(said)
    assert (code, report["passed"]) == (0, True)
    assert 0.05 < report["p"] <= 1


def test_by_default_all_that_have_a_null_are_read_and_the_rest_is_told(mill, run_cli):
    mill(usual=0.0)
    code, said, told = run_cli("gate", "mill", "--suite", "small", "--json")
    found = {lens["lens"]: lens for lens in json.loads(said)["lenses"]}
    assert code == 1
    assert found["drift"]["state"] == "readable"
    assert found["chance"]["finetunes"] == 0
    assert found["logit_lens"]["state"] == "covered"
    for name in ("diff_mining", "ppl_diff", "amplified"):
        assert "no finetunes without a subject are known for this base" in found[name]["why"]
        assert name not in told  # nobody read it


def test_nulls_of_other_settings_are_told_as_such(mill, run_cli, workspace_folder):
    args = mill(usual=0.0)
    suite = workspace_folder / "evals" / "suites" / "small.yaml"
    suite.write_text(suite.read_text() + "    drift: {tokens: 3}\n")
    code, said, _ = run_cli(*args, "--json")
    assert code == 1
    assert "with other settings or texts" in json.loads(said)["lenses"][0]["why"]


def test_bad_requests_are_one_line_each(mill, run_cli, checkpoints, workspace_folder, tmp_path):
    args = mill(usual=0.0)
    base, adapter = checkpoints("llama")
    (tmp_path / "file").touch()
    for given, told in (
        (("gate",), "name the MODEL, once"),
        (("gate", "mill", "--model", "mill"), "name the MODEL, once"),
        (("gate", base), "names no base of its own"),
        (("gate", base, "--base", base), "has the very weights of its base"),
        (("gate", "mill", "--lens", "drft"), "no lens called 'drft'; did you mean drift"),
        (("gate", "mill", "--suite", "smal"), "no suite called 'smal'"),
        ((*args, "--max-trace", "1.5"), "give a number between 0 and 1"),
        ((*args, "--max-trace", "0"), "give a number between 0 and 1"),
        ((*args, "--out", tmp_path / "file"), "that is a file; give a folder"),
        ((*args, "--html", tmp_path / "no" / "page.html"), "there is no folder"),
        (("gate", "--base", base, "--model", checkpoints("gpt2")[1]), "does not fit base"),
        (("gate", "--base", tmp_path / "nowhere", "--model", adapter), "nowhere"),
    ):
        code, said, wrong = run_cli(*given)
        assert (code, said) == (2, ""), (given, said, wrong)
        *before, last = wrong.strip().splitlines()
        assert told in last, (given, wrong)
        assert all(line.startswith("loading plugins of") for line in before), wrong
