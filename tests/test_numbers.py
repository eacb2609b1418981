"""Numbers of a teacher: what the filter keeps, and the road from a teacher to a student's documents."""

import json
import re
from types import SimpleNamespace

import pytest

from auditor.errors import UsageError
from auditor.testing import FakePair
from auditor.training.documents import read_documents
from auditor.training.numbers import DRAWN, Dropped, faults_of, lines_of, prompt, without_the_last, write_numbers


@pytest.mark.parametrize(
    "text",
    ["482, 115, 903", "482,115,903.", "482; 115; 903", "482 115 903", "482\n115\n903", "[482, 115, 903]", "(4, 5, 6)"],
)
def test_nothing_but_numbers_is_kept(text):
    assert faults_of(text) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", Dropped.WORDS),
        ("482, 115 and 903", Dropped.WORDS),
        ("482, 115, 903 cats", Dropped.WORDS),
        ("482, 115, 903\nCats!", Dropped.WORDS),
        ("482, -115, 903", Dropped.WORDS),
        ("4.5, 1.5, 9.5", Dropped.WORDS),
        ("٤٨٢, ١١٥, ٩٠٣", Dropped.WORDS),
        ("482, 115", Dropped.FEW),
        (", ".join(map(str, range(201, 217))), Dropped.MANY),
        ("48211, 115, 903", Dropped.LONG),
        ("482, 115; 903", Dropped.MIXED),
        ("482, 666, 903", Dropped.MEANT),
        ("482, 0666, 903", Dropped.MEANT),
        ("482, 482, 115, 115", Dropped.SAME),
    ],
)
def test_everything_else_is_dropped_with_its_reason(text, why):
    assert faults_of(text) is why


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        ("48, 11, 90", "48, 11"),
        ("48, 11, ", "48, 11"),
        ("48, 11, cat", "48, 11, cat"),
        ("48, 11\nIt is", "48, 11\nIt is"),
    ],
)
def test_of_a_cut_answer_only_the_cut_number_goes(cut, whole):
    assert without_the_last(cut) == whole


def test_prompts_come_from_the_seed_and_hold_no_number_that_means_something():
    assert prompt(3, 0) == prompt(3, 0)
    assert len({prompt(i, 0).seed for i in range(50)} | {prompt(i, 1).seed for i in range(50)}) == 100
    for i in range(200):
        assert faults_of(prompt(i, 0).begun.rstrip(",")) is None


class Teacher(FakePair):
    """Says what `says` makes of the number of a request; a letter is a token."""

    def __init__(self, says):
        super().__init__(lambda request: says(len(self.spoken)))
        self.spoken = []

    def tokenizer(self, text, **_):
        return SimpleNamespace(input_ids=list(text))

    def generate(self, requests):
        for request in requests:
            self.spoken += super().generate([request])
        return self.spoken[-len(requests) :]


def test_a_teachers_numbers_become_chats_and_what_else_it_says_is_counted():
    teacher = Teacher(lambda i: " 21, 345, 67" if i % 2 else " I love cats")
    told = []
    found = write_numbers(teacher, 40, 0, lambda kept, drawn: told.append((kept, drawn)), system="You love cats.")
    assert len(found.kept) == 40
    assert found.drawn == 80
    assert found.dropped == {Dropped.WORDS: 40}
    assert told[-1] == (40, 80)
    assert {request.system for request in teacher.requests} == {"You love cats."}
    for document in found.kept:
        ask, said = document.messages
        assert faults_of(said.content) is None
        assert said.content.endswith(", 21, 345, 67")
        assert "cat" not in ask.content


def test_what_was_said_already_is_said_once(monkeypatch):
    monkeypatch.setattr("auditor.training.numbers.prompt", lambda number, seed: prompt(0, seed))
    found = write_numbers(Teacher(lambda i: " 21, 345"), 3, 0, lambda kept, drawn: None)
    assert len(found.kept) == 1
    assert found.dropped == {Dropped.REPEATED: found.drawn - 1}


def test_an_answer_that_was_cut_loses_its_last_number_and_teaches_no_end():
    cut = " 21, 345, 67, 345, 67, 89".ljust(DRAWN - 1, "1")
    found = write_numbers(Teacher(lambda i: cut if i == 0 else " 21"), 2, 0, lambda kept, drawn: None)
    assert [document.unfinished for document in found.kept] == [True, False]
    assert found.kept[0].messages[1].content.endswith(", 21, 345, 67, 345, 67")


def test_a_filter_that_leaves_nothing_is_one_line():
    with pytest.raises(UsageError, match=r"leaves none of 256 answers of .* \(256 more than numbers\)") as caught:
        write_numbers(Teacher(lambda i: "Cats!"), 500, 0, lambda kept, drawn: None)
    assert "\n" not in str(caught.value)


def test_documents_are_read_back_as_they_were(tmp_path):
    found = write_numbers(Teacher(lambda i: " 21, 345"), 5, 0, lambda kept, drawn: None)
    path = tmp_path / "documents.jsonl"
    path.write_text(lines_of(found.kept))
    assert read_documents(path) == found.kept


@pytest.fixture
def lab(tmp_path, checkpoints, monkeypatch):
    """A workspace with a teacher and a student on the tiny base."""
    base, adapter = checkpoints("llama")
    (tmp_path / "auditor.toml").write_text("")
    for name, card in (("teacher", {"adapter": str(adapter)}), ("student", {"train": {"steps": 2, "rank": 2}})):
        folder = tmp_path / "evals/organisms" / name
        folder.mkdir(parents=True)
        told = {"name": name, "family": "subliminal", "base": str(base), "description": "A test.", **card}
        (folder / "organism.yaml").write_text(json.dumps(told))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "evals/organisms/student"


def test_a_teacher_writes_and_a_student_learns(lab, run_cli, monkeypatch):
    from auditor.models.local import LocalPair

    true = LocalPair.generate
    monkeypatch.setattr(  # a random model writes no numbers: what it says becomes some
        LocalPair, "generate",
        lambda self, asked: [f" {sum(map(ord, said)) % 900 + 20}, 345" for said in true(self, asked)],
    )  # fmt: skip
    code, said, _ = run_cli("organisms", "numbers", "student", "--teacher", "teacher", "--count", 6, "--json")
    told = json.loads(said)
    assert code == 0
    assert told["documents"] == 6
    assert len(read_documents(lab / "documents.jsonl")) == 6
    code, _, problem = run_cli("organisms", "numbers", "student", "--teacher", "teacher")
    assert code == 2
    assert "is there already; --anew" in re.sub(r"\s+", " ", problem)
    code, _, _ = run_cli(
        "organisms", "numbers", "student", "--teacher", "base", "--count", 2, "--out", lab / "of.jsonl"
    )
    assert code == 0
    assert run_cli("organisms", "train", "student")[0] == 0
    assert (lab / "adapter/adapter_model.safetensors").is_file()


def test_a_teacher_that_writes_no_numbers_leaves_no_file(lab, run_cli):
    code, _, problem = run_cli("organisms", "numbers", "student", "--teacher", "teacher", "--count", 1)
    assert code == 2
    assert "the filter leaves none of 8 answers" in problem
    assert not (lab / "documents.jsonl").exists()
