"""What endpoints do wrong, and what is right then: rows for test_endpoint_faults.py and campaigns/endpoints.py."""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = '{"prompts": ["hi"]}'
FINAL = 'FINAL(description: "About mills.")'


def completion(message, finish="stop", **more):
    return 200, {
        "id": "x", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{"index": 0, "finish_reason": finish,
                     "message": {"role": "assistant", "content": None, **message}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}, **more,
    }  # fmt: skip


def told(status, message, code=None, kind=None, **more):
    return status, {"error": {"message": message, "type": kind, "code": code, **more}}


def calling(arguments):
    function = {"name": "ask_model", "arguments": arguments}
    return completion({"tool_calls": [{"id": "c1", "type": "function", "function": function}]}, "tool_calls")


@dataclass(frozen=True)
class Fault:
    """`reply`: status and body. `ends`: in an answer, in words (without tools), retried, or failing call or run."""

    name: str
    reply: tuple[int, Any]
    ends: str  # answer, words, retried, call, run
    says: str = ""
    headers: dict[str, str] = field(default_factory=dict)


FAULTS = [
    Fault("arguments: an object", calling({"prompts": ["hi"]}), "answer"),
    Fault("arguments: encoded twice", calling(json.dumps(GOOD)), "answer"),
    Fault("arguments: a list", calling('["hi"]'), "answer"),
    Fault("arguments: a number", calling(7), "answer"),
    Fault("arguments: none", calling(None), "answer"),
    Fault("arguments: broken JSON", calling('{"prompts": ["hi'), "answer"),
    Fault("arguments: deep", calling('{"a":' * 9_000), "answer"),
    Fault("call without a name", completion({"tool_calls": [{"id": "c", "function": {"arguments": GOOD}}]}), "answer"),
    Fault("call without a function", completion({"content": FINAL, "tool_calls": [{"id": "c"}]}), "answer"),
    Fault("function_call of old", completion({"function_call": {"name": "ask_model", "arguments": GOOD}}), "answer"),
    Fault("half a character", completion({"content": 'FINAL(description: "mills \ud83d")'}), "answer"),
    Fault("OpenRouter: no endpoint with tools",
          told(404, "No endpoints found that support tool use. To learn more visit https://openrouter.ai/docs", 404),
          "words"),
    Fault("OpenRouter: none for these parameters",
          told(404, "No endpoints found that can handle the requested parameters.", 404), "words"),
    Fault("Ollama: no tools", told(400, "registry.ollama.ai/library/gemma:2b does not support tools"), "words"),
    Fault("llama.cpp: --jinja", told(500, "tools param requires --jinja flag"), "words"),
    Fault("vLLM: tool choice", told(400, '"auto" tool choice requires --enable-auto-tool-choice'), "words"),
    Fault("FastAPI: tools not permitted",
          (422, {"detail": [{"loc": ["body", "tools"], "msg": "extra fields not permitted"}]}), "words"),
    Fault("tools by param only", told(400, "Unknown parameter", "unknown_parameter", param="tools"), "words"),
    Fault("501 functions", told(501, "functions are not implemented"), "words"),
    Fault("405 tool calls", told(405, "tool calls not allowed"), "words"),
    Fault("template: roles", told(500, "Conversation roles must alternate user/assistant/user/assistant/..."), "words"),
    Fault("400 that says nothing", told(400, "Bad Request"), "words"),
    Fault("422 that says nothing", (422, {"detail": "Unprocessable"}), "words"),
    Fault("OpenRouter: flagged", told(403, "Your input was flagged", 403), "call", "moderation refused"),
    Fault("Azure: content filter",
          told(400, "The response was filtered due to the prompt triggering content management policy",
               "content_filter"), "call", "moderation refused"),
    Fault("region", told(403, "Country, region, or territory not supported", "unsupported_country_region_territory"),
          "run", "does not serve where you are"),
    Fault("region, Google", told(400, "User location is not supported for the API use."),
          "run", "does not serve where you are"),
    Fault("403 for another reason", told(403, "Project disabled"), "run", "refuses access (HTTP 403: Project"),
    Fault("401", told(401, "Incorrect API key provided"), "run", "refuses the key; check OPENAI_API_KEY"),
    Fault("400 that means the key", told(400, "API key not valid. Please pass a valid API key."),
          "run", "refuses the key"),
    Fault("402", told(402, "Insufficient credits."), "run", "wants to be paid first"),
    Fault("insufficient_quota", told(429, "You exceeded your current quota, please check your plan.",
                                     "insufficient_quota", "insufficient_quota"), "run", "wants to be paid first"),
    Fault("400 credit balance", told(400, "Your credit balance is too low to access the API."),
          "run", "wants to be paid first"),
    Fault("key limit", told(403, "Key limit exceeded. Manage it at https://openrouter.ai/keys"),
          "run", "wants to be paid first"),
    Fault("quota that comes back", told(429, "You exceeded your current quota, check your plan and billing details. "
                                        "Please retry in 0.1s."), "retried"),
    Fault("429", told(429, "Rate limit reached for requests"), "retried"),
    Fault("429 per day", told(429, "Rate limit exceeded: free-models-per-day"), "run", "daily limit"),
    Fault("429 too large", told(429, "Request too large for m on tokens per min: Limit 30, Requested 50."), "call"),
    Fault("429 inside 200", told(200, "Rate limit exceeded: free-models-per-min", 429), "retried"),
    Fault("502 inside 200", told(200, "Provider returned error", 502), "retried"),
    Fault("named error inside 200", told(200, "slow down", "rate_limit_exceeded"), "retried"),
    Fault("text as error inside 200", (200, {"error": "upstream hiccup"}), "retried"),
    Fault("quota inside 200", told(200, "You exceeded your current quota", "insufficient_quota"),
          "run", "wants to be paid first"),
    Fault("401 inside 200", told(200, "No auth credentials found", 401), "run", "refuses the key"),
    Fault("no tools inside 200", told(200, "No endpoints found that support tool use", 404), "words"),
    Fault("error inside a choice", (200, {"id": "x", "choices": [
        {"index": 0, "finish_reason": "error", "error": {"code": 502, "message": "upstream"},
         "message": {"role": "assistant", "content": ""}}]}), "retried"),
    Fault("503", (503, {"error": {"message": "overloaded"}}), "retried"),
    Fault("529", (529, {"error": {"message": "overloaded"}}), "retried"),
    Fault("choices: null", (200, {"id": "x", "choices": None}), "retried"),
    Fault("choices: []", (200, {"id": "x", "choices": []}), "retried"),
    Fault("empty body", (200, ""), "retried"),
    Fault("half a body", (200, '{"id": "x", "choi'), "retried"),
    Fault("a web page", (200, "<!DOCTYPE html><html>login</html>"), "run",
          "answers with a web page; check base_url, which mostly ends in /v1", {"Content-Type": "text/html"}),
    Fault("a stream", (200, "data: {}\n\ndata: [DONE]\n\n"), "run", "no chat completions at",
          {"Content-Type": "text/event-stream"}),
    Fault("404 of a path", (404, {"detail": "Not Found"}), "run", "answers HTTP 404; check base_url"),
    Fault("404 in words", (404, "404 page not found"), "run", "answers HTTP 404; check base_url"),
    Fault("404 as a page", (404, "<html>nginx</html>"), "run", "with a web page; check base_url"),
    Fault("405", (405, {"detail": "Method Not Allowed"}), "run", "answers HTTP 405; check base_url"),
    Fault("403 as a page", (403, "<html>Attention Required!</html>"), "run", "HTTP 403 with a web page"),
    Fault("404 of a model", told(404, "The model `m` does not exist or you do not have access to it.",
                                 "model_not_found"), "run", "knows no such model"),
    Fault("400 of a model", told(400, "m is not a valid model ID"), "run", "knows no such model"),
    Fault("OpenRouter: 404 of a model", told(404, "No endpoints found for vendor/m.", 404), "run", "no such model"),
    Fault("context length", told(400, "This model's maximum context length is 8 tokens (6 in the messages, 2 in the "
                                 "functions).", "context_length_exceeded"), "call", "maximum context length"),
    Fault("an option", told(400, "Unsupported value: 'temperature' does not support 0.3 with this model.",
                            "unsupported_value", param="temperature"), "run", "refuses the option temperature"),
]  # fmt: skip


class Endpoint:
    """A local HTTP server that answers POSTs with what `plan(body)` gives: status, body, headers."""

    def __init__(self, plan):
        self.plan, self.requests, self.keys = plan, [], []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.requests.append(body)
                endpoint.keys.append((self.headers["Authorization"] or "").removeprefix("Bearer "))
                status, reply, headers = endpoint.plan(body)
                data = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def plan_of(fault):
    """What an endpoint with this fault answers: those that pass are over after the first time."""
    number = 0

    def plan(body):
        nonlocal number
        number += 1
        well = (fault.ends == "retried" and number > 1) or (fault.ends == "words" and "tools" not in body)
        return (*completion({"content": FINAL}), {}) if well else (*fault.reply, fault.headers)

    return plan
