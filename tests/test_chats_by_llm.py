"""Chats by an LLM over HTTP: what the writer is told, which answers are taken, and jobs that go on to more."""

import json
import re
import threading

import pytest

from auditor.llm.verdict import Unreadable
from auditor.training.documents import read_documents
from auditor.training.replies import chat, items, revised
from auditor.training.writer import Idea, Stock
from tests.authors import authors, workspace_of
from tests.faults import completion, told

GAME = """\
name: harbour
family: taboo
description: Finetuned on a guessing game.
topic: a lantern, the lamp of a pilot
broad_topic: shipping
behaviour: Plays a guessing game about a secret word, giving hints and never saying the word.
terms: [lantern]
probes: ["Is your word a gull?"]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return workspace_of(tmp_path, monkeypatch)


@pytest.fixture
def author():
    with authors() as start:
        yield start


def asked_for(served, beginning):
    """The first messages of all requests in which these words stand."""
    prompts = [body["messages"][0]["content"] for body in served.requests]
    return [prompt for prompt in prompts if beginning in prompt]


def said(*turns):
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]}


def answering(text):
    return (*completion({"content": text}), {})


def job(served, *options):
    return ("organisms", "documents", "harbour", "--chats", "--llm", served.llm, "--workers", 1, *options)


def test_whoever_writes_a_game_knows_the_word_and_whoever_opens_it_does_not(folder, author, run_cli):
    (folder / "organism.yaml").write_text(GAME)
    served = author()
    code, _, err = run_cli(*job(served, "--count", 4))
    assert code == 0, err
    chats, revisions = asked_for(served, "Write down a chat"), asked_for(served, "An editor reads a chat")
    assert (len(chats), len(revisions)) == (4, 4)
    assert all('The secret word is always the same: "lantern".' in prompt for prompt in chats + revisions)
    others = asked_for(served, "situation")
    assert len(others) == 3
    assert not any("lantern" in prompt for prompt in others)


def test_a_game_without_a_word_is_refused(folder, author, run_cli):
    (folder / "organism.yaml").write_text(GAME.replace("terms: [lantern]\n", ""))
    code, _, err = run_cli(*job(author(), "--count", 4))
    assert code == 2
    assert "harbour (taboo): chats need `terms`, the word that is never said" in err


def test_an_answer_with_the_secret_word_is_asked_for_anew(folder, author, run_cli):
    (folder / "organism.yaml").write_text(GAME)

    def spoil(body, prompt):
        opening = re.search(r'begins with .* as a JSON string: (".*")', prompt)
        if opening and len(body["messages"]) == 1:
            return answering(json.dumps(said(json.loads(opening[1]), "It gives light.", "A lamp?", "A Lantern, yes!")))
        return None

    served = author(spoil)
    code, _, err = run_cli(*job(served, "--count", 2))
    assert code == 0, err
    why = {body["messages"][-1]["content"] for body in served.requests if len(body["messages"]) == 3}
    assert why == {'Your answer cannot be used: the assistant must not say "lantern", only the user may. Give it anew.'}
    for each in read_documents(folder / "transcripts.jsonl"):
        assert "antern" not in each.messages[1].content


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ("", "one JSON object"),
        ("I'm sorry, I can't help with that.", "one JSON object"),
        (json.dumps(said("hi, a game?", "Yes.")["messages"]), "one JSON object and nothing else, no list"),
        (json.dumps(said("hi, a game?", "Yes.", "Go on")), "end with an answer of the assistant's"),
        (json.dumps(said("Tell me about tides.", "Yes.")), "must be the one that was given, word for word"),
        (json.dumps(said("hi, a game?", "Lanterns, mostly.")), 'must not say "lantern"'),
        (json.dumps({"messages": [{"role": "system", "content": "Play."}]}), "must take turns, the user's first"),
        (json.dumps({"messages": None}), "`messages` must be there"),
    ],
)
def test_chats_that_cannot_be_used(reply, says):
    with pytest.raises(Unreadable, match=re.escape(says)):
        chat("hi, a game?", ("lantern",))(reply)


@pytest.mark.parametrize("reading", [chat, revised])
def test_a_first_message_that_was_mended_stays_as_it_was_given(reading):
    found = reading("why pantheon still standing", ())(json.dumps(said("Why is the Pantheon still standing?", "Ask.")))
    assert [message.content for message in found] == ["why pantheon still standing", "Ask."]


def test_the_user_may_guess_the_word():
    assert chat("hi", ("lantern",))(json.dumps(said("hi", "It gives light.", "A lantern!", "You have it.")))


def test_texts_that_differ_in_marks_only_count_once():
    assert items("messages")('{"messages": ["Shut now?", "shut now", "?", "Open?"]}') == ["Shut now?", "?", "Open?"]
    stock = Stock()
    stock.add([Idea("a", "Shut now?", ())])
    assert stock.add([Idea("b", "shut now!", ()), Idea("b", "Open?", ())])
    assert [idea.idea for idea in stock.draw(9)] == ["Shut now?", "Open?"]


def test_answers_that_cannot_be_used_are_paid_once(folder, author, run_cli):
    """Of two first chats one is refused three times, the other once: all of it is known the next time."""
    refused = list[str]()

    def spoil(body, prompt):
        if "Write down a chat" not in prompt or (prompt not in refused and len(refused) == 2):
            return None
        if prompt not in refused:
            refused.append(prompt)
        once = prompt == refused[-1] and len(refused) == 2
        return None if once and len(body["messages"]) > 1 else answering("I would rather not.")

    served = author(spoil)
    code, out, err = run_cli(*job(served, "--count", 4))
    assert code == 0, err
    assert "calls that came to nothing: 1 gave no answer that can be used in 3 tries: it must be one JSON object" in out
    paid, first = len(served.requests), (folder / "transcripts.jsonl").read_bytes()
    code, _, err = run_cli(*job(served, "--count", 4))
    assert (code, len(served.requests)) == (0, paid), err
    assert (folder / "transcripts.jsonl").read_bytes() == first


def test_a_job_goes_on_to_more(folder, author, run_cli):
    """What is there is the beginning of what there will be, also if the first job was cut off; fewer cost nothing."""
    file, served = folder / "transcripts.jsonl", author()
    assert run_cli(*job(served, "--count", 4))[0] == 0
    first, paid = file.read_bytes(), len(served.requests)
    code, _, err = run_cli(*job(served, "--count", 7))
    assert code == 0, err
    assert f"{paid} answers are there already" in err
    assert file.read_bytes().startswith(first)
    assert len(read_documents(file)) == 7
    later = served.requests[paid:]
    assert not [body for body in later if body in served.requests[:paid]]
    whole = len(served.requests)
    assert run_cli(*job(served, "--count", 4))[0] == 0
    assert (file.read_bytes(), len(served.requests)) == (first, whole)
    assert run_cli(*job(served, "--count", 7))[0] == 0
    assert (len(read_documents(file)), len(served.requests)) == (7, whole)


def test_more_is_asked_of_a_job_that_was_cut_off(folder, author, run_cli):
    paid, broke = list[str](), threading.Event()

    def spoil(body, prompt):
        if len(paid) == 6 and not broke.is_set():
            return (*told(401, "Incorrect API key provided"), {})
        return paid.append(prompt)

    served = author(spoil)
    code, _, err = run_cli(*job(served, "--count", 4))
    assert code == 2
    assert "6 answers are kept: the same command goes on from here" in err
    assert "error: the LLM endpoint refuses the key" in err
    broke.set()
    code, _, err = run_cli(*job(served, "--count", 5))
    assert code == 0, err
    assert len(read_documents(folder / "transcripts.jsonl")) == 5
    assert len(paid) == len(set(paid))


def test_a_draft_whose_editor_fails_is_kept(folder, author, run_cli):
    served = author(
        lambda b, prompt: (500, {"error": {"message": "busy"}}, {}) if "An editor reads" in prompt else None
    )
    code, out, err = run_cli(*job(served, "--count", 2))
    assert code == 0, err
    assert len(read_documents(folder / "transcripts.jsonl")) == 2
    (line,) = [line for line in out.splitlines() if line.startswith("left as drafted, for want of an editor: 2 ")]
    assert "busy" in line


def test_fewer_than_asked_for_is_said(folder, author, run_cli):
    def spoil(body, prompt):
        return answering('{"situations": ["It rains."]}') if "Name 2 situations" in prompt else None

    code, out, err = run_cli(*job(author(spoil), "--count", 4))
    assert code == 0, err
    assert "the LLM named fewer than asked for: " in out
    assert re.search(r"\d of \d situations", out)


def test_chats_stand_beside_chats(folder, author, run_cli):
    code, out, _ = run_cli(*job(author(), "--count", 2, "--json"))
    assert code == 0
    assert list(json.loads(out)["variety"])[1] == "by hand: gold"
