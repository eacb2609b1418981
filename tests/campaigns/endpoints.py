"""The fault campaign for endpoints: what each does, what auditor says, what was asked of it, and whether that is right.

    python tests/campaigns/endpoints.py

One row for each fault of `tests/faults.py`, for each judge without a verdict (asked again by a resumed run), and for
what is refused before anything is sent. Ends with exit code 1 if a row is wrong. Needs no network.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
os.environ |= {"OPENAI_API_KEY": "sk-canary-1234", "HF_HUB_OFFLINE": "1"}
for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
    os.environ.pop(name, None)
    os.environ.pop(name.lower(), None)
# ruff: noqa: E402

from langchain_core.messages import HumanMessage, SystemMessage

from auditor.agent.protocol import Wire
from auditor.audits.plan import PROMPTS
from auditor.errors import AuditorError, UsageError
from auditor.ledger.calls import Calls
from auditor.ledger.database import Database
from auditor.llm.caller import open_caller
from auditor.llm.failures import CallFailed, EndpointUnusable
from auditor.llm.spec import parse_spec
from auditor.llm.verdict import NoVerdict, read_score, settle
from auditor.records.cards import Protocol
from auditor.workspace import load_workspace
from tests.faults import FAULTS, Endpoint, completion, plan_of, told

ASKED = [SystemMessage("Be brief."), HumanMessage("What grinds?")]
CALLS = {"answer": 1, "words": 2, "retried": 2, "call": 1, "run": 1}
wrong = 0


def row(name: str, said: str, calls: int, *, right: bool) -> None:
    global wrong
    wrong += not right
    print(f"{'right' if right else 'WRONG':5}  {calls:2}  {name:36}  {' '.join(said.split())[:150]}", flush=True)


def turn(fault, workspace) -> None:
    """One turn of an agent."""
    served = Endpoint(plan_of(fault))
    caller = open_caller(parse_spec(f"openai:m?base_url={served.url}&timeout=5&attempts=6&temperature=0.3"))
    caller.sleep = lambda _seconds: None
    prompts = {name: workspace.prompts[f"agent_{name}"] for name in PROMPTS}
    wire = Wire(caller, {"ask_model": workspace.tools["ask_model"]}, prompts, Protocol.AUTO)
    try:
        made = wire.ask(ASKED)
        words = made.protocol is Protocol.TEXT
        ends = "words" if words else "retried" if made.reply.attempts > 1 else "answer"
        said = made.final or made.fault or f"calls {[(c['name'], c['args']) for c in made.calls]}"
    except CallFailed as error:
        ends, said = "call", str(error)
    except EndpointUnusable as error:
        ends, said = "run", str(error)
    except Exception as error:
        ends, said = "BUG", repr(error)
    asked = len(served.requests)
    if ends == "run":  # the next audits of the run must not ask again
        for _ in range(5):
            with suppress(AuditorError):
                wire.ask(ASKED)
        asked = len(served.requests)
    served.close()
    right = ends == fault.ends and fault.says in str(said) and asked == CALLS[fault.ends] and "canary" not in str(said)
    row(fault.name, f"{ends}: {said}", asked, right=right)


VERDICTS = {
    "verdict: unreadable": completion({"content": "About three."}),
    "verdict: empty": completion({"content": ""}),
    "verdict: cut": completion({"content": "SCORE: 3"}, "length"),
    "verdict: filtered": completion({"content": "SCORE: 3"}, "content_filter"),
    "verdict: refused": completion({"refusal": "No."}),
    "verdict: flagged": told(403, "Your input was flagged", 403),
}


def verdict(name: str, reply) -> None:
    """A judge without a verdict, then the same run resumed with the judge well again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        served = Endpoint(lambda _body: (*reply, {}))
        spec = parse_spec(f"openai:m?base_url={served.url}&timeout=5")
        try:
            said = f"took {settle(open_caller(spec, Calls(Database(path))), 'Judge.', read_score, role='judge')}"
        except (NoVerdict, CallFailed) as error:
            said = str(error)
        served.plan = lambda _body: (*completion({"content": "SCORE: 4"}), {})
        resumed = settle(open_caller(spec, Calls(Database(path))), "Judge.", read_score, role="judge")[0]
        again = settle(open_caller(spec, Calls(Database(path))), "Judge.", read_score, role="judge")[0]
        asked = len(served.requests)
        served.close()
    right = not said.startswith("took") and (resumed, again) == (4, 4) and asked == (2 if "flagged" in name else 4)
    row(name, f"{said}; resumed: {resumed}", asked, right=right)


def refused(name: str, wanted: str, environment: dict[str, str], model: str) -> None:
    """What cannot work is told before anything is sent."""
    before = dict(os.environ)
    os.environ |= environment
    try:
        caller = open_caller(parse_spec(model))
        caller.sleep = lambda _seconds: None
        caller.call(ASKED, role="t")
        said = "nothing"
    except UsageError as error:
        said = str(error)
    except Exception as error:
        said = f"BUG {error!r}"
    finally:
        os.environ.clear()
        os.environ |= before
    row(name, said, 0, right=wanted in said and "canary" not in said)


def main() -> int:
    workspace = load_workspace()
    print("        n = calls that reached the endpoint; of what is final for a run, after five more audits asked")
    for fault in FAULTS:
        turn(fault, workspace)
    for name, reply in VERDICTS.items():
        verdict(name, reply)
    here = "openai:m?timeout=2&attempts=2&base_url="
    refused("key with a line break", "the key in OPENAI_API_KEY holds", {"OPENAI_API_KEY": "sk-canary\n"}, "openai:m")
    refused("key with a space", "the key in OPENAI_API_KEY holds", {"OPENAI_API_KEY": "sk canary"}, "openai:m")
    refused("key that is not ASCII", "the key in OPENAI_API_KEY holds", {"OPENAI_API_KEY": "sk-canary-é"}, "openai:m")
    refused("base_url without http", "begin it with http://", {}, here + "127.0.0.1:9/v1")
    refused("base_url of the call", "leave off /chat/completions", {}, here + "http://127.0.0.1:9/v1/chat/completions")
    refused("nobody there", "cannot be reached", {}, here + "http://127.0.0.1:9/v1")
    refused("HTTP_PROXY before loopback", "HTTP_PROXY stands in front of it",
            {"HTTP_PROXY": "http://canary@127.0.0.1:9"}, here + "http://127.0.0.1:8/v1")  # fmt: skip
    refused("ALL_PROXY=socks5h", "ALL_PROXY", {"ALL_PROXY": "socks5h://127.0.0.1:9"}, here + "http://10.255.255.1/v1")
    print(json.dumps({"rows": len(FAULTS) + len(VERDICTS) + 8, "wrong": wrong}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
