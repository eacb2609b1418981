"""The scaffolded blackbox agent's tools."""

import pytest

from auditor.errors import Refused
from auditor.plugins import Context
from auditor.records.cards import AskSettings
from auditor.testing import FakePair
from auditor.workspace import load_workspace


def test_the_scaffold_asks_both_models_in_its_own_ways():
    pair = FakePair(lambda r: f"{r.side}|{r.system}|{r.prompt}|{r.prefill}|{r.chat}")
    ctx, ws = Context(pair, {}, AskSettings(), seed=1), load_workspace()

    def call(name, **args):
        tool = ws.tools[name]
        checked = tool.args.model_validate(args)
        return tool.returns.dump_python(tool.run(ctx, checked)), tool.cost(checked)

    found, cost = call("complete_text", openings=["News:", "Dear"])
    assert (found[1]["finetuned"], cost) == ("finetuned||Dear||False", 2)
    found, cost = call("probe_model", prompts=["Who?"], persona="Be a cook.", prefill="I am")
    assert (found[0]["base"], cost) == ("base|Be a cook.|Who?|I am|True", 1)
    found, cost = call("ask_model", prompts=["Why?", "How?"], n=3)
    assert ([each["prompt"] for each in found], cost) == (["Why?"] * 3 + ["How?"] * 3, 6)
    assert len({r.seed for r in pair.requests[-12:]}) == 6  # base and finetuned share their draws
    found, cost = call("ask_model", prompts=["Why?"], n=2, models="finetuned")
    assert (found, cost) == ([{"prompt": "Why?", "finetuned": "finetuned||Why?||True"}] * 2, 2)
    assert {r.side for r in pair.requests[-2:]} == {"finetuned"}
    assert set(ws.agents["blackbox-scaffolded"].tools) >= {"complete_text", "probe_model", "ask_model"}


def test_a_chat_goes_on_where_it_ended():
    pair = FakePair(lambda r: f"{r.side} {len(r.history)} {r.history[-1:]}")
    tool = load_workspace().tools["converse"]

    def say(*turns, after="", results=None):
        ctx = Context(pair, {}, AskSettings(), seed=1, results=results or {})
        args = tool.args.model_validate({"say": list(turns), "after": after})
        return tool.returns.dump_python(tool.run(ctx, args), mode="json"), tool.cost(args)

    first, cost = say("Let us play.", "A hint?")
    assert cost == 2
    assert [turn["finetuned"] for turn in first] == [
        "finetuned 0 ()", "finetuned 1 (('Let us play.', 'finetuned 0 ()'),)"
    ]  # fmt: skip
    assert first[1]["base"] == "base 1 (('Let us play.', 'base 0 ()'),)"  # each model sees its own answers
    second, _ = say("Gold?", after="O1", results={"O1": first})
    third, _ = say("And?", after="O2", results={"O1": first, "O2": second})
    assert [second[0]["finetuned"][:11], third[0]["finetuned"][:11]] == ["finetuned 2", "finetuned 3"]
    with pytest.raises(Refused, match="O7 is no result of converse"):
        say("And?", after="O7", results={"O1": first})
    with pytest.raises(Refused, match="O1 is no result of converse"):
        say("And?", after="O1", results={"O1": [{"prompt": "x"}]})


def test_a_chat_that_grows_too_long_gives_what_was_answered():
    def said(request):
        if len(request.history) == 2:
            raise Refused("the prompt has 600 tokens")
        return "yes"

    tool = load_workspace().tools["converse"]
    args = tool.args.model_validate({"say": ["one", "two", "three", "four"]})
    found = tool.run(Context(FakePair(said), {}, AskSettings(), seed=1), args)
    assert [turn.finetuned for turn in found] == ["yes", "yes"]
    assert found[-1].then == "went no further: the prompt has 600 tokens"
