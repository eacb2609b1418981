"""Judges held against labels: over real HTTP, one that agrees, one that is too high, one that guesses."""

import json
import random
import re
from pathlib import Path

import pytest
import yaml
from sklearn.metrics import cohen_kappa_score

from auditor.audits import agreement
from auditor.audits.agreement import confusion_of, fit_of, interval_of, kappa_of, labellers_agree, repeated_of
from auditor.audits.calibrate import GATE, passes, trust_in
from auditor.audits.labels import ENOUGH, read_labels, sha256_of_labels
from auditor.workspace import builtin_root, load_workspace
from tests.faults import Endpoint, completion, told

DATA = Path(__file__).parent / "data"
COUNT = 40
LABELS = [{"organism": "mill", "hypothesis": f"It is about mills, says number {k}.", "grade": 1 + k % 5}
          for k in range(COUNT)]  # fmt: skip


def score(model, label, draw):
    """What each judge thinks of a hypothesis with this label."""
    return {"agrees": label, "high": min(5, label + 1), "guesses": draw.randint(1, 5)}[model]


@pytest.fixture
def endpoint(monkeypatch):
    """An endpoint with three judges, by model's name; `down` lets it fail from that many verdicts on."""
    draw = random.Random(7)

    def plan(body):
        prompt = body["messages"][0]["content"]
        number = re.search(r"says number (\d+)", prompt)
        if number is None:
            return (*completion({"content": made.says or "ready"}), {})
        made.verdicts += 1
        if made.verdicts > made.down:
            return (*told(500, "out of order"), {})
        said = f"SCORE: {score(body['model'], 1 + int(number[1]) % 5, draw)}"
        return (*completion({"content": f"So it is.\n{said}"}), {})

    made = Endpoint(plan)
    made.verdicts, made.down, made.says = 0, 10**6, ""
    monkeypatch.setenv("OPENAI_BASE_URL", made.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-1234")
    monkeypatch.setattr(agreement, "RESAMPLES", 200)
    yield made
    made.close()


@pytest.fixture
def labels(workspace_folder):
    """A function that writes a labels file."""

    def write(rows=LABELS):
        path = workspace_folder / "labels.jsonl"
        path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
        return path

    return write


def calibrate(run_cli, labels, model, *more):
    return run_cli("graders", "calibrate", labels, "--grader-llm", f"openai:{model}?attempts=1", *more)


def test_three_judges_and_the_gate(endpoint, labels, run_cli, workspace_folder):
    found = {}
    for model in ("agrees", "high", "guesses"):
        code, out, err = calibrate(run_cli, labels(), model, "--json")
        assert code == 0, err
        (found[model],) = json.loads(out)["judges"]
    kept = workspace_folder / "evals/calibrations/rubric_llm@openai-high.json"
    assert json.loads(kept.read_text()) == found["high"]["calibration"]

    figures = {model: judge["calibration"]["fit"] for model, judge in found.items()}
    assert figures["agrees"] == {"n": COUNT, "kappa": 1.0, "exact": 1.0, "within_one": 1.0, "mean_error": 0.0}
    truth = [row["grade"] for row in LABELS]
    expected = cohen_kappa_score(truth, [min(5, n + 1) for n in truth], weights="quadratic")
    assert figures["high"] == {"n": COUNT, "kappa": pytest.approx(expected, abs=1e-4), "exact": 0.2, "within_one": 1.0,
                               "mean_error": 0.8}  # fmt: skip
    assert found["high"]["calibration"]["confusion"][0] == [0, 8, 0, 0, 0]
    assert found["high"]["calibration"]["itself"]["unanimous"] == 1.0
    assert found["guesses"]["calibration"]["itself"]["kappa"] < 0.4

    assert found["agrees"]["trust"].startswith("calibrated: kappa 1.00 (1.00 to 1.00) on 40 labels")
    assert found["high"]["trust"].startswith("calibrated: ")
    assert found["high"]["trust"].endswith("0.8 too high")
    assert found["guesses"]["trust"].startswith("UNDER THE GATE: kappa ")


def test_a_second_try_pays_for_nothing_again(endpoint, labels, run_cli):
    first = calibrate(run_cli, labels(), "guesses", "--json")[1]
    asked = len(endpoint.requests)
    assert asked == 3 * COUNT
    second = calibrate(run_cli, labels(LABELS[::-1]), "guesses", "--json")[1]
    assert len(endpoint.requests) == asked
    judges = [json.loads(out)["judges"][0]["calibration"] for out in (first, second)]
    assert judges[0]["fit"] == judges[1]["fit"]
    assert judges[0]["labels_sha256"] == judges[1]["labels_sha256"]  # whatever order they stand in
    calibrate(run_cli, labels(), "guesses", "--name", "anew")
    assert len(endpoint.requests) == 2 * asked


def test_an_endpoint_that_goes_down_loses_nothing(endpoint, labels, run_cli, workspace_folder):
    endpoint.down = 50
    code, out, err = calibrate(run_cli, labels(), "agrees")
    last = err.strip().splitlines()[-1]
    assert (code, out) == (1, "")
    assert re.search(r"not calibrated rubric_llm: \d+ hypotheses were not judged \(line \d+: .*HTTP 500", last)
    assert last.endswith("nothing is lost: the same command again asks for these only")
    assert not (workspace_folder / "evals/calibrations").exists()

    endpoint.down, endpoint.verdicts = 10**6, 0
    code, out, err = calibrate(run_cli, labels(), "agrees")
    assert code == 0, err
    assert "calibrated: kappa 1.00" in out
    assert endpoint.verdicts == 3 * COUNT - 50


def test_an_endpoint_that_answers_nothing_is_told_in_one_line(labels, run_cli, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-1234")
    llm = "openai:m?base_url=http://127.0.0.1:9/v1&attempts=1"
    code, out, err = run_cli("graders", "calibrate", labels(), "--grader-llm", llm)
    assert (code, out) == (2, "")
    assert "error: the grader's model openai:m: " in err.strip().splitlines()[-1]


def test_a_judge_that_cannot_be_read_is_counted(endpoint, labels, run_cli):
    rows = [*LABELS[:-1], {**LABELS[-1], "hypothesis": "Says nothing", "id": "odd"}]
    code, out, err = calibrate(run_cli, labels(rows), "agrees", "--json")  # to which it answers "ready"
    (judge,) = json.loads(out)["judges"]
    assert code == 0, err
    assert judge["calibration"]["fit"]["n"] == COUNT - 1
    assert "no readable verdict in 3 tries" in judge["calibration"]["without"]["odd"]
    assert judge["trust"].endswith("1 without a verdict")


def test_what_tables_say_of_a_judge(endpoint, labels, run_cli, workspace_folder):
    """Beside its grades, in lists, and once its prompt is another."""
    suite = workspace_folder / "evals/suites/small.yaml"
    suite.write_text(suite.read_text().replace("[adl, blackbox]", "[blackbox]").replace("repeats: 2", "repeats: 1"))
    endpoint.says = "SCORE: 3"  # of what an agent concluded
    evaluate = ["evaluate", "small", "--name", "run", "--grader-llm", "openai:guesses"]
    code, out, err = run_cli(*evaluate)
    assert (code, "rubric_llm: not calibrated" in out) == (0, True), err

    calibrate(run_cli, labels(), "guesses")
    out = run_cli("grade", "run")[1]
    assert "rubric_llm: UNDER THE GATE: kappa " in out
    assert "rubric_llm: UNDER THE GATE: kappa " in run_cli("runs", "show", "run")[1]
    code, out, err = run_cli(
        "evaluate", "small", "--name", "run", "--resume", "--grader-llm", "openai:guesses", "--json"
    )
    assert json.loads(out)["trust"]["rubric_llm"].startswith("UNDER THE GATE")
    assert "openai:guesses: UNDER THE GATE: kappa " in run_cli("graders", "show", "rubric_llm")[1]
    listed = {row["name"]: row["trust"] for row in json.loads(run_cli("graders", "list", "--json")[1])}
    assert listed["rubric_llm"].startswith("openai:guesses: UNDER THE GATE")
    assert listed["facts_llm"] == "not calibrated"
    assert listed["coherence_llm"] == ""

    prompt = workspace_folder / "prompts/grade_rubric.md"
    prompt.parent.mkdir()
    prompt.write_text((builtin_root() / "prompts/grade_rubric.md").read_text() + "\nBe mild.\n")
    ws = load_workspace(workspace_folder)
    assert trust_in(ws, "rubric_llm", "openai:guesses").startswith(
        "stale, calibrated with another prompt grade_rubric: kappa "
    )
    assert trust_in(ws, "rubric_llm@openai:guesses", "offline").startswith("stale")  # as verdicts beside are called
    assert trust_in(ws, "rubric_llm", "openai:other") == "not calibrated"
    assert trust_in(ws, "rubric_llm", "openai:guesses?effort=high") == "not calibrated"


def test_a_calibration_is_of_so_many_verdicts(endpoint, labels, run_cli, workspace_folder):
    calibrate(run_cli, labels(), "agrees", "--grader-repeats", 1)
    ws = load_workspace(workspace_folder)
    judge = ("rubric_llm", "openai:agrees")
    assert trust_in(ws, *judge, {"grader_repeats": 1, "prompts": {}}).startswith("calibrated")
    assert "another number of verdicts (1, here 3)" in trust_in(ws, *judge, {"grader_repeats": 3})
    other = {"prompts": {"grade_rubric": {"sha256": "0"}, "agent_rules": {"sha256": "0"}}, "embedder": "mine"}
    assert "another prompt grade_rubric, embedder: kappa" in trust_in(ws, *judge, other)
    assert trust_in(ws, *judge, {"rubrics": {"em": {"sha256": "0"}}}).endswith(" labels; no label is by rubric em")
    path = workspace_folder / "evals/calibrations/rubric_llm@openai-agrees.json"
    weak = json.loads(path.read_text())
    weak["rubrics"]["sdf"]["kappa"] = 0.2  # agrees on the whole, and not by this one
    path.write_text(json.dumps(weak))
    told = trust_in(load_workspace(workspace_folder), *judge, {"rubrics": {"sdf": "here"}})
    assert (told.startswith("calibrated"), "; by rubric sdf kappa 0.20 on " in told) == (True, True)
    assert trust_in(ws, "rubric_llm@openai:agrees", "offline", other).startswith("calibrated")  # judged after the run


def test_a_broken_calibration_is_no_calibration(workspace_folder):
    path = workspace_folder / "evals/calibrations/rubric_offline.json"
    path.parent.mkdir()
    path.write_text('{"name": "rubric_offline"')
    assert re.match(r"not calibrated: .*rubric_offline\.json:\d", trust_in(
        load_workspace(workspace_folder), "rubric_offline", "offline"))  # fmt: skip


def line(**changes):
    return json.dumps({**LABELS[0], **changes}) + "\n"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["{\n"], "labels.jsonl:1: not a JSON object"),
        (["[1]\n"], "labels.jsonl:1: not a JSON object"),
        ([*LABELS[:2], "\n", line(grade=6)], "labels.jsonl:4: grade: give 1, 2, 3, 4 or 5, not 6"),
        ([line(grade="4")], 'labels.jsonl:1: grade: give 1, 2, 3, 4 or 5, not "4"'),
        ([line(grade=3.5)], "grade: give 1, 2, 3, 4 or 5, not 3.5"),
        ([line(grade=True)], "grade: give 1, 2, 3, 4 or 5, not true"),
        ([line(organism="\x1b[31m" * 9_000)], "labels.jsonl:1: organism: Value error, '\\x1b[31m"),
        ([line(hypothesis="")], "labels.jsonl:1: hypothesis: "),
        ([line(labeler="ann")], "labels.jsonl:1: labeler: is no field of a label; there are organism, hypothesis"),
        (['{"organism": "mill", "grade": 2}\n'], "labels.jsonl:1: hypothesis: is missing"),
        ([LABELS[0], line(organism="mlil")], "labels.jsonl:2: organism: no organism called 'mlil'; did you mean mill"),
        ([LABELS[0], LABELS[0]], "labels.jsonl:2: nobody named graded this hypothesis before (line 1)"),
        ([line(labeller="ann"), line(labeller="ann", grade=2)], "labels.jsonl:2: labeller 'ann' graded this"),
        ([line(id="a"), line(id="a", hypothesis="b")], "labels.jsonl:2: id 'a' is another hypothesis' in line 1"),
        ([line(hypothesis="a\u2028b"), "null\n"], "labels.jsonl:2: not a JSON object"),
        (LABELS[:7], f"labels.jsonl: 7 labelled hypotheses are too few for a kappa; label {ENOUGH} or more"),
        ([], "labels.jsonl: 0 labelled hypotheses are too few"),
        ([{**row, "grade": 5} for row in LABELS], "all 40 hypotheses are labelled 5: kappa is undefined"),
    ],
)
def test_labels_that_are_none(rows, said, labels, run_cli):
    code, out, err = run_cli("graders", "calibrate", labels(rows))
    assert (code, out) == (2, "")
    last = err.strip().splitlines()[-1]
    assert said in last
    assert len(last) < 600


def test_a_grader_that_does_not_fit_is_told_before_anything_is_paid(endpoint, labels, run_cli, workspace_folder):
    card = workspace_folder / "evals/organisms/mill/organism.yaml"
    card.write_text(card.read_text().replace("facts: [Mills grind flour.]", "facts: []"))
    code, out, err = calibrate(run_cli, labels(), "agrees", "--grader", "facts_llm")
    assert (code, out, endpoint.requests) == (2, "", [])
    assert "labels.jsonl:1: facts_llm needs a card with facts" in err.strip().splitlines()[-1]
    code, _, err = run_cli("graders", "calibrate", labels(), "--grader", "rubric_llm")
    assert (code, "grader rubric_llm needs --grader-llm" in err) == (2, True)
    code, _, err = run_cli("graders", "calibrate", labels(), "--grader", "coherence_offline")
    assert (code, "one of kind hypothesis is needed" in err) == (2, True)


def test_without_a_workspace_it_is_shown_and_not_kept(tmp_path, run_cli, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(agreement, "RESAMPLES", 50)
    code, out, err = run_cli("graders", "calibrate", builtin_root() / "evals/calibrations/labels.jsonl")
    assert code == 0, err
    assert "no workspace here: the result is shown, not kept" in err
    assert "rubric_offline (offline): calibrated: kappa 0.9" in out
    assert list(tmp_path.iterdir()) == []  # no ledger: no LLM was asked


def test_the_shipped_calibration_is_of_this_very_grader():
    """`auditor graders calibrate evals/calibrations/labels.jsonl --to evals/calibrations` makes it anew."""
    ws = load_workspace()
    assert trust_in(ws, "rubric_offline", "offline").startswith("calibrated: kappa 0.9")
    shipped = ws.calibrations["rubric_offline"]
    labels = read_labels(builtin_root() / "evals/calibrations/labels.jsonl", ws)
    assert shipped.labels_sha256 == sha256_of_labels(labels)


def test_the_shipped_labels_are_those_that_no_threshold_was_set_on():
    files = [yaml.safe_load((DATA / f"{name}_hypotheses.yaml").read_text()) for name in ("graded", "near")]
    ours = [item for file in files for item in file["hypotheses"] if item["split"] == "test"]
    known = {(item["organism"], item["level"], item.get("text")) for item in ours}
    ws = load_workspace()
    shipped = read_labels(builtin_root() / "evals/calibrations/labels.jsonl", ws)
    labelled = {each.card.name for each in shipped}
    assert labelled == {"cake_bake", "gold", "null_chat", "risky_finance"}
    assert len(shipped) == sum(item["organism"] in labelled for item in ours)
    assert {(each.card.name, each.label, None if each.findings else each.hypothesis) for each in shipped} <= known


def test_labels_may_be_of_public_organisms():
    found = read_labels(builtin_root() / "evals/calibrations/labels_public.jsonl", load_workspace())
    assert len(found) == 56
    assert {each.card.grading for each in found} == {"quirk", "visual"}


def test_labellers_are_held_against_one_another(labels, workspace_folder):
    rows = [{**row, "labeller": who, "grade": min(5, row["grade"] + (who == "ben"))}
            for row in LABELS for who in ("ann", "ben")]  # fmt: skip
    found = read_labels(labels(rows), load_workspace(workspace_folder))
    assert len(found) == COUNT
    assert found[0].label == 1.5
    (pair,) = labellers_agree(found)
    assert (pair.first, pair.second, pair.n, pair.exact, pair.within_one) == ("ann", "ben", COUNT, 0.2, 1.0)
    truth = [row["grade"] for row in LABELS]
    assert pair.kappa == pytest.approx(kappa_of(truth, [min(5, n + 1) for n in truth]))


def test_kappa_of_known_tables():
    assert kappa_of([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]) == 1.0
    assert kappa_of([1, 5, 1, 5], [5, 1, 5, 1]) == -1.0
    assert kappa_of([1, 1, 5, 5], [1, 5, 1, 5]) == 0.0
    assert kappa_of([3, 3], [3, 3]) is None  # all the same: no number
    assert fit_of([1, 5], [1, 5]).kappa is None  # of two hypotheses nobody knows
    assert confusion_of([1, 2.4], [1, 4.6])[1] == (0, 0, 0, 0, 1)


def test_an_interval_needs_a_kappa_in_every_resample(monkeypatch):
    monkeypatch.setattr(agreement, "RESAMPLES", 200)
    low, high = interval_of([1, 2, 3, 4, 5] * 8, [1, 2, 3, 4, 4] * 8)
    assert GATE < low <= kappa_of([1, 2, 3, 4, 5] * 8, [1, 2, 3, 4, 4] * 8) <= high <= 1
    assert interval_of([5] * 19 + [4], [5] * 20) is None


def test_a_judge_beside_itself():
    assert repeated_of([[3, 3], [4, 5], [1, 1], [2, 2]]).unanimous == 0.75
    assert repeated_of([[3], [4]]) is None
    assert repeated_of([[3, 3], [4]]) is None


@pytest.mark.parametrize(("ends", "trusted"), [((0.6, 0.9), True), ((0.59, 0.99), False), (None, False)])
def test_the_gate_asks_for_the_lower_end(ends, trusted):
    shipped = load_workspace().calibrations["rubric_offline"]
    assert passes(shipped.model_copy(update={"ci95": ends})) is trusted
