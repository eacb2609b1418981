"""What knows a pair's name and what does not: nothing that a tool can reach, nothing that an agent is sent."""

import json
import shutil

import pytest

from auditor.errors import Refused, UsageError
from auditor.models.blind import BlindPair
from auditor.models.generate import Request, Side
from auditor.testing import FakePair
from tests.conftest import SUITE

SECRET = "marzipan"  # in the name of the organism, its family, its folders, adapter, base and corpus
TELLTALE = """
import json
from auditor import Args, Context, tool

class Nothing(Args):
    pass

def walk(value, seen, found):
    if id(value) in seen or isinstance(value, type) or type(value).__name__ in ("Tensor", "module", "function"):
        return
    seen[id(value)] = value
    found.append(value if isinstance(value, str) else repr(value)[:100_000])
    below = list(value.items()) if isinstance(value, dict) else []
    below += list(value) if isinstance(value, (list, tuple, set, frozenset)) else []
    below += list(getattr(value, "__dict__", {}).items())
    below += [getattr(value, slot, None) for kind in type(value).__mro__ for slot in getattr(kind, "__slots__", ())]
    below += [getattr(value, name) for name in ("name_or_path", "init_kwargs", "__self__") if hasattr(value, name)]
    for part in below:
        walk(part, seen, found)

@tool
def telltale(ctx: Context, args: Nothing) -> str:
    \"\"\"Write down everything that can be reached.\"\"\"
    found = []
    walk(ctx, {}, found)
    with open("reached.json", "w") as stream:
        json.dump(found, stream)
    return "done"
"""
LISTENER = """
import json
from auditor import grader
from auditor.records.evidence import ScaleChoice

@grader(kind="patchscope_scale")
def listener(sets, ctx):
    \"\"\"A judge of the lens that writes down whose tokens it reads.\"\"\"
    pair = ctx.pair
    with open("heard.json", "w") as stream:
        json.dump([repr(vars(pair)), pair.name, pair.note, pair.fingerprint, repr(pair.tokenizer)], stream)
    return ScaleChoice(scale=sets[0].scale, selected=(), cohesion=0.0)
"""


@pytest.fixture
def hidden(tmp_path, checkpoints, monkeypatch):
    """A workspace in which everything bears the secret."""
    base, adapter = checkpoints("llama")
    shutil.copytree(base, tmp_path / f"{SECRET}-base")
    shutil.copytree(adapter, tmp_path / f"{SECRET}-adapter")
    agent = "name: teller\noverview: [patchscope, logit_lens, steering]\ntools: [telltale, ask_model]\n"
    suite = SUITE.replace("mill", SECRET).replace("[adl, blackbox]", "[teller]").replace("repeats: 2", "repeats: 1")
    suite = suite.replace("patchscope: {", "patchscope: {scale_grader: listener, ")
    files = {
        "auditor.toml": "",
        "tools/telltale.py": TELLTALE,
        "graders/listener.py": LISTENER,
        "evals/agents/teller.yaml": agent,
        "evals/suites/small.yaml": f"{suite}  corpus: {SECRET}.txt\n",
        f"{SECRET}.txt": "The river runs past the old mill and into the town of mills.\n" * 9,
        f"evals/organisms/{SECRET}/organism.yaml": (
            f"name: {SECRET}\nfamily: {SECRET}\nrubric: sdf\nbase: {tmp_path}/{SECRET}-base\n"
            f"adapter: {tmp_path}/{SECRET}-adapter\ndescription: About {SECRET}.\ntopic: {SECRET}\n"
            f"facts: [It is {SECRET}.]\n"
        ),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(body):
    asked = sum(message["role"] == "tool" for message in body["messages"])
    calls = [("telltale", {}), ("ask_model", {"prompts": ["What is it?"]})]
    if asked == len(calls):
        return {"content": 'FINAL({"domain": "none", "behaviour": "none", "summary": "none", "claims": [], '
                '"alternatives": [], "confidence": 0.1})'}  # fmt: skip
    name, args = calls[asked]
    function = {"name": name, "arguments": json.dumps(args)}
    return {"content": "", "tool_calls": [{"id": f"c{asked}", "type": "function", "function": function}]}


def test_nothing_that_a_tool_or_an_agent_can_read_tells_whose_pair_it_is(hidden, run_cli, serve):
    endpoint = serve(answer)
    code, _, err = run_cli("evaluate", "small", "--llm", "openai:m", "--workers", 1)
    assert code in (0, 1), err
    reached = json.loads((hidden / "reached.json").read_text())
    assert len(reached) > 200
    assert [text for text in reached if SECRET in text.lower()] == []
    assert SECRET not in (hidden / "heard.json").read_text()
    assert len(endpoint.requests) >= 3
    assert SECRET not in json.dumps(endpoint.requests)


class Named(FakePair):
    name = "marzipan"

    def generate(self, requests):
        raise Refused(f"{self.name} reads 512 tokens, not {len(requests)}; marzipans are another word")

    def mean_nll(self, side, texts):
        raise UsageError(f"no {self.name}/base here")


def test_errors_do_not_tell_it_either():
    pair = BlindPair(Named())
    with pytest.raises(Refused, match="audited reads 512 tokens, not 1; marzipans are another word"):
        pair.generate([Request("Who?", Side.BASE, 0)])
    with pytest.raises(UsageError, match="no audited/base here"):
        pair.mean_nll(Side.BASE, ["x"])


def test_a_blind_pair_does_what_the_pair_does(tiny):
    pair = BlindPair(tiny)
    request = Request("Where to?", Side.FINETUNED, 3, 8, 0.7)
    assert pair.generate([request]) == tiny.generate([request])
    assert pair.mean_nll(Side.BASE, ["A river."]) == tiny.mean_nll(Side.BASE, ["A river."])
    assert pair.tokenizer("A river.").input_ids == tiny.tokenizer("A river.").input_ids
    assert (pair.tokenizer.name_or_path, bool(tiny.tokenizer.name_or_path)) == ("", True)
