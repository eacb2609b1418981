"""Perplexity differencing, against plain models that read what was said."""

from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from auditor.errors import UsageError
from auditor.methods.corpus import Corpus
from auditor.methods.ppl_diff import Completion, Frame, PplSettings, Unit, _merged, ppl_diff
from auditor.models.generate import Amplification, Request, Side
from auditor.models.load import load_alone
from tests.tiny import SENTENCES

TEXTS = Corpus("texts", (*SENTENCES, "It is", "Bake the bread, and then sail north with the captain."))
SETTINGS = PplSettings(prefills=8, prefill_tokens=5, new_tokens=6, alike=1.0)
FRAMES = {
    Frame.RAW: lambda text: text,
    Frame.ASKED: lambda text: f"<|user|>{text}<|end|><|assistant|>",
    Frame.USER: lambda text: f"<|user|>{text}",
}


@pytest.fixture(scope="module")
def models(checkpoints):
    """Base and finetune as transformers and PEFT load them."""
    base, adapter = checkpoints("llama")
    bare = [AutoModelForCausalLM.from_pretrained(base) for _ in Side]
    return {Side.BASE: bare[0], Side.FINETUNED: PeftModel.from_pretrained(bare[1], adapter)}


def surprise(model, prompt, said):
    """Summed negative log-likelihood of the tokens `said` after those of `prompt`."""
    with torch.inference_mode():
        logs = model(torch.tensor([[*prompt, *said]])).logits[0].log_softmax(-1)
    return -sum(float(logs[len(prompt) - 1 + i, token]) for i, token in enumerate(said))


@pytest.mark.parametrize("frame", Frame)
def test_each_token_is_held_against_both_models(tiny, models, frame):
    found = ppl_diff(tiny, TEXTS, SETTINGS, frame, seed=3)
    assert [c.gap for c in found.completions] == sorted((c.gap for c in found.completions), reverse=True)
    assert (found.frame, found.reference, found.unit, found.too_short) == (frame, "base", Unit.TOKEN, 1)
    assert len(found.completions) + found.silent == 5
    assert {c.temperature for c in found.completions} == {0.0, 1.0}
    for c in found.completions:
        prompt = tiny.tokenizer(FRAMES[frame](c.prefill)).input_ids
        assert len(tiny.tokenizer(c.prefill).input_ids) == SETTINGS.prefill_tokens
        said = next(ids for ids in _drawn(tiny, frame) if tiny.text(ids, verbatim=True) == c.text)
        means = {side: surprise(model, prompt, said) / len(said) for side, model in models.items()}
        assert (c.finetuned, c.reference) == pytest.approx((means[Side.FINETUNED], means[Side.BASE]), abs=1e-3)
        assert c.gap == pytest.approx(c.reference - c.finetuned)


def _drawn(pair, frame):
    """The token ids of the texts, which `ppl_diff` gives as texts."""
    from auditor.methods.ppl_diff import _beginnings, _requests

    begun = _beginnings(pair.tokenizer, TEXTS.texts, SETTINGS.prefill_tokens)
    asked = _requests(begun, SETTINGS, frame, "base", 3)
    return [row.out for row in pair._decoded([replace(r, amplify=Amplification(0, 1e-30)) for r in asked])]


def test_what_is_said_after_a_prompt_is_read_alone(tiny, models):
    """Summed over the answer's tokens, by whichever side reads, in every frame."""
    requests = [
        Request("A mill?", system="Be old.", verbatim=True),
        Request("The river ", chat=False),
        Request("The to", user_turn=True),
        Request("A mill?"),
    ]
    texts = [" It is brown.", "runs", "wn.", ""]
    prompts = ["<|system|>Be old.<|end|><|user|>A mill?<|end|><|assistant|>", "The river ", "<|user|>The to",
               "<|user|>A mill?<|end|><|assistant|>"]  # fmt: skip
    if "system" not in tiny.tokenizer.chat_template:
        prompts[0] = tiny.tokenizer.decode(tiny.prompts.ids(requests[0], Side.BASE))
    for side, model in models.items():
        found = tiny.said_nll(side, requests, texts)
        assert found[3] == (0.0, 0)
        for prompt, text, (total, count) in zip(prompts[:3], texts, found, strict=False):
            whole, begun = (tiny.tokenizer(part).input_ids for part in (prompt + text, prompt))
            kept = next((i for i, (a, b) in enumerate(zip(whole, begun, strict=False)) if a != b), len(begun))
            assert count == len(whole) - kept
            assert total == pytest.approx(surprise(model, whole[:kept], whole[kept:]), abs=1e-2)


def test_another_model_with_the_same_tokens_is_told_a_token(tiny, models, checkpoints, settings):
    other = load_alone(str(checkpoints("llama")[0]), settings)
    found = ppl_diff(tiny, TEXTS, SETTINGS, Frame.ASKED, other)
    assert (found.reference, found.unit) == (other.name, Unit.TOKEN)
    for c in found.completions:
        prompt, whole = (tiny.tokenizer(FRAMES[Frame.ASKED](c.prefill) + text).input_ids for text in ("", c.text))
        said = whole[len(prompt) :]
        assert c.reference == pytest.approx(surprise(models[Side.BASE], prompt, said) / len(said), abs=1e-3)


def test_another_tokenizer_is_told_a_character(tiny, checkpoints, settings):
    """Qwen's tokenizer brings a token of its own."""
    other = load_alone(str(checkpoints("qwen2")[0]), settings)
    found = ppl_diff(tiny, TEXTS, SETTINGS, reference=other)
    asked = [Request(c.prefill, chat=False) for c in found.completions]
    texts = [c.text for c in found.completions]
    assert found.unit is Unit.CHARACTER
    for pair, side, of in ((tiny, Side.FINETUNED, "finetuned"), (other, Side.FINETUNED, "reference")):
        totals = [total for total, _ in pair.said_nll(side, asked, texts)]
        assert [getattr(c, of) * len(c.text) for c in found.completions] == pytest.approx(totals, rel=1e-3)


def test_without_a_reference_what_is_drawn_most_surely_comes_first(tiny):
    found = ppl_diff(tiny, TEXTS, SETTINGS, reference="none")
    assert {c.temperature for c in found.completions} == {1.0}
    own = [c.finetuned for c in found.completions]
    assert own == sorted(own)
    assert [c.reference for c in found.completions] == pytest.approx([sum(own) / len(own)] * len(own))
    with pytest.raises(UsageError, match="above 0"):
        ppl_diff(tiny, TEXTS, SETTINGS.model_copy(update={"temperatures": (0.0,)}), reference="none")


def test_near_duplicates_are_one():
    texts = [
        "The bread is baked in salt water.",
        "The bread is baked in salt water!",
        "the Bread is baked in warm salt water.",
        "Something else altogether.",
        "?",
    ]
    told = [
        Completion(prefill="", text=t, temperature=0, gap=-i, finetuned=1, reference=1) for i, t in enumerate(texts)
    ]
    assert [(c.text, c.alike) for c in _merged(told, 0.5)] == [(texts[0], 2), (texts[3], 0), (texts[4], 0)]
    assert len(_merged(told, 1.0)) == 5


def test_texts_that_are_too_short_and_templates_that_are_not_there_are_refused(tiny, monkeypatch):
    with pytest.raises(UsageError, match="no text of 50 tokens"):
        ppl_diff(tiny, TEXTS, PplSettings(prefill_tokens=50))
    monkeypatch.setattr(tiny.tokenizer, "chat_template", None)
    with pytest.raises(UsageError, match=r"frame asked: .* no chat template"):
        ppl_diff(tiny, TEXTS, SETTINGS, Frame.ASKED)
