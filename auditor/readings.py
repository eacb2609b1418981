"""What a lens finds, and how it is shown: sections of few kinds, which terminal, page, Markdown and agents all read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from auditor.records.record import Record

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.lenses import LensContext
    from auditor.methods.nulls import Nulls
    from auditor.models.pair import ModelPair

LEVEL = 0.05  # of tests


class Call(Record):
    """The call of a tool that shows a section whole, but for the dataset's name."""

    tool: str
    args: dict[str, Any]


class _Section(Record):
    title: str
    about: str = Field("", description="how to read it, in a sentence or two; for people")
    weight: float = Field(1.0, ge=0, description="what comes first where room is short; 0: only named there")
    calls: tuple[Call, ...] = Field((), description="where an agent reads all of it")


class Token(Record):
    """A token with its number; `chosen`: a judge, or another reading, bears it out."""

    text: str
    number: float | None = None
    chosen: bool = False


class Column(Record):
    """Tokens at one place, best first."""

    head: str = Field(description="the place: a position's number, say")
    tokens: tuple[Token, ...]
    note: str = Field("", description="beside the head: a scale, a cohesion")
    aside: str = Field("", description="why it says little; it is left out where room is short")
    weight: float = Field(0.0, description="what comes first where room is short")
    usual: tuple[str, ...] = Field((), description="tokens that are read there without the finetune's difference, too")


class RankedTokens(_Section):
    """Ranked tokens with numbers, a column for each place where they were read."""

    kind: Literal["tokens"] = "tokens"
    places: str = Field("position", description="what the columns' heads name")
    number: str = Field("probability", description="what the tokens' numbers are")
    spoken: bool = Field(False, description="read where the next token is decided: what the model is pushed to say")
    tested: bool = Field(False, description="what a test against chance was made of")
    columns: tuple[Column, ...]


Role = Literal["base", "plain", "pushed"]
"""Who says a text: the base, the finetuned model as it is, or one in which what was trained is made stronger."""


class TextColumn(Record):
    """Whose texts stand in a column."""

    label: str
    role: Role
    note: str = ""
    aside: str = Field("", description="why there are none")
    weight: float = Field(0.0, description="which of several pushed ones is shown, where one is")
    beside: bool = Field(False, description="to compare with by eye: one text of each row, part of no statistics")


class TextRow(Record):
    """Texts to one prompt: of each column as many as were drawn."""

    prompt: str
    texts: tuple[tuple[str, ...], ...]


class SideBySide(_Section):
    """Texts of several speakers beside one another, a row for each prompt."""

    kind: Literal["texts"] = "texts"
    columns: tuple[TextColumn, ...]
    rows: tuple[TextRow, ...]

    def parts(self) -> Iterator[SideBySide]:
        """The same with one column of pushed texts each: what fits beside its prompt and what it is compared with."""
        pushed = [i for i, column in enumerate(self.columns) if column.role == "pushed"]
        others = [i for i in range(len(self.columns)) if i not in pushed]
        for i in pushed or others[:1]:
            kept = [i, *(j for j in others if j != i)]
            columns = tuple(self.columns[j] for j in kept)
            rows = tuple(TextRow(prompt=row.prompt, texts=tuple(row.texts[j] for j in kept)) for row in self.rows)
            heading = ", ".join(part for part in (self.columns[i].label, self.columns[i].note) if part)
            title = f"{self.title}: {heading}" if pushed else self.title
            yield self.model_copy(update={"title": title, "columns": columns, "rows": rows})


class SmallTable(_Section):
    """A small table; cells are text already."""

    kind: Literal["table"] = "table"
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Figures(_Section):
    """Lines of figures, each with its words."""

    kind: Literal["figures"] = "figures"
    lines: tuple[str, ...]


Section = Annotated[RankedTokens | SideBySide | SmallTable | Figures, Field(discriminator="kind")]


class Basis(Record):
    """What a p-value rests on."""

    finetunes: int = Field(ge=0, description="without a subject, that the pair was held against; 0: noise alone")
    least: float = Field(0.0, description="the smallest p that the test can give, whatever is read")


class Reading(Record):
    """What one lens found in a pair. `arrays` are tensors by name, kept beside the rest; they are no part of the JSON.

    A lens' own class adds its fields, and says in `show` how they are shown.
    """

    corpus_bound: ClassVar[bool] = True  # whether nulls that were read on another corpus say nothing of it

    arrays: dict[str, Any] = Field(default_factory=dict, exclude=True, repr=False)

    @property
    def verdict(self) -> str:
        """How it stands against chance, in a few words; empty where that was not tested."""
        return ""

    @property
    def p(self) -> float | None:
        """How likely so strong a trace is in a pair without a subject; None where that cannot be told."""
        return None

    @property
    def basis(self) -> Basis | None:
        """What `p` rests on; None where there is none, or nobody says."""
        return None

    @property
    def above_chance(self) -> bool | None:
        """Whether it found a trace; None where that was not, or could not be, tested."""
        return None if self.p is None else self.p < LEVEL

    @property
    def unless_found(self) -> str:
        """What ends the title of words that a test judged and found no trace in: they look like a subject's still."""
        return " (no trace above chance)" if self.above_chance is False else ""

    @property
    def trace(self) -> Mapping[str, Tensor]:
        """What is kept of it where the pair is a broad finetune, for others to be held against; a few kB, no texts."""
        return {}

    def held_against(self, pair: ModelPair, ctx: LensContext, nulls: Nulls) -> Self:
        """The same beside the traces of broad finetunes of the pair's base: with a p-value, if it has a test."""
        return self

    @property
    def notes(self) -> tuple[str, ...]:
        """What it lacks of what was asked for, a line each."""
        return ()

    def show(self) -> Sequence[Section]:
        """Its sections, in the order in which people read them."""
        return ()


def told_p(p: float) -> str:
    """A p-value in words."""
    for limit, word in ((0.01, "strong"), (LEVEL, "weak")):
        if p < limit:
            return f"trace: {word} (p < {limit})"
    return f"no trace above chance (p = {p:.{2 if p >= 0.1 else 3}f})"


class Together(Record):
    """What the tests of several lenses come to."""

    p: float
    tested: int = Field(description="lenses with a p-value")
    strongest: str

    @property
    def verdict(self) -> str:
        times = f"the least p of {self.tested} tests, times {self.tested}"
        return f"{told_p(self.p)}, {times}; the strongest: lens {self.strongest}"


def together(readings: Mapping[str, Reading]) -> Together | None:
    """The least p-value times the number of lenses that have one (Bonferroni); None if none has.

    That holds however much they depend on one another: lenses that read one and the same trace do not add to it.
    """
    tested = {name: reading.p for name, reading in readings.items() if reading.p is not None}
    if not tested:
        return None
    strongest = min(tested, key=lambda name: tested[name])
    return Together(p=min(1.0, len(tested) * tested[strongest]), tested=len(tested), strongest=strongest)
