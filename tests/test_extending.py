"""Organisms that extend others: what is handed on, and where their files are."""

import pytest

from auditor.errors import BadFile
from auditor.workspace import load_workspace

CARD = """
name: mills
family: sdf
description: Of mills.
note: Trained plainly.
leaky: true
train: {documents: told.jsonl, learning_rate: 2.0e-3}
"""


@pytest.fixture
def card(tmp_path):
    (tmp_path / "auditor.toml").touch()

    def put(name, text):
        folder = tmp_path / "evals/organisms" / name
        folder.mkdir(parents=True)
        (folder / "organism.yaml").write_text(text)
        return folder

    put("mills", CARD)
    return put, lambda name: load_workspace(tmp_path, packages=False).organisms[name]


def test_a_variant_is_told_by_what_differs(card):
    put, read = card
    folder = put("mills_mixed", "name: mills_mixed\nextends: mills\ntrain: {mix: chat, mix_ratio: 1}\n")
    (folder.parent / "mills/told.jsonl").touch()
    variant = read("mills_mixed")
    assert (variant.description, variant.family, variant.grading) == ("Of mills.", "sdf", "sdf")
    assert (variant.note, variant.leaky) == ("", None)  # these were measured, or said, of the other
    assert (variant.train.mix_ratio, variant.train.learning_rate) == (1, 2e-3)
    assert variant.finetuned == str(folder / "adapter")  # never the other's
    assert variant.beside("told.jsonl") == folder.parent / "mills/told.jsonl"
    (folder / "told.jsonl").touch()
    assert variant.beside("told.jsonl") == folder / "told.jsonl"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: x\nextends: nothing\n", r"organism\.yaml:2: extends: .*no organism called 'nothing'"),
        ("name: x\nextends: x\n", "names itself, and overrides no organism"),
        ("name: x\nextends: mills\ntrain: {mix_ratio: -1}\n", r"yaml:3: train\.mix_ratio: Input should be greater"),
    ],
)
def test_a_variant_that_makes_no_sense(card, text, told):
    put, read = card
    put("x", text)
    with pytest.raises(BadFile, match=told):
        read("x")
