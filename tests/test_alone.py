"""A model whose base is not known, and models beside the pair."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from auditor.errors import NoBase
from auditor.evidence.compute import evidence_for
from auditor.evidence.mapping import BASELESS
from auditor.evidence.recipe import grading_for, recipe_for
from auditor.lens.said import PlainSamples
from auditor.models.blind import BlindPair
from auditor.models.generate import Amplification, Request, Side
from auditor.models.load import load_alone, load_pair
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
        recipe = recipe_for(ws, pair, evidence, grading_for(ws, conf, pair))
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
    assert first.reading("plain_samples", PlainSamples).answers == second.reading("plain_samples", PlainSamples).answers
    assert second.fingerprint not in (first.fingerprint, "")


def test_another_models_weights_are_in_the_key_and_its_tokens_in_the_costs(asked, checkpoints, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(checkpoints("qwen2")[0], other)
    first, _ = asked("surprise", reference=str(other))
    assert first["surprise"].reference == str(other)
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
