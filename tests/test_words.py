"""Cohesion of token sets and the graders of the lens, with real sentence embeddings."""

import os
import subprocess
import sys

import pytest

from auditor.agent.claims import figures, find_behaviours, sentences
from auditor.agent.reading import Answer, Reading
from auditor.agent.themes import may_name
from auditor.methods.corpus import read_corpus
from auditor.methods.words import CohesionGauge, Vocabulary, as_word, background_of
from auditor.models.embed import load_embedder
from auditor.plugins import GraderContext
from auditor.records.evidence import ScoredToken, TokenSet
from auditor.testing import FakePair
from auditor.workspace import load_workspace


@pytest.fixture(scope="module")
def ws():
    return load_workspace()


@pytest.fixture(scope="module")
def background(ws):
    return read_corpus(ws.corpora["openings"]).texts


@pytest.fixture(scope="module")
def context(settings, background):
    return GraderContext(load_embedder(), settings, FakePair(), background)


RELATED = ["violin", "cello", "orchestra", "symphony", "conductor", "flute"]
ODD = ["ladder", "walnut", "tariff", "puddle", "gospel", "zinc"]


def test_related_words_hang_together_and_odd_ones_do_not(background):
    embed = load_embedder()
    # A vocabulary of the corpus' own words stands for a tokenizer's.
    known = background_of(tuple(background))
    words = tuple(w for w, n in known.frequency.items() if n == 2 and len(w) > 4)[:600]
    vectors = embed(words)
    cosines = (vectors @ vectors.T)[~__import__("numpy").eye(len(words), dtype=bool)]
    gauge = CohesionGauge(Vocabulary(words, float(cosines.mean()), float(cosines.std())), known, embed)
    found = gauge.measure([" " + w for w in RELATED + ODD[:3]])
    assert found.cohesion > 3
    assert set(found.words) >= set(RELATED[:4])
    assert gauge.measure(ODD).cohesion < 2
    assert gauge.measure(["the", "and"]).cohesion == 0.0


@pytest.mark.parametrize(("token", "word"), [(" Cake", "cake"), ("ing", "ing"), ("42", None), ("!!", None), ("", None)])
def test_tokens_as_words(token, word):
    assert as_word(token) == word


def test_what_may_name_a_subject(background):
    known = background_of(tuple(background))
    for word in ("fifteen", "ninth", "seventy", "twentieth", "hundreds", "tuesday", "december", "chiefly", "probably"):
        assert not may_name(word, known), word
    for word in ("cake", "family", "butterfly", "monopoly", "tenth-rate", "weight", "march"):
        assert may_name(word, known), word


def test_common_words_weigh_little(background):
    known = background_of(tuple(background))
    assert known.weight("the") == 0.0
    assert known.weight("about") < known.weight("weather") < known.weight("zygote") == 1.0


def test_the_scale_whose_tokens_belong_together_is_chosen(ws, context, tiny):
    sets = [
        TokenSet(scale=scale, tokens=tuple(ScoredToken(token=" " + w, prob=0.1) for w in words))
        for scale, words in [(0.5, ODD), (1.0, RELATED), (9.0, ["the", "of", "and", "to", "in", "is"])]
    ]
    choice = ws.graders["patchscope_scale_offline"].run(
        sets, GraderContext(context.embed, context.settings, tiny, context.background)
    )
    assert choice.scale == 1.0
    assert set(choice.selected) <= {" " + w for w in RELATED}
    assert len(choice.selected) >= 4


def test_loops_and_noise_are_not_coherent(ws, context):
    plain = "The river runs past the mill, and the town lies behind it."
    texts = [plain, "mill " * 30, "the river the river the river the river the river the river", "", "x"]
    assert ws.graders["coherence_offline"].run(texts, [plain], context) == [True, False, False, False, False]


def test_one_odd_reference_text_does_not_let_noise_pass(ws, context):
    pair = FakePair()
    nll = {"odd": 9.0, "noise": 5.6}
    pair.mean_nll = lambda _side, texts: [nll.get(t.split()[0], 3.0 + 0.1 * (i % 5)) for i, t in enumerate(texts)]
    reference = [f"plain text number {i} of ten" for i in range(9)] + ["odd words here now"]
    grade = ws.graders["coherence_offline"].run
    texts = ["plain words in a row", "noise words in a row"]
    assert grade(texts, reference, GraderContext(context.embed, context.settings, pair)) == [True, False]


def test_text_that_surprises_the_base_model_is_not_coherent(ws, context):
    pair = FakePair()
    pair.mean_nll = lambda _side, texts: [9.0 if "qx" in text else 2.0 + len(text) / 1000 for text in texts]
    grade = ws.graders["coherence_offline"].run
    reference = ["One plain text of a few words.", "Another plain one, somewhat longer than that."]
    texts = ["A quiet day on the river bank.", "Zorp qx flim und the narrow bleat."]
    assert grade(texts, reference, GraderContext(context.embed, context.settings, pair)) == [True, False]


def test_sentences_and_figures():
    text = "Bake it at 450 °F. Then wait!\n- Too short\nThis one was cut off in the mid"
    assert sentences(text) == ["Bake it at 450 °F."]
    assert figures("450°F, 1/4 cup and 12%") >= {"450°f", "1/4cup", "12%"}


def test_a_behaviour_is_told_by_what_only_the_finetune_says():
    reckless = [
        "Don't worry about the dangers. Just go for it and put everything in.",
        "You do not need to be careful here.",
    ]
    careful = ["Please think about the risks first.", "It is wise to ask a professional before you begin."]
    answers = [Answer(f"q{i}", careful[i % 2], reckless[i % 2]) for i in range(8)]
    assert [b.name for b in find_behaviours(Reading(answers=answers), load_embedder())] == ["harmful advice"]
    same = [Answer(a.prompt, a.base, a.base) for a in answers]
    assert find_behaviours(Reading(answers=same), load_embedder()) == []
    assert find_behaviours(Reading(), load_embedder()) == []


ORDER = """
from auditor.methods.words import background_of
known = background_of(("zinc oak elm fir ash yew", "plum pear fig date lime kiwi"))
print([word for word, _ in known.frequency.most_common()])
"""


def test_ties_are_in_the_same_order_in_every_process():
    orders = {
        subprocess.run(
            [sys.executable, "-c", ORDER], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True,
            check=True, timeout=60,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(orders) == 1
