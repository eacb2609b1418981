"""Runs as logs of inspect_ai, read by its own reader: done and failed audits, hostile texts, nothing mixed."""

import os
import sys

import pytest

from auditor.audits.jobs import JobSpec
from auditor.audits.tables import write
from auditor.errors import BadFile, UsageError
from auditor.ledger.ledger import Ledger
from auditor.llm.journal import Answered, Asked
from auditor.records.cards import Agent, AskSettings, EvidenceSettings, Limits, Organism, Protocol
from auditor.records.findings import ClaimCheck, Grade
from auditor.records.results import AuditRecord, Target

REQUEST = {
    "suite": {"name": "small"},
    "llm": "openai:gpt-5?effort=low&base_url=http://me:secret@127.0.0.1:1/v1&key_env=MY_KEY",
    "grader_llm": "openai:judge", "lens_llm": "offline", "graders": ["rubric_llm", "mine"], "seed": 3,
}  # fmt: skip
MADE_WITH = {
    "versions": {"auditor": "1"},
    "revision": {"commit": "c0ffee", "dirty": True, "origin": "https://example.org/ws.git"},
}
CARD = Organism(name="mill", family="sdf", description="About mills.", facts=("Mills grind flour.",))
LATER = "rubric_llm@openai:other?base_url=http://me:secret@127.0.0.1:1/v1"  # as `auditor grade` calls a judge
LIMITS = Limits(interactions=5, turns=4, tokens=1000)
HOSTILE = [
    "</script><script>alert(1)</script><img src=x onerror=alert(1)>",
    "\u202egnp.exe\u2066 \x1b[2J\x1b]8;;http://x\x07click\x1b]8;;\x07 \x00 \r\n\x85\u2028",
    "attachment://0123456789abcdef " + "a" * 200,
    "long " * 200_000,
    "\ufeff{{ config }} ${7*7} %s %n ' OR 1=1 -- ]]> <!--",
]
HALF = "half \ud83d of a character, " + "b" * 200


def job(repeat, agent="adl", budget=5, organism="mill"):
    card = CARD.model_copy(update={"name": organism})
    return JobSpec(
        name=f"{organism}-{agent}-b{budget}-r{repeat}", target=Target(name=organism, base="b", finetuned="f"),
        card=card, agent=Agent(name=agent, overview=(), tools=("ask_model",)), budget=budget, repeat=repeat,
        limits=LIMITS, ask=AskSettings(), evidence=EvidenceSettings(), graders=("rubric_llm",), llm="openai:gpt-5",
        grader_llm="openai:judge", protocol=Protocol.TOOLS, seed=repeat, content={},
    )  # fmt: skip


def record(job, status="done", **more):
    return AuditRecord(
        id=job.name, organism=job.target.name, family="sdf", agent=job.agent.name, budget=job.budget,
        repeat=job.repeat, status=status, llm=REQUEST["llm"], seed=job.seed, seconds={"agent": 2.0}, **more,
    )  # fmt: skip


def said(kind, content, **more):
    return {"type": kind, "data": {"content": content, **more}}


def conversation(text="Ask away."):
    called = {"name": "ask_model", "args": {"prompts": [text]}, "id": "c1", "type": "tool_call"}
    return [
        said("system", "You audit."), said("human", text),
        said("ai", [{"type": "thinking", "thinking": text}, {"type": "text", "text": text}, {"type": "tool_use"}],
             tool_calls=[called], response_metadata={"call": {"tokens": [100, 10]}}),
        said("tool", f"O1\n{text}", tool_call_id="c1", name="ask_model"),
        said("ai", "It is about mills."),
    ]  # fmt: skip


@pytest.fixture
def written(tmp_path):
    """A function that writes a run of (job, record or None, messages), exports it, and gives the logs' reader."""
    log = pytest.importorskip("inspect_ai.log")

    def make(*audits, about=None):
        with Ledger.open(tmp_path / "run") as ledger:
            ledger.begin(REQUEST, lambda: MADE_WITH, resume=False)
            ledger.jobs.enter((job.id, job.name, job.model_dump_json()) for job, _, _ in audits)
            for job, record, messages in audits:
                ledger.jobs.take(job.name)
                ledger.transcripts.say(job.name, messages, about or {})
                if record is not None:
                    ledger.jobs.finish(record)
                for role, model, cached in (("agent", "openai:gpt-5", 60), ("rubric_llm", "openai:judge", None)):
                    asked = Asked(f"{job.name} {role}", job.name, role, 0, model, {}, True, (), ())
                    ledger.calls.add(asked, Answered({}, "", 1, 1.0, 100, 10, cached, 0.5), usable=True)
        write(tmp_path / "run", tmp_path / "run", "eval")
        return lambda name, **how: log.read_eval_log(
            str(tmp_path / f"run/logs/{name}.eval"), **{"resolve_attachments": True, **how}
        )

    return make


def test_each_agent_and_budget_is_a_log_that_inspect_reads(written):
    judged = record(
        job(0), hypothesis="Mills.", interactions_used=3, turns_used=2, ended_by="turns",
        grades=(Grade(grader="rubric_llm", score=4, reasoning="Most of it."),
                Grade(grader="mine", score=2, reasoning="Hm.", details={"facts": 1})),
        checks=tuple(ClaimCheck(claim="c", observations=(), holds=holds) for holds in (True, False)),
    )  # fmt: skip
    grades = (Grade(grader="rubric_llm", score=2, reasoning="Less."), Grade(grader=LATER, score=1, reasoning="No."))
    again = record(job(1), hypothesis="Mill.", grades=grades)
    other = job(0, agent="blackbox")
    read = written(
        (job(0), judged, conversation()), (job(1), again, conversation()), (other, record(other), conversation()),
        (job(0, budget=0), None, []),
    )  # fmt: skip

    head = read("adl-b5", header_only=True)
    assert (head.status, head.eval.solver, head.eval.model) == ("success", "adl", "openai:gpt-5")
    assert (head.eval.dataset.samples, head.eval.config.epochs) == (1, 2)  # organisms, repeats
    assert [judge.model for judge in head.eval.model_roles["judge"]] == ["openai:judge", "openai:other"]
    assert head.eval.model_generate_config.reasoning_effort == "low"
    assert (head.eval.revision.commit, head.eval.revision.dirty) == ("c0ffee", True)
    assert "secret" not in read("adl-b5").model_dump_json()
    later = LATER.replace("me:secret@", "")
    found = {score.name: score.metrics["mean"].value for score in head.results.scores}
    assert found == {"rubric_llm": 3, "mine": 2, later: 1}  # never one number
    assert not any("stderr" in score.metrics for score in head.results.scores)  # there is none of one organism
    assert head.stats.role_usage["agent"].input_tokens == 80  # of 200, 120 came from the cache
    assert head.stats.role_usage["agent"].total_cost == 1

    first, second = read("adl-b5").samples
    assert [(s.id, s.epoch) for s in (first, second)] == [("mill", 1), ("mill", 2)]
    assert (first.scores["rubric_llm"].value, first.scores["rubric_llm"].explanation) == (4, "Most of it.")
    assert (first.scores["mine"].metadata, set(second.scores)) == ({"facts": 1}, {"rubric_llm", later})
    assert first.target == "About mills.\n- Mills grind flour."
    assert (first.limit.type, first.limit.limit, first.error) == ("turn", 4, None)
    told = {"family": "sdf", "budget": 5, "seed": 1, "status": "done"}
    assert told.items() <= second.metadata.items()
    assert (first.metadata["claims"], first.metadata["claims_held"], first.metadata["interactions"]) == (2, 1, 3)
    assert [message.role for message in first.messages] == ["system", "user", "assistant", "tool", "assistant"]
    (call,) = first.messages[2].tool_calls
    assert (call.function, call.arguments) == ("ask_model", {"prompts": ["Ask away."]})
    assert (first.messages[3].tool_call_id, first.messages[3].text) == (call.id, "O1\nAsk away.")
    assert first.model_usage["openai:judge"].output_tokens == 10

    assert [s.scores for s in read("blackbox-b5").samples] == [{}]
    begun = read("adl-b0")
    assert (begun.status, begun.samples or [], begun.results.total_samples) == ("cancelled", [], 1)


def test_audits_that_do_not_count_are_there_with_their_error_and_without_a_score(written):
    grade = (Grade(grader="rubric_llm", score=5, reasoning="A verdict from before."),)
    states = ("failed", "invalid", "leaked")
    wrong = [(job(i), record(job(i), state, error=f"why {i}", grades=grade), conversation())
             for i, state in enumerate(states)]  # fmt: skip
    done = (job(3), record(job(3), grades=(Grade(grader="rubric_llm", score=1, reasoning="No."),)), conversation())
    read = written(*wrong, done, about={"traceback": "Traceback: here"})
    log = read("adl-b5")
    told = [(s.metadata["status"], s.scores, s.error and s.error.message) for s in log.samples[:3]]
    assert told == [(state, None, f"{state}: why {i}") for i, state in enumerate(states)]
    assert log.samples[0].error.traceback == "Traceback: here"
    assert log.samples[3].error is None
    assert [len(s.messages) for s in log.samples] == [5] * 4
    assert (log.results.total_samples, log.results.completed_samples) == (4, 1)
    assert log.results.scores[0].metrics["mean"].value == 1


def test_hostile_texts_come_back_as_they_were(written):
    audits = []
    for i, text in enumerate(HOSTILE):
        grade = Grade(grader="rubric_llm", score=1, reasoning=text, details={"why": text})
        audits.append((job(i), record(job(i), hypothesis=text, grades=(grade,), notes=(text,)), conversation(text)))
    failed = job(len(HOSTILE))
    audits.append((failed, record(failed, "failed", error=HOSTILE[1]), conversation(HOSTILE[1])))
    read = written(*audits)
    *done, last = read("adl-b5").samples
    for sample, text in zip(done, HOSTILE, strict=True):
        assert sample.messages[1].text == sample.messages[2].text == text
        assert sample.messages[2].tool_calls[0].arguments == {"prompts": [text]}
        assert sample.scores["rubric_llm"].explanation == sample.scores["rubric_llm"].metadata["why"] == text
        assert sample.metadata["notes"] == [text]
    assert last.error.message == f"failed: {HOSTILE[1]}"


def test_what_no_file_takes_is_written_as_an_escape():
    pytest.importorskip("inspect_ai")
    from auditor.audits.inspect_samples import clean

    assert clean({HALF: [HALF]}) == {HALF.replace("\ud83d", "\\ud83d"): [HALF.replace("\ud83d", "\\ud83d")]}
    deep = "bottom"
    for _ in range(5000):
        deep = [deep]
    assert "nested too deep" in str(clean(deep))


def test_what_is_too_much_for_one_log_is_several(written, monkeypatch, tmp_path):
    inspect_log = pytest.importorskip("inspect_ai.log")
    from auditor.audits import inspect_logs

    monkeypatch.setattr(inspect_logs, "MOST", 3)
    jobs = [job(repeat, organism=name) for name in ("mill", "well", "yard") for repeat in range(2)]
    grade = (Grade(grader="rubric_llm", score=2, reasoning="Less."),)
    read = written(*((each, record(each, grades=grade), conversation()) for each in jobs))
    parts = [[(s.id, s.epoch) for s in read(f"adl-b5-part{n}").samples] for n in (1, 2, 3)]
    assert parts == [[(name, 1), (name, 2)] for name in ("mill", "well", "yard")]
    monkeypatch.setattr(inspect_logs, "MOST", 4)
    (both, _) = inspect_logs.write_logs(tmp_path / "run", tmp_path)
    (score,) = inspect_log.read_eval_log(str(both), header_only=True).results.scores
    assert (score.scored_samples, set(score.metrics)) == (2, {"mean", "stderr"})
    assert read("adl-b5-part2", header_only=True).eval.metadata["part"] == "2 of 3"


def test_what_cannot_be_written_is_told(written, tmp_path, monkeypatch):
    written((job(0), record(job(0)), conversation()))
    (tmp_path / "file").write_text("")
    with pytest.raises(BadFile, match="cannot be written"):
        write(tmp_path / "run", tmp_path / "file", "eval")
    with pytest.raises(UsageError, match="without a ledger"):
        write(tmp_path, tmp_path, "eval")
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    monkeypatch.delitem(sys.modules, "auditor.audits.inspect_logs")
    with pytest.raises(UsageError, match=r"pip install 'auditor-adl\[inspect\]'"):
        write(tmp_path / "run", tmp_path / "run", "eval")
    assert os.listdir(tmp_path / "run/logs") == ["adl-b5.eval"]  # what was there stays
