"""The audit's state machine: every edge, every way a turn can go wrong, budgets to the last interaction."""

import json

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from auditor.agent.calls import Purse
from auditor.agent.graph import Investigation, build_graph, draw
from auditor.agent.overview import blinded
from auditor.agent.protocol import Wire
from auditor.agent.state import fresh_state
from auditor.audits.plan import PROMPTS
from auditor.errors import AuditorError, Refused, TooLong, UsageError
from auditor.llm.caller import Caller
from auditor.llm.failures import CallFailed
from auditor.models.blind import BlindPair
from auditor.models.generate import Request
from auditor.models.kept import Kept
from auditor.models.worker import ClientGone, OutOfMemory
from auditor.plugins import Args, Context, tool
from auditor.records.cards import Agent, AskSettings, Limits, Protocol
from auditor.testing import FakePair, ScriptedChat, calling
from auditor.workspace import load_workspace

FINAL = 'FINAL(description: "about mills")'


@tool
def broken(ctx: Context, args: Args) -> str:
    """Raises, as a plugin with a bug would."""
    raise ZeroDivisionError("bug")


@tool
def leaving(ctx: Context, args: Args) -> str:
    """Ends the program, as code that was written as a script would."""
    raise SystemExit("no such file")


@pytest.fixture(scope="module")
def ws():
    return load_workspace()


@pytest.fixture
def audit(ws):
    """Run a script of turns through the graph; returns the final state."""

    def run(*turns, interactions=5, turns_limit=15, tokens=200_000, tools=("ask_model",), saver=None, resume=False,
            protocol=Protocol.AUTO, more=(), pair=None, kept=None):  # fmt: skip
        chosen = {name: ws.tools[name] for name in tools}
        chosen |= {made.name: made for made in (broken, leaving, *more)}
        prompts = {n: ws.prompts[f"agent_{n}"] for n in ("system", *PROMPTS)}
        job = Investigation(
            agent=Agent(name="t", overview=(), tools=tuple(chosen)),
            tools=chosen,
            prompts=prompts,
            limits=Limits(interactions=interactions, turns=turns_limit, tokens=tokens),
            context=Context(pair or FakePair(), blinded([]), AskSettings(), seed=1),
            wire=Wire(Caller("scripted", ScriptedChat(turns=list(turns))), chosen, prompts, protocol),
            purse=Purse(kept=kept or Kept()),
        )
        config = {"configurable": {"thread_id": "t"}}
        return build_graph(job, saver).invoke(None if resume else fresh_state(job.opening()), config)

    return run


def ask(*prompts, call_id="c"):
    return calling("ask_model", {"prompts": list(prompts)}, call_id)


def observations(state):
    return [m.text.partition("\n")[2] for m in state["messages"] if isinstance(m, ToolMessage)]


def test_a_question_is_charged_and_answered_by_both_models(audit):
    state = audit(ask("Where?", "Why?"), FINAL)
    answers = json.loads(observations(state)[0])
    assert answers[1] == {"prompt": "Why?", "base": "base: Why?", "finetuned": "finetuned: Why?"}
    assert (state["interactions"], state["turns"], state["hypothesis"]) == (2, 2, "about mills")


def test_an_overspend_is_refused_and_free(audit):
    state = audit(ask("1", "2", "3"), ask("4", "5", "6", call_id="d"), ask("7", "8", call_id="e"), FINAL)
    assert "costs 3 interactions and 2 are left" in observations(state)[1]
    assert state["interactions"] == 5


@pytest.mark.parametrize(
    ("turn", "told"),
    [
        (calling("ask_modle", {}), "did you mean ask_model?"),
        (calling("ask_model", {"prompts": "no list"}), "Wrong arguments for ask_model: prompts"),
        (calling("ask_model", {"prompts": []}), "Wrong arguments"),
        (calling("ask_model", {"prompts": ["x"], "extra": 1}), "extra"),
        (calling("broken", {}), 'broken failed: ZeroDivisionError: "bug"'),
        (calling("leaving", {}), 'leaving failed: SystemExit: "no such file"'),
        (calling("nothing_like_it", {}), 'There is no tool "nothing_like_it". Tools: ask_model'),
        (calling("get_steering_samples", {"dataset": "ds1", "layer": 2, "position": 1}), "no dataset 'ds1'"),
        (
            AIMessage("", invalid_tool_calls=[{"name": "ask_model", "args": "{oops", "id": "x", "error": "json"}]),
            "Wrong arguments",
        ),
    ],
)
def test_what_is_wrong_becomes_an_observation(audit, turn, told):
    state = audit(turn, FINAL, tools=("ask_model", "get_steering_samples"))
    assert told in observations(state)[0]
    assert (state["interactions"], state["hypothesis"]) == (0, "about mills")


def test_what_was_paid_for_is_read_whole_page_by_page(audit):
    """Twelve long answers are no message; the rest costs nothing, and none of it is cut."""
    pair = FakePair(lambda request: f"{request.prompt}: {'x' * 3_000}.")
    prompts = [f"p{i}" for i in range(4)]
    more = calling("read_more", {"id": "O1", "page": 2}, "d")
    state = audit(ask(*prompts), more, calling("read_more", {"id": "O1", "page": 9}, "e"), FINAL, pair=pair,
                  tools=("ask_model", "read_more"))  # fmt: skip
    first, second, wrong = observations(state)
    head, _, page = first.partition("\n")
    assert head.startswith("(page 1 of 4; read_more has the others")
    read = json.loads(page) + json.loads(second)["items"]
    assert [answer["prompt"] for answer in read] == prompts[:2]
    assert all(len(answer["finetuned"]) > 3_000 for answer in read)
    assert "O1 has 4 pages" in wrong
    assert state["interactions"] == 4


def test_without_a_limit_tokens_neither_end_an_audit_nor_are_told(audit):
    use = {"input_tokens": 9_000_000, "output_tokens": 1, "total_tokens": 9_000_001}
    dear = ask("a").model_copy(update={"usage_metadata": use})
    state = audit(dear, FINAL, tokens=None)
    assert (state["hypothesis"], state["ended_by"]) == ("about mills", "")
    assert not any(
        "tokens" in str(m.content).split("Left:")[-1] for m in state["messages"] if "Left:" in str(m.content)
    )


@pytest.mark.parametrize("price", [-3, 1.5, None, "two", True, lambda args: args.nothing])
def test_a_cost_that_is_no_price_neither_ends_the_audit_nor_refills_the_budget(audit, price):
    @tool(cost=price if callable(price) else lambda args: price)
    def odd(ctx: Context, args: Args) -> str:
        """Has a price that cannot be paid."""
        return "for nothing"

    state = audit(calling("odd", {}), ask("1", "2", "3", "4", "5", "6"), FINAL, more=[odd])
    assert observations(state)[0].startswith("odd failed: ")
    assert "costs 6 interactions and 5 are left" in observations(state)[1]
    assert (state["interactions"], state["hypothesis"]) == (0, "about mills")


@tool
def wrapping(ctx: Context, args: Args) -> str:
    """Says in its own words that the models failed."""
    try:
        return ctx.ask_both(["a"])[0][0]
    except Exception as error:
        raise ValueError("no answer") from error


@pytest.mark.parametrize("name", ["ask_model", "wrapping"])
@pytest.mark.parametrize(
    "failure",
    [
        OutOfMemory("no room"),
        MemoryError(),
        ClientGone("left"),
        UsageError("no model server answers"),
        AuditorError("HTTP 500"),
        CallFailed("no answer in time"),
    ],
)
def test_what_fails_under_a_tool_fails_the_audit(audit, name, failure):
    def fail(_request):
        raise failure

    args = {"prompts": ["a"]} if name == "ask_model" else {}
    with pytest.raises(type(failure) if name == "ask_model" else ValueError):
        audit(calling(name, args), FINAL, more=[wrapping], pair=FakePair(fail))


def test_a_bug_in_the_models_is_no_observation_either(audit):
    class Broken(FakePair):
        def generate(self, requests):
            return Request.sampling.fget(None)  # raises in auditor/models

    with pytest.raises(AttributeError):
        audit(ask("a"), FINAL, pair=Broken())


def test_a_refusal_that_a_tool_tells_in_its_own_words_stays_an_observation(audit):
    def refuse(_request):
        raise Refused("too long")

    state = audit(calling("wrapping", {}), FINAL, more=[wrapping], pair=FakePair(refuse))
    assert observations(state)[0].startswith('wrapping failed: ValueError: "no answer"')


def test_what_the_models_refuse_to_read_costs_nothing(audit):
    def refuse(request):
        if request.prompt == "long":
            raise TooLong("the prompt has over 512 tokens")
        return "yes"

    kept = Kept()
    state = audit(ask("long"), ask("short", call_id="d"), FINAL, pair=BlindPair(FakePair(refuse), kept), kept=kept)
    assert observations(state)[0] == "Refused: the prompt has over 512 tokens. No interaction was charged."
    assert state["interactions"] == 1


def test_parallel_calls_are_charged_in_order(audit):
    both = AIMessage(
        "",
        tool_calls=[
            {"name": "ask_model", "args": {"prompts": ["a", "b"]}, "id": "1"},
            {"name": "ask_model", "args": {"prompts": ["c", "d"]}, "id": "2"},
        ],
    )
    state = audit(both, FINAL, interactions=3)
    assert "base: a" in observations(state)[0]
    assert "costs 2 interactions and 1 are left" in observations(state)[1]


def test_two_calls_of_one_id_are_answered_apart(audit):
    """Some endpoints number calls badly, and none takes two results of one call."""
    twice = {"name": "ask_model", "args": {"prompts": ["a"]}, "id": "same"}
    state = audit(AIMessage("", tool_calls=[twice, twice | {"args": {"prompts": ["b"]}}]), FINAL)
    made = [call["id"] for call in state["messages"][2].tool_calls]
    assert len(set(made)) == 2
    assert [m.tool_call_id for m in state["messages"] if isinstance(m, ToolMessage)] == made


def test_a_made_up_name_is_sent_back_as_endpoints_accept_it(audit):
    state = audit(calling("ask the modèl", {}), FINAL)
    sent, answered = state["messages"][2].tool_calls[0]["name"], state["messages"][3].name
    assert sent == answered == "ask_the_mod_l"


def test_a_turn_without_call_or_final_is_nudged(audit):
    state = audit("I wonder.", FINAL)
    assert "neither called a tool nor concluded" in state["messages"][3].text
    assert state["turns"] == 2


def test_the_tokens_of_the_conclusion_are_kept_back(audit):
    """Another turn is only taken if it and the conclusion still fit."""
    use = {"input_tokens": 1_000, "output_tokens": 10, "total_tokens": 1_010}
    turns = [calling("ask_model", {"prompts": ["Why?"]}, f"c{i}") for i in range(5)]
    told = [turn.model_copy(update={"usage_metadata": use}) for turn in turns]
    state = audit(*told[:2], AIMessage("Mills, I think.", usage_metadata=use), tokens=4_000)
    assert state["tokens_in"] == 3 * 1_000
    assert state["inconclusive"]
    asked = [message.text for message in state["messages"] if message.type == "human"][-1]
    assert "No tokens for another turn and a conclusion left." in asked


def test_an_endpoint_that_tells_no_usage_does_not_lift_the_limit(audit):
    turns = [calling("ask_model", {"prompts": ["Why?"]}, f"c{i}") for i in range(4)]
    state = audit(*turns[:1], AIMessage("Mills, I think."), tokens=1_000)
    assert state["inconclusive"]
    assert "No tokens for another turn and a conclusion left." in str(state["messages"][-2].content)
    assert state["tokens_in"] == 0  # what was not told is not said to be known
    assert audit(*turns, FINAL)["hypothesis"] == "about mills"


@pytest.mark.parametrize("limit", [{"turns_limit": 2}, {"tokens": 1}])
def test_out_of_turns_or_tokens_still_ends_in_a_hypothesis(audit, limit):
    said = AIMessage("Hm.", usage_metadata={"input_tokens": 9, "output_tokens": 1, "total_tokens": 10})
    state = audit(said, *(["Hm."] if "turns_limit" in limit else []), "It is about mills.", **limit)
    assert (state["hypothesis"], state["inconclusive"]) == ("It is about mills.", True)
    assert "Conclude now" in state["messages"][-2].text


def test_an_empty_last_message_is_inconclusive(audit):
    assert audit("Hm.", "", turns_limit=1)["hypothesis"].startswith("Inconclusive")


def test_a_cut_off_audit_goes_on_from_its_checkpoint(audit):
    saver = InMemorySaver()
    with pytest.raises(ConnectionError):
        audit(ask("Where?"), ConnectionError("gone"), saver=saver)
    state = audit(FINAL, saver=saver, resume=True)
    assert (state["interactions"], state["turns"], state["hypothesis"]) == (1, 2, "about mills")


def test_what_is_left_is_told_after_every_turn(audit):
    state = audit(ask("Where?"), FINAL)
    assert "Left: 5 model interactions, 15 turns" in state["messages"][1].text
    assert "Left: 4 model interactions, 14 turns" in state["messages"][4].text


def test_the_drawing_has_a_node_for_every_tool(ws):
    drawing = draw({name: ws.tools[name] for name in ws.agents["adl"].tools})
    for name in (*ws.agents["adl"].tools, "think", "conclude"):
        assert f"\t{name}({name})" in drawing
