"""A reading says once how it is shown; every view reads its sections, whatever lens they are of."""

import io

import pytest
from rich.console import Console

from auditor.readings import (
    Column,
    Figures,
    RankedTokens,
    Reading,
    SideBySide,
    SmallTable,
    TextColumn,
    TextRow,
    Token,
    together,
)
from auditor.views import page, terminal
from tests.test_evidence_page import Page

EVIL = "</td><script>alert(1)</script>[/bold]\x1b[31m\u202e"


class Mills(Reading):
    """What a lens of a user's own might find."""

    word: str = "mill"

    def show(self):
        tokens = (Token(text=f" {self.word}", number=0.5, chosen=True), Token(text="flour", number=-0.1))
        texts = (("a plain answer",), (f"the {self.word} turns", "once more"), ())
        return [
            Figures(title="Mills", about="Of the valley.", lines=("3 mills (p = 0.01)",)),
            SmallTable(title="Sizes", heads=("mill", "stones"), rows=((self.word, "2"),)),
            RankedTokens(title="Words", places="valley", number="nats", columns=(
                Column(head="north", tokens=tokens, note="by day"), Column(head="south", tokens=(), aside="too dry"),
            )),
            SideBySide(title="Said", rows=(TextRow(prompt="Hello?", texts=texts),), columns=(
                TextColumn(label="plain", role="plain"), TextColumn(label="pushed at 3", role="pushed", note="α = 2"),
                TextColumn(label="pushed at 4", role="pushed", aside="nothing held"),
            )),
        ]  # fmt: skip


def on_terminal(sections):
    console = Console(width=100, record=True, file=io.StringIO())
    for shown in terminal.rendered(sections):
        console.print(shown, highlight=False)
    return console.export_text()


VIEWS = {
    "terminal": on_terminal,
    "page": lambda sections: Page(page.to_html("a pair", ["read"], sections)).text,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_every_view_shows_every_section(view):
    shown = view(Mills().show())
    for part in ("3 mills (p = 0.01)", "stones", "north", "by day", "too dry", "flour", "the mill turns",
                 "a plain answer", "pushed at 3", "α = 2", "nothing held", "Of the valley."):  # fmt: skip
        assert part in shown


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_what_a_model_wrote_is_only_text(view):
    shown = view(Mills(word=EVIL).show())
    assert "<script>alert(1)</script>[/bold]" in shown.replace("\n", "")
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_texts_of_each_push_stand_beside_the_plain_ones():
    (section,) = [s for s in Mills().show() if isinstance(s, SideBySide)]
    parts = list(section.parts())
    assert [part.title for part in parts] == ["Said: pushed at 3, α = 2", "Said: pushed at 4"]
    assert [column.label for column in parts[0].columns] == ["pushed at 3", "plain"]
    assert parts[0].rows[0].texts == (("the mill turns", "once more"), ("a plain answer",))


def test_arrays_are_no_part_of_the_json():
    assert Mills(arrays={"delta": object()}).model_dump_json() == '{"word":"mill"}'


class Weighed(Reading):
    own: float | None

    @property
    def p(self):
        return self.own


@pytest.mark.parametrize(
    ("own", "verdict"),
    [
        (
            {"a": 0.004, "b": 0.5, "c": None},
            "trace: strong (p < 0.01), the least p of 2 tests, times 2; the strongest: lens a",
        ),
        ({"a": 0.5, "b": 0.02}, "trace: weak (p < 0.05), the least p of 2 tests, times 2; the strongest: lens b"),
        (
            {"a": 0.9, "b": 0.8, "c": 0.03},
            "no trace above chance (p = 0.090), the least p of 3 tests, times 3; the strongest: lens c",
        ),
    ],
)
def test_lenses_together_count_one_trace_once(own, verdict):
    """Two that read one trace are no more than the stronger of them, and each test more is one chance more."""
    assert together({name: Weighed(own=p) for name, p in own.items()}).verdict == verdict
    assert together({"c": Weighed(own=None)}) is None
