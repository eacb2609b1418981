"""Runs as a user handles them: listed, shown, exported, graded again, limited, foretold, deleted; old ones are read."""

import csv
import json
import shutil
from importlib.util import find_spec

import pytest

from auditor.audits.limits import read_limits
from auditor.audits.progress import Progress
from auditor.errors import UsageError
from auditor.ledger.ledger import Ledger
from tests.conftest import judge

FINAL = {"content": 'Seen.\nFINAL(description: "About mills.")'}


@pytest.fixture
def run(workspace_folder, run_cli):
    code, out, err = run_cli("evaluate", "small", "--json", "--name", "one")
    assert code == 0, err
    return json.loads(out)


def test_runs_are_listed_shown_and_deleted(run, workspace_folder, run_cli):
    code, out, err = run_cli("runs", "list", "--json")
    assert code == 0, err
    (told,) = json.loads(out)
    assert (told["name"], told["suite"], told["states"], told["ledger"]) == ("one", "small", {"done": 4}, True)
    code, out, err = run_cli("runs", "show", "one", "--json")
    assert code == 0, err
    assert json.loads(out)["summary"] == run["summary"]
    assert "mill" in json.loads(out)["request"]["organisms"]
    assert run_cli("runs", "show", "one")[0] == 0
    code, _, err = run_cli("runs", "show", "onne")
    assert (code, "did you mean one?" in err) == (2, True)
    with Ledger.open(workspace_folder / "runs/one"):
        code, _, err = run_cli("runs", "rm", "one", "--yes")
        assert (code, "an auditor is at work there" in err) == (2, True)
    assert run_cli("runs", "rm", "one", "--yes")[0] == 0
    assert not (workspace_folder / "runs/one").exists()
    assert run_cli("runs", "list")[1].startswith("no runs in runs")


def test_a_run_of_a_version_without_a_ledger_is_read_and_not_resumed(run, workspace_folder, run_cli):
    """As it lay there before: run.json, audits.jsonl, calls.jsonl, transcripts."""
    old = workspace_folder / "runs/old"
    old.mkdir()
    for name in ("run.json", "audits.jsonl", "transcripts"):
        source = workspace_folder / "runs/one" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, old / name)
    later = ("llm", "protocol", "pair", "evidence", "judges", "ended_by", "notes")
    lines = [json.loads(line) for line in (old / "audits.jsonl").read_text().splitlines()]
    plain = [{k: v for k, v in line.items() if k not in (*later, "crc32")} for line in lines]
    (old / "audits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in plain))
    call = {"key": "k", "purpose": "mill-adl-b2-r0", "sent": [], "reply": {}}
    (old / "calls.jsonl").write_text(json.dumps(call) + "\n")

    assert run_cli("compare", "old", "one")[0] == 0
    assert run_cli("report", "old")[0] == 0
    assert (old / "report.html").stat().st_size > 20_000
    code, out, err = run_cli("runs", "show", "old", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["ledger"], told["states"]) == (False, {"done": 4})
    assert sorted(told["summary"], key=str) == sorted(run["summary"], key=str)  # in the order in which they ended
    code, out, err = run_cli("show", "runs/old", "mill-adl-b2-r0", "--json")
    assert (code, json.loads(out)["calls"]) == (0, [call]), err
    for args in (
        ["evaluate", "small", "--name", "old", "--resume"],
        ["grade", "old"],
        ["export", "old", "--format", "jsonl"],
    ):
        code, _, err = run_cli(*args)
        assert (code, "ledger" in err.splitlines()[-1]) == (2, True), err
    assert run_cli("export", "old", "--format", "csv")[0] == 0


def test_a_run_is_exported(run, workspace_folder, run_cli, serve):
    serve(lambda body: FINAL)
    args = ("evaluate", "small", "--llm", "openai:m", "--name", "two", "--repeats", 1, "--json")
    assert run_cli(*args)[0] == 0
    to = workspace_folder / "out"
    code, _, err = run_cli("export", "two", "--format", "csv", "--to", to)
    assert (code, "--to" in err) == (2, True)
    to.mkdir()
    code, out, err = run_cli("export", "two", "--format", "csv", "--to", to, "--json")
    assert code == 0, err
    assert [path.rpartition("/")[2] for path in json.loads(out)] == ["audits.csv", "grades.csv", "calls.csv"]
    audits = list(csv.DictReader((to / "audits.csv").open()))
    assert [(a["id"], a["llm"], a["tokens_in"]) for a in audits] == [
        ("mill-adl-b2-r0", "openai:m", "100"), ("mill-blackbox-b2-r0", "openai:m", "100"),
    ]  # fmt: skip
    assert len(list(csv.DictReader((to / "calls.csv").open()))) == 2
    assert run_cli("export", "two", "--format", "jsonl", "--to", to)[0] == 0
    calls = [json.loads(line) for line in (to / "calls.jsonl").read_text().splitlines()]
    assert {call["role"] for call in calls} == {"agent"}
    assert "canary" not in (to / "calls.jsonl").read_text()
    assert "You are" in calls[0]["sent"][0]["data"]["content"]


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="pyarrow is an extra")
def test_a_run_is_exported_as_parquet(run, workspace_folder, run_cli):
    from pyarrow import parquet

    assert run_cli("export", "one", "--format", "parquet")[0] == 0
    table = parquet.read_table(workspace_folder / "runs/one/grades.parquet")
    assert (table.num_rows, set(table["grader"].to_pylist())) == (4, {"rubric_offline"})


def test_a_run_is_graded_again_without_its_agents(run, workspace_folder, run_cli, serve):
    endpoint = serve(judge)
    code, out, err = run_cli(
        "grade", "one", "--grader", "rubric_llm", "--grader-llm", "openai:j", "--grader-repeats", 1, "--json"
    )
    assert code == 0, err
    rows = {row["grader"]: row for row in json.loads(out)["summary"]}
    assert set(rows) == {"rubric_offline", "rubric_llm@openai:j"}  # never one number
    assert rows["rubric_llm@openai:j"]["mean"] == 3
    assert len(endpoint.requests) == 4
    again = run_cli(
        "grade", "one", "--grader", "rubric_llm", "--grader-llm", "openai:j", "--grader-repeats", 1, "--json"
    )
    assert (again[0], len(endpoint.requests)) == (0, 4)  # what is there is not paid for again
    code, _, err = run_cli("grade", "one", "--grader", "rubric_llm")
    assert (code, "grader rubric_llm needs --grader-llm" in err) == (2, True)
    code, out, err = run_cli("evaluate", "small", "--json", "--name", "one", "--resume")
    assert [a["grade"] for a in json.loads(out)["audits"]] == [a["grade"] for a in run["audits"]]


def test_another_judge_is_not_resumed_with(run, run_cli, serve):
    serve(judge)
    code, _, err = run_cli("evaluate", "small", "--name", "one", "--resume", "--grader-llm", "openai:j")
    assert (code, "grader_llm" in err and "differ" in err) == (2, True)


def test_failed_audits_are_made_anew_only_when_asked(workspace_folder, run_cli, serve):
    well = []
    endpoint = serve(lambda body: FINAL if well else 400)
    args = ("evaluate", "small", "--llm", "openai:m", "--name", "f", "--repeats", 1, "--workers", 1, "--json")
    first = run_cli(*args)
    assert first[0] in (1, 2)
    well.append(True)
    before = len(endpoint.requests)
    code, out, _ = run_cli(*args, "--retry-failed")
    assert (code, [a["status"] for a in json.loads(out)["audits"]]) == (0, ["done", "done"])
    assert len(endpoint.requests) == before + 2


# ---- limits


def test_limits_are_read():
    run, audit = read_limits(["2.5", "0.1/audit"], ["1000"], ["60/audit"])
    assert (run.cost_usd, run.tokens, run.seconds) == (2.5, 1000, None)
    assert (audit.cost_usd, audit.tokens, audit.seconds) == (0.1, None, 60.0)
    for bad in (["x"], ["-1"], ["0"], ["1/run"], ["1", "2"]):
        with pytest.raises(UsageError, match="--max-cost"):
            read_limits(bad, [], [])


PRICED = "openai:m?price_in=1000&price_out=1000"  # 110 tokens a call: 0.11 USD


def asking(body):
    tools = {tool["function"]["name"] for tool in body.get("tools", [])}
    if "ask_model" in tools:
        call = {"id": f"c{len(body['messages'])}", "type": "function"}
        return {
            "content": "",
            "tool_calls": [{**call, "function": {"name": "ask_model", "arguments": '{"prompts": ["Why?"]}'}}],
        }
    return FINAL


@pytest.mark.parametrize(("option", "limit"), [("0.5/audit", "cost"), ("0.5", "cost of the run")])
def test_a_limit_of_cost_still_ends_in_a_graded_hypothesis_that_names_it(
    option, limit, workspace_folder, run_cli, serve
):
    serve(asking)
    args = ("evaluate", "small", "--agent", "blackbox", "--repeats", 1, "--llm", PRICED, "--budget", 9, "--json")
    code, out, err = run_cli(*args, "--max-cost", option, "--name", "c")
    assert code == 0, err
    (audit,) = json.loads(out)["audits"]
    assert (audit["status"], audit["ended_by"], audit["hypothesis"]) == ("done", limit, "About mills.")
    assert audit["grade"] is not None
    assert audit["cost_usd"] <= 0.5


def test_what_a_limit_keeps_from_being_begun_is_said_and_resumed(workspace_folder, run_cli, serve):
    endpoint = serve(lambda body: FINAL)
    args = ("evaluate", "small", "--repeats", 3, "--llm", "openai:m", "--workers", 1, "--name", "t", "--json")
    code, out, err = run_cli(*args, "--max-tokens", 300)
    told = json.loads(out)
    assert (code, len(told["audits"]), told["open"]) == (1, 3, 3), err
    code, _, err = run_cli(*args, "--max-tokens", 300, "--resume")
    assert (code, "the limit of tokens is spent: the run has taken 330 tokens" in err) == (2, True)
    code, out, _ = run_cli(*args, "--resume")
    assert (code, json.loads(out)["open"], len(endpoint.requests)) == (0, 0, 6)


def test_an_unpriced_model_fails_closed(workspace_folder, run_cli, serve):
    endpoint = serve(lambda body: FINAL)
    args = ("evaluate", "small", "--repeats", 1, "--llm", "openai:m", "--max-cost", 1, "--name", "u")
    code, _, err = run_cli(*args)
    assert (code, len(endpoint.requests)) == (2, 0)
    assert "no price is known for openai:m; write openai:m?price_in=" in err.splitlines()[-1]
    assert run_cli(*args, "--allow-unpriced")[0] == 0


# ---- what is foretold, and how it goes


def test_a_dry_run_tells_and_starts_nothing(workspace_folder, run_cli, serve):
    endpoint = serve(lambda body: FINAL)
    suite = workspace_folder / "evals/suites/small.yaml"
    suite.write_text(suite.read_text() + "audits: [{agent: adl, budgets: [0, 5]}, {agent: blackbox, budgets: [5]}]\n")
    args = ("evaluate", "small", "--llm", PRICED, "--grader-llm", "openai:j?price_in=1&price_out=1", "--dry-run")
    code, out, err = run_cli(*args, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert [(c["agent"], c["budget"], c["audits"]) for c in told["cells"]] == [
        ("adl", 0, 2),
        ("adl", 5, 2),
        ("blackbox", 5, 2),
    ]
    assert (told["audits"], told["interactions"], told["judge_calls"]) == (6, 20, 18)
    assert told["cost_usd"] > told["agent_tokens"] * 1e-3 * 0.99
    assert run_cli(*args)[0] == 0
    assert not endpoint.requests
    assert not (workspace_folder / "runs").exists()
    _, out, _ = run_cli("evaluate", "small", "--llm", "openai:m", "--dry-run", "--json")
    assert json.loads(out)["cost_usd"] is None


def test_explicit_pairs_of_agents_and_budgets(workspace_folder, run_cli):
    suite = workspace_folder / "evals/suites/small.yaml"
    suite.write_text(suite.read_text() + "audits: [{agent: adl, budgets: [0]}, {agent: blackbox, budgets: [1, 2]}]\n")
    code, out, err = run_cli("evaluate", "small", "--repeats", 1, "--json", "--name", "p")
    assert code == 0, err
    made = [(a["agent"], a["budget"]) for a in json.loads(out)["audits"]]
    assert made == [("adl", 0), ("blackbox", 1), ("blackbox", 2)]
    _, out, _ = run_cli("evaluate", "small", "--repeats", 1, "--agent", "blackbox", "--dry-run", "--json")
    assert [(c["agent"], c["budget"]) for c in json.loads(out)["cells"]] == [("blackbox", 1), ("blackbox", 2)]


def test_progress_is_what_the_events_say(run, workspace_folder):
    with Ledger.read(workspace_folder / "runs/one") as ledger:
        events, seen = ledger.events.since(), Progress()
        seen.take(events)
        assert ledger.events.since(events[-1].n) == []
    assert (seen.jobs, seen.made, dict(seen.ended), seen.running) == (4, 4, {"done": 4}, {})
    assert {key: len(scores) for key, scores in seen.grades.items()} == {("adl", 2): 2, ("blackbox", 2): 2}
    assert seen.interactions == 8
    assert seen.seconds_left(seen.now) == 0
    half = Progress()
    half.take([event for event in events if not (event.kind == "audit" and event.data["state"] != "running")])
    assert len(half.running) == 4
    assert half.seconds_left(half.now) is None


def test_records_tell_who_played_and_what_was_read(run):
    audit = run["audits"][0]
    assert (audit["llm"], audit["protocol"]) == ("offline", "tools")
    assert len(audit["pair"]) > 16
    assert {"chance", "patchscope", "logit_lens", "steering"} <= set(audit["evidence"])
    assert audit["judges"] == {"calls": 0, "tokens": {"input": 0, "output": 0}, "cost_usd": 0.0}


def test_a_run_name_is_no_path(workspace_folder, run_cli):
    for name in ("../x", "a/b", "", ".."):
        code, _, err = run_cli("evaluate", "small", "--name", name)
        assert (code, "give a plain folder name" in err) == (2, True)


def test_jobs_of_the_same_name_stay_apart(workspace_folder):
    from auditor.audits.jobs import jobs_of
    from auditor.audits.plan import Plan
    from auditor.config import load_settings
    from auditor.workspace import load_workspace

    card = workspace_folder / "evals/organisms/mill/organism.yaml"
    for name in ("a", "a-adl-b2-r0-adl"):
        other = workspace_folder / f"evals/organisms/{name}/organism.yaml"
        other.parent.mkdir()
        other.write_text(card.read_text().replace("name: mill", f"name: {name}"))
    suite = workspace_folder / "evals/suites/small.yaml"
    suite.write_text(suite.read_text().replace("[mill]", "[a]"))
    ws = load_workspace(workspace_folder)
    jobs = jobs_of(Plan(ws, ws.suites["small"], load_settings()))
    assert len({job.id for job in jobs}) == len({job.name for job in jobs}) == 4
    assert {job.id for job in jobs_of(Plan(ws, ws.suites["small"], load_settings(), seed=1))}.isdisjoint(
        j.id for j in jobs
    )
