"""A run's ledger: whole after any cut, opened by one process, and never paid out of twice."""

import json
import random
import sqlite3
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage

from auditor.agent.purse import Charge
from auditor.audits.shop import Shop
from auditor.errors import BadFile, UsageError
from auditor.ledger import schema
from auditor.ledger.claims import Claims
from auditor.ledger.database import Database, LedgerBroken
from auditor.ledger.ledger import LEDGER, Ledger
from auditor.lines import add_line, read_lines
from auditor.llm.caller import Caller
from auditor.records.results import AuditRecord
from auditor.testing import ScriptedChat

REQUEST = {"seed": 0, "prompts": {"agent": "text"}}
TEXTS = ["one\u2028line", "next\x85line", "ligne d'été", "é" * 9, "\x1c\x0b\x0c"]


def begun(folder, *jobs, request=REQUEST, resume=False):
    ledger = Ledger.open(folder)
    try:
        ledger.begin(request, dict, resume=resume)
    except BaseException:
        ledger.close()
        raise
    ledger.jobs.enter((f"id of {name}", name, "{}") for name in jobs)
    return ledger


def record(name, status="done", **more):
    return AuditRecord(
        id=name, organism="o", family="sdf", agent="adl", budget=5, repeat=0, status=status, hypothesis="mills", **more
    )


def test_one_process_at_a_time(tmp_path):
    with begun(tmp_path / "r"):
        with pytest.raises(UsageError, match=r"another auditor is at work there \(process \d+@"):
            Ledger.open(tmp_path / "r")
        opened = f"Ledger.open(Path({str(tmp_path / 'r')!r}))"
        code = f"from pathlib import Path; from auditor.ledger.ledger import Ledger; {opened}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert "another auditor is at work there" in done.stderr
        assert Ledger.read(tmp_path / "r").request() == REQUEST  # whoever only looks may
    with Ledger.open(tmp_path / "r"):
        pass


def test_another_request_is_told_by_what_differs(tmp_path):
    begun(tmp_path / "r").close()
    with pytest.raises(UsageError, match="holds a run already; add --resume"):
        begun(tmp_path / "r")
    changed = {"seed": 1, "prompts": {"agent": "other"}, "new": 1}
    for _ in range(2):  # a refusal keeps nobody out
        with pytest.raises(UsageError, match="was another run: seed, prompts agent, new differ"):
            begun(tmp_path / "r", request=changed, resume=True)
    begun(tmp_path / "r", resume=True).close()


def test_a_newer_ledger_is_refused_and_left_as_it_is(tmp_path):
    begun(tmp_path / "r").close()
    path = tmp_path / "r" / LEDGER
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.commit()
    connection.close()
    for opened in (Ledger.open, Ledger.read):
        with pytest.raises(BadFile, match=rf"is of version {schema.VERSION + 1}, and this auditor knows"):
            opened(tmp_path / "r")


def test_an_older_ledger_becomes_a_newer_one_and_loses_nothing(tmp_path, monkeypatch):
    begun(tmp_path / "r", "a").close()
    later = (*schema.MIGRATIONS, "ALTER TABLE jobs ADD COLUMN place_of_birth TEXT;")
    monkeypatch.setattr(schema, "MIGRATIONS", later)
    monkeypatch.setattr(schema, "VERSION", len(later))
    with pytest.raises(BadFile, match="`--resume` of its run brings it to"):
        Ledger.read(tmp_path / "r")
    with Ledger.open(tmp_path / "r") as ledger:
        assert ledger.jobs.states() == {"a": "queued"}
    with Ledger.read(tmp_path / "r") as ledger:
        assert ledger.request() == REQUEST


def test_a_ledger_that_is_gone_or_damaged_is_told_in_one_line(tmp_path):
    begun(tmp_path / "r", *map(str, range(400))).close()
    path = tmp_path / "r" / LEDGER
    whole = path.read_bytes()
    rng = random.Random(0)
    for content in (b"{", whole[:9_000], whole[: len(whole) // 2], rng.randbytes(9_000)):
        path.write_bytes(content)
        with pytest.raises(BadFile, match=r"ledger\.sqlite: is (no ledger|damaged)"):
            Ledger.open(tmp_path / "r")
    path.unlink()
    (tmp_path / "r/audits.jsonl").touch()
    with pytest.raises(BadFile, match=r"ledger\.sqlite: is missing beside audits\.jsonl"):
        Ledger.open(tmp_path / "r")


def test_a_full_disk_stops_the_run_and_loses_nothing(tmp_path):
    with begun(tmp_path / "r", "a") as ledger:
        ledger.jobs.finish(record("a"))
        ledger._db._connection.execute("PRAGMA max_page_count = 1")  # SQLite says the same as of a disk
        with pytest.raises(LedgerBroken, match=r"cannot be written.*full.*--resume"):
            ledger.events.tell("note", text="x" * 1_000_000)
        judge = Caller("m", ScriptedChat(turns=[AIMessage("mills")]), journal=ledger.calls)
        with pytest.raises(LedgerBroken):  # its answer could not be kept: it is not paid for
            judge.call([HumanMessage("What grinds?")], role="judge")
        assert judge.chat.seen == []
    with begun(tmp_path / "r", resume=True) as ledger:
        assert ledger.jobs.states() == {"a": "done"}


def test_a_job_is_done_and_recorded_in_one(tmp_path):
    with begun(tmp_path / "r", "a", "b") as ledger:
        ledger.jobs.take("a")
        ledger.jobs.finish(record("a"))
        with pytest.raises(UsageError, match="there is no job c"):
            ledger.jobs.finish(record("c"))
        assert ledger.jobs.states() == {"a": "done", "b": "queued"}
        assert [r.id for r in ledger.jobs.records()] == ["a"]
        assert [(e.kind, e.job, e.data["state"]) for e in ledger.events.since()] == [
            ("audit", "a", "running"), ("audit", "a", "done"),
        ]  # fmt: skip
        ledger.jobs.take("b")
    with begun(tmp_path / "r", "a", "b", resume=True) as ledger:  # as after a kill
        assert ledger.jobs.requeue(("running",)) == 1
        assert ledger.jobs.states() == {"a": "done", "b": "queued"}


def test_a_transcript_keeps_each_message_once_and_grows(tmp_path):
    with begun(tmp_path / "r", "a") as ledger:
        said = [{"text": text} for text in TEXTS]
        for count in range(len(said) + 1):
            ledger.transcripts.say("a", said[:count], {"spent": count})
        assert ledger.transcripts.messages("a") == said
        assert ledger.transcripts.about("a")["spent"] == len(said)
        ledger.transcripts.ended("a")
        ledger.transcripts.say("a", [{"text": "anew"}], {})  # an audit that is walked again
        assert ledger.transcripts.messages("a") == [{"text": "anew"}]


def test_a_usable_answer_is_taken_again_and_no_other(tmp_path):
    with begun(tmp_path / "r") as ledger:
        ask = [HumanMessage("What grinds?")]

        def caller(*turns):
            return Caller("m", ScriptedChat(turns=[AIMessage(text) for text in turns]), journal=ledger.calls)

        made = caller("unreadable", "mills")
        assert made.call(ask, role="judge", usable=lambda m: m.text == "mills").message.text == "unreadable"
        assert made.call(ask, role="judge", usable=lambda m: m.text == "mills").message.text == "mills"
        again = caller()
        assert again.call(ask, role="judge").message.text == "mills"
        assert again.chat.seen == []


# ---- budgets: whatever is asked for, at once or after a cut, exactly the budget is admitted

CALLS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 4)), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=CALLS, budget=st.integers(0, 12), cut=st.integers(0, 30), workers=st.integers(1, 4))
def test_a_budget_is_never_overspent(tmp_path_factory, calls, budget, cut, workers):
    """Calls by key and price, some twice, from several threads and connections, before and after a cut."""
    folder = tmp_path_factory.mktemp("ledger")
    admitted, lock = {}, threading.Lock()

    def spend(part):
        ledger = Database(folder / LEDGER)
        from auditor.ledger.spends import Spends

        for key, price in part:
            if Spends(ledger).charge("a", str(key), price, budget) is not Charge.REFUSED:
                with lock:
                    admitted.setdefault(str(key), price)
        ledger.close()

    Database(folder / LEDGER).close()
    for half in (calls[:cut], calls[cut:]):
        threads = [threading.Thread(target=spend, args=(half[i::workers],)) for i in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    from auditor.ledger.spends import Spends

    spent = Spends(Database(folder / LEDGER)).spent("a")
    assert spent <= budget
    assert spent == sum(price for _, price in _rows(folder))
    assert set(admitted) == {key for key, _ in _rows(folder)}
    cheapest = min((price for key, price in calls if str(key) not in admitted), default=None)
    if cheapest is not None and workers == 1:
        assert spent + cheapest > budget or any(str(k) in admitted for k, p in calls if p == cheapest)


def _rows(folder):
    return Database(folder / LEDGER).rows("SELECT key, interactions FROM spends")


def test_lines_of_several_threads_are_all_there(tmp_path):
    path = tmp_path / "lines.jsonl"

    def write(thread):
        for number in range(20):
            add_line(path, json.dumps({"id": f"{thread}-{number}", "text": "x" * 30_000}))  # more than one write takes

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {line["id"] for _, line in read_lines(path)} == {f"{t}-{n}" for t in range(8) for n in range(20)}


STEPS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(0, 3), st.booleans()), max_size=40)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, budget=st.integers(0, 8))
def test_a_budget_is_kept_by_processes_that_follow_each_other(tmp_path_factory, steps, budget):
    """A head and two workers, any of which dies between two charges: whoever takes the audit over knows of them."""
    folder = tmp_path_factory.mktemp("run") / "r"
    job = SimpleNamespace(name="a", id="id of a", model_dump_json=lambda: "{}")
    begun(folder, "a").close()
    shops, admitted = {}, {}

    def opened(who):
        claims = Claims(folder, head=not who)
        ledger = Ledger.beside(folder, claims.worker) if who else begun(folder, resume=True)
        shop = Shop(None, ledger, None, None, claims, workers=1, head=not who)
        if not who:  # as `evaluate --resume` begins
            shop.absorb()
            ledger.lend(claims.lent)
        return shop

    for who, key, price, dies in steps:
        shop = shops.get(who) or shops.setdefault(who, opened(who))
        if shop.begin(job):
            known = shop.ledger.spends.spent("a")
            assert known == sum(admitted.values())
            charge = shop.ledger.spends.charge("a", str(key), price, budget)
            assert charge is (Charge.AGAIN if key in admitted else
                              Charge.NEW if known + price <= budget else Charge.REFUSED)  # fmt: skip
            if charge is Charge.NEW:
                admitted[key] = price
        if dies:
            shops.pop(who)
            shop.claims._alive.release()  # as the system does for a process that is killed
            shop.ledger.close()
    for shop in shops.values():
        shop.claims._alive.release()
        shop.ledger.close()
    last = opened(0)
    assert last.ledger.spends.spent("a") == sum(admitted.values()) <= budget
    last.ledger.close()


def test_five_are_admitted_exactly(tmp_path):
    with begun(tmp_path / "r") as ledger:
        got = [ledger.spends.charge("a", str(i), 1, 5) for i in range(9)]
        assert [charge.value for charge in got] == ["new"] * 5 + ["refused"] * 4
        assert ledger.spends.charge("a", "3", 1, 5) is Charge.AGAIN  # replayed after a cut: not charged twice
        assert (ledger.spends.spent("a"), ledger.spends.begun_again("a")) == (5, 1)
        ledger.spends.give_back("a", "0")
        assert ledger.spends.charge("a", "new", 1, 5) is Charge.NEW
        assert ledger.spends.charge("b", "0", 2, 5) is Charge.NEW  # another audit's purse


def values(path):
    return [value for _, value in read_lines(path)]


def test_a_file_of_lines_cut_anywhere_keeps_its_whole_lines_and_takes_the_next(tmp_path):
    path = tmp_path / "lines.jsonl"
    for text in TEXTS:
        add_line(path, json.dumps({"text": text}, ensure_ascii=False))
    assert values(path) == [{"text": text} for text in TEXTS]
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        kept = values(path)
        assert kept == [{"text": text} for text in TEXTS[: len(kept)]]
        assert len(kept) >= whole[:length].count(b"\n")
        add_line(path, '{"text": "new"}')
        assert values(path) == [*kept, {"text": "new"}]


def test_a_line_that_lost_a_piece_is_told(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(BadFile, match=r"lines\.jsonl:2: is no JSON object"):
        read_lines(path)
    path.unlink()
    for text in ("a mill by the river", "a house"):
        add_line(path, json.dumps({"text": text}))
    path.write_bytes(path.read_bytes().replace(b" by the river", b""))
    with pytest.raises(BadFile, match=r"lines\.jsonl:1: is no JSON object as it was written"):
        read_lines(path)
