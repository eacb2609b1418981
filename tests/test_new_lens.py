"""A lens of a user's own: one file and an agent's card are all that evidence, every view and an audit need."""

import json

import yaml

RISING = '''\
"""Rising: tokens that the finetune makes likelier as the first word of a document."""

from collections.abc import Sequence

import torch
from pydantic import Field

from auditor import Args, Context, LensContext, ModelPair, RankedTokens, Reading, Record, lens, tool
from auditor.errors import Refused
from auditor.models.generate import Side
from auditor.readings import Call, Column, Section, Token


class RisingSettings(Record):
    begin: str = Field("The", min_length=1, description="how the document begins")
    kept: int = Field(30, ge=1)


class Rising(Reading):
    begin: str
    tokens: tuple[tuple[str, float], ...]

    def show(self) -> Sequence[Section]:
        tokens = tuple(Token(text=text, number=nats) for text, nats in self.tokens)
        return [
            RankedTokens(
                title="Rising tokens", number="nats", places="beginning", spoken=True,
                columns=(Column(head=self.begin, tokens=tokens),),
                calls=(Call(tool="get_rising", args={"k": 20}),),
            )
        ]


@lens
def rising(pair: ModelPair, ctx: LensContext, settings: RisingSettings) -> Rising:
    """What the finetune is more likely than the base to say after a document's first word."""
    ids, last = torch.tensor([pair.tokenizer(settings.begin).input_ids]), pair.n_layers - 1
    logs = [pair.unembed(side, pair.residuals(side, ids, [last])[last][0, -1:]).log_softmax(-1)[0] for side in Side]
    best = (logs[1] - logs[0]).topk(settings.kept)
    read = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return Rising(begin=settings.begin, tokens=tuple((pair.tokenizer.decode([i]), nats) for i, nats in read))


class RisingQuery(Args):
    dataset: str
    k: int = Field(20, ge=1, le=100)


@tool
def get_rising(ctx: Context, args: RisingQuery) -> list[tuple[str, float]]:
    """Read more of the tokens that rise, the strongest first, free of charge."""
    found = ctx.dataset(args.dataset).reading("rising", Rising)
    if not found.tokens:
        raise Refused("nothing rises")
    return list(found.tokens[: args.k])
'''
CARD = """\
name: rising-only
description: Sees what rises at the beginning of a document, and may ask both models.
overview: [rising]
tools: [get_rising, ask_model]
"""


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_one_file_and_a_card_make_a_lens_that_everything_reads(workspace_folder, run_cli, checkpoints):
    assert len(RISING.splitlines()) <= 60
    assert len(CARD.splitlines()) <= 6
    before = files(workspace_folder)
    for name, text in (("tools/rising.py", RISING), ("evals/agents/rising-only.yaml", CARD)):
        (workspace_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace_folder / name).write_text(text)
    code, out, err = run_cli("evidence", "mill", "--suite", "small", "--lens", "rising", "--html", "page.html")
    assert code == 0, err
    assert "Rising tokens" in out
    assert "Rising tokens" in (workspace_folder / "page.html").read_text()
    code, out, err = run_cli(
        "audit", checkpoints("llama")[1], "--agent", "rising-only", "--suite", "small", "--budget", 1, "--name", "own",
        "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["agent"] == "rising-only"
    told = (workspace_folder / "runs/own/transcripts/audit.json").read_text()
    assert "get_rising" in told
    assert "Rising tokens, ds1" in told
    made = {name for name in files(workspace_folder) - before if not name.startswith("runs/") and "cache" not in name}
    assert made == {"tools/rising.py", "evals/agents/rising-only.yaml", "page.html"}


def test_its_settings_are_the_suites(workspace_folder, run_cli):
    (workspace_folder / "tools").mkdir()
    (workspace_folder / "tools/rising.py").write_text(RISING)
    path = workspace_folder / "evals/suites/small.yaml"
    suite = yaml.safe_load(path.read_text())
    suite["evidence"]["lenses"]["rising"] = {"begin": "Yes", "kept": 3}
    path.write_text(yaml.safe_dump(suite))
    code, out, err = run_cli("evidence", "mill", "--suite", "small", "--lens", "rising", "--json")
    assert code == 0, err
    found = json.loads(out)["readings"]["rising"]
    assert (found["begin"], len(found["tokens"])) == ("Yes", 3)
    suite["evidence"]["lenses"]["rising"] = {"kept": 0}
    path.write_text(yaml.safe_dump(suite))
    code, _, err = run_cli("evidence", "mill", "--suite", "small", "--lens", "rising")
    assert code != 0
    assert "rising.kept: Input should be greater than or equal to 1" in err


OWN_TOOLS = '''
from pydantic import BaseModel

from auditor import Args, Context, tool


class Which(Args):
    dataset: str


class Questions(Args):
    questions: list[str]


@tool
def count_lenses(ctx: Context, args: Which) -> int:
    """How many lenses were read."""
    return len(ctx.dataset(args.dataset))


@tool(cost=lambda args: 2 * len(args.questions))
def interview(ctx: Context, args: Questions) -> list[dict[str, str | None]]:
    """Ask both models twice."""
    return [{"prompt": q, "base": b, "finetuned": f} for q, (b, f) in zip(args.questions, ctx.ask_both(args.questions))]
'''


def test_the_offline_agent_uses_the_tools_that_it_was_given(workspace_folder, run_cli):
    (workspace_folder / "tools").mkdir()
    (workspace_folder / "tools/own.py").write_text(OWN_TOOLS)
    (workspace_folder / "evals/agents").mkdir()
    card = "name: own\noverview: [logit_lens]\ntools: [count_lenses, interview]\n"
    (workspace_folder / "evals/agents/own.yaml").write_text(card)
    code, _, err = run_cli("evaluate", "small", "--agent", "own", "--budget", 4, "--repeats", 1, "--name", "own")
    assert code == 0, err
    (line,) = (workspace_folder / "runs/own/audits.jsonl").read_text().splitlines()
    assert json.loads(line)["interactions_used"] == 4  # three questions cost six: it tries with fewer
    told = json.loads((workspace_folder / "runs/own/transcripts/mill-own-b4-r0.json").read_text())
    called = [call["name"] for m in told["messages"] for call in m["data"].get("tool_calls") or ()]
    assert called[0] == "count_lenses"
    assert set(called[1:]) == {"interview"}
