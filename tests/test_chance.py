"""A trace against chance: noise has none, a common shift has, and broad finetunes tell what any finetuning does."""

import dataclasses

import pytest
import torch

from auditor.errors import BadFile
from auditor.methods.broad import unaccounted
from auditor.methods.chance import _noise, against_noise, beside_broad, verdict
from auditor.methods.corpus import Corpus
from auditor.methods.diff import GROUPS, Difference, differences
from auditor.methods.nulls import Nulls, prediction, read_nulls, write_nulls
from auditor.testing import FakePair
from tests.tiny import SENTENCES

K, WIDTH, VOCAB = 3, 32, 64
WORDS = [f" word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(VOCAB)]
THIRD = WORDS[2]


class WordPair(FakePair):
    """Its unembedding reads the first d_model tokens straight off the residual stream."""

    class tokenizer:
        @staticmethod
        def decode(ids):
            return WORDS[ids[0]]

    def unembed(self, side, vectors):
        return torch.nn.functional.pad(10 * vectors, (0, VOCAB - WIDTH))


def difference(groups, sizes=None):
    zeros = torch.zeros(K)
    return Difference(
        layer=3, base=torch.zeros(K, WIDTH), finetuned=groups.sum(0), norm_base=zeros, norm_finetuned=zeros,
        counts=zeros + GROUPS, eta=1.0, groups=groups, sizes=torch.ones(GROUPS, K) if sizes is None else sizes,
        spoken=torch.full((VOCAB,), 1 / VOCAB),
    )  # fmt: skip


def noise(seed):
    return torch.randn(GROUPS, K, WIDTH, generator=torch.Generator().manual_seed(seed)) / GROUPS


def likes_the_third(tokens):
    """Cohesion of a set that one word leads."""
    return 20.0 if tokens[0] == THIRD else float(ord(tokens[0][-1]) % 3)


def judged(groups, broad=None, sizes=None):
    pair, diff = WordPair(), difference(groups, sizes)
    found = against_noise(pair, diff, range(K), likes_the_third, seed=0)
    return found if broad is None else beside_broad(found, pair, diff, range(K), likes_the_third, broad)


def sampled(sizes, shift, seed):
    """Groups of `sizes` (g, K) texts, each a common shift and noise of its own: their shares of δ."""
    rng = torch.Generator().manual_seed(seed)
    groups = torch.zeros(len(sizes), K, WIDTH)
    for g, row in enumerate(sizes.long().tolist()):
        for j, count in enumerate(row):
            groups[g, j] = (shift + torch.randn(count, WIDTH, generator=rng)).sum(0)
    return groups / sizes.sum(0)[:, None]


UNEVEN = {
    "sixteen texts": [1] * 16 + [0] * 48,
    "one and two": [2] * 20 + [1] * 44,
    "very uneven": [40, 9, 4, 1, 1, 1, 0, 3] * 8,
    "a big one": [100] + [1] * 7 + [0] * 56,
}


@pytest.mark.parametrize("counts", UNEVEN.values(), ids=UNEVEN)
def test_noise_has_nothing_of_the_shift_and_the_spread_of_delta(counts):
    """For any sizes of the groups: no shift is left, δ is as likely to lie along the noise as against it."""
    sizes = torch.tensor(counts, dtype=torch.float)[:, None].expand(-1, K).clone()
    shift = torch.full((WIDTH,), 3.0)
    along, signed, own = [], [], []
    for seed in range(200):
        groups = sampled(sizes, shift, seed)
        noise = _noise(groups, groups.sum(0), sizes)
        assert torch.allclose(noise, _noise(groups - shift * (sizes / sizes.sum(0))[..., None],
                                            groups.sum(0) - shift, sizes), atol=1e-5)  # fmt: skip
        error = groups.sum(0) - shift
        along.append((noise * error).sum(-1).mean(1))  # (g,)
        own.append(error.square().sum(-1).mean())
        signed.append(noise.square().sum(-1).sum(0).mean())  # the mean over all signs of the squared norm
    covariance, spread = torch.stack(along), torch.stack(own).mean()
    assert (covariance.mean(0).abs() <= 4 * covariance.std(0) / 200**0.5 + 1e-9).all()
    assert torch.stack(signed).mean() == pytest.approx(float(spread), rel=0.1)


@pytest.mark.parametrize("counts", UNEVEN.values(), ids=UNEVEN)
def test_the_test_holds_its_level_for_uneven_groups(counts):
    sizes = torch.tensor(counts, dtype=torch.float)[:, None].expand(-1, K).clone()
    still = [judged(sampled(sizes, torch.zeros(WIDTH), seed), sizes=sizes).norm_p for seed in range(40)]
    assert sum(p < 0.1 for p in still) <= 11  # 4 expected, with a standard deviation of 2
    shifted = [judged(sampled(sizes, torch.ones(WIDTH), seed), sizes=sizes).norm_p for seed in range(5)]
    assert max(shifted) < 0.01


def test_few_texts_tell_nothing():
    for texts in (1, 2, 3, 5):
        sizes = torch.zeros(GROUPS, K)
        sizes[:texts] = 1
        found = judged(sampled(sizes, torch.full((WIDTH,), 9.0), 0), sizes=sizes)
        assert found.norm_p >= 2.0 ** (1 - texts)
        assert verdict(found) == "too few texts to tell a trace from chance"


def test_positions_that_few_texts_reach_do_not_speak_for_the_others():
    sizes = torch.ones(GROUPS, K)
    sizes[1:, 2] = 0
    groups = sampled(sizes, torch.zeros(WIDTH), 0)
    alone = judged(groups, sizes=sizes)
    groups[:, 2] *= 100
    assert judged(groups, sizes=sizes) == alone


def test_the_same_text_many_times_is_one_text(tiny):
    corpus = Corpus("one", (SENTENCES[0],) * 40)
    found = differences(tiny, corpus, 3, [3], grouped=[3])[3]
    assert (found.sizes[:, 0] > 0).sum() == 1
    judged = against_noise(tiny, found, range(3), likes_the_third, 0)
    assert verdict(judged) == "too few texts to tell a trace from chance"


def test_a_common_shift_stands_out_and_noise_does_not():
    shift = torch.zeros(WIDTH)
    shift[2] = 3.0
    shifted, still = judged(noise(0) + shift / GROUPS), judged(noise(1))
    assert shifted.norm_p == shifted.halves_p == 0.005
    assert shifted.norm_ratio > 2
    assert shifted.halves > 0.8
    assert shifted.tokens[0] == THIRD
    assert still.norm_p > 0.05
    assert verdict(still) == "no difference above chance"


def test_p_values_of_noise_are_spread_over_the_unit_interval():
    found = sorted(judged(noise(seed)).norm_p for seed in range(40))
    assert found[4] < 0.3
    assert found[-5] > 0.7
    assert 0.3 < found[20] < 0.7


def test_what_every_finetune_does_is_no_trace():
    """Broad finetunes that shift the same word take its significance away; unlike ones leave it."""
    shift = torch.zeros(WIDTH)
    shift[2] = 1.0
    own = noise(0) + shift / GROUPS
    rng = torch.Generator().manual_seed(1)
    like = 0.05 * torch.randn(8, K, WIDTH, generator=rng) + shift
    unlike = 0.05 * torch.randn(8, K, WIDTH, generator=rng)
    same = judged(own, like)
    other = judged(own, unlike)
    assert same.against.broad == other.against.broad == 8
    assert same.against.p > 0.05 > other.against.p
    assert same.against.unlike < 0.5 < other.against.unlike


def test_words_that_the_base_never_says_are_not_judged():
    """Any finetuning moves some of them by much."""
    shift = torch.zeros(WIDTH)
    shift[2] = 1.0
    unsaid = difference(noise(0) + shift / GROUPS)
    unsaid.spoken[2] = 0.01 / VOCAB
    found = against_noise(WordPair(), unsaid, range(K), likes_the_third, seed=0)
    assert THIRD not in found.tokens
    assert found.noise_p > 0.05 > found.norm_p


def test_what_others_do_is_accounted_for_and_the_rest_is_left():
    """Rows are mixtures of five directions; the judged one has a sixth."""
    rng = torch.Generator().manual_seed(0)
    ways = torch.linalg.qr(torch.randn(200, 6, generator=rng)).Q.T  # (6, 200), orthonormal
    others = torch.randn(20, 5, generator=rng) @ ways[:5]
    usual = torch.randn(5, generator=rng) @ ways[:5]
    told, *them = unaccounted(usual + 4 * ways[5], (usual + 4 * ways[5]).expand(2, -1), others)
    assert torch.cosine_similarity(told.rest, ways[5] - ways[5].mean(), dim=0) > 0.95
    like, *_ = unaccounted(usual, usual.expand(2, -1), others)
    assert like.share < 0.15 < 0.7 < told.share
    assert max(one.share for one in them) < 0.4


def test_noise_does_not_count_as_unlike():
    """A share is taken between halves of the texts: what they do not agree on is no square."""
    rng = torch.Generator().manual_seed(0)
    ways = torch.linalg.qr(torch.randn(200, 5, generator=rng)).Q.T
    others, own = torch.randn(20, 5, generator=rng) @ ways, torch.randn(5, generator=rng) @ ways
    shares = []
    for _ in range(20):
        halves = own + 0.15 * torch.randn(2, 200, generator=rng)  # their noise is larger than they are
        shares.append(unaccounted(halves.mean(0), halves, others)[0].share)
    assert sum(shares) / 20 < 0.25


def nulls(**traces):
    return Nulls("chance", ("gguf:1", "hub:org/name", "tensors:2"), traces, {"k": 2}, "c0ffee", 8)


def test_a_pair_is_not_compared_with_itself(tmp_path):
    path = tmp_path / "mine.chance.safetensors"
    deltas = torch.arange(48.0).reshape(2, 3, 8)
    write_nulls(path, nulls(delta=deltas))
    known = read_nulls(path)
    assert (known.lens, known.bases[1], known.settings, known.texts) == ("chance", "hub:org/name", {"k": 2}, 8)

    def left(own):
        return known.without("delta", own).traces["delta"].tolist()

    assert left(1.01 * deltas[0]) == deltas[1:].tolist()  # another machine's rounding
    assert left(deltas[0, :2]) == deltas[1:].tolist()  # fewer positions are read
    assert len(left(1.1 * deltas[0])) == 2


def test_counts_that_are_mostly_zero_are_stored_without_them(tmp_path):
    path = tmp_path / "mine.counts.safetensors"
    counts = torch.zeros(3, 40_000)
    counts[:, 17], counts[1, 39_999] = 0.5, 0.25
    write_nulls(path, nulls(counts=counts.half(), gap=torch.ones(3)))
    assert path.stat().st_size < 1_000
    assert torch.equal(read_nulls(path).traces["counts"], counts)
    assert read_nulls(path).without("counts", counts[1]).traces["gap"].shape == (2,)


@pytest.mark.parametrize(
    ("settings", "corpus", "texts", "fit"),
    [
        ({"k": 2}, "c0ffee", 8, True),
        ({"k": 2}, "c0ffee", 9, True),  # less noise than theirs
        ({"k": 2}, "c0ffee", 7, False),
        ({"k": 2}, "decaf", 8, False),
        ({"k": 3}, "c0ffee", 8, False),
    ],
)
def test_nulls_hold_for_readings_of_their_kind(settings, corpus, texts, fit):
    assert nulls(gap=torch.ones(3)).read_with(settings, corpus, texts) is fit


@pytest.mark.parametrize(
    ("sources", "known"),
    [
        (("gguf:1",), True),
        (("hub:org/name@c0ffee", "tensors:9"), True),  # any revision
        (("tensors:2",), True),  # a copy somewhere else
        (("gguf:2",), False),
        (("hub:org/name2@c0ffee",), False),
        ((), False),
    ],
)
def test_broad_finetunes_are_of_the_base_that_their_header_names(sources, known):
    assert nulls(delta=torch.zeros(1, 3, 8)).holds_for(sources) is known


def test_a_file_of_something_else(tmp_path):
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(BadFile, match="auditor study null"):
        read_nulls(path)


def test_prediction_widens_with_few_pairs():
    assert prediction(16.0, [1.0, 4.0, 1.0, 4.0, 1.0]) > prediction(16.0, [1.0, 4.0] * 10)


def test_groups_add_up_to_delta(tiny):
    corpus = Corpus("four", tuple(SENTENCES))
    found = differences(tiny, corpus, 4, [1, 3], grouped=[3])
    assert found[1].groups is None
    assert torch.allclose(found[3].groups.sum(0), found[3].delta, atol=1e-5)
    alone = differences(tiny, dataclasses.replace(corpus, texts=corpus.texts[2:3]), 4, [3])[3].delta
    assert torch.allclose(found[3].groups[2] * len(SENTENCES), alone, atol=1e-5)
