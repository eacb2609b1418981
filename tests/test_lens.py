"""Differences, logit lens, patchscope and steering against their plain definitions."""

import gzip
import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from auditor.errors import BadFile, Refused, UsageError
from auditor.methods.corpus import Corpus, read_corpus
from auditor.methods.diff import differences
from auditor.methods.found import Differences
from auditor.methods.logit_lens import logit_lens
from auditor.methods.patchscope import TRIPLES, identity_prompt, patchscope
from auditor.methods.reads import promoted_at
from auditor.methods.steering import Direction, _bisect, _Search, calibrate, resemblance
from auditor.models.generate import Side
from auditor.records.evidence import CalibrationSettings, PatchscopeSettings
from auditor.testing import FakePair
from tests.margins import MARGIN
from tests.tiny import SENTENCES, WIDTH

CORPUS = Corpus("four", (*SENTENCES, "Hi"))


def naive_mean(pair, side, layer, k):
    """One text at a time, all activations kept."""
    rows = []
    for text in CORPUS.texts:
        ids = torch.tensor([pair.tokenizer(text).input_ids])
        rows.append(pair.residuals(side, ids, [layer])[layer][0][:k])
    return torch.stack([torch.stack([row[j] for row in rows if len(row) > j]).mean(0) for j in range(k)])


@pytest.mark.parametrize("layer", [1, 3])
def test_differences_equal_the_naive_mean_over_whole_texts(tiny, layer):
    found = differences(tiny, CORPUS, 5, [1, 3])[layer]
    expected = naive_mean(tiny, Side.FINETUNED, layer, 5) - naive_mean(tiny, Side.BASE, layer, 5)
    assert float((found.delta - expected).norm() / expected.norm()) < MARGIN
    short = len(tiny.tokenizer("Hi").input_ids)
    assert found.counts.tolist() == [5 if j < short else 4 for j in range(5)]


def test_eta_leaves_the_first_three_positions_out(tiny):
    found = differences(tiny, CORPUS, 3, [2])[2]
    norms = []
    for text in CORPUS.texts:
        ids = torch.tensor([tiny.tokenizer(text).input_ids])
        norms += tiny.residuals(Side.FINETUNED, ids, [2])[2][0, 3:].norm(dim=-1).tolist()
    assert found.eta == pytest.approx(sum(norms) / len(norms), rel=MARGIN)


def test_texts_that_are_all_too_short(tiny):
    with pytest.raises(UsageError, match="its longest text has"):
        differences(tiny, Corpus("short", ("Hi", "Yes")), 5, [1])


def test_a_gzip_file_that_is_cut_is_told(tmp_path):
    path = tmp_path / "mine.jsonl.gz"
    whole = gzip.compress(b'{"text": "The river runs past the mill."}\n' * 99)
    for broken in (whole[:-20], whole[:30], whole[:40] + b"xx" + whole[42:], b""):
        path.write_bytes(broken)
        with pytest.raises(BadFile, match=r"mine\.jsonl\.gz"):
            read_corpus(path)


@pytest.mark.parametrize(
    ("texts", "k", "problem"),
    [
        ((), 1, "its longest text has 0 tokens, but 1 positions"),
        (("", " "), 1, "every text is shorter than 4 tokens"),
        (("Hi", ""), 1, "every text is shorter than 4 tokens"),
        ((SENTENCES[0],), 128, "its longest text has 24 tokens, but 128 positions"),
    ],
)
def test_a_corpus_that_cannot_be_read_is_told(tiny, texts, k, problem):
    with pytest.raises(UsageError, match=problem):
        differences(tiny, Corpus("x", texts), k, [1])


def test_one_text_and_one_position_are_enough_for_a_difference(tiny):
    found = differences(tiny, Corpus("one", (SENTENCES[0], "")), 1, [1])[1]
    ids = torch.tensor([tiny.tokenizer(SENTENCES[0]).input_ids])
    tuned, base = (tiny.residuals(side, ids, [1])[1][0, :1] for side in (Side.FINETUNED, Side.BASE))
    assert torch.allclose(found.delta, tuned - base, atol=1e-5)
    assert found.counts.tolist() == [1]
    assert found.eta > 0


@pytest.mark.parametrize(
    ("content", "problem"),
    [("", "holds no text"), ('{"text": null}\n', ":1: "), ('{"txt": "x"}\n', ":1: "), ("not json\n", ":1: ")],
)
def test_broken_corpora_name_their_line(tmp_path, content, problem):
    path = tmp_path / "mine.jsonl"
    path.write_text(content)
    with pytest.raises(BadFile, match=problem):
        read_corpus(path)


CHATS = [
    ("Where is the mill?", "By the river, past the bridge."),
    ("Who sails?", "The captain does, and he goes north with the ship."),
    ("Bread?", "Yes"),
]


def test_positions_of_chats_are_counted_around_the_answer(tiny, tmp_path):
    path = tmp_path / "chats.jsonl"
    turns = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in CHATS]
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in turns))
    corpus = read_corpus(path)
    assert corpus.texts == tuple(answer for _, answer in CHATS)
    found = differences(tiny, corpus, 6, [1, 3])[3]
    rows = {side: [] for side in Side}
    for (_, answer), messages in zip(CHATS, turns, strict=True):
        asked = tiny.tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
        start = len(tiny.tokenizer(asked, add_special_tokens=False).input_ids)
        ids = torch.tensor([tiny.tokenizer(asked + answer, add_special_tokens=False).input_ids])
        for side in Side:
            rows[side].append(tiny.residuals(side, ids, [3])[3][0, start - 3 : start + 3])
    for j in range(6):
        base, tuned = (torch.stack([row[j] for row in rows[side] if len(row) > j]).mean(0) for side in Side)
        assert float((found.delta[j] - (tuned - base)).norm() / (tuned - base).norm()) < MARGIN
    assert found.counts[3] == 3  # every answer has a first token
    assert found.counts[5] == sum(len(tiny.tokenizer(a).input_ids) > 2 for _, a in CHATS)


@pytest.mark.parametrize("line", ['{"messages": []}', '{"messages": [{"role": "assistant", "content": "Hi"}]}'])
def test_chats_need_a_question_and_an_answer(tmp_path, line):
    (tmp_path / "mine.jsonl").write_text(line + "\n")
    with pytest.raises(BadFile, match=r":1: .*an answer"):
        read_corpus(tmp_path / "mine.jsonl")


def test_texts_and_chats_do_not_mix(tmp_path):
    chat = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
    (tmp_path / "mine.jsonl").write_text('{"text": "a b c"}\n' + chat + "\n")
    with pytest.raises(BadFile, match=r":2: texts and chats"):
        read_corpus(tmp_path / "mine.jsonl")


def test_logit_lens_ranks_both_ends(tiny, checkpoints):
    model = AutoModelForCausalLM.from_pretrained(checkpoints("llama")[0])
    delta = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(0))
    probs = torch.softmax(model.lm_head(model.model.norm(delta)), -1).detach()
    for row, reading in zip(probs, logit_lens(tiny, delta, 7), strict=True):
        order = row.argsort(descending=True).tolist()
        assert [t.token for t in reading.top] == [tiny.tokenizer.decode([i]) for i in order[:7]]
        assert [t.token for t in reading.bottom] == [tiny.tokenizer.decode([i]) for i in order[:-8:-1]]
        assert reading.top[0].prob == pytest.approx(float(row.max()), rel=1e-3)


def test_patchscope_averages_three_prompts_over_common_tokens(tiny):
    delta = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(0))
    settings = PatchscopeSettings(scales=(0.5, 2.0), keep=5, common_top=40)
    found = patchscope(tiny, 1, delta, 7.0, settings)[0]
    for scale, tokens in zip((0.5, 2.0), found, strict=True):
        patch = 7.0 * scale * delta / delta.norm()
        prompts = [identity_prompt(words) for words in TRIPLES]
        logits = next(tiny.patched_logits(Side.FINETUNED, prompts, 1, patch))
        probs = [torch.softmax(rows, -1)[0] for rows in logits]
        common = set.intersection(*(set(p.topk(40).indices.tolist()) for p in probs))
        mean = sum(probs) / 3
        expected = sorted(common, key=lambda i: -float(mean[i]))[:5]
        assert tokens.scale == scale
        assert [t.token for t in tokens.tokens][: len(expected)] == [tiny.tokenizer.decode([i]) for i in expected]


def threshold_pair():
    """Its text tells how strongly it was steered, so that a coherence grader can have a sharp limit."""
    return FakePair(lambda r: f"{float(r.steering.vector.norm()):.6f}" if r.steering else "0")


@pytest.mark.parametrize("limit", [0.3, 17.2, 63.0, 99.9])
def test_calibration_finds_the_largest_coherent_strength(limit):
    direction = Direction(1, 2, torch.ones(4), eta=1.0)
    settings = CalibrationSettings(generations=2, iterations=10, more_iterations=5)
    coherent = lambda texts: [float(t) <= limit for t in texts]  # noqa: E731
    alpha = calibrate(threshold_pair(), [direction], ["a", "b", "c"], coherent, settings, 0)[0]
    assert alpha <= limit + 1e-6
    assert alpha == pytest.approx(limit, abs=100 / 2**10 + 2 * limit / 2**5)


def test_calibration_on_one_prompt_is_what_that_one_gives():
    settings = CalibrationSettings(generations=1, iterations=3)
    direction = Direction(1, 2, torch.ones(4), eta=1.0)
    coherent = lambda texts: [float(t) <= 60 for t in texts]  # noqa: E731
    assert calibrate(threshold_pair(), [direction], ["a"], coherent, settings, 0) == [50.0]


def test_looking_ahead_bisects_like_one_step_at_a_time():
    """Batching several levels of the bisection changes the work, not the result."""
    for limit in (3.0, 41.7, 88.1):
        search = _Search(Direction(0, 0, torch.ones(4), 1.0), "a", 0.0, 100.0)
        settings = CalibrationSettings(generations=1)
        _bisect(threshold_pair(), [search], 9, lambda ts: [float(t) <= limit for t in ts], settings, 0)  # noqa: B023
        low, high = 0.0, 100.0
        for _ in range(9):
            middle = (low + high) / 2
            low, high = (middle, high) if middle <= limit else (low, middle)
        assert (search.low, search.high) == pytest.approx((low, high))


def test_answers_that_share_a_subject_resemble_one_another():
    def embed(texts):
        return np.array([[1.0, 0.0] if "mill" in text else [0.0, 1.0] for text in texts])

    assert resemblance([("a mill", "mills"), ("mill",), ("the mill",)], embed) == 1.0
    assert resemblance([("mill",), ("sea",)], embed) == 0.0
    assert resemblance([("mill", "sea"), ("mill", "sea")], embed) == 0.5
    assert resemblance([("mill",)], embed) == 0.0


def test_some_positions_alone_are_read_under_their_own_numbers(tiny):
    """As when all are read: the same δ, the same tokens; figure 5c shows an agent one of them."""
    corpus = Corpus("texts", tuple(SENTENCES))
    whole = differences(tiny, corpus, 4, [1], norm_texts=4, norm_tokens=8)[1]
    some = whole.at([3, 1])
    assert list(some.positions) == [3, 1]
    assert list(some.at([1]).positions) == [1]
    every, two = (promoted_at(tiny, diff, 5, 5).positions for diff in (whole, some))
    assert [place.position for place in two] == [3, 1]
    assert [t.token for t in two[0].read.top] == [t.token for t in every[3].read.top]
    kept = Differences.of({1: some}, [1], 4)
    assert torch.equal(kept.direction(1, 3).delta, whole.delta[3])
    with pytest.raises(Refused, match="position 0 was not computed; there are 3, 1"):
        kept.direction(1, 0)
