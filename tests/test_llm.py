"""`--llm` over real HTTP: an OpenAI-compatible server of our own that says what a test tells it to."""

import json
from collections import Counter

import pytest

from tests.conftest import judge

FINAL = {"content": 'Seen enough.\nFINAL(description: "The model was finetuned on mills.")'}
ASK = {
    "content": "",
    "tool_calls": [
        {
            "id": "c1",
            "type": "function",
            "function": {"name": "ask_model", "arguments": '{"prompts": ["What grinds?"]}'},
        }
    ],
}


def evaluate(run_cli, *more):
    return run_cli("evaluate", "small", "--llm", "openai:test-model", "--name", "llm", "--repeats", 1, "--json", *more)


def asked_already(body):
    return any(message["role"] == "tool" for message in body["messages"])


def test_an_audit_with_native_tool_calls(workspace_folder, run_cli, serve):
    endpoint = serve(lambda body: FINAL if asked_already(body) else ASK)
    code, out, err = evaluate(run_cli)
    assert code == 0, err
    result = json.loads(out)
    assert result["llm"] == "openai:test-model"
    for audit in result["audits"]:
        assert audit["hypothesis"] == "The model was finetuned on mills."
        assert (audit["interactions_used"], audit["turns_used"]) == (1, 2)
        assert audit["tokens"] == {"input": 200, "output": 20}
    key, body = endpoint.requests[0]
    assert key == "Bearer sk-canary-1234"
    assert {tool["function"]["name"] for tool in body["tools"]} >= {"ask_model"}
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    for file in (workspace_folder / "runs/llm").rglob("*"):
        assert not file.is_file() or b"canary" not in file.read_bytes()
    assert "canary" not in out + err


@pytest.mark.parametrize(
    ("status", "told"),
    [(401, "the LLM endpoint refuses the key; check OPENAI_API_KEY"), (404, "knows no such model; check --llm")],
)
def test_an_endpoint_that_says_no(status, told, workspace_folder, run_cli, serve):
    serve(lambda body: status)
    code, out, err = evaluate(run_cli)
    assert (code, out) == (2, "")
    assert told in err.strip().splitlines()[-1]


def test_an_endpoint_that_is_not_there(workspace_folder, run_cli, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    code, out, err = evaluate(run_cli)
    assert (code, out) == (2, "")
    assert "the LLM endpoint cannot be reached (http://127.0.0.1:9/v1/chat/completions)" in err.splitlines()[-1]


def test_a_failed_audit_keeps_its_transcript_and_the_others(workspace_folder, run_cli, serve):
    serve(lambda body: 400 if "Plain answers" in body["messages"][1]["content"] and asked_already(body)
          else FINAL if asked_already(body) else ASK)  # fmt: skip
    # Of the two agents only adl's overview has a patchscope; the other one's second call fails.
    code, out, err = evaluate(run_cli)
    assert code == 1, err
    status = {a["agent"]: a["status"] for a in json.loads(out)["audits"]}
    assert sorted(status.values()) == ["done", "failed"]
    failed = next(a for a in json.loads(out)["audits"] if a["status"] == "failed")
    assert "400" in failed["error"]
    transcript = json.loads((workspace_folder / f"runs/llm/transcripts/{failed['id']}.json").read_text())
    assert [m["type"] for m in transcript["messages"]][:4] == ["system", "human", "ai", "tool"]
    assert "400" in transcript["error"]


def test_each_role_has_its_own_model(workspace_folder, run_cli, serve):
    """Lens, agent and grader over HTTP; what each role took is told, and a resumed run pays for nothing again."""
    endpoint = serve(lambda body: FINAL if body["model"] == "agent" else judge(body))
    args = ["evaluate", "small", "--llm", "openai:agent", "--grader-llm", "openai:judge?price_in=1&price_out=2",
            "--lens-llm", "openai:lens", "--grader-repeats", 2, "--repeats", 1, "--name", "roles"]  # fmt: skip
    code, out, err = run_cli(*args, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["grader"] == "rubric_llm"
    assert [a["grade"] for a in result["audits"]] == [3, 3]
    use = result["llm_use"]
    assert sorted(use) == ["agent", "check", "coherence_llm", "patchscope_scale_llm", "rubric_llm"]
    assert use["check"]["calls"] == 1  # whether the grader answers at all
    assert use["agent"] == {"calls": 2, "tokens": {"input": 200, "output": 20}, "cost_usd": None}
    assert use["rubric_llm"]["calls"] == 4
    assert use["rubric_llm"]["cost_usd"] == pytest.approx(4 * (100 * 1 + 10 * 2) / 1e6)
    asked = Counter(body["model"] for _, body in endpoint.requests)
    assert asked["lens"] == use["coherence_llm"]["calls"] + use["patchscope_scale_llm"]["calls"]

    calls = len(endpoint.requests)
    code, out, err = run_cli(*args, "--resume")
    assert code == 0, err
    assert len(endpoint.requests) == calls
    assert "rubric_llm: 4 LLM calls, 400 tokens in, 40 out, 0.0005 USD" in out
