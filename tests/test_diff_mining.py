"""Diff mining, against the same thing done position by position."""

from collections import Counter
from functools import partial

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from auditor.errors import UsageError
from auditor.methods import diff_mining
from auditor.methods.corpus import Corpus
from auditor.methods.diff_mining import MiningSettings, Risen, beyond_others, mine
from auditor.methods.topics import topics_of
from tests.tiny import SENTENCES

SETTINGS = MiningSettings(tokens=9, top=12, shown=400, topics=3)
TEXTS = Corpus("texts", (*SENTENCES, "Hi", "The river runs, and the town sleeps until it is morning."))
CHATS = Corpus(
    "chats",
    ("The river, and then north.", "Yes."),
    (
        ({"role": "user", "content": "Where to?"}, {"role": "assistant", "content": "The river, and then north."}),
        ({"role": "user", "content": "Is it so?"}, {"role": "assistant", "content": "Yes."}),
    ),
)


@pytest.fixture(scope="module")
def both(checkpoints):
    """Base and finetune as transformers and PEFT load them."""
    base, adapter = checkpoints("llama")
    return (
        AutoModelForCausalLM.from_pretrained(base),
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter),
    )


def plainly(both, rows):
    """Differences and probabilities (positions, vocab) after each token of `rows` = [(ids, first position)]."""
    logs = [[], []]
    with torch.inference_mode():
        for ids, first in rows:
            for found, model in zip(logs, both, strict=True):
                found.append(model(torch.tensor([ids])).logits[0, first:].log_softmax(-1))
    base, tuned = (torch.cat(part) for part in logs)
    return tuned - base, base.exp(), tuned.exp()


def rows_of(pair, corpus):
    if not corpus.chats:
        return [(pair.tokenizer(text).input_ids[: SETTINGS.tokens], 0) for text in corpus.texts]
    rows = []
    for chat in corpus.chats:
        asked = pair.tokenizer.apply_chat_template(list(chat[:-1]), add_generation_prompt=True, tokenize=False)
        begun = pair.tokenizer(asked).input_ids
        said = pair.tokenizer(asked + chat[-1]["content"]).input_ids
        rows.append((said[: len(begun) - 1 + SETTINGS.tokens], len(begun) - 1))
    return rows


@pytest.mark.parametrize("corpus", [TEXTS, CHATS], ids=["texts", "chats"])
def test_counts_and_means_are_those_of_the_plain_way(tiny, both, corpus):
    apart, base, tuned = plainly(both, rows_of(tiny, corpus))
    found, risen = mine(tiny, corpus, SETTINGS)
    up, down = (
        Counter(i for row in apart for i in row.topk(SETTINGS.top, largest=largest).indices.tolist())
        for largest in (True, False)
    )
    texts = {i: tiny.tokenizer.decode([i], skip_special_tokens=True) for i in range(apart.shape[1])}
    shown = {i: text for i, text in texts.items() if any(map(str.isalnum, text))}
    assert (found.positions, found.short, found.left_out) == (len(apart), 0, 0)
    for told, counts in ((found.by_count, up), (found.suppressed, down)):
        expected = Counter({shown[i]: n for i, n in counts.items() if i in shown})
        assert {t.token: round(t.share * len(apart)) for t in told} == dict(expected)
        assert [t.share for t in told] == sorted((t.share for t in told), reverse=True)
    assert risen.counts.sum(0).tolist() == [up[i] for i in range(apart.shape[1])]
    assert risen.positions.sum() == len(apart)
    assert torch.allclose(risen.said.float(), base.sum(0), atol=1e-4)
    means = {shown[i]: float(apart[:, i].mean()) for i in shown}
    assert {t.token: t.mean for t in found.by_mean} == pytest.approx(means, abs=1e-4)
    assert [t.mean for t in found.by_mean] == sorted((t.mean for t in found.by_mean), reverse=True)
    likeliest = found.by_mean[0]
    where = next(i for i, text in shown.items() if text == likeliest.token)
    assert (likeliest.base, likeliest.finetuned) == pytest.approx(
        (float(base[:, where].mean()), float(tuned[:, where].mean())), rel=1e-3
    )


def test_rare_tokens_give_their_places_to_those_that_lie_deeper(tiny, both, monkeypatch):
    apart, base, tuned = plainly(both, rows_of(tiny, TEXTS))
    rare = float(base.mean(0).sort().values[150:152].mean())  # between two tokens
    often = float(tuned.mean(0).topk(5).values[-1]) * 0.999
    monkeypatch.setattr(diff_mining, "RARE", rare)
    monkeypatch.setattr(diff_mining, "OFTEN", often)
    monkeypatch.setattr(diff_mining, "DEPTH", 1000)
    usual = (base.mean(0) >= rare) | (tuned.mean(0) >= often)
    counts = Counter(
        i for row in apart for i in row.masked_fill(~usual, -torch.inf).topk(SETTINGS.top).indices.tolist()
    )
    found, _ = mine(tiny, TEXTS, SETTINGS)
    assert (found.left_out, found.short) == (int((~usual).sum()), 0)
    decode = partial(tiny.tokenizer.decode, skip_special_tokens=True)
    expected = {decode([i]): n for i, n in counts.items() if any(map(str.isalnum, decode([i])))}
    assert {t.token: round(t.share * len(apart)) for t in found.by_count} == expected


def test_places_that_were_not_looked_into_deep_enough_are_told(tiny, monkeypatch):
    monkeypatch.setattr(diff_mining, "RARE", 0.01)
    monkeypatch.setattr(diff_mining, "OFTEN", 1.0)
    monkeypatch.setattr(diff_mining, "DEPTH", 1)
    found, _ = mine(tiny, TEXTS, SETTINGS)
    assert 0 < found.short <= found.positions


def test_tokens_that_rise_at_different_places_are_different_topics(tokenizer):
    """Positions 0-19 raise three words, 20-29 three others, and one rises everywhere."""
    words = {i: text for i in range(len(tokenizer)) if len(text := tokenizer.decode([i])) > 2 and text[0].isalpha()}
    ids = list(words)[:7]
    entries = [(p, i, 2.0) for i in ids[:3] for p in range(20)] + [(p, i, 2.0) for i in ids[3:6] for p in range(20, 30)]
    entries += [(p, ids[6], 0.1) for p in range(30)] + [(0, ids[0], -5.0)]
    where, token, value = zip(*entries, strict=True)
    topics = topics_of(tokenizer, torch.tensor(where), torch.tensor(token), torch.tensor(value), 2, seed=0)
    assert [set(topic.tokens[:3]) for topic in topics] == [{words[i] for i in part} for part in (ids[:3], ids[3:6])]
    assert sum(topic.share for topic in topics) == pytest.approx(1)


def test_a_corpus_without_a_token_is_refused(tiny):
    with pytest.raises(UsageError, match="no text with a token"):
        mine(tiny, Corpus("empty", ("",)), SETTINGS)


class Words:
    """A tokenizer of words."""

    names = tuple(f" {a}{b}{c}" for a in "bcdfgklm" for b in "aeiou" for c in "nprst")

    def decode(self, ids):
        return self.names[ids[0]]


def test_what_rises_beyond_broad_finetunes_is_a_trace():
    """Broad finetunes raise mixtures of the same words; the judged one ten words of its own, on both halves."""
    rng, vocab = torch.Generator().manual_seed(0), len(Words.names)
    ways = torch.rand(4, vocab, generator=rng) ** 3
    others = 0.1 * torch.rand(20, 4, generator=rng) @ ways
    usual = 0.1 * torch.rand(4, generator=rng) @ ways
    own = usual.clone()
    own[:10] += 0.2
    subject = set(Words.names[:10])

    def cohesion(tokens):
        return 4.0 * len(subject & set(tokens)) + ord(tokens[0][-1]) % 3

    def judged(shares):
        counts = (1000 * shares.expand(2, -1) + 3 * torch.randn(2, vocab, generator=rng)).clamp_min(0).round()
        return beyond_others(Words(), Risen(counts, torch.tensor([1000, 1000]), torch.ones(vocab)), others, cohesion)

    narrow, broad = judged(own), judged(usual)
    assert subject <= set(narrow.words)
    assert narrow.p < 0.01 < 0.05 < broad.p
    assert broad.unlike < 0.3 < narrow.unlike


def test_what_hardly_ever_rises_is_no_part_of_a_trace():
    counts = torch.tensor([[30.0, 1.0, 0.0], [10.0, 2.0, 20.0]])
    risen = Risen(counts, torch.tensor([1000, 1000]), torch.ones(3))
    assert risen.halves.flatten().tolist() == pytest.approx([0.03, 0, 0, 0.01, 0, 0.02])
    assert (risen + risen).whole.tolist() == pytest.approx([0.02, 0, 0.01])


def test_texts_are_halved_so_that_the_same_text_is_in_one(tiny):
    texts = Corpus("twice", (SENTENCES[0], SENTENCES[1], SENTENCES[0]))
    risen = mine(tiny, texts, SETTINGS)[1]
    assert risen.positions.tolist() == [18, 9]
