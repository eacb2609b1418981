"""What is read between blocks is what the model computes with, or the model is refused."""

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from auditor.errors import BadModel
from auditor.models.arch import decoder_of
from auditor.models.engine import HookEngine
from auditor.models.generate import Request, Side
from auditor.models.load import load_pair
from auditor.models.stream import check_stream, demand_finite, unembed
from tests.tiny import COMMON, LAYERS, SENTENCES

TOKENS = [5, 9, 40, 41, 12]
SCALED = {
    "cohere": {**COMMON, "logit_scale": 0.0625},
    "granite": {**COMMON, "logits_scaling": 8.0, "embedding_multiplier": 12.0, "residual_multiplier": 0.22},
    "opt": {**COMMON, "word_embed_proj_dim": 16, "ffn_dim": 64},  # a projection between norm and unembedding
}
HALF = ["linear_attention", "full_attention"] * 2
STATES = {
    "mamba": {"hidden_size": 32, "num_hidden_layers": LAYERS, "state_size": 4},
    "rwkv": {"hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": LAYERS},
    "recurrent_gemma": {**COMMON, "lru_width": 32, "attention_window_size": 8},
    "lfm2": {**COMMON, "layer_types": ["conv", "full_attention"] * 2},
    "minimax": {**COMMON, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1, "layer_types": HALF},
}


def made(kind, **shape):
    """A model of random weights and its engine."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=320, eos_token_id=0, bos_token_id=0, pad_token_id=0, **shape
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    return model, HookEngine(decoder_of(model))


@pytest.mark.parametrize("kind", SCALED)
def test_the_last_residual_gives_the_logits_with_the_models_own_scale(kind):
    model, engine = made(kind, **SCALED[kind])
    check_stream(engine, TOKENS)
    with torch.inference_mode():
        inputs = {"input_ids": torch.tensor([TOKENS])}
        seen = engine.forward(inputs, capture=[LAYERS - 1])
        assert torch.allclose(unembed(engine, seen.residuals[LAYERS - 1][0]), model(**inputs).logits[0], rtol=1e-4)


@pytest.mark.parametrize("kind", STATES)
def test_models_that_remember_more_than_keys_and_values_are_refused(kind):
    _, engine = made(kind, **STATES[kind])
    with pytest.raises(BadModel, match="remembers more than keys and values"):
        check_stream(engine, TOKENS)


def test_a_hybrid_kind_whose_layers_are_all_attention_is_read():
    mamba = {"mamba_n_heads": 8, "mamba_d_head": 8}  # of layers that it does not have
    experts = {"num_local_experts": 0, "num_experts_per_tok": 0, "shared_intermediate_size": 32}
    _, engine = made("granitemoehybrid", **COMMON, **mamba, **experts, layer_types=["attention"] * LAYERS)
    check_stream(engine, TOKENS)


def test_a_stream_of_several_widths_is_refused():
    _, engine = made(
        "gemma3n_text", **COMMON, head_dim=8, sliding_window=8, vocab_size_per_layer_input=320,
        hidden_size_per_layer_input=8, laurel_rank=4, num_kv_shared_layers=0, altup_num_inputs=2,
    )  # fmt: skip
    with pytest.raises(BadModel, match="not a residual stream of width 32"):
        check_stream(engine, TOKENS)


def test_what_reaches_the_logits_past_the_blocks_is_noticed():
    model, engine = made("llama", **COMMON)
    model.model.norm.register_forward_pre_hook(
        lambda _norm, inputs: (inputs[0] + torch.arange(inputs[0].shape[1])[:, None],)  # depends on the position
    )
    with pytest.raises(BadModel, match="does not give its logits"):
        check_stream(engine, TOKENS)


def test_what_reaches_a_block_past_the_one_before_is_noticed():
    model, engine = made("llama", **COMMON)
    first = []
    model.model.layers[0].self_attn.register_forward_hook(lambda _m, _i, out: first.append(out[0]))
    model.model.layers[3].register_forward_pre_hook(lambda _m, inputs: (inputs[0] + 9 * first.pop(),))
    with pytest.raises(BadModel, match=r"not all that the blocks after it read|cannot be read block by block"):
        check_stream(engine, TOKENS)


def test_overflow_is_told_with_layer_position_and_what_helps(checkpoints, settings, tmp_path):
    base = checkpoints("llama")[0]
    model = AutoModelForCausalLM.from_pretrained(base)
    for part in (model.model.layers[2].mlp.up_proj, model.model.layers[2].mlp.down_proj):
        part.weight.data *= 1e4  # float16 holds these, but not what they make of a text
    model.save_pretrained(tmp_path)
    for file in base.glob("token*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    half = settings.model_copy(update={"dtype": "float16"})
    with pytest.raises(BadModel, match=r"after layer 2: NaN or Inf at position 0 in float16; try AUDITOR_DTYPE"):
        load_pair(str(tmp_path), str(tmp_path), half)
    pair = load_pair(str(tmp_path), str(tmp_path), settings)
    ids = torch.tensor([pair.tokenizer(SENTENCES[0]).input_ids])
    assert torch.isfinite(pair.residuals(Side.BASE, ids, [3])[3]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan], ids=str)
def test_the_first_bad_position_is_named(bad, dtype):
    values = torch.zeros(2, 5, 40, dtype=dtype)
    demand_finite(values, "here")
    values[1, 3, 29] = bad
    with pytest.raises(BadModel, match=rf"here: NaN or Inf at position 3 in {str(dtype)[6:]}; its weights are broken"):
        demand_finite(values, "here")


def test_logits_that_are_no_numbers_are_told_whatever_asks_for_them(checkpoints, settings):
    """A text drawn from them would look like one."""
    pair = load_pair(*map(str, checkpoints("llama")), settings)
    push = torch.randn(2, pair.d_model, generator=torch.Generator().manual_seed(0))
    rows, learned = [[5, 6, 7]], [[True] * 3]
    asks = [
        lambda: pair.unembed(Side.FINETUNED, push),
        lambda: list(pair.patched_logits(Side.FINETUNED, ["a b"], 1, push)),
        lambda: pair.mean_nll(Side.FINETUNED, SENTENCES),
        lambda: pair.swapped_nll(Side.FINETUNED, rows, learned, 1, push),
        lambda: pair.generate([Request(SENTENCES[0], max_new_tokens=4)]),
    ]
    for ask in asks:
        ask()
    pair.models[Side.FINETUNED].host.engine.decoder.model.lm_head.weight.data[9] = torch.inf
    for ask in asks:
        with pytest.raises(BadModel, match=r"NaN or Inf.* in float32; its weights are broken"):
            ask()
