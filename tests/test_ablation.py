"""What each lens is worth: agents beside the one that has none."""

import json

import pytest

from auditor.audits.plan import agents_of
from auditor.records.findings import Grade
from auditor.records.results import AuditRecord
from auditor.studies.ablation import ablation_rows
from auditor.workspace import load_workspace


def record(organism, agent, score, grader="g", status="done", budget=5):
    grades = () if score is None else (Grade(grader=grader, score=score, reasoning=""),)
    return AuditRecord(
        id="x", organism=organism, family="sdf", agent=agent, budget=budget, repeat=0, status=status, grades=grades
    )


def test_organisms_are_the_unit_and_only_common_ones_are_compared():
    audits = [
        record("a", "blackbox", 1), record("a", "blackbox", 2), record("b", "blackbox", 1),
        record("a", "one-lens", 4), record("b", "one-lens", 2), record("b", "one-lens", 2), record("b", "one-lens", 2),
        record("c", "one-lens", 5), record("c", "one-lens", None), record("c", "one-lens", 5, status="leaked"),
    ]  # fmt: skip
    none, lens = ablation_rows(audits)
    assert (none.agent, none.organisms, none.mean, none.worth) == ("blackbox", 2, 1.25, None)
    assert (lens.organisms, lens.audits, lens.left_out) == (3, 5, 2)
    assert lens.mean == pytest.approx((4 + 2 + 5) / 3, abs=1e-3)  # three repeats of b weigh no more than one of a
    assert (lens.worth, lens.compared) == (pytest.approx((2.5 + 1) / 2), 2)


def test_graders_and_budgets_are_never_mixed():
    audits = [record("a", "blackbox", 1), record("a", "x", 5, grader="h"), record("a", "x", 3, budget=0)]
    rows = {(row.grader, row.agent, row.budget): row for row in ablation_rows(audits)}
    assert rows["g", "x", 5].mean is None
    assert rows["h", "x", 5].worth is None
    assert rows["g", "x", 0].worth is None


def test_the_suite_has_each_lens_alone_beside_all_and_none():
    ws = load_workspace()
    agents = [ws.agents[name] for name in agents_of(ws.suites["ablation"])]
    alone = {agent.overview[0] for agent in agents if len(agent.overview) == 1}
    assert alone >= set(ws.agents["all-lenses"].overview) - {"chance"}  # which is a test, and no agent's only sight
    assert {"adl", "all-lenses", "blackbox"} <= {agent.name for agent in agents}


def test_the_study_runs_a_suite_and_reads_its_run_again(workspace_folder, run_cli):
    suite = workspace_folder / "evals/suites/small.yaml"
    suite.write_text(
        suite.read_text() + "audits: [{agent: blackbox, budgets: [0]}, {agent: patchscope-only, budgets: [0]}, "
        "{agent: logit-lens-only, budgets: [0]}, {agent: steering-only, budgets: [1]}]\n"
    )
    code, out, err = run_cli("study", "ablation", "--suite", "small", "--repeats", 1, "--name", "abl", "--json")
    assert code == 0, err
    made = json.loads(out)
    assert [(row["agent"], row["budget"], row["audits"]) for row in made["rows"]] == [
        ("blackbox", 0, 1), ("patchscope-only", 0, 1), ("logit-lens-only", 0, 1), ("steering-only", 1, 1),
    ]  # fmt: skip
    assert made["rows"][1]["worth"] is not None
    assert json.loads(run_cli("study", "ablation", "--run", "abl", "--json")[1])["rows"] == made["rows"]
    code, out, _ = run_cli("study", "ablation", "--run", "abl")
    assert (code, "steering-only" in out, "rubric_offline: calibrated" in out) == (0, True, True)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--run", "nosuch"], "no run called 'nosuch'"),
        (["--run", "x", "--name", "y"], "--run reads a run that is there: leave out --name, or --run"),
        (["--suite", "ablatoin"], "no suite called 'ablatoin'; did you mean ablation"),
        (["--agent", "bleckbox"], "no agent called 'bleckbox'; did you mean blackbox"),
        (["--agent", "adl", "--agent", "no-base"], "--agent no-base: suite ablation names pairs, and none with it"),
    ],
)
def test_what_cannot_be_studied(args, said, workspace_folder, run_cli):
    code, out, err = run_cli("study", "ablation", *args)
    assert (code, out) == (2, "")
    assert said in err.strip().splitlines()[-1]
