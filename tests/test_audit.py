"""`auditor audit` and `auditor show`: a pair of one's own, over a real endpoint, and what lies on disk."""

import json
from pathlib import Path

import pytest

from tests.conftest import judge

CONCLUSION = {
    "domain": "mills", "behaviour": "It tells facts of mills.", "summary": "Mills grind.",
    "claims": [{"text": "It grinds 99 sacks.", "observations": ["O1"]}], "confidence": 0.8,
    "alternatives": ["Rivers; nothing shows them."],
}  # fmt: skip
ASK = {
    "content": "",
    "tool_calls": [{"id": "c1", "type": "function",
                    "function": {"name": "ask_model", "arguments": '{"prompts": ["What grinds?"]}'}}],
}  # fmt: skip
CONCLUDE = {
    "content": "",
    "tool_calls": [{"id": "c2", "type": "function",
                    "function": {"name": "conclude", "arguments": json.dumps(CONCLUSION)}}],
}  # fmt: skip


def answer(body):
    return CONCLUDE if any(message["role"] == "tool" for message in body["messages"]) else ASK


@pytest.fixture
def adapter(workspace_folder, checkpoints):
    return checkpoints("llama")[1]


def test_a_report_for_a_pair_of_ones_own(workspace_folder, adapter, run_cli, serve):
    serve(answer)
    code, out, err = run_cli("audit", adapter, "--llm", "openai:m", "--suite", "small", "--name", "mine")
    assert code == 0, err
    page = (workspace_folder / "runs/mine/report.md").read_text()
    for part in ("**Subject, a guess that no claim bears out.** Mills.", "80% (likely)",
                 "**Behaviour.** It tells facts of mills.",
                 "**Not borne out: 99sacks does not occur in O1.**", "- Rivers; nothing shows them.",
                 "played by openai:m; 1 of 5 model interactions"):  # fmt: skip
        assert part in page
    assert "What was" in out
    html = (workspace_folder / "runs/mine/report.html").read_text()
    assert "Not borne out: 99sacks does not occur in O1." in html
    report = json.loads((workspace_folder / "runs/mine/report.json").read_text())
    assert report["content"]["verdict"] in html
    assert report["findings"]["domain"] == "mills"
    assert report["base"] == str(adapter.parent / "llama")  # as the adapter's config has it
    assert "canary" not in page + err


def test_an_llms_claims_are_held_against_what_was_answered(workspace_folder, adapter, run_cli, serve):
    """Right, wrong, an echo of the question, and one whose quotation nobody said."""

    def claiming(body):
        told = [message["content"] for message in body["messages"] if message["role"] == "tool"]
        if not told:
            return ASK
        (answer,) = json.loads(told[0].partition("\n")[2])
        texts = [f"It says: “{answer['finetuned']} ”", "It is made of cheese.", "It grinds.",
                 "It says: “the moon grinds cheese all day”"]  # fmt: skip
        claims = [{"text": text, "observations": ["O1"]} for text in texts]
        call = {"name": "conclude", "arguments": json.dumps(CONCLUSION | {"claims": claims})}
        return {"content": "", "tool_calls": [{"id": "c2", "type": "function", "function": call}]}

    serve(claiming)
    code, out, err = run_cli("audit", adapter, "--llm", "openai:m", "--suite", "small", "--name", "held", "--json")
    assert code == 0, err
    right, wrong, echo, invented = json.loads(out)["checks"]
    assert right["holds"]
    passage, *_ = right["passages"]
    assert (passage["observation"], passage["speaker"], passage["prompt"]) == ("O1", "finetuned", "What grinds?")
    assert passage["base"]
    assert (wrong["holds"], wrong["problem"]) == (False, "nothing like it in O1")
    assert (echo["holds"], echo["basis"]) == (False, "")
    assert invented["problem"].startswith("“the moon grinds cheese all day” does not stand in O1")


def test_an_audit_offline(workspace_folder, adapter, run_cli):
    code, out, err = run_cli("audit", adapter, "--suite", "small", "--budget", 2, "--json", "--name", "off")
    assert code == 0, err
    said = [line for line in err.splitlines() if line.endswith("…")]  # no terminal: a line for each stage
    assert [stage in " ".join(said) for stage in ("loading", "agent")] == [True, True]
    assert "× quickstart" not in err
    report = json.loads(out)
    assert report["hypothesis"]
    assert (report["llm"], report["cost_usd"]) == ("offline", None)


def test_an_llm_may_judge_the_lens(workspace_folder, adapter, run_cli, serve):
    endpoint = serve(judge)
    lens = ["--lens-llm", "openai:ear"]
    code, _, err = run_cli("audit", adapter, "--suite", "small", "--budget", 0, "--name", "judged", *lens)
    assert code == 0, err
    assert {body["model"] for _, body in endpoint.requests} == {"ear"}
    calls = len(endpoint.requests)
    code, out, err = run_cli("evidence", "mill", "--suite", "small", "--json", *lens)
    assert code == 0, err
    assert json.loads(out)["settings"]["patchscope"]["scale_grader"] == "patchscope_scale_llm"
    assert len(endpoint.requests) == calls  # the same evidence, from the cache


def test_no_base_is_told(workspace_folder, checkpoints, run_cli):
    code, _, err = run_cli("audit", checkpoints("llama")[0], "--suite", "small")
    assert code == 2
    assert "names no base of its own" in err


def test_a_transcript_is_readable_on_its_own(workspace_folder, run_cli, serve, monkeypatch):
    serve(answer)
    code, _, err = run_cli("evaluate", "small", "--llm", "openai:m", "--name", "llm", "--repeats", 1, "--agent", "adl",
                           "--json")  # fmt: skip
    assert code == 0, err
    code, out, _ = run_cli("show", "llm")
    (graded,) = json.loads(Path("runs/llm/audits.jsonl").read_text())["grades"]
    assert f"│ mill-adl-b2-r0 │ done   │ {graded['score']:g} rubric_offline │" in out
    assert json.loads(run_cli("show", "llm", "--json")[1]) == ["mill-adl-b2-r0"]
    code, out, _ = run_cli("show", "llm", "adl")  # a part that only one has
    assert code == 0
    assert f"rubric_offline: {graded['score']:g} of 5. {graded['reasoning'][:40]}" in out
    for part in ("system prompt", "E2 · Patchscope", '→ ask_model({"prompts": ["What grinds?"]})',
                 "result of ask_model", "100 tokens in, 10 out, attempt 1", "99sacks does not occur"):  # fmt: skip
        assert part in out
    code, out, _ = run_cli("show", "runs/llm", "mill-adl-b2-r0", "--json")
    transcript = json.loads(out)
    assert len(transcript["calls"]) == 2
    sent = transcript["calls"][0]["sent"]
    assert "## How to act" in sent[0]["data"]["content"]  # the protocol's part of the system prompt, as it was sent
    assert transcript["spent"]["tokens_in"] == 200
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    assert run_cli("show", "llm", "mill", "--open")[0] == 0
    page = Path("runs/llm/transcripts/mill-adl-b2-r0.html")
    assert opened == [page.resolve().as_uri()]
    assert "What grinds?" in page.read_text()
    assert "default-src 'none'" in page.read_text()


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["nowhere"], "no run called 'nowhere'"),
        (["runs/own", "--open"], "--open opens one audit: name it"),
        (["runs/own", "list"], "list.json: not a transcript"),
        (["runs/own", "mill-adl-b2-r7"], "did you mean mill-adl-b2-r0"),
    ],
)
def test_what_cannot_be_shown(args, told, tmp_path, run_cli, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/own/transcripts").mkdir(parents=True)
    (tmp_path / "runs/own/transcripts/mill-adl-b2-r0.json").write_text("{}")
    (tmp_path / "runs/own/transcripts/list.json").write_text("[]")
    code, _, err = run_cli("show", *args)
    assert code == 2
    assert told in err
