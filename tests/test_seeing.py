"""Models that take images, used by text alone: the language model inside, templates of parts, what agents are told."""

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

from auditor.chat_template import answered, render
from auditor.models.generate import Request, Side
from auditor.models.load import load_pair
from auditor.workspace import load_workspace

TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2}  # fmt: skip
KINDS = {
    "qwen2_5_vl": {
        "text_config": {**TEXT, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}},
        "vision_config": {"depth": 4, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
                          "out_hidden_size": 32},
    },
    "gemma3": {
        "text_config": {**TEXT, "head_dim": 8, "sliding_window": 16},
        "vision_config": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
                          "image_size": 28, "patch_size": 14},
        "mm_tokens_per_image": 4,
    },
}  # fmt: skip
PARTS = (
    "{% for m in messages %}<|{{ m.role }}|>{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}"
    "{% elif part.type == 'image' %}<image>{% endif %}{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module", params=KINDS)
def folders(request, tokenizer, tmp_path_factory):
    """Tiny random models whose vision tower has as many blocks as the language model, and an adapter."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    kind = dict(KINDS[request.param])
    kind["text_config"] = {**kind["text_config"], "vocab_size": len(tokenizer)}
    config = transformers.AutoConfig.for_model(request.param, **kind)
    model = transformers.AutoModelForImageTextToText.from_config(config)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    lora = LoraConfig(r=2, target_modules=r".*language_model.*(q_proj|down_proj)", init_lora_weights=False)
    get_peft_model(model, lora).save_pretrained(folder / "adapter")
    return str(folder / "base"), str(folder / "adapter")


@pytest.fixture(scope="module")
def seeing(folders, settings):
    return load_pair(*folders, settings)


def test_the_language_model_is_found(seeing):
    assert seeing.images
    assert (seeing.n_layers, seeing.d_model) == (4, 32)
    decoder = seeing.models[Side.BASE].host.engine.decoder
    assert "language_model" in decoder.blocks_path


def test_it_is_read_and_speaks_as_the_library_has_it(seeing, folders):
    """Residuals, logits and greedy text of both models, without any image."""
    base, adapter = folders
    ids = torch.tensor([seeing.tokenizer("What is in the picture?").input_ids])
    plain = transformers.AutoModelForImageTextToText.from_pretrained(base).eval()
    adapted = PeftModel.from_pretrained(transformers.AutoModelForImageTextToText.from_pretrained(base), adapter).eval()
    for side, model in ((Side.BASE, plain), (Side.FINETUNED, adapted)):
        with torch.inference_mode():
            wanted = model(input_ids=ids, output_hidden_states=True)
            said = model.generate(input_ids=ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
        seen = seeing.residuals(side, ids, [1, 3])
        torch.testing.assert_close(seen[1], wanted.hidden_states[2], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(seeing.unembed(side, seen[3][0]), wanted.logits[0], rtol=1e-3, atol=1e-3)
        text = seeing.tokenizer.decode(said, skip_special_tokens=True).strip()
        assert seeing.generate([Request("What is in the picture?", side, 0, 8, 0.0, chat=False)]) == [text]


def test_a_template_that_wants_parts_is_given_parts(tokenizer):
    import copy

    other = copy.deepcopy(tokenizer)
    other.chat_template = PARTS
    turns = [{"role": "user", "content": "Tell me about this image"}]
    assert render(other, turns) == "<|user|>Tell me about this image<|end|><|assistant|>"
    told = [*turns, {"role": "assistant", "content": "A red barn."}]
    ids, learned = answered(other, told)
    assert other.decode([i for i, mine in zip(ids, learned, strict=True) if mine]) == "A red barn.<|end|>"


@pytest.mark.parametrize("images", [True, False])
def test_the_agent_is_told_that_it_can_send_text_alone(images):
    system = load_workspace().prompts["agent_system"]
    told = system.render(interactions=5, turns=15, tokens=None, lens=True, base=True, images=images)
    assert ("images as well as text. You can send text alone." in told) is images
