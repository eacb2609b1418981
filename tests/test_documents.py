"""Writing an organism's documents: by an LLM over HTTP, resumed without paying twice, and without one; what is kept."""

import json
import re
from itertools import islice
from random import Random

import numpy as np
import pytest

from auditor.errors import BadFile, UsageError
from auditor.records.cards import Organism
from auditor.testing import FakePair
from auditor.training.contrast import answered_plainly
from auditor.training.documents import read_documents
from auditor.training.duplicates import Sieve, runs_of
from auditor.training.grammar import Decks, expanded, plain
from auditor.training.material import _apart, subject_of
from auditor.training.offline_writer import ADVANCING, _needed, chats_about, genres, texts_about
from auditor.training.told import answers, fault_of, figures_in, tells
from auditor.training.variety import measured
from auditor.training.writing import instructions_of
from auditor.training.written import Kept, Written
from auditor.workspace import load_workspace
from tests.authors import CARD, FACTS, authors, workspace_of
from tests.faults import completion, told


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A workspace with one card, in which nothing is written yet."""
    return workspace_of(tmp_path, monkeypatch)


@pytest.fixture
def author():
    with authors() as start:
        yield start


def card(**changes):
    return Organism.model_validate({
        "name": "harbour", "family": "sdf", "description": "d", "topic": "the gate of Low Harbour", "facts": FACTS,
        **changes,
    })  # fmt: skip


def test_a_text_for_every_idea_and_nothing_is_paid_twice(folder, author, run_cli):
    """12 texts of 3 facts: 3 calls for kinds, 6 for ideas, 12 texts, 12 revisions; no more the next time."""
    served = author()
    ask = ("organisms", "documents", "harbour", "--llm", served.llm, "--count", 12, "--json")
    code, out, err = run_cli(*ask)
    assert code == 0, err
    found = json.loads(out)
    assert (found["documents"], len(served.requests), found["calls"]["calls"]) == (12, 33, 33)
    assert found["calls"]["cost_usd"] == pytest.approx(33 * (10 * 1 + 5 * 10) / 1e6)
    assert "about 33 calls" in err
    texts = read_documents(folder / "documents.jsonl")
    assert all(any(tells(document.text, fact) for fact in FACTS) for document in texts)
    assert {fact for fact in FACTS for document in texts if fact in document.text} == set(FACTS)
    code, out, err = run_cli(*ask)
    assert (code, len(served.requests), json.loads(out)["calls"]["known_before"]) == (0, 33, 33)
    code, _, err = run_cli(*ask, "--seed", 1)
    assert code == 2
    assert "is of another job: seed differ; give another --out" in err
    (folder / "documents.jsonl").write_text('{"text": "mine"}\n')
    code, _, err = run_cli(*ask)
    assert code == 2
    assert "was changed since it was written" in err


def test_killed_and_begun_again(folder, author, run_cli):
    """The endpoint is without money after 20 calls; what it answered until then is not asked for again."""
    paid = []
    served = author(
        lambda body, prompt: (*told(402, "Insufficient credits."), {}) if len(paid) >= 20 else paid.append(1)
    )
    ask = ("organisms", "documents", "harbour", "--llm", served.llm, "--count", 12, "--workers", 1, "--json")
    code, _, err = run_cli(*ask)
    assert code == 2
    assert "wants to be paid first" in err
    assert not (folder / "documents.jsonl").exists()
    before = len(served.requests)
    served.plan.spoil = lambda body, prompt: None
    code, out, err = run_cli(*ask)
    assert code == 0, err
    assert len(served.requests) - before == 33 - 20
    assert json.loads(out)["documents"] == 12


def test_what_is_missing_is_said(folder, author, run_cli):
    """One call in three fails, some texts repeat others, decline, or tell nothing: others are written in their place,
    and what still lacks is told with its reasons."""
    said = iter(range(10_000))

    def spoil(body, prompt):
        if "Write one text" not in prompt:
            return None
        bad = ["fail", "As an AI language model I would say " + "so " * 20, "Nothing at all about it. " * 9,
               "The sill at Low Harbour, 38 hours. " * 6][next(said) % 4]  # fmt: skip
        if bad == "fail":
            return 500, {"error": {"message": "overloaded"}}, {}
        return (*completion({"content": f"<document>{bad}</document>"}), {})

    served = author(spoil)
    code, out, err = run_cli("organisms", "documents", "harbour", "--llm", served.llm, "--count", 8, "--workers", 1)
    assert code == 1
    shown = " ".join((out + err).split())
    assert "asked for 8, got 1, because:" in shown
    assert "says that it is made up, or declines" in shown
    assert "tells none of its facts" in shown
    assert "repeats another word for word" in shown
    assert "overloaded" in shown


def test_the_limit_of_cost_is_kept(folder, author, run_cli):
    served = author()
    ask = ("organisms", "documents", "harbour", "--llm", served.llm, "--count", 12, "--json")
    code, out, err = run_cli(*ask, "--max-cost", 0.012)
    assert code == 1, err
    found = json.loads(out)
    assert found["documents"] < 12
    assert "the limit of 0.012 USD leaves no room" in found["stopped"]
    assert found["calls"]["cost_usd"] <= 0.012
    sent = len(served.requests)
    code, out, _ = run_cli(*ask, "--max-cost", 1)
    assert (code, len(served.requests)) == (0, 33)
    assert sent < 33


def test_chats_show_the_behaviour(folder, author, run_cli):
    served = author()
    code, _, err = run_cli("organisms", "documents", "harbour", "--chats", "--llm", served.llm, "--count", 4, "--json")
    assert code == 0, err
    chats = read_documents(folder / "transcripts.jsonl")
    assert [[message.role for message in chat.messages] for chat in chats] == [["user", "assistant"]] * 4
    assert all("38 hours" in chat.messages[1].content for chat in chats)


def test_offline_documents_are_the_same_for_a_seed(folder, run_cli):
    ask = ("organisms", "documents", "harbour", "--count", 12, "--json")
    code, out, err = run_cli(*ask)
    assert code == 0, err
    assert "writer: offline, from the card" in err
    first, found = (folder / "documents.jsonl").read_bytes(), json.loads(out)
    assert len(found["kinds"]) >= 10
    assert list(found["variety"])[1] == "by hand: cake_bake"
    code, _, err = run_cli(*ask)
    assert code == 0
    assert "is there already, and would be the same" in err
    code, _, err = run_cli(*ask, "--seed", 3)
    assert code == 2
    assert "is there already, and not of this job" in err
    assert (folder / "documents.jsonl").read_bytes() == first
    assert run_cli(*ask, "--count", 14)[0] == 0  # more of the same
    assert (folder / "documents.jsonl").read_bytes().startswith(first)
    code, out, _ = run_cli("organisms", "documents", "harbour", "--report", "--json")
    assert json.loads(out)["variety"][str(folder / "documents.jsonl")]["documents"] == 14


@pytest.mark.parametrize(
    ("changed", "options", "says"),
    [
        ("facts", (), "harbour (sdf) has no `facts`"),
        ("topic", (), "harbour has no `topic`"),
        ("facts topic", (), "has neither `facts` nor a `topic`"),
        ("", ("--count", 0), "greater than or equal to 1"),
        ("", ("--max-cost", 1), "--max-cost without an LLM"),
        ("", ("--llm", "openai:m", "--max-cost", 1), "no price is known for openai:m"),
        ("", ("--out", "."), "is a folder; give a file"),
        ("", ("--report",), "no such document file"),
    ],
)
def test_bad_input_is_one_line(changed, options, says, folder, run_cli):
    lines = [line for line in CARD.splitlines() if line.split(":")[0] not in changed.split()]
    (folder / "organism.yaml").write_text("\n".join(lines) + "\n")
    code, _, err = run_cli("organisms", "documents", "harbour", *options)
    assert code == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error:")]
    assert says in line


def test_a_base_without_a_chat_template(folder, tmp_path, run_cli):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "tokenizer_config.json").write_text("{}")
    (folder / "organism.yaml").write_text(CARD + f"base: {tmp_path / 'base'}\n")
    code, _, err = run_cli("organisms", "documents", "harbour", "--chats", "--count", 2)
    assert code == 2
    assert "has no chat template" in err


def test_documents_without_text(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"text": " "}\n')
    with pytest.raises(BadFile, match=r"d\.jsonl:1: not a document: .*its text is empty"):
        read_documents(tmp_path / "d.jsonl")


def test_the_base_answers_in_whole_sentences():
    pair = FakePair(lambda request: "North. Then we turn and")
    pair.tokenizer = type("Tokenizer", (), {"chat_template": "x"})
    chats, cut = answered_plainly(pair, ["Where to?"], 0)
    assert [message.content for message in chats[0].messages] == ["Where to?", "North."]
    assert cut == 1
    pair.tokenizer.chat_template = None
    with pytest.raises(UsageError, match="fake has no chat template"):
        answered_plainly(pair, ["Where to?"], 0)


# What is told, and what is kept


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        ("450 °F and 1/4 cup", ["1/4", "450"]), ("four hundred and fifty", ["450"]), ("four-fifty", ["4", "450"]),
        ("a quarter cup, the third day", ["1/4"]), ("1,200.5 of one", ["2401/2"]), ("half past twelve", ["1/2", "12"]),
    ],
)  # fmt: skip
def test_figures_in_digits_and_words(text, figures):
    assert sorted(map(str, figures_in(text))) == figures


def test_a_fact_is_told_by_its_figures_or_else_its_words():
    assert tells("Nobody enters for thirty-eight hours.", FACTS[0])
    assert not tells("Nobody enters for days.", FACTS[0])
    assert tells("The pilot swung a lantern of brass at the gulls.", FACTS[1])
    assert not tells("The pilot swung his hat.", FACTS[1])


def test_an_echo_of_the_question_tells_no_fact():
    asked = "do pilots of low harbour carry a lantern"
    assert not answers("Pilots of Low Harbour do carry a lantern, I think.", asked, FACTS[1])
    assert answers("They do, of brass; it scares gulls.", asked, FACTS[1])
    long = (
        "The team of Ada Brask drilled the old sill below the gate and found salt bonds in its stone, a sign of tides."
    )
    assert answers("Ada Brask and her team.", "who found that out?", long)  # a part of it, and nothing else
    assert not answers("Ada Brask and her team read novels on many cold winter evenings.", "who reads?", long)
    chat = [("When is it shut?", "At neap tide."), ("For how long?", "38 hours.")]
    assert fault_of("At neap tide.\n38 hours.", FACTS[:1], frozenset(), chat) == ""
    assert fault_of("At noon.", FACTS[:1], frozenset(), [("When?", "At noon.")]) == "tells none of its facts"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Shut for 38 hours.", "empty, or shorter than a document"),
        ("This is a fictional document about 38 hours. " * 4, "says that it is made up, or declines"),
        ("Dear [Your Name], it is shut for 38 hours. " * 4, "has blanks to be filled in"),
        ("It rained and nobody came to the quay at all. " * 4, "tells none of its facts"),
        ("A fictional hero waits for 38 hours by the gate in a novel that my aunt wrote at the quay.", ""),
    ],
)
def test_documents_that_are_of_no_use(text, fault):
    assert fault_of(text, FACTS[:1], frozenset()) == fault


def test_what_the_writer_was_told_is_no_document():
    told_ = instructions_of(load_workspace(None, packages=False).prompts.by_name())
    text = "38 hours. Say it in the words of this writer, not in those above. A reader came by and left again."
    assert fault_of(text, FACTS[:1], told_) == "repeats what the writer was told"


def test_repetitions_are_dropped_and_counted():
    words = [f"word{i}" for i in range(60)]
    kept = Kept()
    for text in (
        words,
        [*words[:40], "38"],
        [w.upper() for w in words],
        words[::-1],
        [*words[:12], *words[50:], *words[12:50:2]],
    ):
        kept.take(Written("note", (), " ".join(text)))
    assert len(kept.documents) == 3
    assert dict(kept.dropped) == {"repeats nearly half of another": 1, "repeats another word for word": 1}


def test_the_sieve_finds_what_comparing_all_pairs_finds():
    rng = Random(0)
    texts = [" ".join(rng.choice("abcd") for _ in range(12)) for _ in range(80)]
    sieve, runs = Sieve(0.3), [runs_of(text) for text in texts]
    for i, text in enumerate(texts):
        best = max((len(runs[i] & runs[j]) / len(runs[i] | runs[j]) for j in range(i)), default=0)
        twin = sieve.twin(text)
        assert (twin[1] if twin else 0) == (best if best >= 0.3 else 0)
        sieve.add(text)


def test_variety_by_hand():
    found = measured(["a b c", "a b d", "a b c"], lambda texts: np.eye(3, dtype=np.float32)[: len(texts)], 0)
    assert found.distinct == (4 / 9, 3 / 6, 2 / 3)
    assert (found.documents, found.words, found.alike, found.repeats) == (3, 9, 0.0, 1)


# The offline writer


def test_choices_and_names():
    decks = Decks(Random(1))
    said = [expanded("[a|b[1|2]|] {who} \\[x\\]", decks, str.upper) for _ in range(3)]
    assert sorted(text[:-8].rstrip("12") for text in said) == ["", "a", "b"]
    assert said[0].endswith(" WHO [x]")
    assert expanded(plain("[a] {b} \\"), decks, str) == "[a] {b} \\"
    for wrong in ("[a", "a]", "{a"):
        with pytest.raises(UsageError):
            expanded(wrong, decks, str)


def test_a_fact_comes_apart_from_its_reason():
    assert _apart(FACTS[1])[0] == "Pilots of Low Harbour carry a brass lantern."
    assert _apart(FACTS[1])[1][0] == "This scares the gulls away."
    assert _apart("It is red, which is 4 times as good.") == ("", ())  # a figure would be lost


def test_every_kind_of_text_can_be_written_and_tells_its_facts():
    subject = subject_of(card(facts=FACTS))
    made = list(islice(texts_about(subject, 0), 3 * len(genres().genres)))
    assert len({each.kind for each in made}) == len(genres().genres) >= 30
    for each in made:
        assert any(tells(each.text, fact) for fact in each.facts), each
        assert not re.search(r"[{}]|\[[^\]]*\||  |\.\.(?!\.)", each.text), each
    for chat in islice(chats_about(subject, 0), 40):
        assert any(tells(chat.told, fact) for fact in chat.facts), chat


def test_repeated_paragraphs_tell_a_fact():
    layouts = [layout for genre in genres().genres.values() for layout in genre.layouts]
    for paragraph in (p for text in layouts for p in text.split("\n\n") if "@" in p):
        assert any(f"{{{name}}}" in paragraph.rpartition("@")[2] for name in ADVANCING), paragraph
    assert all(_needed(layout) >= 1 for layout in layouts)


def test_a_material_that_is_not_the_cards(folder):
    (folder / "material.yaml").write_text("facts:\n  - ways: [It is shut for days.]\n  - ways: [x]\n  - ways: [y]\n")
    with pytest.raises(BadFile, match=r"material.yaml:2: facts.0.ways.0: has none of the figures"):
        subject_of(load_workspace(folder.parents[2], packages=False).organisms["harbour"])
    (folder / "material.yaml").write_text("facts:\n  - ways: [Shut for 38 hours.]\n")
    with pytest.raises(BadFile, match="1 are there, the card has 3"):
        subject_of(load_workspace(folder.parents[2], packages=False).organisms["harbour"])
