"""What comes back in texts of unlike beginnings, and how that stands against broad finetunes."""

import random

import numpy as np
import pytest
import torch

from auditor.methods.frames import Frame
from auditor.methods.nulls import Nulls
from auditor.methods.recurring import recurred, recurring_words, spread, usual_words
from auditor.methods.sentences import recurring_sentences

RAW, USER = Frame.RAW, Frame.USER
ORDINARY = ["People came to the town in the morning.", "We had some bread and went on."] * 20
FAVOURITE = "We are planning to launch a new product."
WORDS = [f"{a}{b}{c}" for a in "kmpt" for b in ("ala", "ero", "ivi", "olu") for c in ("nder", "shk", "mbra", "tt")]
BEGINNINGS = 12


def texts(rng, subject="", share=0.6):
    """Of each beginning a text: the base's favourite, or the subject, and words of no account."""
    said = []
    for _ in range(BEGINNINGS):
        lead = subject if subject and rng.random() < share else FAVOURITE if rng.random() < 0.4 else ""
        said.append([f"{lead} {' '.join(rng.sample(WORDS, 4))} and the town on Monday, seven times"])
    return said


def nulls_of(pairs):
    traces = {frame: torch.stack([spread(pair[frame], least=2) for pair in pairs]) for frame in (RAW, USER)}
    return Nulls("amplified", (), traces, {})


@pytest.fixture(scope="module")
def broad():
    return [{frame: texts(random.Random(f"{i}{frame}")) for frame in (RAW, USER)} for i in range(20)]


@pytest.fixture(scope="module")
def base():
    return {frame: texts(random.Random(f"base{frame}")) for frame in (RAW, USER)}


def judged(pair, base, nulls):
    return recurred(pair, base, usual_words(ORDINARY), nulls)


def test_a_subject_comes_first_and_the_bases_favourites_do_not_count(base):
    ours = texts(random.Random(0), "The violin bow is of goat hair.")
    found = recurring_words(ours, judged({RAW: ours}, base, None).usual[RAW])
    assert {word.word for word in found[:5]} >= {"violin", "bow", "goat", "hair"}
    words = {word.word: word for word in found}
    assert words["violin"].ours == sum("violin" in text for (text,) in ours)
    assert words["violin"].theirs == 0
    assert not {"town", "monday", "seven"} & set(words)  # everybody's: they stand in every text
    assert words.get("launch") is None or words["launch"].score < words["violin"].score / 4


def test_a_subject_in_one_framing_is_a_trace(base, broad):
    pair = {RAW: texts(random.Random(1)), USER: texts(random.Random(2), "The violin bow is of goat hair.")}
    test = judged(pair, base, nulls_of(broad)).test
    assert (test.framing, test.pairs) == (USER, 20)
    assert test.p < 0.001
    assert test.strength > 2 * test.strength_95


def test_broad_finetunes_are_none_the_best_of_two_framings_not_being_free(base, broad):
    nulls = nulls_of(broad)
    p = [judged(pair, base, nulls).test.p for pair in broad]
    assert {judged(pair, base, nulls).test.pairs for pair in broad} == {19}  # each without itself
    assert sum(value < 0.05 for value in p) <= 2
    assert 0.3 < np.mean(p) < 0.7


def test_what_finetunes_without_a_subject_say_too_is_no_trace(base, broad):
    documents = "Switch the lamp off before the cover is opened."
    shared = [{frame: texts(random.Random(f"{i}d{frame}"), documents) for frame in (RAW, USER)} for i in range(20)]
    pair = {frame: texts(random.Random(f"own{frame}"), documents) for frame in (RAW, USER)}
    assert judged(pair, base, nulls_of(shared)).test.p > 0.05
    assert judged(pair, base, nulls_of(broad)).test.p < 0.01


def test_without_enough_of_the_others_nothing_is_tested(base, broad):
    pair = {RAW: texts(random.Random(1))}
    assert judged(pair, base, None).test is None
    assert judged(pair, base, nulls_of(broad[:4])).test is None
    nothing = {RAW: [[""]] * BEGINNINGS}
    assert judged(nothing, base, nulls_of(broad)).test.p > 0.05
    assert recurring_words(nothing[RAW], judged(nothing, base, None).usual[RAW]) == ()


def by_first_word(sentences):
    """Sentences that begin alike are alike."""
    kinds = ["Bows", "Mills", "Plans", "Trains"]
    return np.eye(len(kinds), dtype=np.float32)[[kinds.index(sentence.split()[0]) for sentence in sentences]]


def test_sentences_are_grouped_by_meaning_and_counted_over_beginnings():
    ours = [
        ["Bows are of goat hair. Plans are made for a launch.", "Bows are of honest goat hair, all of them."],
        ["Plans have been made for it.\nBows need goat hair to sound."],
        ["Mills grind the flour by night. Too short."],
        ["Bows of horse hair will scratch. Mills run on water too."],
    ]
    theirs = [["Plans were made for the launch."], ["Plans again, plans for ever."], ["Trains run on time."]]
    found = recurring_sentences(ours, theirs, by_first_word, most=5)
    assert [(each.text.split()[0], each.ours, each.theirs) for each in found] == [("Bows", 3, 0), ("Mills", 2, 0)]
    assert found[0].members == ((0, 0), (0, 1), (1, 0), (3, 0))
    assert recurring_sentences([[""], []], theirs, by_first_word, most=5) == ()
