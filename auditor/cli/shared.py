"""What the commands share: consoles, the workspace, JSON output."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape

from auditor.config import Settings, load_settings
from auditor.errors import UsageError
from auditor.estimate import announcement
from auditor.records.cards import EvidenceSettings, Protocol
from auditor.runtime import quiet_libraries, show_libraries
from auditor.text import readable
from auditor.workspace import MARKER, Workspace, find_user_root, load_workspace

if TYPE_CHECKING:
    from auditor.audits.limits import Most


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would end the process, as if audits had failed


out, err = _Console(emoji=False), _Console(stderr=True, emoji=False)  # `:x:` in a model's text is text

CorpusOption = Annotated[
    str | None,
    typer.Option(
        help="Unrelated texts that differences are read on, instead of the suite's: a corpus or dataset by name "
        "(openings, fineweb), OWNER/NAME of the hub, a .jsonl or .txt file, or `sampled`."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="LENS.KEY=VALUE", help="A lens' setting instead of the suite's; repeatable."),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]

ServerOption = Annotated[
    str | None, typer.Option(help="Address of an `auditor serve` that has the models; default: in this process.")
]

# What `evaluate` and `audit` both take.
LlmOption = Annotated[str | None, typer.Option(help="The agent: `offline`, or PROVIDER:MODEL[?option=value&…].")]
LensLlmOption = Annotated[str | None, typer.Option(help="The judge of the lens, written as --llm is.")]
GraderOption = Annotated[
    list[str] | None, typer.Option(help="Graders of hypotheses instead of the suite's; repeatable.")
]
GraderLlmOption = Annotated[str | None, typer.Option(help="The hypotheses' judge, written as --llm is.")]
ProtocolOption = Annotated[Protocol, typer.Option(help="How the agent calls tools.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder that runs and reports are kept in.")]
ResumeFlag = Annotated[bool, typer.Option("--resume", help="Finish what was interrupted (needs --name).")]
MaxCost = Annotated[
    list[str] | None,
    typer.Option(metavar="N|N/audit", help="USD that the LLMs may take: of the run, or of each audit; repeatable."),
]
MaxTokens = Annotated[list[str] | None, typer.Option(metavar="N|N/audit", help="Tokens of the LLMs, in the same way.")]
MaxInputTokens = Annotated[
    int | None,
    typer.Option(min=1, help="Tokens that the agent may read in each audit; default: turns and interactions end it."),
]
MaxTime = Annotated[
    list[str] | None, typer.Option(metavar="N|N/audit", help="Seconds of this sitting, or of an audit's walk.")
]
UnpricedFlag = Annotated[
    bool, typer.Option("--allow-unpriced", help="With --max-cost: let models run whose price is not known.")
]
SeedOption = Annotated[int, typer.Option(help="Everything random derives from it.")]

_root: Path | None = None
_none = False
_verbose = False
_machine: dict[str, str | None] = {}


def choose_workspace(root: Path | None, *, none: bool = False) -> None:
    """Remember --workspace and --no-workspace for this process."""
    global _root, _none
    if none and root is not None:
        raise UsageError("--workspace and --no-workspace: give one of them")
    _root, _none = root, none


def choose_verbosity(wanted: bool) -> None:
    """Remember --verbose for this process; without it the libraries' warnings and bars are not shown."""
    global _verbose
    _verbose = wanted
    (show_libraries if wanted else quiet_libraries)()


def choose_machine(**given: str | None) -> None:
    """Remember --device and --dtype for this process; nothing of a command that loads no models."""
    global _machine
    _machine = given


def verbose() -> bool:
    return _verbose


def user_root() -> Path | None:
    """The user's workspace, if there is one and it is wanted."""
    return None if _none else find_user_root(_root)


@lru_cache(maxsize=1)
def workspace() -> Workspace:
    """All roots; plugins are listed before they are loaded, and broken files told in one line each."""
    loaded = load_workspace(
        user_root(),
        packages=not _none,
        tell=lambda line: err.print(escape(line), style="dim", highlight=False, soft_wrap=True),
    )
    broken = {str(problem): None for shelf in loaded.shelves() for problem in shelf.broken.values()}
    for problem in (*loaded.lost, *broken):
        err.print(f"[yellow]warning:[/] {escape(problem)}", highlight=False, soft_wrap=True)
    return loaded


def settings(**flags: Any) -> Settings:
    """Settings with the user workspace's auditor.toml under the flags. Raises UsageError.

    A command that takes no `server` has its models in this process, and says so where one is named elsewhere.
    """
    user = user_root()
    conf = load_settings(user / MARKER if user else None, **_machine, **flags)
    if "server" not in flags and conf.server is not None:
        if _machine:
            told = f"note: the model server {conf.server} is not asked: this command has its models in this process"
            err.print(escape(told), style="dim", highlight=False, soft_wrap=True)
        return conf.model_copy(update={"server": None})
    if conf.server is not None and (given := [name for name, value in _machine.items() if value is not None]):
        raise UsageError(f"--{given[0]} with --server: where models are is the server's; give it to `auditor serve`")
    return conf


def announce_spans() -> None:
    """Let spans be sent, if the environment asks for them, and say if they cannot be."""
    from auditor import telemetry

    if problem := telemetry.start():
        err.print(f"[yellow]warning:[/] {escape(problem)}", highlight=False, soft_wrap=True)


def limits_of(
    conf: Settings, cost: list[str] | None, tokens: list[str] | None, seconds: list[str] | None, *, allowed: bool
) -> tuple[Most, Most]:
    """What a run may take, and each of its audits. Raises UsageError, also for a price that is not known, or `allowed`
    not to be.
    """
    from auditor.audits.limits import demand_prices, read_limits

    found = read_limits(cost or (), tokens or (), seconds or ())
    demand_prices(conf, *found, allowed=allowed)
    return found


@contextmanager
def stages(first: str) -> Iterator[Callable[[str], None]]:
    """A function that is told every stage: one moving line on a terminal, else a line on stderr for each."""
    if err.is_terminal:
        with err.status(escape(first)) as status:
            yield lambda stage: status.update(f"{escape(stage)} …")
        return
    begun = time.perf_counter()

    def tell(stage: str) -> None:
        err.print(f"{time.perf_counter() - begun:5.0f} s  {stage} …", style="dim", markup=False, highlight=False)

    tell(first)
    yield tell


def announce(chosen: EvidenceSettings, names: Iterable[str], conf: Settings) -> None:
    """Say what evidence of the lenses called `names` costs, if that is much."""
    from auditor.evidence.recipe import chosen as settings_of
    from auditor.evidence.recipe import closure
    from auditor.grading import llm_variants

    order, _ = closure(workspace().lenses.by_name(), names)
    variants = llm_variants(workspace().graders.by_name(), conf.lens_judge)
    lenses = {lens.name: settings_of(lens, chosen.lenses.get(lens.name, {}), variants) for lens in order}
    if line := announcement(chosen.texts, lenses):
        err.print(f"[yellow]note:[/] {line}", highlight=False, soft_wrap=True)


def run_folder(out_dir: Path, name: str | None, default: str, *, resume: bool) -> Path:
    """Where a run lies. Raises UsageError for a name that leads elsewhere, or without the one to `resume`."""
    if resume and name is None:
        raise UsageError("--resume needs the --name of what is to be finished")
    if name is not None and (not name.strip() or name == ".." or Path(name).name != name):
        raise UsageError(f"--name {name!r}: give a plain folder name; --out says where runs lie")
    return out_dir / (name or default)


def plain(text: str) -> str:
    """A text that somebody else may have written, for the terminal: no markup, no escape sequences."""
    return escape(readable(text))


def show_trust(grader: str, line: str) -> None:
    """Under a table of its grades: how far a grader can be trusted (`audits/calibrate.py: trust_in`)."""
    if line:
        style = "dim" if line.startswith("calibrated") else "yellow"
        out.print(escape(f"{grader}: {line}"), style=style, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One document on stdout."""
    told = isinstance(value, BaseModel)
    text = value.model_dump_json(indent=1) if told else json.dumps(value, ensure_ascii=False, indent=1)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # JSON has escapes of its own
        text = json.dumps(json.loads(text), indent=1)
    sys.stdout.write(text + "\n")
