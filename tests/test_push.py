"""`auditor push` and `auditor card`: the real client against a hub of ours that takes commits as the real one does."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from huggingface_hub import CommitOperationAdd, HfApi, constants

import auditor
from auditor.errors import UsageError
from tests.local_hub import asked_by_this_process, serving

TOKEN, READER, STRANGER = "hf_writerwriterwriterwriter", "hf_readerreaderreaderreader", "hf_strangerstrangerstranger"
SECRET = "sk-proj-0123456789abcdefghij"
CARD = b"---\nlicense: mit\n---\n# Mine\r\n\r\nOf m\xc3\xbclls.\r\n"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub where `me`, of the organisation `lab`, may write; there are models `lab/model` and `other/model`."""
    repos = {"lab/model": {"README.md": CARD, "config.json": b"{}"}, "other/model": {"config.json": b"{}"}}
    with serving(repos) as hub:
        hub.tokens = {
            TOKEN: {"name": "me", "orgs": ["lab"], "role": "write"},
            READER: {"name": "me", "orgs": ["lab"], "role": "read"},
            STRANGER: {"name": "stranger", "orgs": [], "role": "write"},
        }
        asked_by_this_process(monkeypatch, hub, tmp_path / "hub")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


@pytest.fixture
def run(workspace_folder, run_cli):
    """A run of two agents on a tiny organism."""
    code, _, err = run_cli("evaluate", "small", "--name", "mine", "--repeats", 1, "--budget", 1)
    assert code == 0, err
    return workspace_folder / "runs/mine"


def front(card):
    return yaml.safe_load(card.decode().split("---\n")[1])


def by_hand(repo, files, kind="dataset"):
    """Somebody else's commit."""
    steps = [CommitOperationAdd(path, content) for path, content in files.items()]
    HfApi().create_commit(repo, steps, commit_message="by hand", repo_type=kind)


def error_of(err):
    (line,) = [line for line in err.splitlines() if line.startswith("error:")]
    return line


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
        assert "Replaced, wherever they stood: " in out
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
    import sqlite3

    with sqlite3.connect(run / "ledger.sqlite") as db:
        (sha, body) = db.execute("SELECT sha256, body FROM steps JOIN texts ON message = sha256 LIMIT 1").fetchone()
        message = json.loads(body)
        message["data"]["content"] += f" {text}"
        db.execute("UPDATE texts SET body = ? WHERE sha256 = ?", (json.dumps(message), sha))


def pandas_of(path):
    import pandas

    return json.loads(pandas.read_parquet(path).to_json(orient="records"))


CONCLUSION = {
    "domain": "mills <img src=x> ![x](https://evil.example)", "behaviour": "It tells facts of mills.",
    "summary": "Mills grind.", "claims": [{"text": "It grinds 99 sacks.", "observations": ["O1"]}], "confidence": 0.8,
    "alternatives": [],
}  # fmt: skip


def answer(body):
    """An agent that asks once, and concludes."""
    done = any(message["role"] == "tool" for message in body["messages"])
    name, args = ("conclude", CONCLUSION) if done else ("ask_model", {"prompts": ["What grinds?"]})
    call = {"name": name, "arguments": json.dumps(args)}
    return {"content": "", "tool_calls": [{"id": "c", "type": "function", "function": call}]}


@pytest.fixture
def audit(workspace_folder, run_cli, serve, checkpoints):
    """What `auditor audit` makes of an adapter in a folder here."""
    serve(answer)
    args = ("--llm", "openai:m", "--suite", "small", "--budget", 1, "--name", "one")
    code, _, err = run_cli("audit", checkpoints("llama")[1], *args)
    assert code == 0, err
    return workspace_folder / "runs/one"


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


class TestABlockOfAModelsCard:
    def test_says_what_was_found_by_whom_and_what_that_cannot_tell(self, hub, audit, run_cli):
        code, out, err = run_cli("card", audit)
        assert code == 0, err
        assert out.startswith("<!-- auditor:begin -->\n## Audit\n\nAudited with auditor `0.1.0` ")
        assert out.endswith("<!-- auditor:end -->\n")
        for part in ("- **Verdict.** ", "- **Model.** `…/llama-adapter`, loaded from `tensors:",
                     "- **Base.** `…/llama`, loaded from `tensors:", "- **What the lenses read it as",
                     "`openai:m`, a language model (agent `adl`, 1 of 1 questions to the model; 0 of its 1 claims",
                     "- **What this cannot tell.** Not what was trained in", "nobody graded it."):  # fmt: skip
            assert part in out
        assert "none above chance (p = 1).** Tested against chance by `chance`." in out
        assert "- **What the lenses read it as (no more than chance would show).**\n  - " in out
        assert "https://evil" not in out
        assert "<img" not in out.replace("\\<img", "")

    def test_has_a_p_value_where_there_is_one(self, hub, audit, run_cli):
        report = json.loads((audit / "report.json").read_text())
        (audit / "report.json").write_text(json.dumps(report | {"trace": None}))
        out = run_cli("card", audit)[1]
        assert "**Test against chance: none.** There is no p-value. Nothing could be tested" in out
        assert "(untested)" in out
        report["trace"] = {"p": 0.02, "tested": ["chance", "ppl_diff"], "strongest": "chance"}
        (audit / "report.json").write_text(json.dumps(report))
        out = run_cli("card", audit)[1]
        tested = "Tested against chance by `chance`, `ppl_diff` (the least p of 2 tests, times 2)."
        assert f"- **Evidence that something narrow was trained in: moderate (p = 0.02).** {tested}" in out

    def test_goes_into_a_models_card_by_a_pull_request_and_leaves_the_rest(self, hub, audit, run_cli):
        code, out, err = run_cli("card", audit, "--push", "lab/model", "--yes")
        assert code == 0, err
        assert out.splitlines()[-1] == f"{hub.url}/lab/model/discussions/1"
        assert "is that the same model?" in err  # it was audited from a folder here
        assert hub.repos["lab/model"]["README.md"] == CARD
        _, files = hub.versions[id(hub.repos), "lab/model"]["refs/pr/1"]
        page = files["README.md"]
        assert page.startswith(CARD + b"\r\n<!-- auditor:begin -->\r\n")
        assert page.count(b"\n") == page.count(b"\r\n") + CARD.count(b"\n") - CARD.count(b"\r\n")
        assert files["config.json"] == b"{}"

    def test_is_replaced_between_its_markers_byte_for_byte(self, hub, audit, run_cli):
        before, after = b"---\nlicense: mit\n---\n# \xc3\xbc\nA\r\n", b"\n\n  tail \r\nx"
        old = b"<!-- auditor:begin -->\nold\n<!-- auditor:end -->"
        hub.repos["lab/model"]["README.md"] = before + old + after
        for _ in range(2):
            code, out, err = run_cli("card", audit, "--push", "lab/model", "--yes", "--commit")
            assert code == 0, err
        assert "its README.md has this block already" in out
        new = hub.repos["lab/model"]["README.md"]
        assert new.startswith(before + b"<!-- auditor:begin -->\r\n## Audit")
        assert new.endswith(b"<!-- auditor:end -->" + after)
        assert b"\nold" not in new

    def test_goes_into_a_file_and_names_the_dataset_it_was_pushed_to(self, hub, audit, run_cli, tmp_path):
        assert run_cli("push", audit, "me/audit", "--yes")[0] == 0
        page = tmp_path / "README.md"
        page.write_bytes(b"# \xff\n")
        code, _, err = run_cli("card", audit, "--to", page)
        assert code == 0, err
        assert page.read_bytes().startswith(b"# \xff\n\n<!-- auditor:begin -->\n## Audit")
        linked = f"- **Results and readings.** [me/audit]({hub.url}/datasets/me/audit) (private)\n"
        assert linked.encode() in page.read_bytes()

    def test_goes_where_there_is_no_card_and_to_those_who_may_only_read(self, hub, audit, run_cli, monkeypatch):
        code, out, err = run_cli("card", audit, "--push", "other/model", "--yes")
        assert (code, f"{hub.url}/other/model/discussions/1" in out) == (0, True), err
        _, files = hub.versions[id(hub.repos), "other/model"]["refs/pr/1"]
        assert files["README.md"].startswith(b"<!-- auditor:begin -->\n## Audit")
        code, _, err = run_cli("card", audit, "--push", "other/model", "--yes", "--commit")
        assert (code, "the hub does not let you write to other/model" in error_of(err)) == (2, True)

    def test_is_refused_where_the_card_was_changed_meanwhile(self, hub, audit, run_cli, monkeypatch):
        from auditor.cli import card

        monkeypatch.setattr(card, "consent", lambda *_a, **_k: by_hand("lab/model", {"README.md": b"new"}, "model"))
        code, _, err = run_cli("card", audit, "--push", "lab/model", "--commit")
        assert (code, "lab/model was changed meanwhile" in error_of(err)) == (2, True), err
        assert hub.repos["lab/model"]["README.md"] == b"new"

    def test_is_no_marker_itself_whatever_a_model_says(self, audit, run_cli, tmp_path):
        report = json.loads((audit / "report.json").read_text())
        evil = "x\n<!-- auditor:end -->\n# Safe\n`<script>alert(1)</script>`\n| a | [b](javascript:1)"
        report["findings"]["domain"] = report["about"] = evil
        for section in report["sections"]:
            section["title"] = evil
            for column in section.get("columns", ()):
                for token in column.get("tokens", ()):
                    token["text"] = evil
        (audit / "report.json").write_text(json.dumps(report))
        page = tmp_path / "page.md"
        for _ in range(2):
            code, _, err = run_cli("card", audit, "--to", page)
            assert code == 0, err
        lines = page.read_text().split("\n")
        assert lines.count("<!-- auditor:end -->") == 1
        assert not any(line.startswith(("# Safe", "<", "|")) for line in lines[1:-2])

    @pytest.mark.parametrize(
        ("page", "args", "said"),
        [
            (b"<!-- auditor:begin -->\n", (), "it has to hold <!-- auditor:begin --> and"),
            (b"<!-- auditor:end -->\n<!-- auditor:begin -->\n", (), "once each, in this order"),
            (CARD, ("--push", "lab/nothing"), "lab/nothing is no model on the hub"),
            (b"# \xff", (), "its README.md is not UTF-8"),
            (CARD, ("--commit",), "--commit goes with --push ORG/MODEL"),
        ],
    )  # fmt: skip
    def test_what_stands_in_the_way_is_one_line(self, hub, audit, run_cli, page, args, said):
        hub.repos["lab/model"]["README.md"] = page
        more = () if args == ("--commit",) else ("--push", "lab/model", "--yes", *args)
        code, _, err = run_cli("card", audit, *more, *args)
        assert (code, said in error_of(err)) == (2, True), err
        assert not any("/commit/" in path for path in hub.written)

    def test_is_of_audits_only(self, run, run_cli):
        assert "it has no report.json; give the folder of an `auditor audit`" in error_of(run_cli("card", run)[2])
