"""What lies in a run's folder: the ledger is the truth, and nothing that is cut elsewhere misleads a resume."""

import json
import random
import shutil
import subprocess

import pytest

from auditor.audits.request import revision
from auditor.lines import read_lines
from auditor.workspace import Workspace


def test_a_run_cut_anywhere_gives_the_same_audits_or_a_clear_error(workspace_folder, run_cli, serve):
    """Every file of the folder, cut at random or gone: no audit is other than it was, none is there twice."""
    final = {"content": 'Seen.\nFINAL(description: "About mills\u2028 and été.")'}
    endpoint = serve(lambda body: final)
    args = ["evaluate", "small", "--llm", "openai:m", "--name", "run", "--repeats", 1, "--json"]
    code, out, err = run_cli(*args)
    assert code == 0, err

    def essence(out):
        kept = ("id", "status", "hypothesis", "grade", "interactions_used", "turns_used", "tokens")
        return [{key: audit[key] for key in kept} for audit in json.loads(out)["audits"]]

    right, folder = essence(out), workspace_folder / "runs/run"
    saved = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 1}
    rng, paid = random.Random(0), len(endpoint.requests)
    assert paid == len(right)
    for path, content in saved.items():
        for length in (None, 0, rng.randrange(1, len(content)), len(content) - 1):
            for other, whole in saved.items():
                other.write_bytes(whole)
            path.unlink() if length is None else path.write_bytes(content[:length])
            code, out, err = run_cli(*args, "--resume")
            where = f"{path.name} cut to {length}"
            if code == 0:
                assert essence(out) == right, where
                assert json.loads(out)["llm_use"]["agent"]["calls"] == paid, where
                told = sorted(line["id"] for _, line in read_lines(folder / "audits.jsonl"))
                assert told == sorted(audit["id"] for audit in right), where
            else:
                assert (code, err.strip().splitlines()[-1].startswith("error:")) == (2, True), where
                assert path.name == "ledger.sqlite", where
    assert len(endpoint.requests) == paid  # all calls came from the ledger, none of the audits was made twice


def test_the_copies_are_made_anew_from_the_ledger(workspace_folder, run_cli):
    code, _, err = run_cli("evaluate", "small", "--name", "one", "--json")
    assert code == 0, err
    folder = workspace_folder / "runs/one"
    copies = [folder / "run.json", folder / "audits.jsonl", *sorted((folder / "transcripts").iterdir())]
    before = {path: path.read_bytes() for path in copies}
    for path in copies:
        path.unlink()
    assert run_cli("evaluate", "small", "--name", "one", "--resume", "--json")[0] == 0
    assert {path: path.read_bytes() for path in copies if path.name != "audits.jsonl"} == {
        path: content for path, content in before.items() if path.name != "audits.jsonl"
    }

    def lines(content):
        return sorted(
            json.dumps({k: v for k, v in json.loads(line).items() if k != "crc32"}) for line in content.splitlines()
        )

    assert lines((folder / "audits.jsonl").read_bytes()) == lines(before[folder / "audits.jsonl"])


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_revision_of_the_users_workspace_is_noted(tmp_path):
    root = tmp_path / "ws"
    root.mkdir()
    workspace = Workspace([("built-in", tmp_path), ("workspace", root)])
    assert revision(workspace) is None
    (root / "card.yaml").write_text("a: 1\n")
    for command in (
        "init -q", "remote add origin https://me:token@example.org/ws.git", "add .",
        "-c user.name=a -c user.email=a@b commit -qm one",
    ):  # fmt: skip
        subprocess.run(["git", "-C", root, *command.split(" ")], check=True)
    found = revision(workspace)
    assert (len(found["commit"]), found["dirty"], found["origin"]) == (40, False, "https://example.org/ws.git")
    (root / "card.yaml").write_text("a: 2\n")
    assert revision(workspace)["dirty"]
    assert revision(Workspace([("built-in", root / "sub")])) is None  # installed in somebody's repository
