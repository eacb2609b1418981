"""The Jacobian lens, against torch's own forward-mode derivative of a plain model."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from auditor.errors import UsageError
from auditor.methods.corpus import Corpus
from auditor.methods.jacobian import JacobianSettings, derivatives, jacobian_lens, step
from auditor.models.generate import Side
from tests.margins import MARGIN
from tests.tiny import SENTENCES, WIDTH

LAYER, ETA = 1, 20.0
EPS = torch.finfo(torch.float32).eps


@pytest.fixture(scope="module")
def rows(tiny):
    return [tiny.tokenizer(text).input_ids[:n] for text, n in zip(SENTENCES, (12, 7, 12, 3), strict=True)]


@pytest.fixture(scope="module")
def vectors():
    return torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(3))


def exact(model, rows, vector):
    """Mean over the rows of the derivative of the last position's log-probabilities, in float64."""
    blocks = model.get_base_model().model.layers
    found = []
    for ids in rows:

        def last(amount, ids=ids):
            push = blocks[LAYER].register_forward_hook(lambda _m, _i, out: out + amount * vector.double())
            try:
                return model(torch.tensor([ids]), use_cache=False).logits[0, -1].log_softmax(-1)
            finally:
                push.remove()

        zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
        found.append(torch.func.jvp(last, (zero,), (one,))[1].detach())
    return torch.stack(found).mean(0)


def test_scores_are_the_derivative(tiny, checkpoints, rows, vectors):
    base, adapter = checkpoints("llama")
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64, attn_implementation="eager")
    model = PeftModel.from_pretrained(plain, adapter).double()
    found = derivatives(tiny, rows, LAYER, vectors, ETA)
    for scores, vector in zip(found.scores, vectors, strict=True):
        wanted = exact(model, rows, vector)
        assert float((scores - wanted).norm() / wanted.norm()) < 100 * EPS ** (2 / 3)  # ε², and u/ε
    assert float(found.usual.sum()) == pytest.approx(1, abs=1e-4)


def test_twice_the_step_and_half_of_it_give_the_same(tiny, rows, vectors):
    usual, twice, half = (derivatives(tiny, rows, LAYER, vectors, ETA, scale=scale).scores for scale in (1.0, 2.0, 0.5))
    for other in (twice, half):
        assert float((other - usual).norm() / usual.norm()) < 400 * EPS ** (2 / 3)


def test_the_step_is_small_beside_the_stream_and_large_beside_rounding():
    for dtype, rounding in (("torch.float32", EPS), ("torch.bfloat16", 2**-7)):
        share = step(dtype, eta=50.0, norm=4.0) * 4.0 / 50.0
        assert share == pytest.approx(rounding ** (1 / 3))
        assert step(dtype, 50.0, 8.0) == pytest.approx(step(dtype, 50.0, 4.0) / 2)


def test_pushed_rows_are_those_of_plain_hooks(tiny, rows, vectors, checkpoints):
    model = AutoModelForCausalLM.from_pretrained(checkpoints("llama")[0])
    found = torch.cat(list(tiny.pushed_logits(Side.BASE, rows, LAYER, vectors)))  # (n, m, vocab)
    for ids, logits in zip(sorted(rows, key=len), found, strict=True):
        for vector, said in zip(vectors, logits, strict=True):
            hook = model.model.layers[LAYER].register_forward_hook(lambda _m, _i, out, v=vector: out + v)
            with torch.inference_mode():
                wanted = model(torch.tensor([ids])).logits[0, -1]
            hook.remove()
            assert float((said - wanted).norm() / wanted.norm()) < MARGIN


def test_tokens_are_told_by_what_they_gain(tiny, vectors):
    corpus = Corpus("texts", tuple(SENTENCES))
    settings = JacobianSettings(texts=4, tokens=9, shown=5)
    for reading in jacobian_lens(tiny, corpus, LAYER, vectors, ETA, settings):
        gains = [token.nats for token in reading.top]
        assert gains == sorted(gains, reverse=True)
        assert len(gains) == 5
        assert [t.nats for t in reading.bottom] == sorted(t.nats for t in reading.bottom)
        assert all(any(map(str.isalnum, t.token)) for t in (*reading.top, *reading.bottom))


def test_a_corpus_without_a_token_is_refused(tiny, vectors):
    with pytest.raises(UsageError, match="no text with a token"):
        derivatives(tiny, [[]], LAYER, vectors, ETA)
