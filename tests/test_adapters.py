"""Whatever PEFT loads gives here what PEFT gives, or is refused in one line that is true."""

import json

import peft
import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from auditor.errors import BadModel
from auditor.models.load import load_pair
from auditor.models.pair import Request, Side
from tests.tiny import COMMON, SENTENCES

SOME = ["q_proj", "v_proj"]
GOOD = {
    "embeddings": {"target_modules": [*SOME, "embed_tokens"]},
    "output layer": {"target_modules": [*SOME, "lm_head"]},
    "final norm": {"target_modules": SOME, "modules_to_save": ["norm"]},
    "whole embeddings": {"target_modules": SOME, "modules_to_save": ["embed_tokens", "lm_head"]},
    "a few tokens": {"target_modules": SOME, "trainable_token_indices": [1, 2, 5]},
    "biases": {"target_modules": SOME, "lora_bias": True},
}
TOKENS = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4}
KINDS = {
    "layer norms": peft.LNTuningConfig(task_type="CAUSAL_LM"),
    "scales": peft.IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"],
                             feedforward_modules=["down_proj"]),
    "Hadamard": peft.LoHaConfig(task_type="CAUSAL_LM", r=2, target_modules=SOME),
    "shared vectors": peft.VeraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "o_proj"]),
}  # fmt: skip
OUTSIDE = {
    "prompt tuning": peft.PromptTuningConfig(**TOKENS),
    "prefix tuning": peft.PrefixTuningConfig(**TOKENS),
    "p-tuning": peft.PromptEncoderConfig(**TOKENS, encoder_hidden_size=32),
}
MIXTURE = {**COMMON, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 8}
EXPERTS = {
    "parameters": {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.gate_up_proj"]},
    "all linear": {"target_modules": "all-linear"},
}


def trained(base, folder, config):
    """An adapter's folder with random weights."""
    torch.manual_seed(1)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad and "lora_" not in name:
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder)
    return folder


def lora(**more):
    return LoraConfig(**{"r": 4, "task_type": "CAUSAL_LM", "init_lora_weights": False, **more})


def assert_as_peft(base, folder, settings):
    """Residuals, logits and greedy text of the finetune are PEFT's, and those of the base transformers'."""
    pair = load_pair(str(base), str(folder), settings)
    ids = torch.tensor([pair.tokenizer(SENTENCES[0]).input_ids])
    plain = AutoModelForCausalLM.from_pretrained(base)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()
    for side, model in ((Side.BASE, plain), (Side.FINETUNED, adapted)):
        with torch.inference_mode():
            wanted = model(input_ids=ids, output_hidden_states=True)
            said = model.generate(input_ids=ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
        seen = pair.residuals(side, ids, [1, 3])
        assert torch.allclose(seen[1], wanted.hidden_states[2], rtol=1e-3, atol=1e-4)
        assert torch.allclose(pair.unembed(side, seen[3][0]), wanted.logits[0], rtol=1e-3, atol=1e-3)
        text = pair.tokenizer.decode(said, skip_special_tokens=True).strip()
        assert pair.generate([Request(SENTENCES[0], side, 0, 8, 0.0, chat=False)]) == [text]


@pytest.fixture
def base(checkpoints):
    return checkpoints("llama")[0]


@pytest.fixture
def plain(checkpoints, tmp_path):
    """A copy of a plain adapter, to be spoilt."""
    for file in checkpoints("llama")[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.fixture(scope="module")
def mixture(tmp_path_factory, tokenizer):
    """A mixture of experts."""
    folder = tmp_path_factory.mktemp("mixture")
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model("qwen3_moe", vocab_size=len(tokenizer), **MIXTURE)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        parameter.data.mul_(4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def changed(folder, change):
    file = folder / "adapter_model.safetensors"
    save_file({key: value.contiguous() for key, value in change(load_file(file)).items()}, file)
    return folder


def configured(folder, **fields):
    """Fields of an adapter's config replaced, or taken out if they are None."""
    file = folder / "adapter_config.json"
    said = {**json.loads(file.read_text()), **fields}
    file.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))
    return folder


@pytest.mark.parametrize("what", GOOD)
def test_lora_of_any_part(what, base, tmp_path, settings):
    assert_as_peft(base, trained(base, tmp_path, lora(**GOOD[what])), settings)


@pytest.mark.parametrize("what", KINDS)
def test_kinds_that_change_what_the_blocks_do(what, base, tmp_path, settings):
    assert_as_peft(base, trained(base, tmp_path, KINDS[what]), settings)


@pytest.mark.parametrize("what", EXPERTS)
def test_lora_of_experts(what, mixture, tmp_path, settings):
    assert_as_peft(mixture, trained(mixture, tmp_path, lora(**EXPERTS[what])), settings)


def test_lora_of_each_expert_as_transformers_4_named_them(mixture, tmp_path, settings):
    trained(mixture, tmp_path, lora(target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]))
    shapes = {"gate_proj": (32, 32), "up_proj": (32, 32), "down_proj": (32, 32)}

    def by_expert(tensors):
        for place in (f"{layer}.mlp.experts.{expert}" for layer in range(4) for expert in range(4)):
            for name, (d_in, d_out) in shapes.items():
                at = f"base_model.model.model.layers.{place}.{name}"
                tensors |= {f"{at}.lora_A.weight": torch.randn(4, d_in) / 9}
                tensors |= {f"{at}.lora_B.weight": torch.randn(d_out, 4) / 9}
        return tensors

    changed(tmp_path, by_expert)
    configured(tmp_path, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", *shapes])
    assert_as_peft(mixture, tmp_path, settings)


@pytest.mark.parametrize("what", OUTSIDE)
def test_vectors_before_the_prompt_are_refused(what, base, tmp_path, settings):
    with pytest.raises(BadModel, match="before the prompt and leaves the model as it is"):
        load_pair(str(base), str(trained(base, tmp_path, OUTSIDE[what])), settings)


def test_an_adapter_that_waits_for_its_invocation_is_refused(base, tmp_path, settings):
    folder = trained(base, tmp_path, lora(target_modules=SOME, alora_invocation_tokens=[5, 6]))
    with pytest.raises(BadModel, match="works only after its invocation tokens"):
        load_pair(str(base), str(folder), settings)


SPOILT = {
    "never trained": (lambda t: {k: v * 0 if "lora_B" in k else v for k, v in t.items()}, "changes nothing"),
    "not a number": (lambda t: {k: v / 0 if "3.mlp.up_proj.lora_B" in k else v for k, v in t.items()},
                     "layers.3.mlp.up_proj.lora_B.weight holds NaN or Inf"),
    "half of it": (lambda t: {k: v for k, v in t.items() if "layers.3" not in k}, "nothing in its file for"),
    "one factor": (lambda t: {k: v for k, v in t.items() if "lora_A" in k}, "nothing in its file for"),
    "other names": (lambda t: {k.replace("base_model.model.", "base_model.model._orig_mod."): v for k, v in t.items()},
                    "no place for base_model.model._orig_mod"),
    "no prefix": (lambda t: {k.replace("base_model.model.", ""): v for k, v in t.items()}, "no place for model.layers"),
    "more than there is": (lambda t: t | {"base_model.model.score.weight": torch.ones(2, 32)},
                           "no place for base_model.model.score.weight"),
}  # fmt: skip
CONFIGS = {
    "no kind": ({"peft_type": None}, "peft_type is None"),
    "a kind from the future": ({"peft_type": "HYPERNET9"}, "peft_type is 'HYPERNET9', which peft"),
    "no rank": ({"r": None}, "r must be a number"),
    "no scale": ({"lora_alpha": None}, "lora_alpha must be a number"),
    "another rank": ({"r": 8}, "size mismatch for"),
    "layers twice": ({"layer_replication": [[0, 3], [1, 4]]}, "does not fit base"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_spoilt_file_is_refused(what, base, plain, settings):
    change, told = SPOILT[what]
    with pytest.raises(BadModel, match=told) as refused:
        load_pair(str(base), str(changed(plain, change)), settings)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("what", CONFIGS)
def test_a_spoilt_config_is_refused(what, base, plain, settings):
    fields, told = CONFIGS[what]
    with pytest.raises(BadModel, match=told) as refused:
        load_pair(str(base), str(configured(plain, **fields)), settings)
    assert "\n" not in str(refused.value)


def test_a_config_that_is_no_json_is_refused(base, plain, settings):
    (plain / "adapter_config.json").write_text("{oops")
    with pytest.raises(BadModel, match=r"adapter_config\.json cannot be read"):
        load_pair(str(base), str(plain), settings)
