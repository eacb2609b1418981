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
