"""Models that take images, used by text alone: the language model inside, templates of parts, what agents are told."""

import pytest
import torch
import transformers
from peft import PeftModel

from auditor.chat_template import answered, render
from auditor.models.generate import Request, Side
from auditor.models.load import load_pair
from auditor.workspace import load_workspace
from tests.tiny import SEEING, add_adapter, make_base

PARTS = (
    "{% for m in messages %}<|{{ m.role }}|>{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}"
    "{% elif part.type == 'image' %}<image>{% endif %}{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module", params=SEEING)
def folders(request, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    base, adapter = folder / "base", folder / "adapter"
    add_adapter(make_base(request.param, tokenizer, base), str(base), adapter)
    return str(base), str(adapter)


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
