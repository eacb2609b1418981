"""Whatever file is cut, the same command gives the right result or one line that names the file."""

import os

import pytest

from tests.cuts import Campaign

TRIALS = int(os.environ.get("AUDITOR_CUTS", "6"))  # campaigns/cuts.py makes more


@pytest.fixture
def cli(run_cli, monkeypatch, tmp_path):
    """`run_cli` with a cache of its own."""
    monkeypatch.setenv("AUDITOR_CACHE", str(tmp_path / "cache"))
    return run_cli


def made(cli, *args):
    code, _, err = cli(*args)
    assert code == 0, err


def tried(campaign, capsys):
    wrong = campaign.trials(TRIALS, seed=0)
    with capsys.disabled():
        if "AUDITOR_CUTS" in os.environ:
            print(f"\n{dict(campaign.outcomes)}", *wrong, sep="\n")
    assert not wrong


@pytest.mark.timeout(36_000)
def test_a_cut_cache(workspace_folder, cli, capsys, tmp_path):
    sheet = ("evidence", "mill", "--suite", "small", "--json")
    asked = ("ask", "mill", "What is a mill?", "--json")
    made(cli, *sheet)
    made(cli, *asked)
    assert {path.parent.name for path in (tmp_path / "cache").rglob("*") if path.is_file()} >= {"hashes"}
    tried(Campaign(cli, [tmp_path / "cache"], {"evidence": sheet, "ask": asked}), capsys)


@pytest.mark.timeout(36_000)
def test_a_cut_run(workspace_folder, cli, capsys):
    """Of a run that was broken off: two of its audits are to be made yet."""
    run = ("evaluate", "small", "--name", "one", "--workers", "1", "--json")
    made(cli, *run)
    folder = workspace_folder / "runs/one"
    lines = (folder / "audits.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "audits.jsonl").write_bytes(b"".join(lines[:2]))
    tried(Campaign(cli, [folder], {"resume": (*run, "--resume")}), capsys)
