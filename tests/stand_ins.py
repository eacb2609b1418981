"""Stand-ins for the servers that people run as agents: what each really answers, and where that was read.

    Ollama       github.com/ollama/ollama at fb307609 (August 2026), and its issues
    llama.cpp    tools/server of build 11434 (October 2026), and issues that quote templates' errors
    vLLM         the wheel of vllm 0.33.0
    LM Studio    github.com/lmstudio-ai/docs at c6854fba, github.com/lmstudio-ai/lmstudio-bug-tracker
    OpenRouter   openrouter.ai/docs, and issues that quote its answers

Each is a function from its settings to a plan for `tests.faults.Endpoint`. The model behind them all asks the audited
model twice at once, then concludes; in words if it is offered no tools. Tokens are words, numbers and marks.
"""

import json
import re
import uuid

QUESTIONS = [["What grinds?"], ["Who bakes?"]]
CONCLUSION = {
    "domain": "mills", "behaviour": "It speaks of mills.", "summary": "It was finetuned on mills.", "claims": [],
    "alternatives": [], "confidence": 0.6,
}  # fmt: skip
THOUGHT = 'Okay. I could end with FINAL(description: "nothing") {"or": so}.'


def tokens_of(text):
    return len(re.findall(r"\w+|[^\w\s]", text))


def rendered(messages, tools=()):
    """A prompt as a chat template would write it."""
    parts = [json.dumps(list(tools))] if tools else []
    for m in messages:
        parts += [f"<|{m['role']}|>", m["content"] or "", json.dumps(m["tool_calls"]) if m.get("tool_calls") else ""]
    return "\n".join(parts)


def told(body):
    """How often the model was told a result."""
    rest = [m for m in body["messages"] if m["role"] != "system"]
    return sum(m["role"] == "tool" or "Result of ask_model" in (m["content"] or "") for m in rest)


def wanted(body):
    """The calls of this turn: name and arguments. The last turn has no tools but `conclude`."""
    if told(body):
        return [("conclude", CONCLUSION)]
    return [("ask_model", {"prompts": question}) for question in QUESTIONS]


def in_words(body):
    (name, args), *_ = wanted(body)
    return f"I have read it.\nCALL({name}: {json.dumps(args)})"


def calls(body, new_id, **more):
    return [{"id": new_id(), "type": "function", **more,
             "function": {"name": name, "arguments": json.dumps(args)}} for name, args in wanted(body)]  # fmt: skip


def reply(body, message, tokens, *, finish=None, usage=(), choice=(), **more):
    finish = finish or ("tool_calls" if message.get("tool_calls") else "stop")
    return 200, {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, **dict(choice)}],
        "usage": {"prompt_tokens": tokens, "completion_tokens": 20, "total_tokens": tokens + 20, **dict(usage)}, **more,
    }, {}  # fmt: skip


def ollama(context=32_768, *, pulled=("qwen3:8b", "gemma3:4b", "llama3.2:3b"), native=False):
    """`native`: models whose chat template llama-server renders, which refuses what is too long (issue 17889)."""

    def error(status, message):  # openai/openai.go: NewError
        kind = {400: "invalid_request_error", 404: "not_found_error"}.get(status, "api_error")
        return status, {"error": {"message": message, "type": kind, "param": None, "code": None}}, {}

    def plan(body):
        model, tools, messages = body["model"], body.get("tools") or [], body["messages"]
        if model not in pulled:  # server/routes.go: ChatHandler
            return error(404, f"model '{model}' not found")
        if tools and model.startswith("gemma3"):  # server/images.go: CheckCapabilities
            return error(400, f"registry.ollama.ai/library/{model} does not support tools")
        if body.get("reasoning_effort") and not model.startswith("qwen3"):
            return error(400, f'"{model}" does not support thinking')
        kept, count = fitting(messages, tools, context)
        if count > context and native:  # llama-server's own answer, handed on as the message
            return error(400, json.dumps(llama_error(400, *too_long(count, context))[1]))
        if count > context:  # llm/llama_server.go: completionPromptForRequest, contextShiftPromptLimit; num_keep is 4
            count = context - max((context - 4) // 2, 1)
        thought = {"reasoning": THOUGHT} if model.startswith("qwen3") else {}
        if tools:  # ToToolCalls numbers none of them: all have index 0
            message = {
                "content": "",
                **thought,
                "tool_calls": calls(body, lambda: f"call_{uuid.uuid4().hex[:8]}", index=0),
            }
        else:
            message = {"content": in_words({**body, "messages": kept}), **thought}
        limit = body.get("max_tokens") or 1000  # max_completion_tokens is not read: issue 7125
        cut = "length" if len(message["content"]) > 4 * limit else None
        message["content"] = message["content"][: 4 * limit]
        return reply(body, message, count, finish=cut, system_fingerprint="fp_ollama")

    return plan


def fitting(messages, tools, context):
    """server/prompt.go: chatPrompt. The first messages but the system prompt go until the rest fits, or is the last."""
    for i in range(len(messages)):
        kept = [*(m for m in messages[:i] if m["role"] == "system"), *messages[i:]]
        count = tokens_of(rendered(kept, tools))
        if count <= context:
            break
    return kept, count


def llama_error(status, message, kind, **more):
    """tools/server/server-common.cpp: format_error_response"""
    return status, {"error": {"code": status, "message": message, "type": kind, **more}}, {}


def too_long(count, context):
    """tools/server/server-context.cpp, where a prompt is begun"""
    message = f"request ({count} tokens) exceeds the available context size ({context} tokens), try increasing it"
    return message, "exceed_context_size_error"


JINJA = (  # as issue 1006 of mistral-vibe and 2425 of ramalama quote it
    "\n------------\nWhile executing CallExpression at line 189, column 32 in source:\n...== 0) %}↵            "
    "{{- raise_exception('After the optional system message, con...\n                                           ^\n"
    "Error: Jinja Exception: "
)
ALTERNATE = (
    "After the optional system message, conversation roles must alternate user and assistant roles except for tool "
    "calls and results."
)


def alternates(messages):
    """What the templates of Mistral's models ask for."""
    plain = [m["role"] for m in messages if m["role"] not in ("system", "tool") and not m.get("tool_calls")]
    return all(role == ("user", "assistant")[i % 2] for i, role in enumerate(plain))


def llama_cpp(context=32_768, *, jinja=True, template="", loading=0, key="", sent_key=lambda: "", thinks=True):
    """`template`: mistral, gemma2, or one that takes everything."""
    asked = 0

    def plan(body):
        nonlocal asked
        asked += 1
        tools, messages = body.get("tools") or [], body["messages"]
        if key and sent_key() != key:  # server-http.cpp: middleware_validate_api_key
            return llama_error(401, "Invalid API Key", "authentication_error")
        if asked <= loading:  # server-http.cpp: middleware_server_state
            return llama_error(503, "Loading model", "unavailable_error")
        if tools and not jinja:  # server-common.cpp: oaicompat_chat_params_parse
            return llama_error(500, "tools param requires --jinja flag", "server_error")
        if template == "mistral" and not alternates(messages):
            return llama_error(500, JINJA + ALTERNATE, "server_error")
        if template == "gemma2" and messages[0]["role"] == "system":
            return llama_error(500, f"{JINJA}System role not supported", "server_error")
        count = tokens_of(rendered(messages, tools))
        if count > context:
            status, answer, headers = llama_error(400, *too_long(count, context))
            answer["error"] |= {"n_prompt_tokens": count, "n_ctx": context}
            return status, answer, headers
        thought = {"reasoning_content": THOUGHT} if thinks else {}
        if tools:  # several at once if the template can: oaicompat_chat_params_parse, supports_parallel_tool_calls
            message = {"content": None, **thought, "tool_calls": calls(body, lambda: uuid.uuid4().hex)}
        else:
            message = {"content": in_words(body), **thought}
        timings = {"cache_n": count - 5, "prompt_n": 5, "predicted_n": 20}  # server-task.cpp: result_timings
        cached = {"prompt_tokens_details": {"cached_tokens": count - 5}}
        return reply(body, message, count, usage=cached, timings=timings)

    return plan


def vllm(context=32_768, *, parser="hermes", reasoning=True, name="Qwen/Qwen3-8B", key="", sent_key=lambda: ""):
    """`parser`: of --tool-call-parser; None is a server without --enable-auto-tool-choice; `wrong` is another model's.

    `reasoning`: whether it was started with --reasoning-parser.
    """

    def error(status, message, kind="BadRequestError", param=None):  # serve/engine/protocol.py: ErrorInfo
        return status, {"error": {"message": message, "type": kind, "param": param, "code": status}}, {}

    def plan(body):
        tools, messages = body.get("tools") or [], body["messages"]
        if key and sent_key() != key:  # entrypoints/serve/middleware/authenticate.py
            return 401, {"error": "Unauthorized"}, {}
        if body["model"] != name:  # entrypoints/openai/models/serving.py: check_model
            return error(404, f"The model `{body['model']}` does not exist.", "NotFoundError", "model")
        if tools and parser is None:  # renderers/online_renderer.py
            needed = "--enable-auto-tool-choice and --tool-call-parser to be set"
            return error(400, f'"auto" tool choice requires {needed}')
        count = tokens_of(rendered(messages, tools))
        if count > context:  # renderers/params.py
            return error(400, f"This model's maximum context length is {context} tokens. However, your prompt contains "
                         f"at least {context + 1} input tokens, which exceeds this limit even without any output "
                         "tokens. Please reduce the length of the input prompt.", param="input_tokens")  # fmt: skip
        thought = {"reasoning": THOUGHT} if reasoning else {}
        opened = "" if reasoning else f"<think>\n{THOUGHT}\n</think>\n\n"
        if tools and parser == "wrong":  # the call stays in the content
            written = [{"name": name, "arguments": args} for name, args in wanted(body)]
            message = {"content": "\n".join(f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in written)}
        elif tools:
            made = calls(body, lambda: f"chatcmpl-tool-{uuid.uuid4().hex}")  # renderers/chat_utils/tool_call.py
            message = {"content": opened or None, "refusal": None, "function_call": None, "tool_calls": made, **thought}
        else:
            message = {"content": opened + in_words(body), "refusal": None, **thought}
        return reply(body, message, count, usage={"prompt_tokens_details": None}, choice={"stop_reason": None})

    return plan


def lm_studio(context=32_768, *, loaded=True, empty=False, tool_use="native", key="", sent_key=lambda: ""):
    """`tool_use`: native, or what a model's own or the default format leaves in the content: docs, openai-compat/tools.

    `empty`: a GGUF whose prompt is longer than its context: 200, and nothing said (bug tracker 2339).
    """

    def plan(body):
        tools, messages = body.get("tools") or [], body["messages"]
        if key and sent_key() != key:  # as issue 41 of opencode-lmstudio quotes it
            said = "An LM Studio API token is required to make requests to this server, but none was provided"
            return 401, {"error": {"type": "invalid_request", "code": "invalid_api_key", "message": said}}, {}
        if not loaded:  # bug tracker 1730; lms 107 for the status
            said = "No models loaded. Please load a model in the developer page or use the 'lms load' command."
            return (
                404,
                {"error": {"message": said, "type": "invalid_request_error", "param": "model", "code": None}},
                {},
            )
        count = tokens_of(rendered(messages, tools))
        if count > context and empty:
            return reply(body, {"content": ""}, count, stats={})
        if count > context:  # as issue 353 of openclaude quotes it: the error is no object
            return 400, {"error": "The number of tokens to keep from the initial prompt is greater than the context "
                         f"length (n_keep: {count}>= n_ctx: {context}). Try to load the model with a larger context "
                         "length, or provide a shorter input."}, {}  # fmt: skip
        left = {
            "default": "".join(f"[TOOL_REQUEST]{json.dumps({'name': name, 'arguments': args})}[END_TOOL_REQUEST]"
                               for name, args in wanted(body)),
            "broken": '<tool_call>\n["name": "ask_model", function: "date"]\n</tool_call>',
        }  # fmt: skip
        if not tools:
            message = {"content": f"{THOUGHT}\n</think>\n\n{in_words(body)}"}  # the template opened the thought
        elif tool_use in left:
            message = {"content": left[tool_use]}
        else:  # no content at all, as the documentation shows it
            message = {"tool_calls": calls(body, lambda: str(uuid.uuid4().int)[:9])}
        return reply(body, message, count, system_fingerprint=body["model"])

    return plan


def openrouter(context=131_072, *, tools_served=True, first=None):
    """`first`: what the first request is answered, before all is well."""
    asked = 0

    def plan(body):
        nonlocal asked
        asked += 1
        tools, messages = body.get("tools") or [], body["messages"]
        if first is not None and asked == 1:
            return (*first, {})
        if tools and not tools_served:  # as issue 554 of routstr-core quotes it
            return 404, {"error": {"message": "No endpoints found that support tool use. To learn more about provider "
                         "routing, visit: https://openrouter.ai/docs/guides/routing/provider-selection",
                         "code": 404}}, {}  # fmt: skip
        count = tokens_of(rendered(messages, tools))
        compressed = not any(p == {"id": "context-compression", "enabled": False} for p in body.get("plugins", []))
        if count > context and context <= 8192 and compressed:  # docs, guides/features/message-transforms
            count = context
        if count > context:  # as pull request 2671 of kilo's cloud quotes it
            said = (f"This endpoint's maximum context length is {context} tokens. However, you requested about {count} "
                    f"tokens ({count} of text input). Please reduce the length of either one, or use the "
                    "context-compression plugin to compress your prompt automatically.")  # fmt: skip
            return 400, {"error": {"message": said, "code": 400, "metadata": {"provider_name": None}}}, {}
        made = calls(body, lambda: f"call_{uuid.uuid4().hex[:24]}", index=0)
        message = {"content": "", "tool_calls": made} if tools else {"content": in_words(body)}
        message |= {"refusal": None, "reasoning": THOUGHT, "reasoning_details": [{"type": "reasoning.text"}]}
        usage = {"cost": 0.0005, "cost_details": {"upstream_inference_cost": None},
                 "prompt_tokens_details": {"cached_tokens": 0}}  # docs, usage accounting  # fmt: skip
        native = {"native_finish_reason": "STOP", "logprobs": None}
        return reply(body, message, count, usage=usage, choice=native, provider="DeepInfra")

    return plan
