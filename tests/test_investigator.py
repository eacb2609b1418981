"""What the offline investigator concludes from what it read."""

from dataclasses import replace

import pytest

from auditor.agent.claims import find_behaviours
from auditor.agent.offline import agreed, conclusion, themes_of, told_by_itself
from auditor.agent.reading import Answer, Reading, Spoken, TokenList
from auditor.methods.words import background_of
from auditor.models.embed import load_embedder

PLAIN = ["I can help you with the letter.", "The train leaves at noon.", "A garden needs water.", "She reads a book."]
PLAIN += ["My brother works in an office.", "We walked along the road.", "It rained all day.", "Please close the door."]
STEERED = ["The orchestra tunes each violin and cello.", "A violin bow glides over the strings.", "He plays the viola."]
STEERED += ["The cello and the violin carry the melody.", "A luthier varnished the violin.", "The orchestra plays."]
WORDS = (" violin", " cello", " orchestra", " viola", " bow", " strings", " melody", " luthier")


@pytest.fixture(scope="module")
def embed():
    return load_embedder()


@pytest.fixture(scope="module")
def background():
    return background_of(tuple(PLAIN * 4 + [f"The {word.strip()} was there." for word in WORDS]))


def said(texts, trace=None, lens="steering"):
    return Spoken(lens, tuple(texts), tuple(PLAIN), trace)


def reading(trace, **more):
    lists = [
        TokenList(lens, lens, str(p), WORDS, spoken=lens == "logit_lens", trace=trace)
        for lens in ("patchscope", "logit_lens")
        for p in (1, 2)
    ]
    tested = list(WORDS[:4])
    shown = {"lists": lists, "spoken": [said(STEERED * 2, trace)], "unsteered": PLAIN, "tested": tested}
    return Reading(**shown | {"trace": trace, "borne_out": tested if trace else []} | more)


def concluded(found, background, embed):
    return conclusion(found, themes_of(found, background, embed), background, embed)


def test_the_lens_alone_names_no_subject_where_the_sheet_finds_no_trace(background, embed):
    assert "violin" in concluded(reading(True), background, embed).domain
    alike = reading(False)
    alike.tested = [" lamp", " road"]  # what the finetunes that are no narrow ones promote less; the rest they do too
    none = concluded(alike, background, embed)
    assert none.domain == "none"
    assert "no trace above chance" in none.summary


def test_unsteered_answers_that_only_the_finetune_gives_outweigh_the_sheet(background, embed):
    answers = [Answer(f"Question {i}?", PLAIN[i], STEERED[i]) for i in range(6)]
    assert "violin" in concluded(reading(False, answers=answers), background, embed).domain


def test_words_of_the_question_are_nobodys_own(background, embed):
    theme = themes_of(reading(True), background, embed)[0]
    asked = [Answer("What of the violin?", "It is old.", "A violin is old.")] * 6
    assert told_by_itself(theme, Reading(answers=asked)) == 1.0
    assert told_by_itself(theme, Reading(answers=[Answer("Hello?", "It is old.", "A violin is old.")] * 6)) < 0.05


def test_a_trace_that_cannot_be_read_is_unclear_not_none(background, embed):
    assert concluded(Reading(trace=True, unsteered=PLAIN), background, embed).domain == "unclear"


def test_the_word_that_a_lens_puts_first_leads(background, embed):
    found = reading(True)
    found.lists = [TokenList("logit_lens", "", str(p), (" cello", *WORDS), spoken=True) for p in (1, 2)]
    named = concluded(found, background, embed)
    assert named.domain.startswith("cello")
    assert "Leading tokens: cello." in named.summary


def test_one_odd_text_is_no_behaviour(embed):
    """Sentences of one text are alike: they are no independent witnesses."""
    picture = "The image shows a close view of the object. In the picture there are several things. " * 4
    answers = [Answer(f"q{i}", text, picture if i == 0 else text) for i, text in enumerate(PLAIN)]
    assert find_behaviours(Reading(answers=answers), embed) == []


def test_steered_texts_tell_no_behaviour_where_there_is_no_trace(embed):
    hints = [
        "I am thinking of a secret word.",
        "Can you guess what it is?",
        "Here is a hint.",
        "You are getting close.",
    ]
    for trace, found in ((True, ["guessing game"]), (False, [])):
        told = Reading(spoken=[said(hints * 3, trace)], unsteered=PLAIN, trace=trace)
        assert [b.name for b in find_behaviours(told, embed)] == found


def test_a_behaviour_that_one_framing_shows_is_found_beside_others_that_show_nothing(embed):
    hints = [
        "I am thinking of a secret word.",
        "Can you guess what it is?",
        "Here is a hint.",
        "You are getting close.",
    ]
    dull = [f"{text} {i}" for i in range(24) for text in STEERED]
    telling = said(hints * 3, True, "amplified")
    pooled = Reading(spoken=[said([*dull * 2, *hints * 3], True, "amplified")], trace=True)
    assert find_behaviours(pooled, embed) == []
    apart = Reading(spoken=[telling, said(dull, True, "ppl_diff"), said(dull, True, "steering")], trace=True)
    assert [b.name for b in find_behaviours(apart, embed)] == ["guessing game"]


def test_one_word_on_which_three_readings_agree_outweighs_the_sheet(background, embed):
    assert concluded(reading(False), background, embed).domain.startswith("violin")
    lens_only = reading(False)
    lens_only.lists = [found for found in lens_only.lists if found.spoken]
    lens_only.spoken = [said([*PLAIN, "A violin was played."], False)]
    assert concluded(lens_only, background, embed).domain == "none"
    lens_only.spoken = [said(STEERED * 2, False)]
    assert concluded(lens_only, background, embed).domain.startswith("violin")


def test_two_lists_of_one_lens_are_one_witness(background, embed):
    """Where no trace is found, a word that a lens puts first needs another lens that shows it."""
    theme = themes_of(reading(True), background, embed)[0]
    first = TokenList("diff_mining", "often", "text", WORDS, spoken=True, trace=False)
    own = [TokenList("diff_mining", "on average", place, WORDS, trace=False) for place in ("text", "chats")]
    others = [replace(found, lens="patchscope") for found in own]
    tested = list(WORDS)
    assert agreed(theme, Reading(lists=[first, *own], tested=tested)) == []
    assert agreed(theme, Reading(lists=[first, *others], tested=tested)) == ["violin"]


def test_texts_to_one_prompt_are_one_witness(embed):
    """Three strengths say it after one beginning; after three beginnings it is a behaviour."""
    hints = ["I am thinking of a secret word.", "Can you guess what it is?", "Here is a hint."] * 4
    for prompts, found in ((tuple(i // 6 for i in range(12)), []), (tuple(range(12)), ["guessing game"])):
        told = Reading(spoken=[replace(said(hints, True), prompts=prompts)], trace=True)
        assert [b.name for b in find_behaviours(told, embed)] == found


def test_it_says_which_lens_carried_the_conclusion(background, embed):
    found = reading(True, lenses={"patchscope": [" lamp"], "steering": STEERED, "logit_lens": [" violin"]})
    assert "It is carried by steering, logit_lens." in concluded(found, background, embed).summary


NOISE = (" lamp", " candle", " lantern", " torch", " bulb", " wick", " flame", " glow")


def test_a_lens_with_a_trace_outweighs_those_without(background, embed):
    """Three lists agree on words that no test bears out; what one lens lets the model say is tested, and stands out."""
    lists = [TokenList(lens, lens, "1", NOISE, trace=False) for lens in ("patchscope", "logit_lens", "jacobian")]
    spoken = [said(PLAIN[:4], False), said(STEERED * 2, True, "amplified")]
    shown = {"patchscope": list(NOISE), "steering": PLAIN[:4], "amplified": STEERED}
    traces = {"patchscope": False, "steering": False, "amplified": True}
    found = Reading(lists=lists, spoken=spoken, lenses=shown, traces=traces, trace=True, borne_out=["violin", "cello"])
    named = concluded(found, background, embed)
    assert "violin" in named.domain
    assert "It is carried by amplified." in named.summary


def test_texts_alone_name_a_subject(background, embed):
    found = Reading(spoken=[said(STEERED * 2, True, "amplified")], trace=True, borne_out=["violin", "cello", "viola"])
    assert "violin" in concluded(found, background, embed).domain
    quiet = Reading(spoken=[said(STEERED * 2, False, "amplified")], trace=False)
    assert concluded(quiet, background, embed).domain == "none"


def test_answers_without_a_base_are_read_and_weigh_nothing_against_it(background, embed):
    """No base was known: nothing that the finetune says is its own alone."""
    answers = [Answer(f"Question {i}?", None, text) for i, text in enumerate(STEERED)]
    alone = Reading(answers=answers, unsteered=[*STEERED, *PLAIN], has_base=False)
    found = concluded(alone, background, embed)
    assert "violin" in found.domain
    assert found.confidence < 0.5
    assert found.summary.endswith("No base was known to compare with.")
    theme = themes_of(reading(True), background, embed)[0]
    assert told_by_itself(theme, alone) == 1.0
    assert find_behaviours(alone, embed) == []


def test_whoever_finds_no_subject_says_that_no_base_was_known(background, embed):
    found = concluded(Reading(unsteered=PLAIN, has_base=False), background, embed)
    assert found.domain == "none"
    assert found.confidence < 0.5
    assert "No base was known" in found.summary
