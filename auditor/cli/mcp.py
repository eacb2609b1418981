"""`auditor mcp`: any agent that speaks the Model Context Protocol plays the auditor."""

from __future__ import annotations

import importlib.util
import os
import re
import threading
import traceback
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from auditor.cli.pairs import BaseOption, ModelArgument, asked_pair
from auditor.cli.shared import (
    GraderLlmOption,
    GraderOption,
    LensLlmOption,
    OutOption,
    ResumeFlag,
    SeedOption,
    ServerOption,
    err,
    run_folder,
    settings,
    workspace,
)
from auditor.errors import AuditorError, UsageError
from auditor.records.cards import Protocol, Suite

if TYPE_CHECKING:
    from collections.abc import Callable

    from auditor.audits.run import Sitting
    from auditor.config import Settings
    from auditor.mcp.seat import Seat
    from auditor.records.results import Target

    Play = Callable[[], tuple[int, str]]  # the exit code, and what it came to

INTERRUPTED = 130


def mcp(
    model: ModelArgument,
    base: BaseOption = None,
    agent: Annotated[str, typer.Option(help="Whose prompt, overview and tools the player gets.")] = "adl",
    budget: Annotated[int, typer.Option(min=0, help="Model interactions that an audit may spend.")] = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Audits of an organism, one after another.")] = 1,
    player: Annotated[str, typer.Option(help="What results call who plays, such as a coding agent's name.")] = "client",
    suite: Annotated[str, typer.Option(help="Suite whose settings of lenses, limits and graders hold.")] = "quickstart",
    grader: GraderOption = None,
    grader_llm: GraderLlmOption = None,
    lens_llm: LensLlmOption = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve streamable HTTP there; default: stdio.")
    ] = None,
    host: Annotated[str, typer.Option(help="With --port; any address but loopback demands a key.")] = "127.0.0.1",
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with the key that clients must send; or AUDITOR_API_KEY.")
    ] = None,
    out_dir: OutOption = Path("runs"),
    name: Annotated[str | None, typer.Option(help="The run's name; default: the time.")] = None,
    resume: ResumeFlag = False,
    seed: SeedOption = 0,
    server: ServerOption = None,
) -> int:
    """Let an agent of yours play the auditor over MCP, with the tools, budget, ledger and grade that --llm has."""
    if importlib.util.find_spec("mcp") is None:
        raise UsageError("`auditor mcp` needs the package mcp: pip install 'auditor-adl[mcp]'")
    if not re.fullmatch(r"[\w.+-]{1,60}", player):
        raise UsageError(f"--player {player}: give letters, digits and any of . + - _")
    folder = run_folder(out_dir, name, f"mcp-{datetime.now():%Y%m%d-%H%M%S}", resume=resume)
    conf = settings(llm=f"mcp:{player}", grader_llm=grader_llm, lens_llm=lens_llm, server=server)
    ws = workspace()
    target = asked_pair(conf, model, base)

    from auditor.audits.asked import adapted
    from auditor.audits.plan import offered, tools_of
    from auditor.audits.run import Sitting
    from auditor.mcp.seat import Seat
    from auditor.mcp.server import over_http, over_stdio, server_of
    from auditor.server.run import read_key

    key = None if port is None else read_key(api_key_file, os.environ.get("AUDITOR_API_KEY"), host)
    asked = adapted(ws.suites[suite], [budget], [agent], None, repeats, grader)
    seat, sitting = Seat(), Sitting(workers=1, resume=resume)
    if card := ws.organisms.get(model) if base is None else None:
        play = graded_run(asked.model_copy(update={"organisms": (card.name,)}), conf, seed, folder, sitting, seat)
    elif grader or repeats > 1:
        raise UsageError(f"{model} is no organism: nothing is known to grade by; leave out --grader and --repeats")
    else:
        play = reported_audit(asked, conf, seed, folder, sitting, seat, target)
    game = Game(seat, play)
    served = server_of(seat, offered(tools_of(ws, ws.agents[agent]), budget).values())
    game.start()
    if port is None:
        over_stdio(served)
    else:
        over_http(served, host, port, key, lambda place: err.print(f"MCP at {place}", highlight=False))
    game.join(1.0)  # it may be about to say why it cannot begin
    if game.code is None:  # the player has left, or somebody stopped it
        err.print(f"not concluded: the same command with `--name {escape(folder.name)} --resume` goes on from here")
        return INTERRUPTED
    return game.code


def graded_run(suite: Suite, conf: Settings, seed: int, folder: Path, sitting: Sitting, seat: Seat) -> Play:
    """A run of `auditor evaluate` whose agent sits there. Raises UsageError for what would fail later."""
    from auditor.audits.asked import planned
    from auditor.cli.evaluate import made, whole
    from auditor.cli.result import report
    from auditor.mcp.seat import Played

    plan, _ = planned(workspace(), suite, conf, seed, Protocol.TOOLS, chats={conf.llm: Played(seat=seat)})

    def play() -> tuple[int, str]:
        result = made(plan, folder, sitting, None)
        report(folder, anew=True)
        told = ", ".join(f"{each.id} {each.status}, grade {each.grade}" for each in result.audits)
        return int(not all(whole(each, plan.suite) for each in result.audits)), f"{folder}: {told}"

    return play


def reported_audit(
    suite: Suite, conf: Settings, seed: int, folder: Path, sitting: Sitting, seat: Seat, target: Target
) -> Play:
    """An `auditor audit` whose agent sits there."""
    from auditor.audits.plan import Plan
    from auditor.audits.vet import Vetting
    from auditor.cli.audit import reported
    from auditor.mcp.seat import Played

    plan = Plan(workspace(), suite, conf, seed, Protocol.TOOLS, target.variant, chats={conf.llm: Played(seat=seat)})
    named = target if conf.server else target.model_copy(update={"name": "audited"})
    job = Vetting(plan, named, suite.agents[0], suite.budgets[0])

    def play() -> tuple[int, str]:
        told = reported(job, folder, sitting)
        return int(bool(told.error)), told.error or f"{folder / 'report.html'}: {told.hypothesis}"

    return play


class Game(threading.Thread):
    """The audits, walked beside the server; a player who leaves is not waited for."""

    def __init__(self, seat: Seat, play: Play) -> None:
        super().__init__(daemon=True)
        self.seat, self.play = seat, play
        self.code: int | None = None

    def run(self) -> None:
        over = "The audit ended with an error of the auditor's own; who began it can read it there."
        try:
            self.code, told = self.play()
            over = "All audits are over; nothing is left to call."
        except UsageError as error:
            self.code, told = 2, f"error: {error}"
        except Exception as error:
            known = isinstance(error, AuditorError)
            self.code, told = 1, f"error: {error}" if known else traceback.format_exc()
        self.seat.close(over)
        err.print(escape(told), highlight=False, soft_wrap=True)
