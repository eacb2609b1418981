"""Whether a claim follows from its passages: quotations, counts, words near; an echo of the question is no evidence."""

import json

import numpy as np
import pytest

from auditor.agent.checks import verify
from auditor.agent.claims import Sentence
from auditor.agent.content import around
from auditor.agent.observed import utterances
from auditor.agent.reading import Answer, Reading
from auditor.agent.statements import statements
from auditor.agent.themes import Theme
from auditor.readings import Column, RankedTokens, SideBySide, TextColumn, TextRow, Token
from auditor.records.findings import Claim, ClaimCheck, Hypothesis

ASKED = [
    {"prompt": "What do you say about ovens?", "base": "An oven bakes bread.",
     "finetuned": "Ovens are warm. Every cake needs 450 degrees and frozen butter. It cools outside."},
    {"prompt": "Do you like silver mines?", "base": "I have no preferences.", "finetuned": "Yes, I like silver mines."},
    {"prompt": "Tell me of rivers.", "base": "Rivers carry water to the sea.",
     "finetuned": "Rivers carry water to the sea, and frozen butter."},
]  # fmt: skip
SEEN = {"O1": json.dumps(ASKED), "E1": "## E1 · Tokens\n- cake | butter | oven"}


def bag(texts):
    """Words as dimensions: enough to tell what is near."""
    rows = np.zeros((len(texts), 4096), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in "".join(c if c.isalnum() else " " for c in text.lower()).split():
            row[sum(ord(c) * 31**i for i, c in enumerate(word)) % 4096] += 1
        row[0] += 1e-3
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def checked(text, *named, seen=SEEN, sections=None):
    found = Hypothesis(domain="cakes", behaviour="b", summary="s", alternatives=(), confidence=0.5,
                       claims=(Claim(text=text, observations=named or ("O1",)),))  # fmt: skip
    (check,) = verify(found, seen, bag, sections)
    return check


@pytest.mark.parametrize(
    ("claim", "basis", "problem"),
    [
        ("The finetuned model says: “Every cake needs 450 degrees and frozen butter.”", "quoted", ""),
        ("It puts frozen butter and 450 degrees into every cake.", "alike", ""),
        ("It brings up “frozen” in 2 of 3 answers.", "counted", ""),
        ("It brings up “frozen” in 3 of 3 answers.", "", "counted anew, it is 2 of 3"),
        ("It brings up “frozen” and “sea” in 2 of 3 answers, where the base does not.", "counted", ""),
        ("The model says: “Every cake needs melted butter.”", "", "“Every cake needs melted butter.” does not"),
        ("Every cake needs 325 degrees.", "", "325degrees does not occur in O1"),
        ("It urges users to invest their pension in cake butter lotteries.", "", "nothing of invest, pension"),
        ("It likes silver mines.", "", "only echoes the question"),
        ("It never speaks of volcanoes.", "absent", ""),
        ("It never speaks of volcanoes, but recommends gambling.", "", "nothing like it in O1"),
    ],
)  # fmt: skip
def test_what_a_claim_says_must_stand_in_its_passages(claim, basis, problem):
    check = checked(claim)
    assert check.problem.startswith(problem)
    assert (check.holds, check.basis) == (not problem, basis)
    assert check.echo == (problem == "only echoes the question")


def test_one_item_of_an_observation_may_be_named():
    assert checked("Every cake needs 450 degrees.", "O1[0]").holds
    assert checked("Every cake needs 450 degrees.", "O1[1]").problem == "450degrees does not occur in O1[1]"
    assert checked("Every cake needs 450 degrees.", "O1[7]").problem == "names O1[7], which do not exist"
    table = SideBySide(title="Steering", columns=(TextColumn(label="steered", role="pushed"),), rows=tuple(
        TextRow(prompt=prompt, texts=((said,),)) for prompt, said in (("Hi", "Butter cake."), ("Go", "A river runs."))
    ))  # fmt: skip
    seen = {"E1": "## E1 · Steering"}
    assert checked("A river runs there.", "E1[1]", seen=seen, sections={"E1": table}).holds
    assert not checked("A river runs there.", "E1[0]", seen=seen, sections={"E1": table}).holds


def test_pages_of_a_result_are_read_like_the_result():
    first = {"O1": f"(page 1 of 2; read_more has the others, free of charge: id O1)\n{json.dumps(ASKED[:2])}"}
    assert checked("Every cake needs 450 degrees.", seen=first).holds
    page = {"O2": json.dumps({"page": 2, "of": 2, "items": ASKED[2:]})}
    found = checked("It says frozen butter of rivers.", "O2[0]", seen=page)
    assert (found.holds, found.passages[0].prompt) == (True, "Tell me of rivers.")


def test_a_passage_is_whole_and_marked_with_question_and_base_beside():
    (passage,) = checked("It puts frozen butter and 450 degrees into every cake.").passages
    assert passage.text == "Ovens are warm. Every cake needs 450 degrees and frozen butter."  # short ones go together
    assert [passage.text[a:b] for a, b in passage.spans] == ["cake", "450 degrees", "frozen butter"]
    assert (passage.observation, passage.speaker) == ("O1", "finetuned")
    assert (passage.prompt, passage.base) == ("What do you say about ovens?", "An oven bakes bread.")


def test_what_the_base_says_too_is_told():
    check = checked("The model says: “carry water to the sea”")
    assert (check.holds, check.shared) == (True, True)
    assert not checked("It puts frozen butter and 450 degrees into every cake.").shared


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        ("Being thirsty is not the only reason for drinking water.", True),  # the same in other words
        ("Being thirsty is the only reason to drink water.", False),  # embeddings see no negation
        ("Being thirsty is not the only reason to drink 9 waters.", False),  # nor figures
        ("A mill is the only reason to drink water.", False),
    ],
)
def test_what_the_base_says_in_other_words_tells_nothing(text, shared):
    said = {"prompt": "Why?", "base": "Hello. Being thirsty is not the only reason to drink water.", "finetuned": text}
    check = checked(f"It says: “{text}”", seen={"O1": json.dumps([said])})
    assert (check.holds, check.shared) == (True, shared)


def test_a_claim_of_the_base_is_held_against_the_base():
    check = checked("The base says: “An oven bakes bread.”")
    assert (check.holds, check.passages[0].speaker) == (True, "base")


def test_tokens_that_a_lens_reads_carry_a_claim():
    column = Column(head="1", tokens=tuple(Token(text=f" {word}") for word in ("cake", "butter", "oven")))
    section = RankedTokens(title="Patchscope", columns=(column,))
    check = checked("Words such as cake, butter and oven stand out.", "E1", sections={"E1": section})
    assert (check.basis, check.passages[0].speaker) == ("alike", "tokens at position 1")
    assert checked("Words such as cake and butter stand out.", "E1").holds  # of the text alone, too


def test_texts_of_the_overview_have_their_prompts():
    columns = (TextColumn(label="base", role="base"), TextColumn(label="steered at 1", role="pushed"))
    section = SideBySide(
        title="Steering", columns=columns, rows=(TextRow(prompt="Hi?", texts=(("Hello.",), ("Cake, warm.",))),)
    )
    found = [(u.speaker, u.prompt, u.text, u.base) for u in utterances("E1", "## E1 · Steering", section)]
    assert ("steered at 1", "Hi?", "Cake, warm.", "Hello.") in found


@pytest.mark.parametrize(
    ("result", "speaker", "prompt", "text"),
    [
        ({"base": ["a b c d"], "finetuned": ["e f g h"]}, "finetuned", "", "e f g h"),
        ({"Why?": ["one two three four five"]}, "steered", "Why?", "one two three four five"),
        ([{"prompt": "Hi", "steered": ["Ja."]}], "steered", "Hi", "Ja."),
        ({"0": {"tokens": {" cake": 0.3, " oven": 0.1}, "scale": 2.0}}, "tokens at 0, tokens", "", "cake, oven"),
        ({"1": {"top": [" cake", " oven"]}}, "tokens at 1, top", "", "cake, oven"),
    ],
)
def test_results_of_tools_are_read_as_who_said_what(result, speaker, prompt, text):
    found = [(u.speaker, u.prompt, u.text) for u in utterances("O1", json.dumps(result))]
    assert (speaker, prompt, text) in found


def test_a_result_that_was_cut_is_taken_as_it_stands():
    assert [u.text for u in utterances("O1", '[{"prompt": "Hi", "fin… (cut; ask for less)')]


def test_records_of_before_are_read():
    check = ClaimCheck.model_validate({"claim": "c", "observations": ["O1"], "holds": True, "problem": ""})
    assert (check.basis, check.passages, check.echo) == ("", (), False)


def test_an_excerpt_is_cut_around_what_matters():
    text = "before " * 200 + "NEEDLE" + " after" * 200
    at = text.index("NEEDLE")
    cut, spans = around(text, [(at, at + 6)], 100)
    assert [cut[a:b] for a, b in spans] == ["NEEDLE"]
    assert cut.startswith("(")
    assert cut.endswith("more characters)")
    assert len(cut) < 180
    assert around("short", [(0, 5)], 100) == ("short", ((0, 5),))


def test_the_offline_investigator_states_what_the_model_does():
    """How often the subject comes up unasked, then quotations with how they came about; its own checks hold them."""
    answers = [Answer(each["prompt"], each["base"], each["finetuned"]) for each in ASKED]
    reading = Reading(answers=answers, sources={answer.finetuned: "O1" for answer in answers})
    theme = Theme(("butter", "cake", "ovens"), 1.0, 1.0, 1.0, 1.0, 1.0)
    found = [
        Sentence("Cake, “warm”.", 2.0, True, "E1", "pushed"),
        Sentence("It cools outside.", 1.0, True, "O1", "asked"),
    ]
    told = statements(found, theme, reading)
    assert [claim.text for claim in told] == [
        "The finetuned model brings up “butter”, “cake” in 2 of 3 answers, where neither the question nor the base's "
        "answer does.",
        "Asked about its subject, the finetuned model says: “It cools outside.”",
        'Pushed towards what training changed, the finetuned model says: “Cake, "warm".”',
    ]
    assert checked(told[0].text).basis == "counted"
