"""The other wire format: Anthropic's, over HTTP, where its package is installed."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage

from auditor.errors import UsageError
from auditor.llm.caller import open_caller
from auditor.llm.failures import CallFailed, EndpointUnusable
from auditor.llm.spec import parse_spec
from auditor.workspace import load_workspace

SAID = {
    "id": "m", "type": "message", "role": "assistant", "model": "claude-x", "stop_reason": "tool_use",
    "stop_sequence": None,
    "content": [{"type": "text", "text": "I ask."},
                {"type": "tool_use", "id": "t1", "name": "ask_model", "input": {"prompts": ["Why?"]}}],
    "usage": {"input_tokens": 20, "output_tokens": 10, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 0},
}  # fmt: skip


@pytest.fixture
def claude(monkeypatch):
    """A caller of an endpoint that answers with the statuses given, then with SAID; and the requests."""
    pytest.importorskip("langchain_anthropic", reason="needs the extra `anthropic`")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-canary-77")
    servers = []

    def start(*statuses, options=""):
        plan, requests = list(statuses), []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                status = plan.pop(0) if plan else 200
                data = json.dumps(SAID if status == 200 else {"error": {"message": "key sk-ant-canary-77"}}).encode()
                self.send_response(status)
                for name, value in (("Content-Type", "application/json"), ("Retry-After", "0")):
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        return open_caller(parse_spec(f"anthropic:claude-x?base_url={address}{options}")), requests

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_tools_cache_marks_and_usage(claude):
    caller, requests = claude(options="&effort=low&max_tokens=500")
    tools = [load_workspace().tools["ask_model"].schema()]
    messages = [SystemMessage("Be brief."), HumanMessage("Overview.")]
    reply = caller.call(messages, role="t", tools=tools)
    assert reply.message.tool_calls[0]["args"] == {"prompts": ["Why?"]}
    assert (reply.tokens_in, reply.tokens_out, reply.tokens_cached) == (100, 10, 80)
    assert requests[0]["system"][0]["cache_control"] == {"type": "ephemeral"}
    assert (requests[0]["max_tokens"], requests[0]["output_config"]) == (500, {"effort": "low"})
    result = ToolMessage("O1\nBecause.", tool_call_id="t1", name="ask_model")
    caller.call([*messages, reply.message, result, HumanMessage("Left: 4.")], role="t", tools=tools)
    kinds = [block["type"] for block in requests[1]["messages"][-1]["content"]]
    assert kinds == ["tool_result", "text"]


def test_failures_are_sorted_like_everybodys(claude):
    caller, requests = claude(429, 529)
    assert caller.call([HumanMessage("Hi")], role="t").attempts == 3
    assert len(requests) == 3
    with pytest.raises(CallFailed) as failure:
        claude(400)[0].call([HumanMessage("Hi")], role="t")
    assert "canary" not in str(failure.value)
    with pytest.raises(EndpointUnusable, match="ANTHROPIC_API_KEY"):
        claude(401)[0].call([HumanMessage("Hi")], role="t")


def test_a_missing_package_is_told():
    with pytest.raises(UsageError, match="pip install"):
        open_caller(parse_spec("groq:some-model"))
