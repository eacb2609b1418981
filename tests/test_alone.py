"""A model whose base is not known, and models beside the pair."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from auditor.audits.bench import Bench
from auditor.errors import NoBase, Refused
from auditor.evidence.compute import evidence_for
from auditor.evidence.mapping import BASELESS
from auditor.methods.said import PlainSamples
from auditor.models.blind import BlindPair
from auditor.models.generate import Amplification, Request, Side
from auditor.models.load import load_alone, load_pair
from auditor.plugins import Context
from auditor.records.cards import AskSettings
from auditor.testing import FakePair
from auditor.workspace import load_workspace

REFERRING = '''
from typing import Annotated
from auditor import Compared, Figures, LensContext, ModelPair, Reading, Record, lens
from auditor.models.generate import Request, Side

class Against(Record):
    reference: Annotated[str, Compared()] = "base"

class Surprise(Reading):
    reference: str
    nll: float
    def show(self):
        return [Figures(title="Surprise", lines=(f"{self.nll:.2f} by {self.reference}",))]

@lens
def surprise(pair: ModelPair, ctx: LensContext, settings: Against) -> Surprise:
    """How unlikely the reference finds a text."""
    name = settings.reference
    reader, side = (pair, Side.BASE if name == "base" else Side.FINETUNED)
    if name not in ("base", "none"):
        reader, side = ctx.alone(name), Side.FINETUNED
    (nll, _), = reader.said_nll(side, [Request("The river", chat=False)], [" runs past the old mill."])
    return Surprise(reference=reader.name, nll=nll)

class Nothing(Record):
    pass

@lens
def sly(pair: ModelPair, ctx: LensContext, settings: Nothing) -> Surprise:
    """Loads a model that no key knows of."""
    return Surprise(reference=ctx.alone("embedded").name, nll=0)
'''


@pytest.fixture(scope="module")
def alone(checkpoints, settings):
    return load_alone(str(checkpoints("llama")[0]), settings, name="mine")


@pytest.fixture
def asked(tiny, settings, tmp_path, workspace_folder):
    """Reads a pair with lenses, from a cache of its own: evidence, and the stages that were told."""
    (workspace_folder / "tools").mkdir(exist_ok=True)
    (workspace_folder / "tools/surprise.py").write_text(REFERRING)
    conf = settings.model_copy(update={"cache_dir": tmp_path / "cache"})

    def read(*names, pair=tiny, **reference):
        ws, stages = load_workspace(workspace_folder), []
        evidence = ws.suites["small"].evidence.over({"surprise": reference})
        recipe = Bench(ws, conf).recipe(pair, evidence)
        return evidence_for(pair, recipe, names, stages.append), stages

    return read


def test_a_model_alone_speaks_and_its_base_is_asked_in_vain(alone):
    assert alone.generate([Request("Hello?", max_new_tokens=3, seed=1)])[0]
    ids = torch.tensor([[1, 2, 3]])
    in_vain = [
        lambda pair: pair.generate([Request("Hello?", Side.BASE)]),
        lambda pair: pair.amplified([Request("Hello?", amplify=Amplification(1.0))]),
        lambda pair: pair.residuals(Side.BASE, ids, [0]),
        lambda pair: pair.unembed(Side.BASE, torch.zeros(1, pair.d_model)),
        lambda pair: list(pair.patched_logits(Side.BASE, ["a"], 0, torch.zeros(1, pair.d_model))),
        lambda pair: list(pair.pushed_logits(Side.BASE, [[1, 2]], 0, torch.zeros(1, pair.d_model))),
        lambda pair: pair.swapped_nll(Side.FINETUNED, [[1, 2]], [[True, True]], 0, torch.ones(1, pair.d_model)),
        lambda pair: pair.mean_nll(Side.BASE, ["The river runs."]),
        lambda pair: pair.said_nll(Side.BASE, [Request("a")], ["b"]),
    ]
    for pair in (alone, BlindPair(alone)):
        assert not pair.has_base
        for ask in in_vain:
            with pytest.raises(NoBase, match="it needs a base, and none is known"):
                ask(pair)


def test_lenses_that_need_a_base_say_so_and_the_others_are_kept(asked, alone):
    found, _ = asked("chance", "steering", "plain_samples", pair=alone)
    assert list(found) == ["plain_samples"]
    assert set(found.failed) == {"differences", "chance", "logit_lens", "patchscope", "steering"}
    assert set(found.failed.values()) == {NoBase.reason}
    assert found.notes[0] == BASELESS
    assert found.to_json()["has_base"] is False
    blind = found.blinded("x", "ds1")
    assert blind.notes == found.notes  # no file is named there


def test_a_model_alone_shares_no_evidence_with_a_pair_of_it(asked, alone, checkpoints, settings):
    base = str(checkpoints("llama")[0])
    whole = load_pair(base, base, settings)
    first, _ = asked("plain_samples", pair=whole)
    second, stages = asked("plain_samples", pair=alone)
    assert stages == ["plain_samples"]  # not from the cache
    both, one = (found.reading("plain_samples", PlainSamples).answers for found in (first, second))
    assert [answers.texts for answers in both] == [answers.texts for answers in one]
    assert (both[0].base is None, one[0].base) == (False, None)
    assert second.fingerprint not in (first.fingerprint, "")


def test_another_models_weights_are_in_the_key_and_its_tokens_in_the_costs(asked, checkpoints, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(checkpoints("qwen2")[0], other)
    first, _ = asked("surprise", reference=str(other))
    assert first["surprise"].reference == "another model"
    assert first.notes == [f"surprise compares with {other}, not with the base"]
    blind = first.blinded("x", "ds1")
    assert blind.notes == ["surprise compares with another model, not with the base"]
    assert str(other) not in repr(blind.settings)
    assert first.costs["surprise"].other_tokens > 0
    assert first.costs["surprise"].base_tokens == 0
    again, stages = asked("surprise", reference=str(other))
    assert (again["surprise"].nll, stages) == (first["surprise"].nll, [])
    tensors = load_file(other / "model.safetensors")
    save_file({name: 1.5 * tensor for name, tensor in tensors.items()}, other / "model.safetensors", {"format": "pt"})
    changed, stages = asked("surprise", reference=str(other))
    assert stages == ["surprise", f"loading {other}"]
    assert changed["surprise"].nll != first["surprise"].nll


def test_without_a_base_what_is_held_against_it_is_held_against_none(asked, alone):
    found, _ = asked("surprise", pair=alone)
    assert found["surprise"].reference == "mine"
    assert found.settings["surprise"].reference == "none"


@pytest.mark.parametrize(
    ("breaks", "told"),
    [
        (lambda folder: shutil.rmtree(folder), "no model at"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"cut"), "cannot be read as safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "a whole model is needed here"),
    ],
)
def test_a_reference_that_cannot_be_loaded_loses_its_lens_only(asked, checkpoints, tmp_path, breaks, told):
    other = tmp_path / "other"
    shutil.copytree(checkpoints("qwen2")[0], other)
    breaks(other)
    found, _ = asked("surprise", "plain_samples", reference=str(other))
    assert list(found) == ["plain_samples"]
    assert told in found.failed["surprise"]
    assert "\n" not in found.failed["surprise"]


def test_a_model_that_no_setting_names_is_refused(asked):
    found, _ = asked("sly")
    assert found.failed["sly"] == "the model embedded is named by no setting that is marked as `Compared`"


@pytest.fixture
def merged(checkpoints):
    """A whole model's folder."""
    return str(checkpoints("llama")[0])


def test_a_model_without_a_base_is_audited(workspace_folder, merged, run_cli):
    code, out, err = run_cli(
        "audit", merged, "--no-base", "--suite", "small", "--budget", 3, "--name", "alone", "--json"
    )
    assert code == 0, err
    report = json.loads(out)
    assert (report["base"], report["agent"]) == (None, "no-base")
    assert BASELESS in report["notes"]
    assert "No base was known" in report["hypothesis"]
    page = (workspace_folder / "runs/alone/report.md").read_text()
    for part in (f"- note: {BASELESS}", "base: not known", "No base was known, so nothing could be compared"):
        assert part in page
    transcript = json.loads((workspace_folder / "runs/alone/transcripts/audit.json").read_text())
    told = [message["data"]["content"] for message in transcript["messages"]]
    assert "Nobody knows from which base" in told[0]
    assert "No base is known" in told[1]
    assert Path(merged).name not in "".join(told)
    results = [m for m in transcript["messages"] if m["type"] == "tool" and m["data"]["name"] == "ask_model"]
    answers = json.loads(results[0]["data"]["content"].partition("\n")[2])
    assert [(bool(answer["finetuned"]), answer["base"]) for answer in answers] == [(True, None)] * len(answers)
    assert report["interactions_used"] == len(answers) == 3


def test_a_model_without_a_base_is_read_and_asked(workspace_folder, merged, run_cli):
    args = (merged, "--no-base", "--suite", "small", "--json")
    code, out, err = run_cli("evidence", *args, "--lens", "plain_samples", "--lens", "chance")
    assert code == 1, err
    found = json.loads(out)
    assert (list(found["readings"]), found["has_base"]) == (["plain_samples"], False)
    assert found["failed"] == dict.fromkeys(("differences", "chance"), NoBase.reason)
    assert "not read chance: it needs a base, and none is known" in err
    again, out, _ = run_cli("evidence", "--model", *args, "--lens", "plain_samples")
    assert (again, json.loads(out)["readings"]) == (0, found["readings"])
    code, out, err = run_cli("ask", merged, "A mill?", "--no-base", "--max-new-tokens", 4, "--json")
    assert code == 0, err
    assert json.loads(out)[0]["base"] is None
    code, out, _ = run_cli("ask", merged, "A mill?", "--no-base", "--max-new-tokens", 4)
    assert ("finetuned" in out, "base" in out) == (True, False)


CLASHES = [
    ("audit evidence", ("--base", "embedded"), "--no-base with --base: then it is known"),
    ("evidence", ("--adapter-base", "embedded"), "--no-base with --adapter-base: an adapter runs on its base only"),
    ("audit evidence", ("--reference", "base"), "--no-base with --reference base: give another model, or none"),
    (
        "audit evidence ask",
        ("--server", "http://127.0.0.1:1"),
        "--no-base with --server: the server's pairs have theirs",
    ),
    ("audit evidence ask", ("--adapter-scale", "2"), "--no-base with --adapter-scale or --adapter-rank"),
    ("audit evidence ask", ("--adapter-rank", "1"), "--no-base with --adapter-scale or --adapter-rank"),
    ("ask", ("--amplify", "1"), "--no-base with --amplify: each token is held against the base"),
]


@pytest.mark.parametrize(
    ("command", "given", "told"), [(name, *rest) for names, *rest in CLASHES for name in names.split()]
)
def test_what_needs_a_base_is_refused_beside_no_base(workspace_folder, merged, run_cli, command, given, told):
    prompt = ["Hello?"] if command == "ask" else []
    code, _, err = run_cli(command, merged, *prompt, "--no-base", *given)
    assert code == 2
    assert told in err
    assert not (workspace_folder / "runs").exists()


@pytest.mark.parametrize("command", ["audit", "evidence", "ask"])
def test_an_adapter_needs_its_base(workspace_folder, checkpoints, run_cli, command):
    base, adapter = checkpoints("llama")
    prompt = ["Hello?"] if command == "ask" else []
    code, _, err = run_cli(command, adapter, *prompt, "--no-base")
    assert code == 2
    assert f"{adapter} is an adapter, which runs on its base only ({base}, says its config); leave --no-base out" in err
    if command != "audit":
        code, _, err = run_cli(command, "mill", *prompt, "--no-base")
        assert (code, "is an adapter" in err) == (2, True)


def test_evidence_without_a_base_is_of_one_model(workspace_folder, merged, run_cli):
    for given in ((), (merged, "--model", merged)):
        code, _, err = run_cli("evidence", *given, "--no-base")
        assert (code, "name the MODEL, once" in err) == (2, True)


def test_a_reference_goes_to_the_lenses_that_take_one(asked, workspace_folder, checkpoints, run_cli):
    other = checkpoints("qwen2")[0]
    args = ("evidence", "mill", "--suite", "small", "--json", "--reference")
    code, out, err = run_cli(*args, other, "--lens", "surprise")
    assert code == 0, err
    assert json.loads(out)["settings"]["surprise"] == {"reference": str(other)}
    code, _, err = run_cli(*args, other, "--lens", "plain_samples")
    assert code == 2
    assert f"--reference {other}: no lens that is read takes one (plain_samples)" in err
    code, out, err = run_cli(*args, "./nowhere", "--lens", "surprise", "--lens", "plain_samples")
    assert code == 1
    assert list(json.loads(out)["readings"]) == ["plain_samples"]
    assert "not read surprise: no model at './nowhere'" in err


def test_a_suite_is_run_against_another_model(asked, workspace_folder, checkpoints, run_cli):
    (workspace_folder / "evals/agents").mkdir()
    agent = "name: surprised\noverview: [surprise]\ntools: [ask_model]\n"
    (workspace_folder / "evals/agents/surprised.yaml").write_text(agent)
    other = checkpoints("qwen2")[0]
    args = ("--agent", "surprised", "--budget", 0, "--repeats", 1, "--reference", other)
    code, _, err = run_cli("evaluate", "small", *args, "--name", "held")
    assert code == 0, err
    run = json.loads((workspace_folder / "runs/held/run.json").read_text())
    assert json.dumps({"surprise": {"reference": str(other)}})[1:-1] in json.dumps(run)
    adapter = checkpoints("llama")[1]
    args = ("--agent", "surprised", "--budget", 0, "--suite", "small", "--reference", other, "--json")
    code, out, err = run_cli("audit", adapter, *args)
    assert code == 0, err
    assert json.loads(out)["notes"] == [f"surprise compares with {other}, not with the base"]


def test_tools_give_the_finetunes_answers_alone():
    tools = load_workspace().tools
    context = Context(FakePair(lambda request: "said", has_base=False), {}, AskSettings(), 0)
    asked = {
        "ask_model": {"prompts": ["a", "b"]}, "probe_model": {"prompts": ["a", "b"]},
        "complete_text": {"openings": ["a", "b"]},
    }  # fmt: skip
    for name, args in asked.items():
        found = tools[name].run(context, tools[name].args(**args))
        assert [(answer.base, answer.finetuned) for answer in found] == [(None, "said")] * 2
    many = tools["ask_model"].run(context, tools["ask_model"].args(prompts=["a"], n=3))
    assert [(answer.base, answer.finetuned) for answer in many] == [(None, "said")] * 3
    with pytest.raises(Refused, match="it needs a base"):
        tools["ask_amplified"].run(context, tools["ask_amplified"].args(prompts=["a"]))
