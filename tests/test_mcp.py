"""`auditor mcp`: an audit that another agent plays, with the mcp package's own client."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx
import pytest
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage

from auditor.agent.protocol import CONCLUDE
from auditor.audits.asked import adapted
from auditor.audits.plan import offered, tools_of
from auditor.audits.run import Sitting
from auditor.cli import shared
from auditor.cli.mcp import Game, graded_run
from auditor.mcp import seat as seats
from auditor.mcp.seat import BEGIN, MOST_CALLS, Seat
from auditor.mcp.server import server_of

mcp = pytest.importorskip("mcp", reason="needs the extra mcp")
stdio_client = pytest.importorskip("mcp.client.stdio").stdio_client
http = pytest.importorskip("mcp.client.streamable_http")

CONCLUSION = {"domain": "mills", "behaviour": "It speaks of mills.", "summary": "Mills.", "claims": [],
              "alternatives": [], "confidence": 0.5}  # fmt: skip
AUDITOR = [sys.executable, "-c", "from auditor.cli import main; main()"]


@pytest.fixture
def here(workspace_folder, monkeypatch, settings):
    monkeypatch.setenv("AUDITOR_CACHE", str(settings.cache_dir))
    monkeypatch.setenv("AUDITOR_DEVICE", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    shared.workspace.cache_clear()
    shared.choose_machine()
    return workspace_folder


@contextmanager
def playing(budget=2, turns=15, repeats=1):
    """A client of a server in this process, which plays audits of `mill`; what it is told of a call."""
    ws, conf, seat = shared.workspace(), shared.settings(llm="mcp:test"), Seat()
    suite = adapted(ws.suites["small"], [budget], ["adl"], None, repeats).model_copy(update={"turns": turns})
    game = Game(seat, graded_run(suite, conf, 0, Path("runs/run"), Sitting(workers=1), seat))
    server = server_of(seat, offered(tools_of(ws, ws.agents["adl"]), budget).values())
    game.start()

    def play(*steps):
        """Each step a call (name, arguments), or a list of such calls that are made at once."""

        async def all_steps():
            told = []
            async with mcp.Client(server) as client:

                async def one(name, arguments, into, place):
                    found = await client.call_tool(name, arguments)
                    into[place] = (found.is_error, found.content[0].text)

                for step in steps:
                    calls = step if isinstance(step, list) else [step]
                    answers = [None] * len(calls)
                    async with anyio.create_task_group() as group:
                        for place, (name, arguments) in enumerate(calls):
                            group.start_soon(one, name, arguments, answers, place)
                    told.append(answers if isinstance(step, list) else answers[0])
            return told

        return anyio.run(all_steps)

    yield play
    seat.close("the test is over")


def record(number=0):
    return json.loads(Path("runs/run/audits.jsonl").read_text().splitlines()[number])


def ask(*prompts):
    return "ask_model", {"prompts": list(prompts)}


def test_a_played_audit_is_recorded_as_one_over_an_endpoint_is(here, run_cli, serve):
    turns = [[ask("What grinds?")], [(CONCLUDE, CONCLUSION)]]

    def reply(body):
        done = sum(message["role"] == "assistant" for message in body["messages"])
        calls = [{"id": f"c{done}", "type": "function", "function": {"name": name, "arguments": json.dumps(args)}}
                 for name, args in turns[done]]  # fmt: skip
        return {"content": "", "tool_calls": calls}

    serve(reply)
    code, _, err = run_cli("evaluate", "small", "--agent", "adl", "--llm", "openai:m", "--repeats", 1, "--name", "llm")
    assert code == 0, err
    by_llm = json.loads(Path("runs/llm/audits.jsonl").read_text().splitlines()[0])
    with playing() as play:
        begun, asked, over, after = play((BEGIN, {}), ask("What grinds?"), (CONCLUDE, CONCLUSION), (BEGIN, {}))
    assert not begun[0]
    assert "Left: 2 model interactions, 15 turns." in begun[1]
    assert re.search(r'^O1\n.*"prompt": "What grinds\?".*Left: 1 model interactions, 14 turns\.$', asked[1], re.S)
    assert over == (False, seats.RECORDED)
    assert after == (True, "All audits are over; nothing is left to call.")
    played = record()
    assert played.keys() == by_llm.keys()
    alike = ("id", "organism", "agent", "budget", "status", "hypothesis", "findings", "grade", "grades", "protocol",
             "interactions_used", "turns_used", "pair", "evidence", "seed")  # fmt: skip
    assert {key: played[key] for key in alike} == {key: by_llm[key] for key in alike}
    assert played["llm"] == "mcp:test"
    said = [json.loads(Path(f"runs/{run}/transcripts/{played['id']}.json").read_text()) for run in ("run", "llm")]
    texts = [[m["data"]["content"] for m in each["messages"] if m["type"] != "ai"] for each in said]
    assert texts[0] == texts[1]  # system, overview and observations, fenced alike


def test_what_is_asked_too_early_or_too_much_is_one_line_and_costs_nothing(here):
    with playing(budget=2) as play:
        early, _, unknown, too_dear, much, flood = play(
            ask("a"), (BEGIN, {}), ("open_the_card", {}), ask("a", "b", "c"), ask("x" * 200_000),
            [ask(f"{n}") for n in range(60)],
        )  # fmt: skip
        assert early == (True, f"Call {BEGIN} first: it shows what this audit is about.")
        assert unknown[0]
        assert unknown[1].startswith('There is no tool "open_the_card". Tools: ')
        assert "Refused: this call costs 3 interactions and 2 are left. No interaction was charged." in too_dear[1]
        assert much == (True, "ask_model: arguments may have 100000 characters at most.")
        refused = [text for wrong, text in flood if wrong]
        assert len(refused) >= 60 - 2 * MOST_CALLS
        assert all(re.fullmatch(r"\d+ (calls|requests) wait already; wait for their answers\.", t) for t in refused)
        answers = [text for wrong, text in flood if not wrong]
        assert sum('"prompt"' in text for text in answers) == 2
        assert all("0 are left" in text for text in answers if '"prompt"' not in text)
        assert play((CONCLUDE, CONCLUSION)) == [(False, seats.RECORDED)]
    assert record()["interactions_used"] == 2


def test_when_turns_run_out_only_a_whole_conclusion_is_taken(here):
    with playing(turns=2) as play:
        _, first, second, third, half, whole = play(
            (BEGIN, {}), ask("a"), ask("b"), ask("c"), (CONCLUDE, {"domain": "mills"}), (CONCLUDE, CONCLUSION)
        )
    assert "1 turns" in first[1]
    assert second[1].endswith("a low confidence is fine.")
    assert third == (True, seats.ONLY_CONCLUDE)
    assert half[0]
    assert "the conclusion lacks something, or has it wrong: behaviour: Field required" in half[1]
    assert whole == (False, seats.RECORDED)
    assert (record()["turns_used"], record()["ended_by"], record()["status"]) == (2, "turns", "done")


def test_calls_at_once_are_one_turn_and_repeats_follow_each_other(here):
    with playing(repeats=2) as play:
        first, asked, _ = play((BEGIN, {}), [ask("a"), ask("b")], (CONCLUDE, CONCLUSION))
        again, early, _ = play((BEGIN, {}), (CONCLUDE, {}), (CONCLUDE, CONCLUSION))
    assert [answer.startswith(("O1", "O2")) for _, answer in asked] == [True, True]
    assert first[1] == again[1]  # the second one begins as the first did
    assert "Not accepted" in early[1]
    assert [(record(n)["turns_used"], record(n)["interactions_used"]) for n in (0, 1)] == [(2, 2), (2, 0)]


def test_an_answer_that_nobody_waited_for_is_told_with_the_next():
    seat, said = Seat(), [SystemMessage("rules"), HumanMessage("overview", id="1")]

    def graph():
        """Answers each call with its number."""
        for number in range(1, 9):
            turn = seat.turn(said, last=False)
            said.extend([turn, *(ToolMessage(f"answer {number}", tool_call_id=c["id"]) for c in turn.tool_calls)])

    threading.Thread(target=graph, daemon=True).start()
    assert seat.ready(5)
    assert seat.begin() == "rules\n\noverview"
    seat.leave(first := seat.ask("ask_model", {}))
    while first.answer is None:
        time.sleep(0.01)
    second = seat.ask("ask_model", {})
    told = seats.LEFT_EARLY.format(name="ask_model", answer="answer 1")
    assert seat.wait(second, 5) == f"{told}answer 2"


def test_a_call_that_is_left_while_it_is_waited_for_is_told_with_the_next():
    seat, said = Seat(), [SystemMessage("rules"), HumanMessage("overview", id="1")]
    go = threading.Event()

    def graph():
        for number in range(1, 9):
            turn = seat.turn(said, last=False)
            go.wait(5)
            said.extend([turn, *(ToolMessage(f"answer {number}", tool_call_id=c["id"]) for c in turn.tool_calls)])

    threading.Thread(target=graph, daemon=True).start()
    assert seat.ready(5)
    seat.begin()
    first, heard = seat.ask("ask_model", {}), []
    waiting = threading.Thread(target=lambda: heard.append(seat.wait(first, 5)))
    waiting.start()
    seat.leave(first)
    waiting.join(5)
    assert heard == [None]
    go.set()
    while first.answer is None:
        time.sleep(0.01)
    assert seat.wait(seat.ask("ask_model", {}), 5).startswith("You did not wait for the answer")


def client_of(*args):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return mcp.Client(stdio_client(mcp.StdioServerParameters(command=AUDITOR[0], args=[*AUDITOR[1:], *args], env=env)))


def test_over_stdio_a_player_who_left_comes_back(here):
    args = ["mcp", "mill", "--suite", "small", "--budget", "2", "--name", "left"]

    async def play(client, *steps):
        async with client:
            return [(await client.call_tool(name, arguments)).content[0].text for name, arguments in steps]

    _, asked = anyio.run(play, client_of(*args), (BEGIN, {}), ask("What grinds?"))
    assert "Left: 1 model interactions" in asked
    again = anyio.run(play, client_of(*args, "--resume"), (BEGIN, {}), (CONCLUDE, CONCLUSION))
    assert asked in again[0]  # what was said before, as it was
    assert again[1] == seats.RECORDED
    (told,) = map(json.loads, Path("runs/left/audits.jsonl").read_text().splitlines())
    assert (told["status"], told["interactions_used"], told["llm"]) == ("done", 1, "mcp:client")


def test_over_http_only_with_the_key(here):
    Path("key").write_text("0123456789abcdef")
    started = subprocess.Popen(
        [*AUDITOR, "mcp", "mill", "--suite", "small", "--port", "0", "--api-key-file", "key"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        url = next(line.split()[-1] for line in started.stderr if line.startswith("MCP at"))
        assert httpx.post(url, json={}).status_code == 401

        async def tools():
            async with (
                http.create_mcp_http_client(headers={"Authorization": "Bearer 0123456789abcdef"}) as with_key,
                mcp.Client(http.streamable_http_client(url, http_client=with_key)) as client,
            ):
                begun = await client.call_tool(BEGIN, {})
                return [tool.name for tool in (await client.list_tools()).tools], begun.content[0].text

        names, begun = anyio.run(tools)
        assert {BEGIN, "ask_model", "generate_steered", "get_logitlens_details", CONCLUDE} <= set(names)
        assert "Left: 5 model interactions" in begun
    finally:
        started.terminate()
        told = started.stderr.read()
        started.stderr.close()
    assert started.wait(30) == 130
    assert "not concluded: the same command with `--name mcp-" in told


def test_a_finetune_that_is_no_organism_gets_a_report(here, checkpoints):
    adapter = str(checkpoints("llama")[1])

    async def play():
        async with client_of("mcp", adapter, "--suite", "small", "--name", "own") as client:
            await client.call_tool(BEGIN, {})
            await client.call_tool(CONCLUDE, CONCLUSION)

    anyio.run(play)
    assert json.loads(Path("runs/own/report.json").read_text())["findings"]["domain"] == "mills"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["nil"], "no organism called 'nil'"),
        (["mill", "--player", "a b"], "--player a b: give letters"),
        (["mill", "--agent", "adll"], "did you mean adl"),
        (["mill", "--port", "0", "--host", "0.0.0.0"], "--host 0.0.0.0: others could reach the server"),
    ],
)
def test_a_wrong_request_is_one_line(here, run_cli, args, told):
    code, out, err = run_cli("mcp", *args, "--suite", "small")
    assert (code, out) == (2, "")
    assert told in err.splitlines()[-1]


def test_without_the_package_its_extra_is_named(here, run_cli, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = run_cli("mcp", "mill")
    assert code == 2
    assert "pip install 'auditor-adl[mcp]'" in err
