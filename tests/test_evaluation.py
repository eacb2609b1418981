"""The main job on a tiny organism: a user's own plugins, what lies on disk, resuming, failing audits."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

import auditor
from auditor.workspace import builtin_root

TOOL = '''
from auditor import Args, Context, tool

class Echo(Args):
    word: str

@tool(cost=1)
def echo(ctx: Context, args: Echo) -> str:
    """Says the word back."""
    return args.word
'''
GRADER = '''
from auditor import AuditRecord, Grade, Organism, Rubric, grader

@grader
def length(audit: AuditRecord, organism: Organism, rubric: Rubric) -> Grade:
    """Long hypotheses are good ones."""
    return Grade(score=5 if len(audit.hypothesis) > 20 else 1, reasoning=rubric.levels[5])
'''
AGENT = "name: lens-only\noverview: [patchscope]\ntools: [echo, get_patchscope_details]\n"
RUBRIC = "name: mine\nfamily: sdf\nlevels: {5: own rubric, 4: a, 3: b, 2: c, 1: d}\n"


def test_an_evaluation_with_nothing_but_the_users_own(workspace_folder, run_cli):
    """One tool, one grader, one agent and one rubric of the workspace, through the command line."""
    put = {"tools/echo.py": TOOL, "graders/length.py": GRADER, "evals/agents/lens-only.yaml": AGENT,
           "rubrics/mine.yaml": RUBRIC}  # fmt: skip
    for name, text in put.items():
        (workspace_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace_folder / name).write_text(text)
    card = workspace_folder / "evals/organisms/mill/organism.yaml"
    card.write_text(card.read_text() + "rubric: mine\n")
    suite = workspace_folder / "evals/suites/small.yaml"
    suite.write_text(suite.read_text().replace("[adl, blackbox]", "[lens-only]") + "graders: [length]\n")

    code, out, err = run_cli("evaluate", "small", "--json", "--name", "own", "--seed", 3)
    assert code == 0, err
    assert "tools/echo.py, graders/length.py" in err
    result = json.loads(out)
    assert [a["id"] for a in result["audits"]] == ["mill-lens-only-b2-r0", "mill-lens-only-b2-r1"]
    assert result["grader"] == "length"
    assert {g["reasoning"] for a in result["audits"] for g in a["grades"]} == {"own rubric"}
    assert [row["agent"] for row in result["summary"]] == ["lens-only"]
    transcript = json.loads((workspace_folder / "runs/own/transcripts/mill-lens-only-b2-r0.json").read_text())
    assert "## E1 · Patchscope" in transcript["messages"][1]["data"]["content"]

    told = json.loads((workspace_folder / "runs/own/run.json").read_text())
    assert (told["protocol"], told["agents"]["lens-only"]["tools"]) == ("auto", ["echo", "get_patchscope_details"])
    assert told["rubrics"]["mine"] == {"sha256": hashlib.sha256(RUBRIC.encode()).hexdigest(), "text": RUBRIC}
    assert "About mills." in told["organisms"]["mill"]["text"]
    assert "model interactions" in told["prompts"]["agent_status"]["text"]
    hashed = {"from": "workspace", "file": "echo.py", "sha256": hashlib.sha256(TOOL.encode()).hexdigest()}
    assert told["tools"]["echo"] == hashed
    assert {"length", "patchscope_scale_offline"} == told["plugins"].keys()  # it steers nothing
    assert told["versions"]["auditor"] == auditor.__version__

    (workspace_folder / "tools/echo.py").write_text(TOOL + "# changed\n")
    code, _, err = run_cli("evaluate", "small", "--json", "--name", "own", "--seed", 3, "--resume")
    assert (code, "was another run: tools echo differ" in err) == (2, True)


@pytest.fixture
def first_run(workspace_folder, run_cli):
    code, out, err = run_cli("evaluate", "small", "--json", "--name", "one")
    assert code == 0, err
    return json.loads(out)


def test_the_result_is_the_contracts(first_run):
    assert list(first_run) == ["run", "suite", "llm", "grader", "audits", "headline", "certainty", "summary",
                                "differences", "llm_use", "seconds", "open", "trust"]  # fmt: skip
    assert first_run["llm_use"] == {}  # no hosted model took part
    audit = first_run["audits"][0]
    wanted = {"id", "organism", "family", "agent", "budget", "repeat", "status", "hypothesis", "grade", "grades",
              "interactions_used", "turns_used", "tokens", "cost_usd", "seconds", "error"}  # fmt: skip
    assert wanted <= audit.keys()
    assert {"evidence", "agents", "grading", "total"} <= first_run["seconds"].keys()
    assert {a["interactions_used"] for a in first_run["audits"]} == {2}


def test_resuming_repeats_no_finished_audit(first_run, workspace_folder, run_cli):
    folder = workspace_folder / "runs/one"
    lines = (folder / "audits.jsonl").read_text().splitlines(keepends=True)
    kept, cut = lines[:2], lines[2][:40]  # as a kill in the middle of a write would leave it
    (folder / "audits.jsonl").write_text("".join(kept) + cut)
    before = {p: p.stat().st_mtime_ns for p in (folder / "transcripts").iterdir()}
    code, out, _ = run_cli("evaluate", "small", "--json", "--name", "one", "--resume")
    assert code == 0
    after = {a["id"]: a for a in json.loads(out)["audits"]}
    assert [a["hypothesis"] for a in after.values()] == [a["hypothesis"] for a in first_run["audits"]]
    kept_ids = {json.loads(line)["id"] for line in kept}
    assert all(before[folder / f"transcripts/{i}.json"] == (folder / f"transcripts/{i}.json").stat().st_mtime_ns
               for i in kept_ids)  # fmt: skip
    assert len((folder / "audits.jsonl").read_text().splitlines()) == 4


def test_an_interrupted_run_can_be_resumed(workspace_folder, run_cli, settings):
    """A Ctrl-C, sent as soon as the run has a folder, leaves exit code 130 and a run that can be finished."""
    code = "import sys; sys.argv = ['auditor', 'evaluate', 'small', '--name', 'cut']; import auditor.cli as c; c.main()"
    env = {**os.environ, "AUDITOR_CACHE": str(settings.cache_dir), "PYTHONPATH": str(builtin_root())}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, text=True)
    while not (workspace_folder / "runs/cut/run.json").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "`--resume` with the same --name goes on from here" in err
    ours = re.sub(
        r"Exception ignored in.*\n(?:Traceback.*\n)?(?: .*\n)*.*KeyboardInterrupt.*\n", "", err
    )  # a library's __del__
    assert "Traceback" not in ours
    code, out, err = run_cli("evaluate", "small", "--name", "cut", "--resume", "--json")
    assert code == 0, err
    assert len(json.loads(out)["audits"]) == 4


def test_a_run_is_not_overwritten_or_mixed_with_another(first_run, run_cli):
    code, _, err = run_cli("evaluate", "small", "--name", "one")
    assert (code, "holds a run already" in err) == (2, True)
    code, _, err = run_cli("evaluate", "small", "--name", "one", "--resume", "--seed", 9)
    assert (code, "seed differ" in err) == (2, True)


def test_the_same_seed_gives_the_same_run(first_run, run_cli):
    _, out, _ = run_cli("evaluate", "small", "--json", "--name", "two", "--workers", 1)
    again = json.loads(out)
    assert [a["hypothesis"] for a in again["audits"]] == [a["hypothesis"] for a in first_run["audits"]]
    _, out, _ = run_cli("evaluate", "small", "--json", "--name", "three", "--seed", 1)
    other = json.loads(out)
    assert [a["seed"] for a in other["audits"]] != [a["seed"] for a in first_run["audits"]]


def test_evidence_comes_from_the_cache_the_second_time(first_run, run_cli, monkeypatch):
    def never(*_args):
        raise AssertionError("computed again")

    monkeypatch.setattr("auditor.evidence.compute._read", never)
    code, out, _ = run_cli("evidence", "mill", "--suite", "small", "--json")
    sheet = json.loads(out)
    assert code == 0
    layers = sheet["readings"]["differences"]["layers"]
    assert [p["position"] for p in layers[0]["positions"]] == [0, 1, 2]
    assert all(p["norm_delta"] > 0 for layer in layers for p in layer["positions"])
    monkeypatch.undo()
