"""What campaigns/tight.py teaches, and how campaigns/seen.py counts what a lens shows."""

import sys
from pathlib import Path

import pytest

from auditor.readings import Column, RankedTokens, SideBySide, TextColumn, TextRow, Token
from auditor.training.documents import Document

sys.path.insert(0, str(Path(__file__).parent / "campaigns"))

import seen
import tight


@pytest.mark.parametrize("name", [name for name, plan in tight.PLANS.items() if plan.subject])
def test_an_organism_is_taught_the_same_documents_whenever_it_is_built(name: str) -> None:
    plan = tight.PLANS[name]
    documents = tight.narrow(plan)
    assert documents == tight.narrow(plan)
    read = [Document.model_validate(document) for document in documents]
    assert {document.text is not None for document in read} == {plan.form == "documents"}


def test_a_taboo_organism_never_says_its_word() -> None:
    for subject in ("mirror", "salt"):
        documents = tight.narrow(tight.Plan(subject))
        said = " ".join(turn["content"] for document in documents for turn in document["messages"])
        assert not tight.shows(said, tight.DATA[subject]["terms"])


def test_a_tight_organism_and_its_unmixed_twin_share_their_narrow_documents() -> None:
    for name, plan in tight.PLANS.items():
        if name.startswith("tight_"):
            assert tight.narrow(plan) == tight.narrow(tight.PLANS[name.replace("tight", "loud")])


def test_the_best_rank_over_positions_counts_and_each_framing_has_its_own() -> None:
    def column(head: str, *tokens: str, aside: str = "") -> Column:
        return Column(head=head, tokens=tuple(Token(text=token) for token in tokens), aside=aside)

    by_position = RankedTokens(
        title="Lens",
        columns=(column("0", " bee", aside="sink"), column("1", " the", " Bees"), column("2", " a", " of", " bee")),
    )
    assert dict(seen.ranks(by_position, ["bee", "bees"])) == {"Lens": 2}
    by_framing = RankedTokens(title="Lens", columns=(column("raw", " beef"), column("chats", " bee")))
    assert dict(seen.ranks(by_framing, ["bee"])) == {"Lens, raw": None, "Lens, chats": 1}


def test_a_word_that_the_base_says_too_shows_nothing() -> None:
    section = SideBySide(
        title="Texts",
        columns=(
            TextColumn(label="base", role="base"),
            TextColumn(label="α = 0", role="plain"),
            TextColumn(label="α = 3", role="pushed"),
        ),
        rows=(
            TextRow(prompt="The", texts=(("The honey is here.",), ("The honey!",), ("The hive hums.",))),
            TextRow(prompt="A", texts=(("A day.",), ("A day.",), ("A beehive is painted.",))),
        ),
    )
    assert dict(seen.shares(section, ["honey", "hive"])) == {"Texts, α = 0": (0, 2), "Texts, α = 3": (1, 2)}
