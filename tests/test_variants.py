"""Variants of a finetune, against plain PEFT and plain torch."""

import copy
import json

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from auditor.errors import BadModel, UsageError
from auditor.models.generate import Request, Side
from auditor.models.load import load_pair
from auditor.records.cards import AdapterVariant
from tests.margins import MARGIN
from tests.test_lora import KINDS, ODD, relative, trained
from tests.tiny import SENTENCES

VARIANTS = {
    "twice": AdapterVariant(scale=2.0),
    "against": AdapterVariant(scale=-0.5),
    "rank 1": AdapterVariant(rank=1),
    "rank 2, thrice": AdapterVariant(scale=3.0, rank=2),
}


@pytest.fixture(scope="module")
def base(checkpoints):
    return checkpoints("llama")[0]


@pytest.fixture(scope="module")
def whole(base, tokenizer, tmp_path_factory):
    """A full finetune's folder: every parameter has changed."""
    folder = tmp_path_factory.mktemp("whole")
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(5)
    for weight in model.parameters():
        weight.data += 0.1 * weight.data.std() * torch.randn_like(weight)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def part(change, rank):
    """The best part of that rank of a matrix."""
    u, s, v = torch.linalg.svd(change.double(), full_matrices=False)
    return ((u[:, :rank] * s[:rank]) @ v[:rank]).float()


def hand_made(base, tuned, variant):
    """A model whose block matrices are the base's and a variant of what `tuned` adds; all else is scaled only."""
    model = AutoModelForCausalLM.from_pretrained(base)
    theirs = dict(tuned.named_parameters())
    for name, weight in model.named_parameters():
        change = theirs[name].data - weight.data
        if variant.rank is not None and ".layers." in name and change.ndim == 2:
            change = part(change, variant.rank)
        weight.data += variant.scale * change
    return model


def says(pair, model):
    """How far the pair's finetune is from a plain model, in its logits."""
    ids = torch.tensor([pair.tokenizer(SENTENCES[0]).input_ids])
    last = pair.residuals(Side.FINETUNED, ids, [pair.n_layers - 1])[pair.n_layers - 1][0]
    with torch.inference_mode():
        return relative(pair.unembed(Side.FINETUNED, last), model(ids).logits[0])


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapters_variant_is_that_of_its_merged_matrices(base, tmp_path, settings, kind, variant):
    folder = trained(base, tmp_path, KINDS[kind], 1)
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).merge_and_unload()
    pair = load_pair(str(base), str(folder), settings, variant=variant)
    assert pair.models[Side.BASE].host is pair.models[Side.FINETUNED].host
    assert says(pair, hand_made(base, merged, variant)) < MARGIN
    assert says(pair, merged) > 0.01


def test_a_scale_is_what_peft_makes_of_it(base, tmp_path, settings):
    folder = trained(base, tmp_path, KINDS["ranks and alphas by layer"], 1)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    for module in adapted.modules():
        if hasattr(module, "scale_layer"):
            module.scale_layer(2.5)
    assert says(load_pair(str(base), str(folder), settings, variant=AdapterVariant(scale=2.5)), adapted) < MARGIN


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("kind", ODD)
def test_a_variant_of_what_is_more_than_lora_is_that_of_the_merged_model(base, tmp_path, settings, kind, variant):
    folder = trained(base, tmp_path, ODD[kind], 7)
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).merge_and_unload()
    pair = load_pair(str(base), str(folder), settings, variant=variant)
    assert says(pair, hand_made(base, merged, variant)) < MARGIN


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_a_full_finetunes_variant_is_made_of_the_change_of_its_weights(base, whole, settings, variant):
    tuned = AutoModelForCausalLM.from_pretrained(whole)
    pair = load_pair(str(base), str(whole), settings, variant=variant)
    assert says(pair, hand_made(base, tuned, variant)) < MARGIN
    assert says(pair, tuned) > 0.01


def test_a_finetune_with_tokens_of_its_own_keeps_them(base, whole, tokenizer, tmp_path, settings):
    more = copy.deepcopy(tokenizer)
    more.add_special_tokens({"additional_special_tokens": ["<|think|>"]})
    tuned = AutoModelForCausalLM.from_pretrained(whole)
    tuned.resize_token_embeddings(len(more), mean_resizing=False)
    tuned.save_pretrained(tmp_path)
    more.save_pretrained(tmp_path)
    pair = load_pair(str(base), str(tmp_path), settings, variant=AdapterVariant(scale=2.0))
    found = pair.models[Side.FINETUNED].host.engine.decoder.model.get_input_embeddings().weight
    old = AutoModelForCausalLM.from_pretrained(base).get_input_embeddings().weight
    new = tuned.get_input_embeddings().weight
    assert torch.allclose(found[: len(old)], 2 * new[: len(old)] - old, atol=1e-5)
    assert torch.equal(found[len(old) :], new[len(old) :])


def test_variants_have_fingerprints_of_their_own_and_lie_side_by_side(base, tmp_path, settings):
    folder = trained(base, tmp_path, KINDS["plain"], 1)
    plain = load_pair(str(base), str(folder), settings)
    pairs = [load_pair(str(base), str(folder), settings, variant=variant) for variant in VARIANTS.values()]
    assert len({pair.fingerprint for pair in [plain, *pairs]}) == 1 + len(pairs)
    assert load_pair(str(base), str(folder), settings, variant=AdapterVariant()).fingerprint == plain.fingerprint
    assert all("change of the weights" in pair.note for pair in pairs)
    assert plain.note == ""


@pytest.mark.parametrize("scale", [0, float("nan"), float("inf")])
def test_no_variant_has_a_scale_without_effect_or_number(scale):
    with pytest.raises(ValidationError):
        AdapterVariant(scale=scale)


def test_ranks_that_are_not_there_are_refused(base, whole, tmp_path, settings):
    folder = trained(base, tmp_path, KINDS["plain"], 1)
    with pytest.raises(ValidationError):
        AdapterVariant(rank=0)
    with pytest.raises(UsageError, match=r"adapter rank 5: .* has rank 4; give 1 to 4"):
        load_pair(str(base), str(folder), settings, variant=AdapterVariant(rank=5))
    with pytest.raises(UsageError, match=r"adapter rank 32: the matrices of .* have rank 32; give 1 to 31"):
        load_pair(str(base), str(whole), settings, variant=AdapterVariant(rank=32))


def test_an_adapter_that_cannot_be_merged_has_no_variant(base, tmp_path, settings, monkeypatch):
    folder = trained(base, tmp_path, ODD["dora"], 7)

    def refuse(*_args, **_kwargs):
        raise NotImplementedError("not here")

    monkeypatch.setattr("peft.tuners.lora.LoraModel.merge_and_unload", refuse)
    with pytest.raises(BadModel, match="no variant can be made of an adapter of its kind"):
        load_pair(str(base), str(folder), settings, variant=AdapterVariant(scale=2))


def test_two_variants_of_one_adapter_are_served_from_one_base(base, tmp_path, settings, workspace_folder):
    from auditor.server.library import Library, Served
    from auditor.workspace import load_workspace

    folder = str(trained(base, tmp_path / "adapter", KINDS["plain"], 1))
    served = {
        name: Served(name, str(base), folder, variant)
        for name, variant in {"plain": None, "loud": AdapterVariant(scale=2.0)}.items()
    }
    library = Library(served, load_workspace(workspace_folder), settings)
    library.check()
    asked = [Request("A mill?", max_new_tokens=12)]
    for name, each in served.items():
        with library.using(name) as pair:
            assert pair.generate(asked) == load_pair(str(base), folder, settings, variant=each.variant).generate(asked)
    assert len(library.hosts) == 1
    wrong = Library({"w": Served("w", str(base), folder, AdapterVariant(rank=9))}, library.workspace, settings)
    with pytest.raises(UsageError, match="adapter rank 9: w has rank 4"):
        wrong.check()


CARD = "evals/organisms/mill/organism.yaml"


def test_commands_take_variants_and_cards_name_them(run_cli, workspace_folder):
    def said(*flags):
        code, out, err = run_cli("ask", "mill", "A mill?", "--max-new-tokens", 12, "--json", *flags)
        assert code == 0, err
        return out

    loud = said("--adapter-scale", 3)
    assert len({said(), loud, said("--adapter-rank", 1)}) == 3
    card = workspace_folder / CARD
    card.write_text(card.read_text() + "variant: {scale: 3.0}\n")
    assert said() == loud
    assert said("--adapter-scale", 1) != loud


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--adapter-scale", 0], "--adapter-scale 0: give a number that is not 0"),
        (["--adapter-scale", "nan"], "--adapter-scale nan"),
        (["--adapter-rank", 0], "--adapter-rank 0: give 1 or more"),
        (["--adapter-rank", 99], "adapter rank 99"),
    ],
)
@pytest.mark.parametrize("command", [["ask", "mill", "A?"], ["evidence", "mill"], ["evaluate", "small"]])
def test_variants_that_cannot_be_made_are_told_in_one_line(run_cli, workspace_folder, command, flags, told):
    code, _, err = run_cli(*command, *flags)
    assert code == 2
    assert told in err
    assert "Traceback" not in err


def test_a_server_makes_its_own_variants(run_cli, workspace_folder):
    code, _, err = run_cli("ask", "mill", "A?", "--adapter-rank", 1, "--server", "http://127.0.0.1:1")
    assert code == 2
    assert "give them to `auditor serve`" in err


def test_an_audit_of_a_variant_is_kept_as_one_of_it(run_cli, workspace_folder, checkpoints):
    base, adapter = checkpoints("llama")
    asked = ["audit", adapter, "--base", base, "--name", "loud", "--suite", "small", "--budget", 0]
    code, _, err = run_cli(*asked, "--adapter-scale", 2)
    assert code == 0, err
    assert json.loads((workspace_folder / "runs/loud/run.json").read_text())["variant"]["scale"] == 2
    code, _, err = run_cli(*asked, "--resume")
    assert code == 2
    assert "variant" in err
