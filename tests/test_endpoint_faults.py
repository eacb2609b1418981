"""What endpoints do wrong: told truly, tried again only if that can help, in words if they take no tools."""

import pytest
from langchain_core.messages import HumanMessage, SystemMessage

from auditor.agent.protocol import Wire
from auditor.audits.plan import PROMPTS
from auditor.errors import UsageError
from auditor.ledger.calls import Calls
from auditor.ledger.database import Database
from auditor.llm.caller import open_caller
from auditor.llm.failures import CallFailed, EndpointUnusable
from auditor.llm.spec import parse_spec
from auditor.records.cards import Protocol
from auditor.workspace import load_workspace
from tests.faults import FAULTS, FINAL, Endpoint, completion, plan_of, told

ASKED = [SystemMessage("Be brief."), HumanMessage("What grinds?")]


@pytest.fixture(scope="module")
def ws():
    return load_workspace()


@pytest.fixture
def line(ws, monkeypatch):
    """A wire to an endpoint that follows a plan."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-1234")
    started = []

    def start(plan, protocol=Protocol.AUTO, journal=None, provider="openai"):
        made = Endpoint(plan)
        started.append(made)
        base = f"{made.url}/openai" if provider == "azure_openai" else made.url
        spec = parse_spec(f"{provider}:m?base_url={base}&timeout=5&attempts=3&temperature=0.3&price_in=1&price_out=1")
        caller = open_caller(spec, journal)
        caller.sleep = lambda _seconds: None
        prompts = {name: ws.prompts[f"agent_{name}"] for name in PROMPTS}
        return made, Wire(caller, {"ask_model": ws.tools["ask_model"]}, prompts, protocol)

    yield start
    for made in started:
        made.close()


def outcome(wire):
    """How a turn ended, and what was said."""
    try:
        turn = wire.ask(ASKED)
    except CallFailed as error:
        return "call", str(error)
    except EndpointUnusable as error:
        return "run", str(error)
    if turn.protocol is Protocol.TEXT:
        return "words", turn.final
    return ("retried" if turn.reply.attempts > 1 else "answer"), turn.final


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault(fault, line):
    served, wire = line(plan_of(fault))
    ends, said = outcome(wire)
    assert (ends, fault.says in str(said)) == (fault.ends, True), said
    assert len(served.requests) == {"answer": 1, "words": 2, "retried": 2, "call": 1, "run": 1}[fault.ends]
    assert "canary" not in str(said)


@pytest.mark.parametrize("provider", ["openai", "azure_openai", "openrouter"])
def test_arguments_reach_the_tool_however_they_are_encoded(provider, line, monkeypatch):
    for name in ("OPENROUTER_API_KEY", "AZURE_OPENAI_API_KEY"):
        monkeypatch.setenv(name, "sk-canary-1234")
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    for fault in FAULTS[:2]:
        _, wire = line(plan_of(fault), provider=provider)
        assert [(c["name"], c["args"]) for c in wire.ask(ASKED).calls] == [("ask_model", {"prompts": ["hi"]})]


def test_tokens_that_are_not_told_are_not_none_at_all(line):
    nothing = {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}
    for usage in (None, {}, nothing):
        _, wire = line(lambda _body, usage=usage: (*completion({"content": FINAL}, usage=usage), {}))
        reply = wire.ask(ASKED).reply
        assert (reply.tokens_in, reply.tokens_out, reply.cost_usd) == (None, None, None)


def test_halves_of_characters_do_not_reach_the_files(line, tmp_path):
    half = next(fault for fault in FAULTS if fault.name == "half a character")
    calls = Calls(Database(tmp_path / "ledger.sqlite"))
    _, wire = line(plan_of(half), journal=calls)
    assert wire.ask(ASKED).final == "mills \ufffd"
    (call,) = calls.all()
    assert "mills \ufffd" in call["reply"]["data"]["content"]


def test_an_endpoint_without_tools_is_found_out_once(line):
    fault = next(fault for fault in FAULTS if fault.ends == "words")
    served, wire = line(plan_of(fault))
    assert [wire.ask(ASKED).final for _ in range(3)] == ["About mills."] * 3
    assert [("tools" in body) for body in served.requests] == [True, False, False, False]


def test_words_are_not_tried_where_tools_worked_or_are_asked_for(line):
    replies = [completion({"content": FINAL}), told(400, "Bad Request")]
    served, wire = line(lambda _body: (*replies[min(len(served.requests), 2) - 1], {}))
    wire.ask(ASKED)
    assert outcome(wire)[0] == "call"
    assert all("tools" in body for body in served.requests)
    served, wire = line(lambda _body: (*told(400, "this model does not support tools"), {}), Protocol.TOOLS)
    assert outcome(wire)[0] == "call"
    assert len(served.requests) == 1


def test_where_words_fail_too_the_first_reason_is_told(line):
    served, wire = line(lambda body: (*told(400, "Bad Request" if "tools" in body else "Bad Words"), {}))
    assert outcome(wire) == ("call", "HTTP 400: Bad Request")
    assert len(served.requests) == 2
    assert wire.caller.takes_tools is None


def test_an_endpoint_of_no_use_is_not_asked_again(line):
    served, wire = line(lambda _body: (*told(429, "no money", "insufficient_quota"), {}))
    assert [outcome(wire)[0] for _ in range(4)] == ["run"] * 4
    assert len(served.requests) == 1


@pytest.mark.parametrize("key", ["sk-abc\n", "sk abc", "sk-äöü", "sk-\x00abc"])
def test_a_key_that_cannot_be_sent(key, monkeypatch, tmp_path):
    monkeypatch.setattr("os.environ", {"OPENAI_API_KEY": key, "HOME": "/tmp"})
    with pytest.raises(UsageError, match="the key in OPENAI_API_KEY holds a line break, a space, or") as caught:
        open_caller(parse_spec("openai:m"))
    assert "abc" not in str(caught.value)
    (tmp_path / "key").write_text(f"{key}x")
    with pytest.raises(UsageError, match=r"the key in .*/key holds"):
        open_caller(parse_spec(f"openai:m?key_file={tmp_path / 'key'}"))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("127.0.0.1:8000/v1", "begin it with http://"),
        ("http://127.0.0.1:8000/v1/chat/completions", "leave off /chat/completions"),
        ("http://127.0.0.1:8000/chat/completions/", "leave off /chat/completions"),
    ],
)
def test_an_address_that_cannot_be_right(url, told, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    with pytest.raises(UsageError, match=told):
        open_caller(parse_spec(f"openai:m?base_url={url}"))


def test_a_proxy_in_front_of_this_machine_is_named(line, monkeypatch):
    for name in ("http_proxy", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:9")
    _, wire = line(lambda _body: (*completion({"content": FINAL}), {}))
    ends, said = outcome(wire)
    assert (ends, said.endswith("; HTTP_PROXY stands in front of it: set NO_PROXY=127.0.0.1")) == ("run", True)
    assert "secret" not in said
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert outcome(line(lambda _body: (*completion({"content": FINAL}), {}))[1])[0] == "answer"


def test_a_socks_proxy_without_its_package(monkeypatch, run_cli):
    monkeypatch.setattr("auditor.llm.proxies.importlib.util.find_spec", lambda _name: None)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:9")
    with pytest.raises(UsageError, match=r"ALL_PROXY names a SOCKS proxy, .*`pip install socksio`, or unset"):
        open_caller(parse_spec("openai:m"))
    code, out, err = run_cli("doctor", "--json")
    assert (code, "ALL_PROXY names a SOCKS proxy" in out) == (0, True), err
