"""Who plays the agent and who judges: by kind, announced where nobody does, and no call of theirs paid twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.cli.shared import err
from auditor.config import ROLES, Settings
from auditor.errors import UsageError
from auditor.llm.spec import OFFLINE

if TYPE_CHECKING:
    from auditor.llm.journal import Journal

RolesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--llm-role",
        metavar="KIND=LLM",
        help="A judge of the lens of its own, instead of --lens-llm: coherence, scale or relevance; repeatable.",
    ),
]


def roles_of(given: Iterable[str] | None) -> dict[str, str] | None:
    """Judges by kind; None if none is given. Raises UsageError."""
    found: dict[str, str] = {}
    for each in given or ():
        kind, equals, llm = each.partition("=")
        if not equals or not llm or kind not in ROLES:
            raise UsageError(f"--llm-role {each}: give KIND=LLM, KIND one of {', '.join(ROLES)}")
        found[kind] = llm
    return found or None


def announce_agent(conf: Settings, *, graded: bool = True) -> None:
    """Say that no LLM plays the agent, if none does; else which judges beside it are none (`graded`: of hypotheses)."""
    if conf.llm == OFFLINE:
        err.print("agent: the offline investigator (no LLM; give --llm or AUDITOR_LLM for one)", style="dim")
        return
    offline = [name for name, kind in ROLES.items() if name != "relevance" and conf.lens_judge(kind) == OFFLINE]
    told = [f"{' and '.join(offline)} of the lens (--lens-llm, --llm-role)"] if offline else []
    told += ["hypotheses (--grader-llm)"] if graded and conf.grader_llm == OFFLINE else []
    if told:
        err.print(f"judged offline, without an LLM: {'; '.join(told)}", style="dim", highlight=False)


@contextmanager
def judges_calls(folder: Path | None) -> Iterator[Journal]:
    """The ledger in `folder`, where judges' calls are kept so that none is paid twice; nothing is kept without one."""
    from auditor.ledger.ledger import Ledger
    from auditor.llm.journal import NoJournal

    if folder is None:
        yield NoJournal()
        return
    with Ledger.open(folder) as ledger:
        yield ledger.calls
