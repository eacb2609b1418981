"""What an endpoint can do wrong, over real HTTP: every call ends in an answer or a reason, and none is paid twice."""

import json
import random
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from auditor.errors import UsageError
from auditor.ledger.calls import Calls
from auditor.ledger.database import Database
from auditor.ledger.ledger import Ledger
from auditor.llm.caller import cache_marked, open_caller, scrub
from auditor.llm.failures import CallFailed, EndpointUnusable, retry_after
from auditor.llm.spec import parse_spec

ASKED = [SystemMessage("Be brief."), HumanMessage("What grinds?")]


class Endpoint:
    """An OpenAI-compatible server that treats its n-th request as `plan[n]` says; the last one goes for all later."""

    def __init__(self, *plan):
        self.plan, self.requests = list(plan), []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.requests.append(body)
                number = len(endpoint.requests) - 1
                endpoint.answer(self, endpoint.plan[min(number, len(endpoint.plan) - 1)], body)

            def log_message(self, *_args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.quiet = threading.Event()  # set when the test is over: wakes whoever is silent
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, http, deed, body):
        if deed == "silence":
            self.quiet.wait(20)
            return
        if deed == "cut":
            http.send_response(200)
            http.send_header("Content-Length", "1000")
            http.end_headers()
            http.wfile.write(b'{"id": "x", "cho')
            http.wfile.flush()
            http.connection.shutdown(socket.SHUT_RDWR)
            return
        status, headers, data = 200, {}, completion(body, "Mills.")
        if deed == "garbage":
            data = b"<html>upstream is unwell</html>"
        elif deed == "no choices":
            data = b'{"id": "x", "object": "chat.completion", "choices": null}'
        elif isinstance(deed, tuple):
            status, headers = deed
            data = json.dumps({"error": {"message": f"told: {http.headers['Authorization']}"}}).encode()
        elif deed != "ok":
            data = completion(body, deed)
        http.send_response(status)
        http.send_header("Content-Type", "application/json")
        http.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            http.send_header(name, value)
        http.end_headers()
        http.wfile.write(data)


def completion(body, text):
    return json.dumps({
        "id": "x", "object": "chat.completion", "created": 0, "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110,
                  "prompt_tokens_details": {"cached_tokens": 64}},
    }).encode()  # fmt: skip


@pytest.fixture
def endpoint(monkeypatch):
    started = []

    def start(*plan, options="", journal=None):
        monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-1234")
        made = Endpoint(*plan)
        started.append(made)
        caller = open_caller(parse_spec(f"openai:m?base_url={made.url}&timeout=0.5{options}"), journal)
        made.waits = []
        caller.sleep = made.waits.append
        return made, caller

    yield start
    for made in started:
        made.quiet.set()
        made.server.shutdown()
        made.server.server_close()


@pytest.mark.parametrize("deed", [(429, {}), (500, {}), (503, {}), "silence", "cut", "garbage", "no choices"])
def test_what_passes_is_tried_again(deed, endpoint):
    served, caller = endpoint(deed, "ok")
    reply = caller.call(ASKED, role="t")
    assert (reply.message.text, reply.attempts, len(served.requests)) == ("Mills.", 2, 2)
    assert (reply.tokens_in, reply.tokens_out, reply.tokens_cached, reply.cost_usd) == (100, 10, 64, None)


def test_the_endpoint_says_how_long_to_wait(endpoint):
    served, caller = endpoint((429, {"Retry-After": "7"}), (503, {"Retry-After": "9999"}), "ok")
    caller.call(ASKED, role="t")
    assert served.waits == [7.0, 60.0]  # a wait is capped


def test_retry_after_may_be_a_date():
    class Reply:
        headers = {"retry-after": "Wed, 21 Oct 2026 07:28:10 GMT"}  # noqa: RUF012

    error = Exception()
    error.response = Reply()
    assert retry_after(error, now=1792567680.0) == 10.0


def test_attempts_end(endpoint):
    served, caller = endpoint((500, {}), options="&attempts=3")
    with pytest.raises(CallFailed, match=r"HTTP 500: .*\(3 attempts\)"):
        caller.call(ASKED, role="t")
    assert len(served.requests) == 3


@pytest.mark.parametrize(("status", "kind"), [(400, CallFailed), (401, EndpointUnusable), (404, EndpointUnusable)])
def test_what_does_not_pass_is_not_tried_again(status, kind, endpoint):
    served, caller = endpoint((status, {}))
    with pytest.raises(kind) as caught:
        caller.call(ASKED, role="t")
    assert len(served.requests) == 1
    assert "canary" not in str(caught.value)  # the endpoint told the key back


def test_a_traceback_holds_no_key(endpoint):
    import traceback

    _, caller = endpoint((500, {}), options="&attempts=1")
    try:
        caller.call(ASKED, role="t")
    except CallFailed:
        assert "canary" not in traceback.format_exc()
    assert "canary" not in repr(caller)
    assert scrub("Bearer sk-canary-1234", None) == "Bearer [key]"


def test_a_finished_call_is_not_paid_again(endpoint, tmp_path):
    served, caller = endpoint("ok", journal=Calls(Database(tmp_path / "ledger.sqlite")))
    first = caller.call(ASKED, role="agent", job="audit-1")
    caller.journal = Calls(Database(tmp_path / "ledger.sqlite"))  # as a resumed run reads it
    again = caller.call(ASKED, role="agent", job="audit-1")
    assert (again.message.text, again.tokens_in) == (first.message.text, first.tokens_in)
    assert len(served.requests) == 1
    caller.call(ASKED, role="agent", job="audit-2")  # somebody else's question is another call
    caller.call(ASKED, role="agent", job="audit-1", repeat=1)
    assert len(served.requests) == 3


def test_the_journal_keeps_what_was_sent_verbatim(endpoint, tmp_path):
    path = tmp_path / "ledger.sqlite"
    calls = Calls(Database(path))
    _, caller = endpoint("ok", journal=calls)
    reply = caller.call(ASKED, role="a")
    caller.call([*ASKED, reply.message, HumanMessage("Sure?")], role="a")
    one, two = calls.all()
    assert [m["data"]["content"] for m in one["sent"]] == ["Be brief.", "What grinds?"]
    assert [m["data"]["content"] for m in two["sent"]] == ["Be brief.", "What grinds?", "Mills.", "Sure?"]
    assert not any(b"canary" in file.read_bytes() for file in tmp_path.iterdir())


def test_attempts_that_fail_are_written_down(endpoint, tmp_path):
    calls = Calls(Database(tmp_path / "ledger.sqlite"))
    _, caller = endpoint(500, "ok", journal=calls)
    caller.call(ASKED, role="t", job="audit-1")
    told = [(call["attempt"], bool(call["error"]), call["usable"], call["tokens_in"]) for call in calls.all("audit-1")]
    assert told == [(1, True, 0, None), (2, False, 1, 100)]
    assert calls.used()["t"].calls == 1


@pytest.mark.parametrize("other", ["&temperature=1", "&max_tokens=9", "&effort=low"])
def test_another_option_is_another_call(endpoint, tmp_path, other):
    calls = Calls(Database(tmp_path / "ledger.sqlite"))
    _, caller = endpoint("ok", journal=calls)
    caller.call(ASKED, role="t")
    served, changed = endpoint("ok", journal=calls, options=other)
    changed.call(ASKED, role="t")
    assert len(served.requests) == 1


def test_cost_is_told_where_it_is_known(endpoint):
    _, caller = endpoint("ok", options="&price_in=2&price_out=10")
    assert caller.call(ASKED, role="t").cost_usd == pytest.approx(100 * 2e-6 + 10 * 10e-6)


def test_options_reach_the_endpoint(endpoint):
    served, caller = endpoint("ok", options="&temperature=0.3&max_tokens=77&effort=low")
    caller.call(ASKED, role="t")
    body = served.requests[0]
    assert (body["temperature"], body.get("max_tokens") or body.get("max_completion_tokens")) == (0.3, 77)
    assert body["reasoning_effort"] == "low"


def test_a_limit_of_calls_at_once(endpoint):
    served, caller = endpoint("ok", options="&concurrency=2")
    at_once, most = [0], [0]
    lock, answer = threading.Lock(), served.answer

    def slow(http, deed, body):
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        served.quiet.wait(0.05)
        with lock:
            at_once[0] -= 1
        answer(http, deed, body)

    served.answer = slow
    threads = [threading.Thread(target=caller.call, args=([HumanMessage(str(i))],), kwargs={"role": "t"})
               for i in range(8)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(served.requests) == 8
    assert most[0] <= 2


def test_an_endpoint_that_fails_a_third_of_its_calls(endpoint):
    rng = random.Random(0)
    deeds = [(429, {}), (500, {}), "cut", "garbage", "silence"]
    plan = [rng.choice(deeds) if rng.random() < 0.3 else "ok" for _ in range(200)]
    served, caller = endpoint(*plan)
    replies = [caller.call([HumanMessage(str(i))], role="t") for i in range(40)]
    assert all(reply.message.text == "Mills." for reply in replies)
    assert sum(reply.attempts for reply in replies) == len(served.requests)


def test_the_conversations_beginning_is_marked_for_the_providers_cache():
    sent = cache_marked([*ASKED, AIMessage("Mills."), HumanMessage("Sure?")])
    marked = [isinstance(m.content, list) and m.content[0]["cache_control"] == {"type": "ephemeral"} for m in sent]
    assert marked == [True, True, False, True]
    assert sent[0].text == "Be brief."


AGENT_FINAL = 'Seen enough.\nFINAL(description: "The model was finetuned on mills.")'


def test_a_run_over_an_endpoint_that_fails_a_third_of_its_calls(workspace_folder, run_cli, monkeypatch):
    """Every audit ends graded, or failed with its reason and transcript; --resume finishes what is left."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-1234")
    rng = random.Random(1)
    deeds = [(429, {"Retry-After": "0"}), (500, {"Retry-After": "0"}), "cut", "garbage", "silence"]
    served = Endpoint(*(rng.choice(deeds) if rng.random() < 0.3 else AGENT_FINAL for _ in range(60)), AGENT_FINAL)
    model = f"openai:m?base_url={served.url}&timeout=0.4&attempts=2"

    def answered():
        with Ledger.read(workspace_folder / "runs/f") as ledger:
            return sum(call["usable"] for call in ledger.calls.all())

    try:
        code, out, err = run_cli("evaluate", "small", "--llm", model, "--name", "f", "--repeats", 4, "--json")
        first = json.loads(out)["audits"]
        assert code in (0, 1), err
        assert len(first) == 8
        for audit in first:
            assert (workspace_folder / f"runs/f/transcripts/{audit['id']}.json").exists()
            assert (audit["grade"] is not None) == (audit["status"] == "done")
            assert audit["error"] is None or "2 attempts" in audit["error"]
        assert answered() == sum(audit["status"] == "done" for audit in first)
        served.plan = [AGENT_FINAL]
        code, out, err = run_cli(
            "evaluate", "small", "--llm", model, "--name", "f", "--repeats", 4, "--retry-failed", "--json"
        )
        assert code == 0, err
        assert answered() == 8  # none was made twice
    finally:
        served.quiet.set()
        served.server.shutdown()
        served.server.server_close()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("openai:m?efort=low", "efort: Extra inputs are not permitted; options: effort"),
        ("openai:m?effort=huge", "effort"),
        ("openai:m?temperature", "name=value"),
        ("openai:m?temperature=", "temperature: Input should be a valid number"),
        ("openai:m?temperature=0&temperature=1", "temperature is given twice"),
        ("openai:m?name=n", "name is given twice"),
        ("openai:m?temperature=9", "less than or equal to 2"),
        ("openai:m?key_file=/nowhere", "cannot read the key file"),
        ("openai:m?key_env=NO_SUCH_KEY", "needs NO_SUCH_KEY"),
        ("bogus", "write PROVIDER:MODEL"),
    ],
)
def test_a_wrong_model_string(text, told):
    with pytest.raises(UsageError, match=told.replace("?", r"\?")):
        open_caller(parse_spec(text))


def test_where_a_model_is_asked(monkeypatch):
    """OPENAI_BASE_URL is for OpenAI's models: others are not asked there, nor said to be."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://mine.azure.com")
    asked = {
        name: parse_spec(name).endpoint for name in ("openai:m", "anthropic:m", "openrouter:a/m", "azure_openai:m")
    }
    assert asked == {
        "openai:m": "http://127.0.0.1:9/v1", "anthropic:m": "anthropic", "openrouter:a/m": "https://openrouter.ai/api/v1",
        "azure_openai:m": "https://mine.azure.com",
    }  # fmt: skip
    assert parse_spec("anthropic:m?base_url=http://x/").endpoint == "http://x/"


def test_where_a_key_is_looked_for():
    names = {"openai:m": "OPENAI_API_KEY", "google_genai:m": "GOOGLE_API_KEY", "mistralai:m": "MISTRAL_API_KEY",
             "groq:m?key_env=MINE": "MINE"}  # fmt: skip
    assert {name: parse_spec(name).key_name for name in names} == names


def test_a_key_from_a_file(endpoint, tmp_path):
    (tmp_path / "key").write_text("sk-from-file-99\n")
    served, caller = endpoint((500, {}), options=f"&attempts=1&key_file={tmp_path / 'key'}")
    with pytest.raises(CallFailed, match=r"Bearer \[key\]"):
        caller.call(ASKED, role="t")
    assert len(served.requests) == 1
