"""Decoding: a row's text depends on its own prompt, side, steering and seed, and on nothing else."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from auditor.models.generate import Request, Side, Steering, derive_seed, nucleus, sample
from auditor.models.load import load_pair
from auditor.models.share import SharedPair
from tests.conftest import SENTENCES, WIDTH

LONG, SHORT = SENTENCES[2], "Go"


def requests(steering=None):
    """Mixed lengths, sides, temperatures and limits."""
    return [
        Request(prompt, side, derive_seed(prompt, side, i), 12 + 3 * i, 0.8 + i / 4, 1.0 if i else 0.9, i < 2, row)
        for prompt in (LONG, SHORT)
        for side in Side
        for i in range(3)
        for row in (None, steering)
    ]


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2"])
def test_a_text_is_the_same_alone_and_in_any_batch(architecture, checkpoints, settings):
    pair = load_pair(*map(str, checkpoints(architecture)), settings)
    steering = Steering(1, torch.randn(WIDTH, generator=torch.Generator().manual_seed(3)))
    wanted = requests(steering)
    together = pair.generate(wanted)
    assert pair.generate(wanted[::-1])[::-1] == together
    assert [pair.generate([request])[0] for request in wanted] == together
    assert len(set(together)) > len(together) / 2


def test_two_full_models_generate_what_the_lora_pair_does(checkpoints, settings, tmp_path):
    base, adapter = map(str, checkpoints("llama"))
    same = load_pair(base, base, settings)
    lora = load_pair(base, adapter, settings)
    plain = [Request(p, Side.BASE, i, 10) for i, p in enumerate(SENTENCES)]
    both = [Request(p, side, i, 10) for i, p in enumerate(SENTENCES) for side in Side]
    assert same.generate(both)[::2] == lora.generate(plain)


def test_greedy_decoding_is_that_of_transformers(tiny, checkpoints):
    model = AutoModelForCausalLM.from_pretrained(checkpoints("llama")[0])
    ids = torch.tensor([tiny.tokenizer(LONG).input_ids])
    expected = model.generate(ids, max_new_tokens=15, do_sample=False)[0, ids.shape[1] :]
    text = tiny.tokenizer.decode(expected, skip_special_tokens=True).strip()
    assert tiny.generate([Request(LONG, Side.BASE, 0, 15, 0.0, chat=False)]) == [text]


def test_steering_adds_its_vector_at_every_token(tiny, checkpoints):
    """Greedy steered text equals that of a plain model with a bias on the block's output."""
    vector = 3 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(5))
    model = AutoModelForCausalLM.from_pretrained(checkpoints("llama")[0])
    handle = model.model.layers[2].register_forward_hook(
        lambda _m, _i, out: (out[0] + vector, *out[1:]) if isinstance(out, tuple) else out + vector
    )
    ids = torch.tensor([tiny.tokenizer(LONG).input_ids])
    expected = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    handle.remove()
    steered = Request(LONG, Side.BASE, 0, 12, 0.0, chat=False, steering=Steering(2, vector))
    plain = Request(LONG, Side.BASE, 0, 12, 0.0, chat=False)
    texts = tiny.generate([steered, plain])
    assert texts[0] == tiny.tokenizer.decode(expected, skip_special_tokens=True).strip()
    assert texts[0] != texts[1]


def test_sampling_follows_the_distribution():
    probs = torch.tensor([0.5, 0.3, 0.15, 0.05])
    n = 20_000
    draws = torch.rand(n, generator=torch.Generator().manual_seed(0))
    logits, ones = probs.log().expand(n, 4), torch.ones(n)
    drawn = sample(logits, draws, ones, ones).bincount(minlength=4) / n
    assert torch.allclose(drawn, probs, atol=0.015)
    nucleus = sample(logits, draws, ones, 0.6 * ones).bincount(minlength=4) / n  # the two that reach 0.6
    assert torch.allclose(nucleus, torch.tensor([0.625, 0.375, 0, 0]), atol=0.015)
    assert (sample(logits, draws, 0 * ones, ones) == 0).all()


def test_a_nucleus_is_the_same_with_and_without_sorting_the_vocabulary(monkeypatch):
    logits = 3 * torch.randn(6, 400, generator=torch.Generator().manual_seed(2))
    logits[3:] /= 30  # flat rows, whose nucleus is wide
    probs, top_p = torch.softmax(logits, -1), torch.tensor([0.5, 0.9, 1.0, 0.3, 0.95, 0.99])
    ranked, order = probs.sort(-1, descending=True)
    ranked[ranked.cumsum(-1) - ranked >= top_p[:, None]] = 0
    expected = torch.zeros_like(probs).scatter_(-1, order, ranked)
    for limit in (5, 50, 1024):
        monkeypatch.setattr("auditor.models.generate.NUCLEUS", limit)
        found = nucleus(probs, top_p)
        assert torch.equal(found[2], probs[2])
        assert torch.allclose(found[[0, 1, 3, 4, 5]], expected[[0, 1, 3, 4, 5]])


def test_audits_that_share_a_pair_get_the_texts_they_would_get_alone(tiny):
    from concurrent.futures import ThreadPoolExecutor

    wanted = requests()
    shared = SharedPair(tiny, workers=4)
    parts = [wanted[i::4] for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(shared.generate, parts))
    assert texts == [tiny.generate(part) for part in parts]


def test_an_error_reaches_every_audit_that_waited(tiny):
    from concurrent.futures import ThreadPoolExecutor

    class Broken:
        name = fingerprint = "x"
        tokenizer, n_layers, d_model = None, 1, 1

        def generate(self, _requests):
            raise RuntimeError("out of memory")

    shared = SharedPair(Broken(), workers=2)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(shared.generate, requests()) for _ in range(2)]
    for future in waiting:
        with pytest.raises(RuntimeError, match="out of memory"):
            future.result()


def test_a_system_prompt_and_a_begun_answer_reach_the_model(tiny):
    seen = []
    original = tiny._decode

    def spy(batch, prompts, requests):
        seen.extend(tiny.tokenizer.decode(prompts[i]) for i in batch)
        return original(batch, prompts, requests)

    tiny._decode = spy
    try:
        tiny.generate([Request("Hi.", max_new_tokens=1, system="You are old.", prefill="Well")])
        tiny.generate([Request("The mill", max_new_tokens=1, chat=False)])
    finally:
        del tiny._decode
    assert seen == ["<|system|>You are old.<|end|><|user|>Hi.<|end|><|assistant|>Well", "The mill"]
