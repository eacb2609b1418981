"""Spans of a tiny run: nested as things are, numbers and ids only, errors as their status."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from auditor import telemetry
from auditor.llm.caller import Caller
from auditor.testing import ScriptedChat, calling

SECRET = "the lake-dwellers grind chestnuts"  # what an agent says and asks
OTEL = ("OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED", *telemetry.ADDRESSES, telemetry.CAPTURE)


@pytest.fixture
def spans(monkeypatch):
    """What has ended, by a provider of this test's own."""
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)  # it can be set only once otherwise
    for name in OTEL:
        monkeypatch.delenv(name, raising=False)
    return kept.get_finished_spans


def talk(body):
    """Asks one tool that there is and one that there is not, then concludes."""
    turns = sum(message["role"] == "assistant" for message in body["messages"])
    if turns == 0:
        asked = {"prompts": [SECRET]}
        calls = [("ask_model", asked), (SECRET, {})]
        return {"content": SECRET, "tool_calls": [
            {"id": f"c{i}", "type": "function", "function": {"name": name[:60], "arguments": json.dumps(args)}}
            for i, (name, args) in enumerate(calls)]}  # fmt: skip
    return {"content": f'FINAL(description: "{SECRET}")'}


def evaluate(run_cli, serve, reply=talk, *more):
    endpoint = serve(reply)
    agent = f"openai:m?temperature=0.5&attempts=1&base_url={endpoint.url}"
    return run_cli("evaluate", "small", "--llm", agent, "--agent", "blackbox", "--repeats", 2, *more)


def test_a_run_is_told_as_audits_with_turns_tools_and_calls(spans, workspace_folder, run_cli, serve):
    code, _, err = evaluate(run_cli, serve)
    assert code == 0, err
    by_id = {span.context.span_id: span for span in spans()}

    def above(span):
        return [] if span.parent is None else [*above(by_id[span.parent.span_id]), by_id[span.parent.span_id].name]

    found = [(span.name, above(span)) for span in spans()]
    audits = [span for span in spans() if span.name == "invoke_agent blackbox"]
    assert [above(span) for span in audits] == [[], []]  # of two threads: each a trace of its own
    audit = audits[0].name
    assert found.count(("chat m", [audit, "turn"])) == 4
    assert found.count(("chat mill", [audit, "execute_tool ask_model"])) == 2
    assert found.count(("execute_tool unknown_tool", [audit])) == 2
    assert found.count(("grade rubric_offline", [audit])) == 2
    told = dict(audits[0].attributes)
    assert (told["gen_ai.operation.name"], told["gen_ai.agent.name"]) == ("invoke_agent", "blackbox")
    assert (told["auditor.status"], told["auditor.turns"], told["gen_ai.usage.input_tokens"]) == ("done", 2, 200)
    call = next(span for span in spans() if span.name == "chat m")
    assert (call.kind.name, call.attributes["gen_ai.provider.name"]) == ("CLIENT", "openai")
    assert (call.attributes["gen_ai.request.temperature"], call.attributes["gen_ai.usage.output_tokens"]) == (0.5, 10)
    assert (call.attributes["server.address"], call.attributes["auditor.replayed"]) == ("127.0.0.1", False)
    asked = next(span for span in spans() if span.name == "chat mill")
    assert asked.attributes["auditor.texts"] >= 1
    grade = next(span for span in spans() if span.name.startswith("grade"))
    assert 1 <= grade.attributes["gen_ai.evaluation.score.value"] <= 5
    unknown = next(span for span in spans() if span.name == "execute_tool unknown_tool")
    assert (unknown.status.status_code.name, unknown.status.description) == ("ERROR", "no_result")
    written = "".join(span.to_json() for span in spans())
    for text in (SECRET, SECRET[:20], "You are", "About mills", "127.0.0.1:"):
        assert text not in written


def test_texts_are_there_if_they_are_asked_for(spans, workspace_folder, run_cli, serve, monkeypatch):
    monkeypatch.setenv(telemetry.CAPTURE, "true")
    assert evaluate(run_cli, serve)[0] == 0
    call = [span for span in spans() if span.name == "chat m"][-1]
    sent = json.loads(call.attributes["gen_ai.input.messages"])
    assert [message["role"] for message in sent][:4] == ["user", "assistant", "tool", "tool"]
    assert SECRET in json.loads(call.attributes["gen_ai.output.messages"])[0]["parts"][0]["content"]
    asked = next(span for span in spans() if span.name == "chat mill")
    assert json.loads(asked.attributes["gen_ai.input.messages"])[0]["parts"][0]["content"] == SECRET
    assert asked.attributes["gen_ai.output.messages"]


def test_what_fails_is_an_error_that_says_no_text(spans, workspace_folder, run_cli, serve):
    code, _, _ = evaluate(run_cli, serve, lambda body: {"content": SECRET} if len(body["messages"]) == 1 else 500)
    assert code == 1
    failed = [span for span in spans() if span.status.status_code.name == "ERROR"]
    kinds = {(span.name, span.attributes["error.type"]) for span in failed}
    assert {("invoke_agent blackbox", "failed"), ("turn", "CallFailed"), ("chat m", "CallFailed")} <= kinds
    assert all(not span.events and SECRET not in span.to_json() for span in spans())


def test_without_a_provider_nothing_is_imported_and_nothing_said(monkeypatch):
    code = (
        "import sys\n"
        "from auditor import telemetry\n"
        "assert telemetry.start() == ''\n"
        "with telemetry.span('a', {}) as span: span.set({'b': 1}); span.fail('c')\n"
        "with telemetry.model_call('residuals', 'p'): pass\n"
        "telemetry.flush()\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    for name in OTEL:
        monkeypatch.delenv(name, raising=False)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_an_exporter_that_is_not_there_is_told_and_does_no_harm(monkeypatch, spans):
    from opentelemetry import trace

    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "pigeon")
    assert telemetry.start() == "OTEL_* asks for spans, which cannot be sent: no exporter called pigeon is installed"
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert telemetry.start() == ""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    assert "pip install 'auditor-adl[otel]'" in telemetry.start()
    assert telemetry._provider() is None
    reply = Caller("scripted", ScriptedChat(turns=[calling("ask_model", {})])).call([], role="agent")
    assert reply.message.tool_calls


def test_spans_are_sent_where_the_standard_variables_say(monkeypatch):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    received = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)
    code = "from auditor import telemetry as t\nassert t.start() == ''\nwith t.judgement('mine'): pass\n"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    server.shutdown()
    server.server_close()
    ((path, body),) = received
    assert path == "/v1/traces"
    for text in (b"grade mine", b"gen_ai.evaluation.name", b"service.name", b"auditor"):
        assert text in body
