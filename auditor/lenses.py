"""What a lens plugin imports: `@lens`, and what a lens is given."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from auditor.errors import UsageError
from auditor.grading import GraderKind
from auditor.readings import Reading
from auditor.records.record import Record

if TYPE_CHECKING:
    from auditor.methods.corpus import Corpus
    from auditor.models.embed import Embedder
    from auditor.models.pair import ModelPair
    from auditor.plugins import Grader, GraderContext

R = TypeVar("R", bound=Reading)


@dataclass(frozen=True, slots=True)
class Judged:
    """Marks a field of a lens' settings that names a grader: `Annotated[str, Judged("coherence")]`."""

    kind: GraderKind


BASE, NONE = "base", "none"


@dataclass(frozen=True, slots=True)
class Compared:
    """Marks a field of a lens' settings that says what the finetune is held against, `Annotated[str, Compared()]`:
    `base`, the pair's own; `none`; or another model's hub id or folder, which `LensContext.alone` loads.
    """


def _none_here(model: str) -> ModelPair:
    raise UsageError(f"{model}: no model beside the pair is loaded here")


@dataclass(frozen=True, slots=True)
class LensContext:
    """What a lens may use besides the pair. All of it is in the key that its reading is kept under."""

    seed: int
    texts: int  # of the corpus, that were asked for; it may have fewer
    prompts: tuple[str, ...]  # unrelated chat prompts
    calibration_prompts: tuple[str, ...]
    grading: GraderContext
    graders: Mapping[str, Grader]
    needed: Mapping[str, Reading]
    read_corpus: Callable[[], Corpus]
    tell: Callable[[str], None] = lambda stage: None
    alone: Callable[[str], ModelPair] = _none_here  # the model that a `Compared` field names: a pair without a base

    @property
    def corpus(self) -> Corpus:
        """The unrelated texts of the suite, as many as it asks for."""
        return self.read_corpus()

    @property
    def embed(self) -> Embedder:
        """Sentence embeddings: texts -> (n, d_embed)."""
        return self.grading.embed

    @property
    def background(self) -> Sequence[str]:
        """Ordinary texts, for what is usual."""
        return self.grading.background

    def grader(self, name: str) -> Callable[..., Any]:
        """A grader that the settings name, without its last argument, the context."""
        chosen = self.graders[name]
        grading = self.grading.for_kind(chosen.kind)
        return lambda *given: chosen.run(*given, grading)

    def grader_of_each(self, name: str) -> Callable[[Sequence[Any]], list[Any]]:
        """The same of many values, in their order: at once where an LLM judges."""
        chosen = self.graders[name]
        grade, judge = self.grader(name), self.grading.for_kind(chosen.kind).llm if chosen.llm else None
        if judge is None:
            return lambda many: [grade(each) for each in many]
        from auditor.llm.at_once import all_of

        return partial(all_of, work=grade, caller=judge)

    def reading(self, name: str, kind: type[R]) -> R:
        """What a lens named in `needs` found. Raises UsageError if it is not named there, or is no `kind`."""
        if name not in self.needed:
            raise UsageError(f"the lens {name} is not in `needs`; there are {', '.join(self.needed) or 'none'}")
        found = self.needed[name]
        if not isinstance(found, kind):
            raise UsageError(f"the lens {name} gives {type(found).__name__}, where {kind.__name__} is needed")
        return found


@dataclass(frozen=True, slots=True)
class Lens:
    """A way of reading a pair: `run(pair, context, settings)` gives a `reading`."""

    name: str
    description: str
    settings: type[Record]
    reading: type[Reading]
    needs: tuple[str, ...]
    run: Callable[[Any, LensContext, Any], Reading]
    path: Path

    @property
    def judges(self) -> dict[str, GraderKind]:
        """Fields of the settings that name graders, with the kind that each must be of."""
        return {name: mark.kind for name, mark in self._marks() if isinstance(mark, Judged)}

    @property
    def compared(self) -> tuple[str, ...]:
        """Fields of the settings that say what the finetune is held against."""
        return tuple(name for name, mark in self._marks() if isinstance(mark, Compared))

    def _marks(self) -> list[tuple[str, Any]]:
        return [(name, mark) for name, field in self.settings.model_fields.items() for mark in field.metadata]

    def fitting(self, given: Mapping[str, Any]) -> Record:
        """`given` as its settings, over its own defaults. Raises UsageError with the first mistake."""
        try:
            return self.settings.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, (self.name, *first["loc"])))
            raise UsageError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from error


@typing.overload
def lens(run: Callable[..., Reading], /) -> Lens: ...
@typing.overload
def lens(run: None = None, /, *, needs: Sequence[str] = ()) -> Callable[[Callable[..., Reading]], Lens]: ...
def lens(run: Callable[..., Reading] | None = None, /, *, needs: Sequence[str] = ()) -> Any:
    """Make a typed function `(pair: ModelPair, ctx: LensContext, settings: SomeSettings) -> SomeReading` a lens.

    `needs`: lenses that it builds on. Raises TypeError if an annotation or the docstring is missing or wrong.
    """
    if run is None:
        return partial(_made, needs=tuple(needs))
    return _made(run, needs=())


def _made(run: Callable[..., Reading], needs: tuple[str, ...]) -> Lens:
    name = run.__name__
    if not re.fullmatch(r"\w{1,64}", name, re.ASCII):
        raise TypeError(f"a lens cannot be called {name}: give up to 64 ASCII letters, digits, _")
    if isinstance(needs, str) or not all(isinstance(need, str) for need in needs):
        raise TypeError(f"lens {name}: `needs` is a tuple of names, such as ('differences',)")
    hints = typing.get_type_hints(run, vars(inspect.getmodule(run) or run), _unread(run))
    parameters = list(inspect.signature(run).parameters)
    settings = hints.get(parameters[2]) if len(parameters) == 3 else None
    if not (isinstance(settings, type) and issubclass(settings, Record)):
        raise TypeError(
            f"lens {name} must take (pair: ModelPair, ctx: LensContext, settings: …), the last a subclass of "
            "auditor.Record"
        )
    reading = hints.get("return")
    if not (isinstance(reading, type) and issubclass(reading, Reading)):
        raise TypeError(f"lens {name} must be annotated to return a subclass of auditor.Reading")
    if not (doc := inspect.getdoc(run)):
        raise TypeError(f"lens {name} needs a docstring: it is its description")
    try:
        settings()
    except ValueError as error:
        raise TypeError(f"lens {name}: {settings.__name__} has fields without a default") from error
    return Lens(name, doc, settings, reading, needs, run, Path(inspect.getfile(run)))


def _unread(run: Callable[..., Any]) -> dict[str, Any]:
    """Names that a plugin file may import for its annotations only."""
    known = vars(inspect.getmodule(run) or run)
    return {name: Any for name in ("ModelPair", "LensContext") if name not in known}
