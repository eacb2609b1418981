"""Whole audits over stand-ins of Ollama, llama.cpp, vLLM, LM Studio and OpenRouter: started well, and started wrong."""

import json
import re
import shlex
from functools import partial
from pathlib import Path

import pytest
from langchain_core.messages import HumanMessage

from auditor.llm.servers import cut_short
from auditor.llm.spec import connect, parse_spec
from tests.faults import Endpoint
from tests.stand_ins import THOUGHT, llama_cpp, lm_studio, ollama, openrouter, vllm

DOC = Path(__file__).parents[1] / "docs/local-llms.md"
ANY, LMS, QWEN = "openai:any", "openai:qwen/qwen3-8b", "openai:Qwen/Qwen3-8B"
PROVIDER = (200, {"error": {"code": 429, "message": "Provider returned error", "metadata": {
    "provider_name": "BaseTen", "raw": "a/b is temporarily rate-limited upstream. Please retry."}}})  # fmt: skip


@pytest.fixture
def play(workspace_folder, run_cli, monkeypatch):
    """One audit of a tiny organism by the model behind a stand-in: exit code, audit or None, stderr, endpoint."""
    started = []
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-canary")
    monkeypatch.setattr("auditor.llm.caller._patience", lambda _state: 0.0)

    def run(plan, model, *more, options="", agent="adl"):
        served = Endpoint(plan)
        started.append(served)
        llm = f"{model}?base_url={served.url}&attempts=3{options}"
        args = ("evaluate", "small", "--agent", agent, "--repeats", 1, "--name", f"p{len(started)}", "--json")
        code, out, err = run_cli(*args, "--llm", llm, *more)
        (audit,) = json.loads(out)["audits"] if out else [None]
        return code, audit, err, served

    run.started = started
    yield run
    for served in started:
        served.close()


TEXT, TOOLS = ("--protocol", "text"), ("--protocol", "tools")

# Name, stand-in, model, what else is given; the protocol that it ends in, and what is noted of it.
GOOD = [
    ("ollama", ollama, "openai:qwen3:8b", (), "tools", ""),
    ("ollama: a model without tools", ollama, "openai:gemma3:4b", (), "text", "take a model that ollama.com tags with"),
    ("ollama: in words", ollama, "openai:qwen3:8b", TEXT, "text", ""),
    ("llama.cpp", llama_cpp, ANY, (), "tools", ""),
    ("llama.cpp: still loading", partial(llama_cpp, loading=2), ANY, (), "tools", ""),
    ("llama.cpp: --no-jinja", partial(llama_cpp, jinja=False), ANY, (), "text", "start llama-server with --jin"),
    ("llama.cpp: Mistral's template", partial(llama_cpp, template="mistral"), ANY, (), "text", "must alternate"),
    ("vllm", vllm, QWEN, (), "tools", ""),
    ("vllm: no reasoning parser", partial(vllm, reasoning=False), QWEN, (), "tools", ""),
    ("vllm: the same in words", partial(vllm, reasoning=False), QWEN, TEXT, "text", ""),
    ("vllm: no tool parser", partial(vllm, parser=None), QWEN, (), "text", "start vLLM with --enable-auto"),
    ("vllm: another's tool parser", partial(vllm, parser="wrong"), QWEN, (), "tools", ""),
    ("lm studio", lm_studio, LMS, (), "tools", ""),
    ("lm studio: in words", lm_studio, LMS, TEXT, "text", ""),
    ("lm studio: calls as text", partial(lm_studio, tool_use="default"), "openai:google/gemma-2-9b", (), "tools", ""),
    ("openrouter", openrouter, "openrouter:qwen/qwen3-8b", (), "tools", ""),
    ("openrouter: no tools", partial(openrouter, tools_served=False), "openrouter:google/gemma-3-4b-it", (), "text",
     "take a model that OpenRouter lists with tools"),
    ("openrouter: an error in a 200", partial(openrouter, first=PROVIDER), "openrouter:qwen/qwen3-8b", (), "tools", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("stand_in", "model", "more", "protocol", "noted"), [g[1:] for g in GOOD], ids=[g[0] for g in GOOD]
)
def test_a_whole_audit(stand_in, model, more, protocol, noted, play):
    code, audit, err, served = play(stand_in(), model, *more)
    assert (code, audit["status"], audit["error"]) == (0, "done", None), err
    assert (audit["hypothesis"].splitlines()[0], audit["protocol"]) == ("Domain: mills. It speaks of mills.", protocol)
    several = protocol == "tools" or noted == "must alternate"  # which began with tools
    assert audit["interactions_used"] == (2 if several else 1)
    assert all(noted in line for line in audit["notes"])
    assert bool(audit["notes"]) == bool(noted)
    assert (noted in err) or not noted  # said on the screen, too
    openrouters = model.startswith("openrouter")
    assert served.keys[0] == ("sk-or-canary" if openrouters else "none")
    assert (audit["cost_usd"] is not None) == openrouters


LONGER = (
    "; start it with a longer context: OLLAMA_CONTEXT_LENGTH=N for Ollama, -c N for llama-server, --max-model-len N"
)

# Name, stand-in, model, what else is given, exit code, and the line that says what is wrong and what to do.
BAD = [
    ("ollama: not pulled", ollama, "openai:llama3.1:8b", (), 2,
     r"knows no such model; .*model 'llama3.1:8b' not found\); get it with `ollama pull`"),
    ("ollama: the middle cut out", partial(ollama, 4096), "openai:qwen3:8b", (), 1,
     r"^the endpoint cut what it was sent: it read 2,050 tokens of at least 2,\d\d\d" + LONGER),
    ("ollama: the overview dropped", partial(ollama, 4650), "openai:qwen3:8b", (), 1,
     r"^the endpoint cut what it was sent: it read 3,\d\d\d tokens of at least 3,\d\d\d" + LONGER),
    ("ollama: refused", partial(ollama, 4096, native=True), "openai:qwen3:8b", (), 1,
     r"^HTTP 400: request \(4\d\d\d tokens\) exceeds the available context size \(4096 tokens\).*" + LONGER),
    ("ollama: thinks not", ollama, "openai:llama3.2:3b&effort=low", (), 2, "refuses the option effort .*; leave it"),
    ("llama.cpp: --no-jinja", partial(llama_cpp, jinja=False), ANY, TOOLS, 1,
     "^HTTP 500: tools param requires --jinja flag; start llama-server with --jinja$"),
    ("llama.cpp: short", partial(llama_cpp, 4096), ANY, (), 1, "exceeds the available context size.*" + LONGER),
    ("llama.cpp: Gemma 2's template", partial(llama_cpp, template="gemma2"), ANY, (), 1,
     "^HTTP 500: Jinja Exception: System role not supported; take a model whose chat template has a system role$"),
    ("llama.cpp: --api-key", partial(llama_cpp, key="s3cret"), ANY, (), 2,
     "wants a key; put it in OPENAI_API_KEY, or name one by key_env$"),
    ("vllm: no tool parser", partial(vllm, parser=None), QWEN, TOOLS, 1,
     "; start vLLM with --enable-auto-tool-choice and --tool-call-parser NAME$"),
    ("vllm: another model", vllm, "openai:Qwen/Qwen3-14B", (), 2, "no such model; .*`Qwen/Qwen3-14B` does not exist"),
    ("vllm: short", partial(vllm, 4096), QWEN, (), 1, "maximum context length is 4096 tokens.*" + LONGER),
    ("vllm: --api-key", partial(vllm, key="s3cret"), QWEN, (), 2, "wants a key; put it in OPENAI_API_KEY"),
    ("lm studio: none loaded", partial(lm_studio, loaded=False), LMS, (), 2,
     r"No models loaded. .*\); load it with `lms load MODEL --context-length N`$"),
    ("lm studio: short", partial(lm_studio, 4096), LMS, (), 1, r"n_ctx: 4096\).*" + LONGER),
    ("lm studio: short, and silent", partial(lm_studio, 4096, empty=True), LMS, (), 1,
     "^the LLM endpoint answered nothing, turn after turn; was its context full.*`lms load MODEL --context-length N`"),
    ("lm studio: calls it cannot read", partial(lm_studio, tool_use="broken"), LMS, (), 1,
     "^the LLM endpoint left tool calls unread; give it the model's tool parser, or --protocol text$"),
    ("lm studio: token", partial(lm_studio, key="s3cret"), LMS, (), 2, "wants a key; put it in OPENAI_"),
    ("openrouter: short", partial(openrouter, 4096), "openrouter:a/b", (), 1, "maximum context length is 4096 tokens"),
    ("openrouter: no money", partial(openrouter, first=(402, {"error": {
        "code": 402, "message": "Insufficient credits."}})), "openrouter:a/b", (), 2, "wants to be paid first"),
    ("openrouter: no such model", partial(openrouter, first=(400, {"error": {
        "code": 400, "message": "a/b is not a valid model ID"}})), "openrouter:a/b", (), 2, "knows no such model"),
    ("openrouter: free models' day", partial(openrouter, first=(429, {"error": {
        "code": 429, "message": "Rate limit exceeded: free-models-per-day"}})), "openrouter:a/b:free", (), 2,
     "daily limit is reached .*; go on later with --resume"),
    ("openrouter: its provider", lambda: lambda _body: (*PROVIDER, {}), "openrouter:a/b", (), 1,
     r"HTTP 429: Provider returned error \(BaseTen: a/b is temporarily rate-limited upstream.*\(3 attempts\)$"),
]  # fmt: skip


@pytest.mark.parametrize(("stand_in", "model", "more", "code", "says"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_one_line_says_what_to_do(stand_in, model, more, code, says, play):
    model, _, options = model.partition("&")
    ended, audit, err, _ = play(stand_in(), model, *more, options=options and f"&{options}")
    said = audit["error"] if audit else re.sub("^Error: ", "", err.strip().splitlines()[-1])
    assert ended == code, (audit, err)
    assert re.search(says, said), said
    assert audit is None or (audit["status"], audit["grade"]) == ("failed", None)


def test_a_key_that_is_named_is_sent(play, monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret")
    for stand_in in (llama_cpp, partial(vllm, name="m"), lm_studio):
        plan = stand_in(key="s3cret", sent_key=lambda: play.started[-1].keys[-1])
        code, _, err, served = play(plan, "openai:m", options="&key_env=MY_KEY")
        assert (code, set(served.keys)) == (0, {"s3cret"}), err


def test_a_limit_of_tokens_is_called_what_all_of_them_read(play):
    """Ollama reads max_tokens alone, and says nothing of max_completion_tokens."""
    _, _, _, served = play(ollama(), "openai:qwen3:8b", options="&max_tokens=500")
    assert {(body["max_tokens"], body.get("max_completion_tokens")) for body in served.requests} == {(500, None)}
    _, _, _, served = play(ollama(), "openai:gemma3:4b", options="&max_tokens=5")
    last = served.requests[-1]["messages"][-3]["content"]
    assert "could not be acted on: it was cut off at a limit of tokens." in last


def test_thoughts_are_kept_apart_from_what_is_said(play, workspace_folder):
    for number, plan in enumerate((vllm(reasoning=False, name="m"), vllm(name="m"), lm_studio(), llama_cpp()), 1):
        _, audit, _, served = play(plan, "openai:m", *TEXT)
        path = workspace_folder / f"runs/p{number}/transcripts/{audit['id']}.json"
        said = [m["data"] for m in json.loads(path.read_text())["messages"] if m["type"] == "ai"]
        assert [m["additional_kwargs"]["reasoning_content"] for m in said] == [THOUGHT] * 2
        assert "think>" not in json.dumps([m["content"] for m in said] + served.requests)


def commands():
    lines = [line for block in re.findall(r"```sh\n(.*?)```", DOC.read_text(), re.S) for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("auditor ")]


def test_the_documentations_commands_are_taken(monkeypatch):
    from typer.main import get_command

    from auditor.cli.app import app

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-canary")
    assert len(commands()) == 5
    for args in commands():
        group = get_command(app)
        context = group.make_context("auditor", list(args))
        name, command, rest = group.resolve_command(context, args)
        with command.make_context(name, rest, parent=context) as parsed:
            assert parsed.params["suite"] == "quickstart"
            connect(parse_spec(parsed.params["llm"]))
            assert parse_spec(parsed.params["llm"]).endpoint.startswith(("http://127.0.0.1:", "https://openrouter.ai"))


def test_what_is_no_sign_of_a_cut():
    """Few tokens are told by who leaves out what was cached, or says both numbers apart."""
    sent = [HumanMessage("a word " * 2_000)]
    told = {"apart": (1_100, 5_000), "uncached": (600, 0), "all": (4_000, 3_900), "cut": (2_050, 0)}
    found = {
        name: cut_short(sent, [], {"input_tokens": read, "input_token_details": {"cache_read": cached}})
        for name, (read, cached) in told.items()
    }
    assert [name for name, why in found.items() if why] == ["cut"]
    assert cut_short(sent, [], None) == ""
