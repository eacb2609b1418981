"""Every architecture behind one protocol: parts found, engines equal, one copy of the weights, bad files told."""

import inspect
import json
from pathlib import Path

import accelerate
import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, DynamicCache

import auditor.models.load
from auditor.errors import BadModel
from auditor.models.arch import decoder_of
from auditor.models.engine import HookEngine, NnsightEngine
from auditor.models.generate import Steering
from auditor.models.load import load_pair
from auditor.models.pair import Request, Side
from auditor.models.passes import beginning
from tests.margins import MARGIN
from tests.tiny import ARCHITECTURES, LAYERS, SENTENCES, WIDTH


@pytest.fixture(params=sorted(ARCHITECTURES))
def folders(request, checkpoints):
    return tuple(map(str, checkpoints(request.param)))


def relative(a, b):
    return float((a - b).norm() / b.norm())


def patched(pair, side, vectors):
    """Logits under two prompts, run after run put together."""
    runs = pair.patched_logits(side, ["a → a\n?", "b → b\nc → c\n?"], 1, vectors)
    return [torch.cat(parts) for parts in zip(*runs, strict=True)]


def test_residuals_are_those_of_transformers(folders, settings):
    base, adapter = folders
    pair = load_pair(base, adapter, settings)
    assert (pair.n_layers, pair.d_model) == (LAYERS, WIDTH)
    ids = torch.tensor([pair.tokenizer(SENTENCES[0]).input_ids[:9]] * 2)
    plain = AutoModelForCausalLM.from_pretrained(base)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    for side, model in [(Side.BASE, plain), (Side.FINETUNED, adapted)]:
        seen = pair.residuals(side, ids, [0, 2])
        with torch.inference_mode():
            expected = model(ids, output_hidden_states=True).hidden_states  # [0] is the embedding
        assert relative(seen[0], expected[1]) < MARGIN
        assert relative(seen[2], expected[3]) < MARGIN


@pytest.mark.parametrize("known_as", ["cache", "past_key_values"])  # since transformers 5.24, and before
def test_a_cache_is_given_under_the_name_that_the_model_knows(checkpoints, tokenizer, known_as):
    model = AutoModelForCausalLM.from_pretrained(checkpoints("llama")[0]).eval()
    own = model.forward
    installed = next(name for name in ("cache", "past_key_values") if name in inspect.signature(own).parameters)
    takers = {
        "cache": lambda input_ids, cache=None, **more: own(input_ids, **{installed: cache}, **more),
        "past_key_values": lambda input_ids, past_key_values=None, **more: own(
            input_ids, **{installed: past_key_values}, **more
        ),
    }
    model.forward = takers[known_as]
    ids = torch.tensor([tokenizer(SENTENCES[0]).input_ids[:9]])
    for engine in (HookEngine(decoder_of(model)), NnsightEngine(decoder_of(model), tokenizer)):
        cache = DynamicCache()
        with torch.inference_mode():
            for part in (ids[:, :6], ids[:, 6:]):
                logits = engine.forward({"input_ids": part, "cache": cache, "use_cache": True}).logits
            assert cache.get_seq_length() == 9
            assert relative(logits[0], own(ids).logits[0, 6:]) < MARGIN


@pytest.mark.parametrize(
    ("rows", "shared"),
    [
        ([[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3, 6], [1, 2, 3, 4]], 3),
        ([[1, 2, 3, 4], [1, 2, 3, 5], [9, 8, 7, 4], [9, 8, 7, 5]], 3),
        ([[1, 2, 3, 4], [1, 8, 3, 4], [1, 7, 6, 4], [1, 6, 3, 4]], 1),
        ([[1, 2, 3, 4], [2, 2, 3, 4], [3, 2, 3, 4], [4, 2, 3, 4]], 0),
        ([[1], [1]], 0),
    ],
)
def test_a_beginning_that_texts_share_is_read_once(tiny, rows, shared):
    ids = torch.tensor(rows)
    assert beginning(ids) == shared
    for side in Side:
        whole = tiny.residuals(side, ids, [1, 3])
        for i in range(len(ids)):
            alone = tiny.residuals(side, ids[i : i + 1], [1, 3])
            assert all(relative(whole[layer][i], alone[layer][0]) < MARGIN for layer in (1, 3))


def test_unembedding_the_last_residual_gives_the_logits(folders, settings):
    pair = load_pair(*folders, settings)
    ids = torch.tensor([pair.tokenizer(SENTENCES[1]).input_ids[:7]])
    last = pair.residuals(Side.BASE, ids, [LAYERS - 1])[LAYERS - 1][0]
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(folders[0])(ids).logits[0]
    assert relative(pair.unembed(Side.BASE, last), logits) < MARGIN


def test_nnsight_and_hooks_agree(folders, settings):
    """Activations, a patched forward and steered decoding: equal but for rounding."""
    fast = load_pair(*folders, settings, engine="hooks")
    slow = load_pair(*folders, settings, engine="nnsight")
    ids = torch.tensor([fast.tokenizer(SENTENCES[2]).input_ids[:8]])
    vectors = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1))
    for side in Side:
        a, b = (pair.residuals(side, ids, [1, 3]) for pair in (fast, slow))
        assert all(relative(a[layer], b[layer]) < MARGIN for layer in (1, 3))
        for a, b in zip(*(patched(pair, side, vectors) for pair in (fast, slow)), strict=True):
            assert relative(a, b) < MARGIN
        rows = [[5, 6, 7, 8, 9], [9, 8, 7]]
        a, b = (pair.swapped_nll(side, rows, [[True] * len(r) for r in rows], 1, vectors)[0] for pair in (fast, slow))
        assert relative(a, b) < MARGIN


def test_a_model_that_accelerate_has_spread_gives_the_same(folders, settings, monkeypatch):
    """As `--device balanced` does over several GPUs: accelerate moves every block's tensors to where the block is."""
    whole, load = load_pair(*folders, settings), auditor.models.load.load_model

    def spread(*args):
        model, tokenizer = load(*args)
        path = decoder_of(model).blocks_path
        blocks = [f"{path}.{i}" for i in range(LAYERS)]
        others = [n for n, module in model.named_modules() if not (n.startswith(path) or list(module.children()))]
        return accelerate.dispatch_model(model, dict.fromkeys([*blocks, *others], "cpu"), force_hooks=True), tokenizer

    monkeypatch.setattr(auditor.models.load, "load_model", spread)
    parts = load_pair(*folders, settings)
    assert hasattr(parts.models[Side.BASE].host.engine.decoder.blocks[0], "_hf_hook")
    vectors = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([whole.tokenizer(SENTENCES[2]).input_ids[:8]])
    asked = [
        Request(SENTENCES[0], side, 2, 8, steering=push) for side in Side for push in (None, Steering(1, vectors[0]))
    ]
    assert parts.generate(asked) == whole.generate(asked)
    for side in Side:
        assert torch.equal(parts.residuals(side, ids, [2])[2], whole.residuals(side, ids, [2])[2])
        for a, b in zip(*(patched(pair, side, vectors) for pair in (parts, whole)), strict=True):
            assert torch.equal(a, b)


def test_patching_replaces_the_last_residual_only(tiny, checkpoints):
    """The cached prefix gives the same logits as a plain forward with a hook on the last token."""
    model = AutoModelForCausalLM.from_pretrained(checkpoints("llama")[0])
    ids = torch.tensor([tiny.tokenizer("a → a\n?").input_ids])
    vector = torch.randn(1, WIDTH)

    def hook(_module, _inputs, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[:, -1] = vector
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = model.model.layers[1].register_forward_hook(hook)
    with torch.inference_mode():
        expected = model(ids).logits[:, -1]
    handle.remove()
    assert relative(patched(tiny, Side.BASE, vector)[0], expected) < MARGIN


def test_a_lora_pair_holds_one_copy_of_the_base(checkpoints, settings):
    base, adapter = checkpoints("llama")
    pair = load_pair(str(base), str(adapter), settings)
    hosts = {model.host for model in pair.models.values()}
    assert len(hosts) == 1
    adapter_bytes = (adapter / "adapter_model.safetensors").stat().st_size
    assert 0 < hosts.pop().bank.nbytes <= adapter_bytes


def test_two_full_models(checkpoints, settings, tmp_path):
    base, adapter = checkpoints("gpt2")
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).merge_and_unload()
    merged.save_pretrained(tmp_path)
    for file in base.glob("token*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    two, lora = load_pair(str(base), str(tmp_path), settings), load_pair(str(base), str(adapter), settings)
    ids = torch.tensor([lora.tokenizer(SENTENCES[0]).input_ids[:6]])
    for side in Side:
        assert relative(two.residuals(side, ids, [2])[2], lora.residuals(side, ids, [2])[2]) < MARGIN
    assert two.fingerprint != lora.fingerprint


def copied(base, folder, change):
    """A copy of a checkpoint whose tokenizer.json is changed."""
    for file in base.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    spec = json.loads((folder / "tokenizer.json").read_text())
    change(spec)
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    return folder


def test_a_pretrained_base_that_knows_no_chat_tokens(checkpoints, settings, tmp_path):
    """The adapter belongs to the chat model; the pretrained base reads the same texts and is asked in plain text."""

    def forget(spec):
        spec["added_tokens"] = [token for token in spec["added_tokens"] if "|end|" in token["content"]]
        for name in ("<|user|>", "<|assistant|>"):
            del spec["model"]["vocab"][name]

    chat, adapter = checkpoints("llama")
    pretrained = copied(chat, tmp_path, forget)
    pair = load_pair(str(pretrained), str(adapter), settings, adapter_base=str(chat))
    assert "does not know 2 tokens" in pair.note
    usual = load_pair(str(chat), str(adapter), settings)
    ids = torch.tensor([usual.tokenizer(SENTENCES[0]).input_ids[:9]])
    for side in Side:  # same weights here, so same residuals: the adapter is where it belongs
        assert relative(pair.residuals(side, ids, [2])[2], usual.residuals(side, ids, [2])[2]) < MARGIN
    asked = {side: pair.tokenizer.decode(pair.prompts.ids(Request("A mill?", side), side)) for side in Side}
    assert "<|user|>" in asked[Side.FINETUNED]
    assert asked[Side.BASE] == "A mill?"
    assert len(pair.generate([Request("A mill?", side, max_new_tokens=2) for side in Side])) == 2


def test_swapping_a_component_is_equation_1(tiny):
    """Against a plain forward with a hook that projects, token by token."""
    vector = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(0))
    rows = [tiny.tokenizer(text).input_ids for text in SENTENCES[:2]]
    learned = [[i % 3 > 0 for i in range(len(ids))] for ids in rows]
    sums, counts = tiny.swapped_nll(Side.FINETUNED, rows, learned, 1, vector)
    projection = vector.T @ vector / vector.norm() ** 2
    for i, tokens in enumerate(rows):
        ids, counted = torch.tensor([tokens]), torch.tensor(learned[i][1:])
        base = tiny.residuals(Side.BASE, ids, [1])[1]

        def swap(h, base=base):
            return base @ projection + h - h @ projection

        with torch.inference_mode():
            for number, edits in enumerate([{}, {1: swap}]):
                logits = tiny.models[Side.FINETUNED].run(
                    lambda engine, edits=edits, ids=ids: engine.forward({"input_ids": ids}, edits=edits).logits[0, :-1]
                )
                nll = torch.nn.functional.cross_entropy(logits[counted], ids[0, 1:][counted], reduction="sum")
                assert float(sums[i, number]) == pytest.approx(float(nll), rel=MARGIN)
        assert counts[i] == sum(learned[i][1:])


def test_bfloat16_stays_near_float32(checkpoints, settings):
    """Residuals and what is added to them in half precision: within a few rounding errors of 2⁻⁸."""
    exact, rounded = (
        load_pair(*map(str, checkpoints("llama")), settings.model_copy(update={"dtype": name}))
        for name in ("float32", "bfloat16")
    )
    ids = torch.tensor([exact.tokenizer(SENTENCES[1]).input_ids[:8]])
    for side in Side:
        assert 0 < relative(rounded.residuals(side, ids, [3])[3], exact.residuals(side, ids, [3])[3]) < 0.05


class TestBadWeights:
    def test_an_adapter_for_another_base(self, checkpoints, settings):
        base, _ = checkpoints("llama")
        _, adapter = checkpoints("gpt2")
        with pytest.raises(BadModel, match="does not fit base"):
            load_pair(str(base), str(adapter), settings)

    def test_pickle_weights_are_refused(self, checkpoints, settings, tmp_path):
        (tmp_path / "adapter_config.json").write_text("{}")
        torch.save({}, tmp_path / "adapter_model.bin")
        with pytest.raises(BadModel, match="pickle weights only"):
            load_pair(str(checkpoints("llama")[0]), str(tmp_path), settings)

    def test_a_missing_folder(self, checkpoints, settings, tmp_path):
        with pytest.raises(BadModel, match="no model at"):
            load_pair(str(checkpoints("llama")[0]), str(tmp_path / "nothing"), settings)

    def test_a_folder_without_weights(self, checkpoints, settings, tmp_path):
        with pytest.raises(BadModel, match=r"no \.safetensors"):
            load_pair(str(checkpoints("llama")[0]), str(tmp_path), settings)

    def test_a_cut_off_file(self, checkpoints, settings, tmp_path):
        base, adapter = checkpoints("llama")
        (tmp_path / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
        whole = (adapter / "adapter_model.safetensors").read_bytes()
        (tmp_path / "adapter_model.safetensors").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(BadModel, match="cannot be read"):
            load_pair(str(base), str(tmp_path), settings)

    def test_different_tokenizers(self, checkpoints, settings, tmp_path):
        base = copied(
            checkpoints("llama")[0], tmp_path, lambda spec: spec["model"]["vocab"].update({"th": 300, "zz": 9})
        )
        with pytest.raises(BadModel, match="different tokenizers"):
            load_pair(str(checkpoints("llama")[0]), str(base), settings)

    def test_different_depths(self, checkpoints, settings, tmp_path):
        base, _ = checkpoints("llama")
        for file in base.glob("token*"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
        config = json.loads((base / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2, "layer_types": None}))
        model = AutoModelForCausalLM.from_config(
            type(AutoModelForCausalLM.from_pretrained(base).config).from_pretrained(tmp_path)
        )
        save_file(
            {k: v.clone() for k, v in model.state_dict().items()},
            Path(tmp_path) / "model.safetensors",
            {"format": "pt"},
        )
        with pytest.raises(BadModel, match="differ in width or depth"):
            load_pair(str(base), str(tmp_path), settings)
