"""`auditor push`: the real client against a hub of ours that takes commits as the real one does."""

import json
import os
import sqlite3
import subprocess
import sys

import pytest
import yaml
from huggingface_hub import constants

import auditor
from auditor.errors import UsageError
from tests.hub_users import CONCLUSION, READER, STRANGER, TOKEN, audited, by_hand, error_of, hub_with_users

SECRET = "sk-proj-0123456789abcdefghij"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_with_users(monkeypatch, tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def audit(workspace_folder, run_cli, serve, checkpoints):
    return audited(workspace_folder, checkpoints("llama")[1], run_cli, serve)


@pytest.fixture
def run(workspace_folder, run_cli):
    """A run of two agents on a tiny organism."""
    code, _, err = run_cli("evaluate", "small", "--name", "mine", "--repeats", 1, "--budget", 1)
    assert code == 0, err
    return workspace_folder / "runs/mine"


def front(card):
    return yaml.safe_load(card.decode().split("---\n")[1])


class TestARun:
    def test_becomes_a_private_dataset_of_one_commit(self, hub, run, run_cli):
        code, out, err = run_cli("push", run, "lab/results", "--yes")
        assert code == 0, err
        assert "lab/results (dataset, private, to be made)" in out
        assert f"{hub.url}/datasets/lab/results" in out
        assert hub.private == {"lab/results"}
        files = hub.datasets["lab/results"]
        tables = {f"data/{name}.parquet" for name in ("audits", "grades", "readings")}
        assert set(files) == {".gitattributes", "README.md", "run.json", "audits.jsonl", *tables}
        assert sum("/commit/" in path for path in hub.written) == 1
        assert sum(path.startswith("/lfs/") for path in hub.written) == len(tables)  # checked after each upload
        told = front(files["README.md"])
        assert {config["config_name"] for config in told["configs"]} == {"audits", "grades", "readings"}
        assert "license" not in told
        page = files["README.md"].decode()
        for part in ("2 audits: 2 done.", "| adl | 1 | rubric_offline | 1 | ", "- rubric_offline: calibrated: kappa",
                     "- the agent: offline: rules, no language model", "seed 0", "- Transcripts were not pushed.",
                     'auditor.load_run("hf://datasets/lab/results")'):  # fmt: skip
            assert part in page
        note = json.loads((run / "pushed.json").read_text())
        assert (note["repo"], note["private"]) == ("lab/results", True)

    def test_holds_no_path_of_this_machine_and_no_key(self, hub, run, run_cli, monkeypatch, tmp_path):
        monkeypatch.setenv("MY_API_KEY", "horse-battery-staple")
        about = json.loads((run / "run.json").read_text())
        record = (run / "audits.jsonl").read_text()
        assert str(tmp_path.parent) in json.dumps(about) + record  # there is something to be taken out
        leak(run, f"horse-battery-staple {SECRET} /home/jane/secret/notes.txt https://jane:pw12@host.example/x")
        code, out, err = run_cli("push", run, "lab/results", "--yes", "--transcripts", "--to", tmp_path / "copy")
        assert code == 0, err
        assert "Replaced, wherever they stood (keys: 3, local paths: " in out
        everything = b"".join(path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file())
        rows = json.dumps(
            [pandas_of(tmp_path / f"copy/data/{name}.parquet") for name in ("audits", "transcripts")],
            ensure_ascii=False,
        )
        for secret in (str(tmp_path.parent), os.path.expanduser("~"), "horse-battery", SECRET, "jane", "pw12"):
            assert secret.encode() not in everything, secret
            assert secret not in rows, secret
        assert "[a key was here] [a key was here] …/notes.txt https://[a key was here]@host.example/x" in rows
        assert "cache_dir" not in json.loads((tmp_path / "copy/run.json").read_text())["settings"]

    def test_is_read_back_as_it_was(self, hub, run, run_cli):
        assert run_cli("push", run, "lab/results", "--yes")[0] == 0
        there, here = auditor.load_run("hf://datasets/lab/results"), auditor.load_run(run)
        assert [audit.grade for audit in there.audits] == [audit.grade for audit in here.audits]
        assert list(there.frame("grades")["score"]) == list(here.frame("grades")["score"])
        assert there.compare().standings == here.compare().standings
        code, _, err = run_cli("compare", "hf://datasets/lab/results", "--json")
        assert code == 0, err
        commit = json.loads((run / "pushed.json").read_text())["commit"]
        assert auditor.load_run(f"hf://datasets/lab/results@{commit}").audits == there.audits

    def test_is_what_datasets_and_pandas_read(self, hub, run, run_cli, tmp_path):
        pytest.importorskip("datasets")
        assert run_cli("push", run, "lab/results", "--yes", "--transcripts")[0] == 0
        script = """
import json, datasets, pandas
names = ("audits", "grades", "readings", "transcripts")
told = {name: datasets.load_dataset("lab/results", name, split="train").to_list() for name in names}
frame = pandas.read_parquet("hf://datasets/lab/results/data/audits.parquet")
print(json.dumps([told, list(frame["id"]), datasets.get_dataset_default_config_name("lab/results")]))
"""
        own = {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", script], env=os.environ | own, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        told, ids, first = json.loads(done.stdout)
        assert ids == [row["id"] for row in told["audits"]] == [audit.id for audit in auditor.load_run(run).audits]
        assert first == "audits"
        tokens = [row for row in told["readings"] if row["lens"] == "logit_lens" and row["kind"] == "tokens"]
        assert {row["organism"] for row in tokens} == {"mill"}
        assert {row["layer"] for row in tokens} == {2, 3}
        assert {row["position"] for row in tokens} == {0, 1, 2}
        assert all(row["text"] and row["rank"] >= 1 for row in tokens)
        said = [row for row in told["readings"] if row["kind"] == "texts"]
        assert {row["speaker"] for row in said} >= {"base", "plain"}
        assert told["transcripts"][0]["type"] == "system"

    def test_is_brought_up_to_date(self, hub, run, run_cli):
        assert run_cli("push", run, "lab/results", "--yes", "--transcripts", "--license", "cc-by-4.0")[0] == 0
        files = hub.datasets["lab/results"]
        assert "data/transcripts.parquet" in files
        edited = files["README.md"].replace(b"tags:\n", b"tags:\n- mine\n") + b"\nMore by hand.\n"
        by_hand("lab/results", {"notes.md": b"mine", "README.md": edited})
        code, out, err = run_cli("push", run, "lab/results", "--yes")
        assert code == 0, err
        assert "is there already" in out
        assert "data/transcripts.parquet  is taken away" in out
        files = hub.datasets["lab/results"]
        assert "data/transcripts.parquet" not in files
        assert files["notes.md"] == b"mine"
        told = front(files["README.md"])
        assert (told["license"], told["tags"][0]) == ("cc-by-4.0", "mine")
        assert "transcripts" not in {config["config_name"] for config in told["configs"]}
        assert files["README.md"].endswith(b"More by hand.\n")
        assert files["README.md"].count(b"auditor:begin") == 1

    def test_tells_what_is_missing_of_its_readings(self, hub, run, run_cli, monkeypatch, tmp_path):
        monkeypatch.setattr("auditor.evidence.cache.kept", lambda *_args: None)
        code, out, err = run_cli("push", run, "lab/results", "--dry-run")
        assert code == 0, err
        assert "Readings that are no longer in the cache, and so not in the table: mill: " in out
        assert "data/readings.parquet" not in out

    def test_tells_what_has_not_ended(self, hub, run, run_cli):
        with sqlite3.connect(run / "ledger.sqlite") as db:
            db.execute("UPDATE jobs SET state = 'queued', record = NULL WHERE name = 'mill-blackbox-b1-r0'")
        code, out, err = run_cli("push", run, "lab/results", "--dry-run")
        assert (code, "Audits that had not ended when this was pushed, and are missing: 1." in out) == (0, True), err
        assert "data/audits.parquet" in out

    def test_is_json_lines_without_pyarrow(self, hub, run, run_cli, monkeypatch, tmp_path):
        monkeypatch.setattr("auditor.hub.bundle.find_spec", lambda name: None)
        code, out, err = run_cli("push", run, "lab/results", "--dry-run", "--to", tmp_path / "copy")
        assert code == 0, err
        assert "Parquet needs pyarrow" in out
        lines = (tmp_path / "copy/data/audits.jsonl").read_text().splitlines()
        assert len(lines) == 2
        assert front((tmp_path / "copy/README.md").read_bytes())["configs"][0]["data_files"] == "data/audits.jsonl"


class TestNothingIsPublishedBySurprise:
    def test_a_dry_run_asks_no_hub(self, hub, run, run_cli, monkeypatch):
        monkeypatch.delenv("HF_TOKEN")
        code, out, _ = run_cli("push", run, "lab/results", "--dry-run", "--json")
        told = json.loads(out)
        assert (code, told["pushed"], told["private"]) == (0, None, True)
        assert told["rows"]["audits"] == 2
        assert hub.asked == hub.written == []

    def test_it_is_asked_first(self, hub, run, run_cli, monkeypatch):
        monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115
        code, out, err = run_cli("push", run, "lab/results")
        assert (code, "nothing was pushed (--yes: do not ask)" in err) == (2, True)
        assert "audits.parquet" in out
        assert hub.datasets == {}

    def test_public_is_said_loudly(self, hub, run, run_cli):
        code, out, _ = run_cli("push", run, "lab/results", "--yes", "--public")
        assert (code, hub.private) == (0, set())
        assert "lab/results (dataset, PUBLIC, to be made)" in out

    def test_a_dataset_of_somebody_elses_making_stays(self, hub, run, run_cli):
        hub.datasets["lab/texts"] = {"README.md": b"# Texts", "data.jsonl": b"{}"}
        code, _, err = run_cli("push", run, "lab/texts", "--yes")
        assert (code, "is a dataset that auditor did not make" in error_of(err)) == (2, True)
        assert hub.datasets["lab/texts"]["README.md"] == b"# Texts"

    @pytest.mark.parametrize(
        ("token", "repo", "more", "said"),
        [
            (None, "lab/results", (), "no token of the hub: set HF_TOKEN to one that may write"),
            ("hf_nobodynobodynobodynobody", "lab/results", (), "the hub does not take the token"),
            (READER, "lab/results", (), "you must use a write token to upload"),
            (TOKEN, "elsewhere/results", (), "you are me on the hub, and no member of elsewhere; you may push to me/…"),
            (TOKEN, "lab/model", (), "lab/model is a model: give the dataset another name, such as lab/model-audit"),
            (TOKEN, "results", (), "results: give a repository of the hub, as ORG/NAME"),
            (TOKEN, "lab/results/x", (), "give a repository of the hub, as ORG/NAME"),
            (TOKEN, "lab/results", ("--license", "no such"), '"license" must be one of'),
        ],
    )  # fmt: skip
    def test_what_stands_in_the_way_is_one_line(self, hub, run, run_cli, monkeypatch, token, repo, more, said):
        if token is None:
            monkeypatch.delenv("HF_TOKEN")
            monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere")
        else:
            monkeypatch.setenv("HF_TOKEN", token)
        code, _, err = run_cli("push", run, repo, "--yes", *more)
        assert (code, said in error_of(err)) == (2, True), err
        assert not any("audits.jsonl" in files for files in hub.datasets.values())

    def test_too_large_offline_gone_and_nothing_there(self, hub, run, run_cli, monkeypatch):
        hub.most = 10
        assert "the hub finds this too large" in error_of(run_cli("push", run, "lab/results", "--yes")[2])
        with monkeypatch.context() as patch:
            patch.setattr(constants, "HF_HUB_OFFLINE", True)
            assert "HF_HUB_OFFLINE is set" in error_of(run_cli("push", run, "lab/results", "--yes")[2])
        with monkeypatch.context() as patch:
            patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
            assert "http://127.0.0.1:9 cannot be reached" in error_of(run_cli("push", run, "lab/results", "--yes")[2])
        with pytest.raises(UsageError, match="no such dataset or revision on the hub"):
            auditor.load_run("hf://datasets/lab/nothing")
        with pytest.raises(UsageError, match="give a dataset of the hub, as hf://datasets/ORG/NAME"):
            auditor.load_run("hf://lab/nothing")
        hub.datasets["lab/other"] = {"README.md": b""}
        with pytest.raises(UsageError, match=r"it has no audits\.jsonl"):
            auditor.load_run("hf://datasets/lab/other")

    def test_a_private_one_is_not_seen_by_others(self, hub, run, run_cli, monkeypatch):
        assert run_cli("push", run, "lab/results", "--yes")[0] == 0
        monkeypatch.setenv("HF_TOKEN", STRANGER)
        with pytest.raises(UsageError, match="or a private one"):
            auditor.load_run("hf://datasets/lab/results@main")
        assert "no member of lab" in error_of(run_cli("push", run, "lab/results", "--yes")[2])


def leak(run, text):
    """An agent that has said `text` in its first message, as the ledger holds it."""
    with sqlite3.connect(run / "ledger.sqlite") as db:
        (sha, body) = db.execute("SELECT sha256, body FROM steps JOIN texts ON message = sha256 LIMIT 1").fetchone()
        message = json.loads(body)
        message["data"]["content"] += f" {text}"
        db.execute("UPDATE texts SET body = ? WHERE sha256 = ?", (json.dumps(message), sha))


def pandas_of(path):
    import pandas

    return json.loads(pandas.read_parquet(path).to_json(orient="records"))


class TestAReport:
    def test_becomes_a_dataset_with_the_report_and_its_claims(self, hub, audit, run_cli, tmp_path):
        code, _, err = run_cli("push", audit, "me/audit", "--yes", "--to", tmp_path / "copy")
        assert code == 0, err
        files = hub.datasets["me/audit"]
        assert {"report.json", "report.md", "data/claims.parquet"} <= set(files)
        assert "data/grades.parquet" not in files  # there are none
        report = json.loads(files["report.json"])
        assert (report["model"], report["base"]) == ("…/llama-adapter", "…/llama")
        (claim,) = pandas_of(tmp_path / "copy/data/claims.parquet")
        assert (claim["claim"], claim["holds"]) == ("It grinds 99 sacks.", False)
        page = files["README.md"].decode()
        assert "- Model: `…/llama-adapter` (`tensors:" in page
        assert "- the agent: `openai:m`" in page
        assert "- Nobody graded it: its truth is not known." in page
        assert "<img" not in page.replace("\\<img", "")
        assert auditor.load_run("hf://datasets/me/audit").audits[0].findings.domain == CONCLUSION["domain"]
        assert b"canary" not in b"".join(files.values())
