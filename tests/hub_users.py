"""A hub that users of ours may write to, and an audit by an LLM that always says the same."""

import json
from contextlib import contextmanager

from huggingface_hub import CommitOperationAdd, HfApi

from tests.local_hub import asked_by_this_process, serving

TOKEN, READER, STRANGER = "hf_writerwriterwriterwriter", "hf_readerreaderreaderreader", "hf_strangerstrangerstranger"
CARD = b"---\nlicense: mit\n---\n# Mine\r\n\r\nOf m\xc3\xbclls.\r\n"


@contextmanager
def hub_with_users(monkeypatch, cache):
    """A hub where `me`, of the organisation `lab`, may write; there are models `lab/model` and `other/model`."""
    repos = {"lab/model": {"README.md": CARD, "config.json": b"{}"}, "other/model": {"config.json": b"{}"}}
    with serving(repos) as hub:
        hub.tokens = {
            TOKEN: {"name": "me", "orgs": ["lab"], "role": "write"},
            READER: {"name": "me", "orgs": ["lab"], "role": "read"},
            STRANGER: {"name": "stranger", "orgs": [], "role": "write"},
        }
        asked_by_this_process(monkeypatch, hub, cache)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def by_hand(repo, files, kind="dataset"):
    """Somebody else's commit."""
    steps = [CommitOperationAdd(path, content) for path, content in files.items()]
    HfApi().create_commit(repo, steps, commit_message="by hand", repo_type=kind)


def error_of(err):
    (line,) = [line for line in err.splitlines() if line.startswith("error:")]
    return line


CONCLUSION = {
    "domain": "mills <img src=x> ![x](https://evil.example)", "behaviour": "It tells facts of mills.",
    "summary": "Mills grind.", "claims": [{"text": "It grinds 99 sacks.", "observations": ["O1"]}], "confidence": 0.8,
    "alternatives": [],
}  # fmt: skip


def answer(body):
    """An agent that asks once, and concludes."""
    done = any(message["role"] == "tool" for message in body["messages"])
    name, args = ("conclude", CONCLUSION) if done else ("ask_model", {"prompts": ["What grinds?"]})
    call = {"name": name, "arguments": json.dumps(args)}
    return {"content": "", "tool_calls": [{"id": "c", "type": "function", "function": call}]}


def audited(folder, model, run_cli, serve):
    """What `auditor audit` makes of `model`, in `folder`."""
    serve(answer)
    args = ("--llm", "openai:m", "--suite", "small", "--budget", 1, "--name", "one")
    code, _, err = run_cli("audit", model, *args)
    assert code == 0, err
    return folder / "runs/one"
