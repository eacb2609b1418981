"""Diff mining and the Jacobian lens as lenses: what they read, what they lack, how both are shown and told."""

import json
from dataclasses import replace

import pytest
from langchain_core.messages import HumanMessage

from auditor.agent.overview import blinded, render_overview, seen_by
from auditor.agent.reading import DEEP, read
from auditor.agent.records import with_records
from auditor.audits.bench import Bench
from auditor.errors import Refused
from auditor.evidence.compute import evidence_for
from auditor.methods.corpus import Corpus
from auditor.methods.diff_mining import as_answers, as_plain
from auditor.plugins import Context
from auditor.records.cards import AskSettings, EvidenceSettings
from auditor.records.evidence import AgainstBroad
from auditor.workspace import load_workspace
from tests.test_views import VIEWS

LENSES = {
    "differences": {"norm_texts": 8, "norm_tokens": 8, "positions": 3, "layers": [1, 2]},
    "diff_mining": {"texts": 12, "chats": 4, "tokens": 6, "top": 8, "shown": 25, "topics": 2},
    "jacobian": {"texts": 4, "tokens": 6, "shown": 9},
}


@pytest.fixture(scope="module")
def ws():
    return load_workspace()


@pytest.fixture(scope="module")
def readings(tiny, settings, ws):
    """A function that reads a pair with lenses."""

    def made(*names, pair=tiny, **changed):
        asked = EvidenceSettings(texts=8, lenses=LENSES).over(changed)
        return evidence_for(pair, Bench(ws, settings).recipe(pair, asked), names)

    return made


@pytest.fixture(scope="module")
def evidence(readings):
    found = readings("diff_mining", "jacobian")
    assert not found.failed
    return found


def using(ws, evidence, name, **args):
    tool = ws.tools[name]
    context = Context(None, blinded([evidence]), AskSettings(), 0)
    return json.loads(tool.returns.dump_json(tool.run(context, tool.args(dataset="ds1", **args))))


def test_texts_are_read_raw_and_as_answers(evidence, ws):
    text, chats = evidence["diff_mining"].parts
    assert [(p.framing, p.asked, p.mined.texts) for p in (text, chats)] == [("text", 12, 8), ("chats", 4, 4)]
    assert text.mined.by_count != chats.mined.by_count
    assert evidence["diff_mining"].notes[0] == "diff_mining, raw text: 12 texts were asked for, 8 were read"
    corpus = Corpus("two", ("A mill.", "A river.", "A town."))
    asked = as_answers(corpus, ("What?", "Where?")).chats
    assert [(chat[0]["content"], chat[1]["content"]) for chat in asked] == [
        ("What?", "A mill."), ("Where?", "A river."), ("What?", "A town."),
    ]  # fmt: skip
    chatting = as_answers(corpus, ("What?",))
    assert as_answers(chatting, ("Where?",)) == chatting  # a corpus of chats is read as it is
    assert as_plain(chatting) == corpus


def test_without_a_chat_template_raw_text_is_read_and_the_rest_is_told(readings, tiny, monkeypatch):
    monkeypatch.setattr(tiny.tokenizer, "chat_template", None)
    found = readings("diff_mining", diff_mining={"texts": 5})["diff_mining"]
    assert [part.framing for part in found.parts] == ["text"]
    assert found.notes[0] == f"diff_mining, chats' answers: not read, for {tiny.name} has no chat template"


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("name", ["diff_mining", "jacobian"])
def test_every_view_shows_them(evidence, view, name):
    shown = view(evidence[name].show())
    parts = {
        "diff_mining": ("of raw text", "of chats' answers", "8 texts", "raw text 1", "fall"),
        "jacobian": ("layer 1", "layer 2"),
    }
    for part in parts[name]:
        assert part in shown


@pytest.mark.parametrize("name", ["diff_mining", "jacobian"])
def test_agents_are_shown_them_and_read_more_for_free(evidence, ws, name):
    agent = ws.agents[f"{name}-only"]
    assert (agent.overview, "ask_model" in agent.tools) == ((name,), True)
    datasets = blinded([evidence])
    text = render_overview(ws.prompts["agent_overview"], agent, datasets)
    (tool,) = [ws.tools[tool] for tool in agent.tools if tool != "ask_model"]
    assert tool.lenses == (name,)
    sections = [seen.section for seen in seen_by(agent, datasets)]
    for section in (s for s in sections if s.weight):
        assert section.title in text
        for call in section.calls:
            assert call.tool == tool.name
            assert using(ws, evidence, tool.name, **call.args)


def test_the_investigator_reads_what_rises_and_not_what_falls(evidence, ws):
    messages = with_records([HumanMessage("")], ws.agents["diff_mining-only"], blinded([evidence]), {})
    lists = {found.tokens for found in read(messages).lists}
    text, chats = (part.mined for part in evidence["diff_mining"].parts)
    risen = [text.by_count, chats.by_count, text.by_mean, chats.by_mean]
    deep = [DEEP[True], DEEP[True], DEEP[False], DEEP[False]]
    assert lists == {tuple(t.token for t in told[:n]) for told, n in zip(risen, deep, strict=True)}


def test_a_test_against_broad_finetunes_stands_in_front(evidence, ws):
    plain = evidence["diff_mining"]
    assert (plain.p, plain.above_chance, plain.verdict) == (None, None, "")
    words = (" mill", " flour", " stone")
    against = AgainstBroad(broad=26, words=words, cohesion=9.0, cohesion_95=4.0, unlike=0.8, unlike_95=0.5, p=0.003)
    judged = plain.model_copy(update={"against": against})
    assert (judged.p, judged.above_chance) == (0.003, True)
    assert judged.verdict == "trace: strong (p < 0.01), beside 26 broad finetunes"
    agent, datasets = ws.agents["diff_mining-only"], blinded([replace(evidence, readings={"diff_mining": judged})])
    text = render_overview(ws.prompts["agent_overview"], agent, datasets)
    assert text.index("trace: strong") < text.index("mill | flour | stone") < text.index("most often rise")


def test_details_of_either_framing(evidence, ws):
    chats = evidence["diff_mining"].parts[1].mined
    told = using(ws, evidence, "get_diff_mining_details", framing="chats", tokens="suppressed", k=3)
    assert [t["token"] for t in told["tokens"]] == [t.token for t in chats.suppressed[:3]]
    assert [t["tokens"] for t in told["topics"]] == [list(t.tokens) for t in chats.topics]
    alone = evidence["diff_mining"].model_copy(update={"parts": evidence["diff_mining"].parts[:1]})
    with pytest.raises(Refused, match="chats' answers were not read; there is text"):
        using(ws, replace(evidence, readings={"diff_mining": alone}), "get_diff_mining_details", framing="chats")


def test_details_of_a_push(evidence, ws):
    place = evidence["jacobian"].layers[1].positions[2]
    told = using(ws, evidence, "get_jacobian_details", layer=2, positions=[2], k=4, bottom=True)
    assert told["2"]["top"] == [[t.token, round(t.nats, 2)] for t in place.read.top[:4]]
    assert told["2"]["bottom"] == [[t.token, round(t.nats, 2)] for t in place.read.bottom[:4]]
    wrongs = (({"layer": 0, "positions": [2]}, r"it was at \[1, 2\]"), ({"layer": 2, "positions": [9]}, "there are"))
    for wrong, said in wrongs:
        with pytest.raises(Refused, match=said):
            using(ws, evidence, "get_jacobian_details", **wrong)
