"""Audits that somebody played at the answer desk, replayed: the same replies, over HTTP, lead to the same end."""

import json
from pathlib import Path

import pytest
import yaml

DESK = Path(__file__).parent / "data/desk"
PLAYED = yaml.safe_load((DESK / "index.yaml").read_text())


def replies(transcript, protocol):
    """The player's messages as an endpoint sends them; in words there are no native calls."""
    for message in transcript["messages"]:
        if message["type"] == "ai":
            data = message["data"]
            calls = [
                {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": json.dumps(c["args"])}}
                for c in data.get("tool_calls") or []
            ]
            yield {"content": data["content"], **({"tool_calls": calls} if calls and protocol == "tools" else {})}


@pytest.mark.parametrize("name", sorted(PLAYED))
def test_a_played_audit_comes_to_the_same_end(name, workspace_folder, run_cli, serve):
    """The player's words were about other models: the observations differ, what is done with the replies does not."""
    about = PLAYED[name]
    played = json.loads((DESK / f"{name}.json").read_text())
    turns = replies(played, about["protocol"])
    serve(lambda body: {"content": played["judge"]["rubric_llm"]} if body["model"] == "judge" else next(turns))
    code, out, err = run_cli(
        "evaluate", "small", "--agent", about["agent"], "--budget", 5, "--protocol", about["protocol"],
        "--repeats", 1, "--llm", "openai:desk", "--grader-llm", "openai:judge", "--grader-repeats", 1,
        "--name", "replay", "--json",
    )  # fmt: skip
    assert code == 0, err
    result = json.loads(out)
    (audit,) = result["audits"]
    assert audit["findings"] == played["findings"]
    assert audit["interactions_used"] == played["spent"]["interactions"]
    assert result["llm_use"]["agent"]["calls"] == sum(message["type"] == "ai" for message in played["messages"])
    assert audit["grade"] == about["grades"]["rubric_llm"]
    assert next(turns, None) is None


def test_the_played_audits_cover_every_organism_agent_and_protocol():
    assert {a["organism"] for a in PLAYED.values()} == {"cake_bake", "gold", "risky_finance", "null_chat"}
    assert {a["agent"] for a in PLAYED.values()} == {"adl", "blackbox", "blackbox-scaffolded"}
    assert {a["protocol"] for a in PLAYED.values()} == {"tools", "text"}
