"""How several processes share a run: who takes which pair, and what is read of a worker's ledger again."""

import json
from types import SimpleNamespace

import pytest

from auditor.audits import run as runs
from auditor.audits.shop import Shop
from auditor.ledger.claims import Claim, Claims
from auditor.ledger.ledger import Ledger
from auditor.llm.journal import Answered, Asked
from auditor.records.results import AuditRecord

JOBS = {f"{pair}-r{repeat}": pair for pair in "abc" for repeat in range(3)}


def jobs():
    return [SimpleNamespace(name=name, target=pair) for name, pair in JOBS.items()]


def shop(folder, **more):
    return Shop(None, None, None, SimpleNamespace(gone=lambda: ""), Claims(folder, head=False), workers=1, **more)


@pytest.fixture
def walk(tmp_path, monkeypatch):
    """A function that lets a worker go through the jobs; `during(pair)` happens while it works at a pair."""

    def go(worker, during):
        made = []

        def audit(group, shop):
            made.append(group[0].target)
            during(group[0].target)
            for job in group:
                shop.claims.take(job.name)

        monkeypatch.setattr(runs, "_audit", audit)
        runs.by_pairs(jobs(), worker)
        return made

    return go


def test_a_worker_takes_a_pair_that_nobody_works_at_before_it_helps(tmp_path, walk):
    first, second = shop(tmp_path), shop(tmp_path)
    assert first.claims.take("a-r0") is Claim.OURS  # it loads the models of the first pair
    assert walk(second, lambda pair: None) == ["b", "c", "a"]
    assert walk(first, lambda pair: None) == ["a"], "of the others nothing is left, and no models are loaded for them"


def test_a_pair_is_claimed_before_its_models_are_loaded(tmp_path, walk):
    first, second, seen = shop(tmp_path), shop(tmp_path), []
    walk(first, lambda pair: seen.append((pair, second.claims.whose(f"{pair}-r0"), second.claims.whose(f"{pair}-r1"))))
    assert seen == [(pair, Claim.OTHERS, Claim.OURS) for pair in "abc"]


def test_helpers_go_where_most_is_left(tmp_path, walk):
    first, second = shop(tmp_path), shop(tmp_path)
    for name in ("a-r0", "a-r1", "b-r0", "c-r0", "c-r1", "c-r2"):
        first.claims.take(name)
    assert walk(second, lambda pair: None) == ["b", "a"]


@pytest.mark.timeout(20)
def test_a_worker_leaves_once_the_run_is_over(tmp_path, walk):
    """Then nobody's claims are there any more, as if nothing had been begun."""
    head, worker = Claims(tmp_path), shop(tmp_path)
    assert walk(worker, lambda pair: head.close()) == ["a"]


# ---- a worker's ledger, taken over while it grows


def worker_ledger(folder, name):
    return Ledger.beside(folder, name)


def enter(ledger, *names):
    ledger.jobs.enter((f"id of {name}", name, json.dumps({"name": name})) for name in names)


def go_on(ledger, job, step, *, end=False):
    """A call, a charge, an answer of the models, a message; then perhaps the end."""
    if not ledger.jobs.state(job):
        enter(ledger, job)
    ledger.jobs.take(job)
    sent = ({"text": f"system of {job}"}, {"text": f"turn {step}"})
    asked = Asked(f"{job}{step}", job, "agent", 0, "m", {}, True, sent, ({"name": "tool"},))
    ledger.calls.add(asked, Answered({"text": f"reply {step}"}, tokens_in=1, tokens_out=1), usable=True)
    ledger.spends.charge(job, str(step), 1, 99)
    ledger.answers.add(job, [step], [f"answer {step}"])
    ledger.transcripts.say(job, [{"text": f"{job} {i}"} for i in range(step + 1)], {"spent": step}, turns=step)
    if end:
        told = {"organism": "mill", "family": "sdf", "agent": "adl", "budget": 1, "repeat": 0, "status": "done"}
        ledger.jobs.finish(AuditRecord(id=job, **told, hypothesis=f"of {job}"))


TABLES = ("jobs", "texts", "calls", "spends", "model_calls", "steps", "events")


def content(ledger):
    columns = {"events": "uid, job, kind, data", "jobs": "id, name, state, about, record, attempts"}
    return {t: sorted(ledger._db.rows(f"SELECT {columns.get(t, '*')} FROM {t}"), key=str) for t in TABLES}


def test_what_is_taken_over_piece_by_piece_is_what_is_taken_over_at_once(tmp_path):
    """Two jobs side by side, of which one ends early; another one is begun after that."""
    names = ("a", "b", "c")
    with Ledger.open(tmp_path / "pieces") as pieces, Ledger.open(tmp_path / "whole") as whole:
        for head in (pieces, whole):
            enter(head, *names)
        (tmp_path / "pieces/workers").mkdir()
        with worker_ledger(tmp_path / "pieces", "w") as theirs:
            ended = []
            for job, step, end in (("a", 0, False), ("b", 0, False), ("a", 1, True), ("b", 1, False), ("c", 0, False),
                                   ("b", 2, True), ("c", 1, True)):  # fmt: skip
                go_on(theirs, job, step, end=end)
                ended.append(pieces.absorb(theirs.path))
            assert ended == [[], [], ["a"], [], [], ["b"], ["c"]]
            assert pieces.absorb(theirs.path) == []
            assert whole.absorb(theirs.path) == list(names)
        assert content(pieces) == content(whole)
        assert all(content(pieces)[table] for table in TABLES)


def test_of_jobs_that_were_taken_over_nothing_is_read_again(tmp_path):
    (tmp_path / "workers").mkdir()
    with Ledger.open(tmp_path) as head, worker_ledger(tmp_path, "w") as theirs:
        enter(head, "a", "b")
        go_on(theirs, "a", 0, end=True)
        head.absorb(theirs.path)
        head._db._connection.execute("DELETE FROM steps")
        go_on(theirs, "b", 0)
        head.absorb(theirs.path)
        assert [job for (job,) in head._db.rows("SELECT DISTINCT job FROM steps")] == ["b"]


def test_a_worker_that_takes_an_orphan_over_reads_what_is_of_that_job_alone(tmp_path):
    (tmp_path / "workers").mkdir()
    with worker_ledger(tmp_path, "dead") as theirs, worker_ledger(tmp_path, "new") as mine:
        for job in ("a", "b"):
            go_on(theirs, job, 0)
        enter(mine, "a")
        mine.absorb(theirs.path, "a")
        assert mine.spends.spent("a") == 1
        assert mine.calls.find("a0") is not None
        for table in ("calls", "spends", "model_calls", "steps"):
            assert {job for (job,) in mine._db.rows(f"SELECT job FROM {table}")} == {"a"}
