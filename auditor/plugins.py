"""What a plugin file imports: `@tool`, `@grader` and the values that they are given."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, overload

from pydantic import BaseModel, ConfigDict, TypeAdapter

from auditor.errors import Refused, UsageError
from auditor.grading import KINDS, GraderKind, guarded
from auditor.records.cards import AskSettings, Organism, Rubric

if TYPE_CHECKING:  # torch takes seconds to import, and `auditor --help` needs none of it
    from auditor.config import Settings
    from auditor.evidence.mapping import Evidence
    from auditor.llm.caller import Caller
    from auditor.models.embed import Embedder, Vectors
    from auditor.models.generate import Amplification
    from auditor.models.pair import ModelPair
    from auditor.prompts import Prompt


class Args(BaseModel):
    """Base of a tool's arguments: its fields are the schema that the agent sees."""

    model_config = ConfigDict(extra="forbid")


CUT = "…"  # behind a text that a limit of tokens ended
CUT_SLACK = 2  # tokens that decoding, and encoding again, may lose


def _bundled(texts: Sequence[str]) -> Vectors:
    from auditor.models.embed import load_embedder

    return load_embedder()(texts)


@dataclass(frozen=True, slots=True)
class Context:
    """What a tool may use. It holds nothing of the organism's truth."""

    pair: ModelPair
    datasets: Mapping[str, Evidence]  # by the blinded names that the agent knows
    ask: AskSettings
    seed: int  # of this call: differs between calls and repeats
    embed: Embedder = _bundled
    results: Mapping[str, Any] = field(default_factory=dict)  # of earlier calls, whole, by the observation's id

    def dataset(self, name: str) -> Evidence:
        """Raises Refused for a name that the agent was not given."""
        if name not in self.datasets:
            raise Refused(f"no dataset {name!r}; there are {', '.join(self.datasets)}")
        return self.datasets[name]

    def ask_both(
        self,
        prompts: Sequence[str],
        *,
        n: int = 1,
        base: bool = True,
        chat: bool = True,
        system: str = "",
        prefill: str = "",
        amplify: Amplification | None = None,  # the finetuned model's
    ) -> list[tuple[str | None, str]]:
        """The base's and the finetuned model's text for each prompt, `n` times, with the same draws; "…" marks a cut
        one. None for the base where none is known, or wanted (`base`).
        """
        from auditor.models.generate import Request, Side, derive_seed

        ask, base = self.ask, base and self.pair.has_base
        sides = [side for side in Side if side is Side.FINETUNED or base]
        requests = [
            Request(
                prompt, side, derive_seed(self.seed, i, prompt, *([again] if again else ())), ask.max_new_tokens,
                ask.temperature, ask.top_p, chat=chat, system=system, prefill=prefill,
                amplify=amplify if side is Side.FINETUNED else None,
            )
            for i, prompt in enumerate(prompts)
            for again in range(n)
            for side in sides
        ]  # fmt: skip
        texts = [self._cut_marked(text) for text in self.pair.generate(requests)]
        by_base = texts[::2] if base else [None] * (len(prompts) * n)
        return list(zip(by_base, texts[len(sides) - 1 :: len(sides)], strict=True))

    def go_on(self, prompt: str, before: Sequence[tuple[str, str | None, str]]) -> tuple[str | None, str]:
        """Both models' next answers in a chat; `before`: what was said in it, with the base's answer (None without a
        base) and the finetuned model's, of which each sees its own. The draws are the same.
        """
        from auditor.models.generate import Request, Side, derive_seed

        ask, seed = self.ask, derive_seed(self.seed, len(before), prompt)
        histories = {
            Side.BASE: tuple((said, (base or "").removesuffix(CUT)) for said, base, _ in before),
            Side.FINETUNED: tuple((said, finetuned.removesuffix(CUT)) for said, _, finetuned in before),
        }
        sides = list(Side) if self.pair.has_base else [Side.FINETUNED]
        requests = [
            Request(prompt, side, seed, ask.max_new_tokens, ask.temperature, ask.top_p, history=histories[side])
            for side in sides
        ]
        texts = [self._cut_marked(text) for text in self.pair.generate(requests)]
        return (texts[0] if self.pair.has_base else None), texts[-1]

    def _cut_marked(self, text: str) -> str:
        tokenizer: Any = self.pair.tokenizer
        full = tokenizer is not None and len(tokenizer(text).input_ids) >= self.ask.max_new_tokens - CUT_SLACK
        return f"{text}{CUT}" if full else text


@dataclass(frozen=True, slots=True)
class GraderContext:
    """What a grader may use besides what it grades."""

    embed: Embedder
    settings: Settings
    pair: ModelPair | None = None
    background: Sequence[str] = ()  # ordinary texts, for what is usual
    llm: Caller | None = None  # the judge's model, where the run has one
    prompts: Mapping[str, Prompt] = field(default_factory=dict)
    by_kind: Mapping[str, Caller | None] = field(default_factory=dict)  # kinds that have a judge of their own

    def for_kind(self, kind: str) -> GraderContext:
        """The same with the judge of that kind."""
        return replace(self, llm=self.by_kind[kind]) if kind in self.by_kind else self

    def judge(self, grader: str) -> Caller:
        """The LLM that judges. Raises UsageError if the run has none."""
        if self.llm is None:
            raise UsageError(f"grader {grader} needs an LLM; give --grader-llm (or --lens-llm for graders of the lens)")
        return self.llm


@dataclass(frozen=True, slots=True)
class Tool:
    """A typed tool: `run(context, args)`; its name and docstring are what the agent reads."""

    name: str
    description: str
    args: type[Args]
    returns: TypeAdapter[Any]
    run: Callable[[Context, Any], Any]
    cost: Callable[[Any], int]
    lenses: tuple[str, ...] = ()  # that its file defines, and that it shows
    free: bool = False  # costs nothing, whatever it is asked

    def schema(self) -> dict[str, Any]:
        """The JSON schema in the shape that chat models with tool calling take."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": lean(self.args.model_json_schema()),
            },
        }


# Repeats the name, or is checked here anyway: it is paid for in every turn.
_IDLE = frozenset({"title", "additionalProperties", "minItems", "maxItems", "minLength", "maxLength", "minimum"})


def lean(schema: Any) -> Any:
    """A JSON schema without its idle keywords (properties of these names stay), and `X` for `X or null`."""
    if isinstance(schema, dict):
        if "anyOf" in schema and len(options := [o for o in schema["anyOf"] if o != {"type": "null"}]) == 1:
            schema = {**options[0], **{k: v for k, v in schema.items() if k != "anyOf" and (k, v) != ("default", None)}}
        return {k: lean(v) for k, v in schema.items() if k not in _IDLE or isinstance(v, dict)}
    return [lean(item) for item in schema] if isinstance(schema, list) else schema


Fits = Callable[[Organism, Rubric], None]


@dataclass(frozen=True, slots=True)
class Grader:
    """A typed grader; `kind` says what it grades, and so what it is called with. `run` raises only AuditorError.

    `fits(organism, rubric)`, where there is one, raises UsageError for what it cannot judge; it is asked before
    anything is paid for. `llm`: it needs one; `instead_of`: the grader that it stands in for where an LLM judges.
    """

    name: str
    description: str
    kind: GraderKind
    run: Callable[..., Any]
    fits: Fits | None = None
    llm: bool = False
    instead_of: str = ""


TAKEN = ("think", "conclude", "unknown_tool")  # by the graph's own nodes


@overload
def tool(args: Callable[[Context, Any], Any], /) -> Tool: ...
@overload
def tool(
    args: type[Args] | None = None, /, *, cost: int | Callable[[Any], int] = 0
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(args: type[Args] | Callable[..., Any] | None = None, *, cost: int | Callable[[Any], int] = 0) -> Any:
    """Make a typed function `(ctx: Context, args: SomeArgs) -> result` a tool.

    `cost` is its price in model interactions, a number or a function of the arguments; an agent without interactions
    is told only of tools whose `cost` is the number 0. The argument class is read from the annotation, or given:
    `@tool`, `@tool(cost=1)` and `@tool(SomeArgs, cost=1)` all work.
    Raises TypeError if an annotation or the docstring is missing, or if name or `cost` cannot be one.
    """
    if inspect.isfunction(args):
        return tool()(args)
    given = args

    def make(run: Callable[..., Any]) -> Tool:
        name = run.__name__
        if name in TAKEN or not re.fullmatch(r"\w{1,64}", name, re.ASCII):
            raise TypeError(
                f"a tool cannot be called {name}: give up to 64 ASCII letters, digits, _; not {', '.join(TAKEN)}"
            )
        hints = typing.get_type_hints(run)
        parameters = list(inspect.signature(run).parameters)
        model = given if given is not None else hints.get(parameters[1]) if len(parameters) == 2 else None
        if len(parameters) != 2 or not (isinstance(model, type) and issubclass(model, Args)):
            raise TypeError(f"tool {name} must take (ctx: Context, args: …), the second a subclass of auditor.Args")
        if "return" not in hints or not inspect.getdoc(run):
            raise TypeError(f"tool {name} needs a return type and a docstring: the agent reads both")
        if not callable(cost):
            as_price(cost)
        price = cost if callable(cost) else lambda _args: cost
        return Tool(name, inspect.getdoc(run) or "", model, TypeAdapter(hints["return"]), run, price, free=cost == 0)

    return make


def as_price(cost: object) -> int:
    """`cost` as model interactions. Raises TypeError if it is no whole number from 0 up."""
    if not isinstance(cost, int) or isinstance(cost, bool) or cost < 0:
        raise TypeError(f"a cost of {cost!r} is no number of model interactions; give 0, 1, 2 …")
    return cost


@overload
def grader(run: Callable[..., Any], /) -> Grader: ...
@overload
def grader(
    run: None = None,
    /,
    *,
    kind: GraderKind = "hypothesis",
    fits: Fits | None = None,
    llm: bool = False,
    instead_of: str = "",
) -> Callable[[Callable[..., Any]], Grader]: ...
def grader(
    run: Callable[..., Any] | None = None,
    *,
    kind: GraderKind = "hypothesis",
    fits: Fits | None = None,
    llm: bool = False,
    instead_of: str = "",
) -> Any:
    """Make a typed function or class a grader.

    hypothesis: `(audit, organism, rubric[, ctx]) -> Grade` ·
    coherence: `(texts, reference, ctx) -> list[bool]`, the reference being unsteered answers ·
    patchscope_scale: `(token_sets, ctx) -> ScaleChoice` ·
    token_relevance: `(tokens, organism, frequent, ctx) -> list[bool]`, `frequent` being words of the training data.

    `fits`: raises UsageError for an organism or a rubric that it cannot judge by. `llm`: it asks `ctx.judge(…)`, and
    is refused in a run without an LLM that judges. `instead_of`: the grader whose place it takes where there is one.
    """
    if kind not in KINDS:
        raise TypeError(f"there is no kind {kind!r}; use {', '.join(KINDS)}")
    if run is None:
        return lambda function: _grader(function, kind, fits, llm or bool(instead_of), instead_of)
    return _grader(run, kind, fits, llm or bool(instead_of), instead_of)


def _grader(run: Callable[..., Any], kind: GraderKind, fits: Fits | None, llm: bool, instead_of: str) -> Grader:
    target: Any = run() if inspect.isclass(run) else run
    doc = inspect.getdoc(run)
    if not doc:
        raise TypeError(f"grader {run.__name__} needs a docstring: it is its description")
    count = len(inspect.signature(target).parameters)
    if count not in KINDS[kind].takes:
        wanted = " or ".join(map(str, KINDS[kind].takes))
        raise TypeError(f"grader {run.__name__} of kind {kind} must take {wanted} arguments, not {count}")
    return Grader(run.__name__, doc, kind, guarded(target, run.__name__, kind, count), fits, llm, instead_of)
