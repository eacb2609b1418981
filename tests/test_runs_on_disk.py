"""What lies in a run's folder: whole lines, one process at a time, and a resume that nothing cut off can mislead."""

import json
import random
import sqlite3
import subprocess
import sys

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from auditor.errors import BadFile, UsageError
from auditor.evaluation.store import RunStore
from auditor.lines import add_line, read_lines
from auditor.llm.caller import Caller
from auditor.llm.journal import CallLog
from auditor.testing import ScriptedChat

TEXTS = ["one\u2028line", "next\x85line", "ligne d'été", "é" * 9, "\x1c\x0b\x0c"]


def values(path):
    return [value for _, value in read_lines(path)]


def test_a_line_ends_where_we_end_it(tmp_path):
    path = tmp_path / "lines.jsonl"
    for text in TEXTS:
        add_line(path, json.dumps({"text": text}, ensure_ascii=False))
    assert values(path) == [{"text": text} for text in TEXTS]


def test_a_file_cut_anywhere_keeps_its_whole_lines_and_takes_the_next(tmp_path):
    path = tmp_path / "lines.jsonl"
    for text in TEXTS:
        add_line(path, json.dumps({"text": text}, ensure_ascii=False))
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        kept = values(path)
        assert kept == [{"text": text} for text in TEXTS[: len(kept)]]
        assert len(kept) >= whole[:length].count(b"\n")
        add_line(path, '{"text": "new"}')
        assert values(path) == [*kept, {"text": "new"}]


def test_a_broken_line_in_the_middle_is_told(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(BadFile, match=r"lines\.jsonl:2: is no JSON object"):
        read_lines(path)


def test_a_call_log_cut_anywhere_pays_for_what_was_cut_and_no_more(tmp_path):
    path = tmp_path / "calls.jsonl"

    def caller():
        return Caller("m", ScriptedChat(turns=[AIMessage(text) for text in TEXTS]), journal=CallLog(path))

    def ask(made, i):
        return made.call([HumanMessage(TEXTS[i])], purpose=f"audit-{i}").message.text

    first = caller()
    assert [ask(first, i) for i in range(len(TEXTS))] == TEXTS
    whole = path.read_bytes()
    for length in random.Random(0).sample(range(len(whole)), 60):
        path.write_bytes(whole[:length])
        kept = len(read_lines(path))
        made = caller()
        assert [ask(made, i) for i in range(kept)] == TEXTS[:kept]
        assert len(made.chat.turns) == len(TEXTS)  # nothing was asked again
        ask(made, kept)
        assert len(read_lines(path)) == kept + 1


@pytest.mark.parametrize("line", ['{"key": "k"}', "[]", '"text"'])
def test_a_line_that_is_no_call_is_told(tmp_path, line):
    (tmp_path / "calls.jsonl").write_text(line + "\n")
    with pytest.raises(BadFile, match=r"calls\.jsonl:1: .*without this line"):
        CallLog(tmp_path / "calls.jsonl")


REQUEST = {"seed": 0, "prompts": {"agent": "text"}}


def test_one_process_at_a_time(tmp_path):
    with RunStore.open(tmp_path / "r", REQUEST, {}, resume=False):
        with pytest.raises(UsageError, match="another auditor is at work there"):
            RunStore.open(tmp_path / "r", REQUEST, {}, resume=True)
        code = (
            "from pathlib import Path; from auditor.evaluation.store import RunStore\n"
            f"RunStore.open(Path({str(tmp_path / 'r')!r}), {REQUEST}, {{}}, resume=True)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert "another auditor is at work there" in done.stderr
    with RunStore.open(tmp_path / "r", REQUEST, {}, resume=True):
        pass


def test_another_request_is_told_by_what_differs(tmp_path):
    with RunStore.open(tmp_path / "r", REQUEST, {"versions": 1}, resume=False):
        pass
    with RunStore.open(tmp_path / "r", REQUEST, {"versions": 2}, resume=True):
        pass
    changed = {"seed": 1, "prompts": {"agent": "other"}}
    for _ in range(2):  # a refusal keeps nobody out
        with pytest.raises(UsageError, match="was another run: seed, prompts agent differ"):
            RunStore.open(tmp_path / "r", changed, {}, resume=True)


def test_a_run_that_cannot_be_known_is_not_resumed(tmp_path):
    with RunStore.open(tmp_path / "r", REQUEST, {}, resume=False):
        pass
    for content in (b"", b"{", b"[1]", b"\xff"):
        (tmp_path / "r/run.json").write_bytes(content)
        with pytest.raises(BadFile, match=r"run\.json: cannot be read"):
            RunStore.open(tmp_path / "r", REQUEST, {}, resume=True)
    (tmp_path / "r/run.json").unlink()
    (tmp_path / "r/audits.jsonl").touch()
    for resume in (True, False):
        with pytest.raises(BadFile, match=r"run\.json: is missing beside audits\.jsonl"):
            RunStore.open(tmp_path / "r", REQUEST, {}, resume=resume)


def test_damaged_checkpoints_are_dropped_and_told(tmp_path):
    with RunStore.open(tmp_path / "r", REQUEST, {}, resume=False) as store:
        connection = sqlite3.connect(store.checkpoints)
        connection.execute("create table t (x)")
        connection.executemany("insert into t values (?)", [("x" * 900,)] * 50)
        connection.commit()
        connection.close()
    with RunStore.open(tmp_path / "r", REQUEST, {}, resume=True) as store:
        assert (store.notes, store.checkpoints.exists()) == ([], True)
        store.checkpoints.write_bytes(store.checkpoints.read_bytes()[:9_000])
    with RunStore.open(tmp_path / "r", REQUEST, {}, resume=True) as store:
        assert "is damaged" in store.notes[0]
        assert not store.checkpoints.exists()


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
    saved = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
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
                use = json.loads(out)["llm_use"].get("agent", {"tokens": None})
                cut = path.name == "calls.jsonl" and length != len(content) - 1  # of which only a line's end is gone
                assert (use["tokens"] is None) == cut, where
            else:
                assert (code, err.strip().splitlines()[-1].startswith("error:")) == (2, True), where
                assert path.name == "run.json", where
    assert len(endpoint.requests) == paid  # all calls came from calls.jsonl, none of the audits was cut twice


def test_a_line_that_lost_a_piece_and_is_still_json_is_told(tmp_path):
    path = tmp_path / "lines.jsonl"
    for text in ("a mill by the river", "a house"):
        add_line(path, json.dumps({"text": text}))
    assert values(path) == [{"text": "a mill by the river"}, {"text": "a house"}]
    path.write_bytes(path.read_bytes().replace(b" by the river", b""))
    with pytest.raises(BadFile, match=r"lines\.jsonl:1: is no JSON object as it was written"):
        read_lines(path)
