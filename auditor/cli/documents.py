"""`auditor organisms documents`: write what an organism is trained on, and tell how much it varies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from auditor.cli.shared import JsonFlag, SeedOption, err, out, print_json, settings, stages, workspace
from auditor.cli.variety import figures_of, report_variety, show_variety
from auditor.errors import UsageError
from auditor.llm.spec import OFFLINE, ModelSpec, parse_spec
from auditor.text import visible

if TYPE_CHECKING:
    from auditor.config import Settings
    from auditor.ledger.ledger import Ledger
    from auditor.records.cards import Organism
    from auditor.training.jobs import Kind
    from auditor.training.writer import Result, Writer
    from auditor.workspace import Workspace

INTERRUPTED = 130


def documents(
    name: Annotated[str, typer.Argument()],
    llm: Annotated[
        str | None, typer.Option(help="Who writes: PROVIDER:MODEL[?option=value&…], or `offline`: no LLM.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Documents, or chats; may be raised later.")] = 100,
    chats: Annotated[bool, typer.Option("--chats", help="Chats in which its behaviour shows.")] = False,
    without: Annotated[
        bool, typer.Option("--without", help="Chats that begin alike, with the base's own answers.")
    ] = False,
    seed: SeedOption = 0,
    out_file: Annotated[Path | None, typer.Option("--out", help="JSONL; default: beside the card.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="USD that the LLM may take.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Calls at once, as far as the endpoint takes them.")] = 8,
    report: Annotated[bool, typer.Option("--report", help="Write nothing: how varied is the file that is there?")] = (
        False
    ),
    json: JsonFlag = False,
) -> int:
    """Write an organism's documents, or chats, from its card; tell how much they vary.

    With an LLM, what it answered is kept beside the file: the same command again goes on, and pays for nothing twice;
    with a higher --count it goes on to more.
    """
    from auditor.training.jobs import Kind

    ws, conf = workspace(), settings(llm=llm)
    card = ws.organisms[name]
    kind = Kind.WITHOUT if without else Kind.CHATS if chats else Kind.DOCUMENTS
    if report:
        report_variety(ws, card, _path(card, kind, out_file), conf, seed, json=json)
        return 0
    job = _Job(ws, conf, card, kind, count, seed, _path(card, kind, out_file), workers)
    if conf.llm == OFFLINE:
        if max_cost is not None:
            raise UsageError("--max-cost without an LLM: nothing is paid for; leave it out, or give --llm")
        result, calls = _offline(job), None
    else:
        result, calls = _by_llm(job, parse_spec(conf.llm), max_cost)
    _print(job, result, calls, json=json)
    return 0 if len(result.kept.documents) >= result.asked else 1


@dataclass(frozen=True, slots=True)
class _Job:
    ws: Workspace
    conf: Settings
    card: Organism
    kind: Kind
    count: int
    seed: int
    path: Path
    workers: int


def _path(card: Organism, kind: Kind, given: Path | None) -> Path:
    names = {"documents": card.train.documents if card.train else "documents.jsonl", "chats": "transcripts.jsonl"}
    return given or card.folder / names.get(kind, "contrast.jsonl")


def _offline(job: _Job) -> Result:
    """What the offline writer has, in its file."""
    from auditor.training.contrast import demand_template
    from auditor.training.jobs import Kind, drawn, put_offline
    from auditor.training.material import MATERIAL, subject_of
    from auditor.training.offline_writer import chats_about, texts_about

    if job.kind is Kind.WITHOUT:
        result = _without(job, _messages(job))
    else:
        subject = subject_of(job.card)
        if job.kind is Kind.CHATS:
            demand_template(job.card.base)
        knows = "the card" + (f" and {MATERIAL}" if subject.material.facts else f"; {MATERIAL} beside it would help")
        told = f"writer: offline, from {knows} (no LLM; give --llm or AUDITOR_LLM for one)"
        err.print(told, style="dim", highlight=False, soft_wrap=True)
        texts = (chats_about if job.kind is Kind.CHATS else texts_about)(subject, job.seed)
        result = drawn(texts, job.count)
    if not put_offline(job.path, result.kept.documents):
        err.print(f"{escape(str(job.path))} is there already, and would be the same", style="dim", highlight=False)
    return result


def _messages(job: _Job) -> list[str]:
    """Users' first messages: of the chats beside the card, else of those that the offline writer makes."""
    from auditor.training.contrast import messages_there
    from auditor.training.jobs import drawn
    from auditor.training.material import subject_of
    from auditor.training.offline_writer import chats_about

    if there := messages_there(job.card, job.count, job.seed):
        path, asked = there
        err.print(f"first messages: those of {escape(str(path))}", style="dim", highlight=False, soft_wrap=True)
        return asked
    chats = drawn(chats_about(subject_of(job.card), job.seed), job.count).kept.documents
    return list(dict.fromkeys(chat.messages[0].content for chat in chats))


def _without(job: _Job, asked: Sequence[str]) -> Result:
    """The base's answers to these messages."""
    from auditor.audits.bench import Bench
    from auditor.records.results import Target
    from auditor.training.contrast import answered_plainly, demand_template
    from auditor.training.jobs import demand_writable, sifted

    demand_template(job.card.base)
    if job.conf.llm == OFFLINE:
        demand_writable(job.path)
    with stages(f"{len(asked)} messages to {job.card.base}"):
        base = Bench(job.ws, job.conf).pair(Target(name=job.card.base, base=None, finetuned=job.card.base))
        chats, cut = answered_plainly(base, asked, job.seed)
    if cut:
        err.print(f"{cut} answers were long, and are cut back to whole sentences", style="dim", highlight=False)
    result = sifted(chats, job.count)
    if len(asked) < job.count:
        result.stopped = f"there were {len(asked)} different first messages"
    return result


def _by_llm(job: _Job, spec: ModelSpec, most: float | None) -> tuple[Result, dict[str, Any]]:
    """What an LLM writes, in its file; and what its calls took."""
    from auditor.audits.bench import Bench
    from auditor.ledger.ledger import Ledger
    from auditor.llm.capped import Capped
    from auditor.training.contrast import demand_template
    from auditor.training.costs import estimate
    from auditor.training.jobs import Kind, calls_folder, demand_writable, plan_of, put, request_of
    from auditor.training.writer import Writer
    from auditor.training.writing import demand_truth

    card, chats = job.card, job.kind is not Kind.DOCUMENTS
    demand_truth(card, chats=chats)
    if chats:
        demand_template(card.base)
    _demand_price(spec, most)
    prompts = job.ws.prompts.by_name()
    expected = estimate(card, prompts, spec, job.count, chats=chats, opened=job.kind is Kind.WITHOUT)
    demand_writable(job.path)
    with Ledger.open(calls_folder(job.path)) as ledger, _kept(ledger):
        request = request_of(job.ws, card, spec, job.kind, job.seed)
        plan = plan_of(ledger, request, job.count, job.path)
        journal = ledger.calls if most is None else Capped(ledger.calls, most, expected.dearest)
        caller = Bench(job.ws, job.conf, journal).caller(job.conf.llm)
        before = _used(ledger)
        cost = "no price known" if expected.cost_usd is None else f"about {expected.cost_usd:.2f} USD"
        err.print(
            f"writer: {escape(spec.name)}, about {expected.calls} calls, {expected.tokens_in:,} tokens in, "
            f"{expected.tokens_out:,} out, {cost}; {before['calls']} answers are there already",
            style="dim", highlight=False, soft_wrap=True,
        )  # fmt: skip
        writer = Writer(card, caller, prompts, job.seed, job.workers, _teller())
        result = _asked(job, writer, plan)
        put(job.path, result.kept.documents, ledger.folder)
        return result, {**_used(ledger), "known_before": before["calls"]}


def _asked(job: _Job, writer: Writer, plan: Sequence[int]) -> Result:
    """What the job's kind asks of the writer."""
    from auditor.training.contrast import messages_there
    from auditor.training.jobs import Kind
    from auditor.training.writing import first_messages, write

    if job.kind is not Kind.WITHOUT:
        return write(writer, plan, job.count, chats=job.kind is Kind.CHATS)
    there = messages_there(job.card, job.count, job.seed)
    if there:
        err.print(f"first messages: those of {escape(str(there[0]))}; the LLM is not asked", style="dim")
        return _without(job, there[1])
    asked, opened = first_messages(writer, plan, job.count)
    result = _without(job, asked)
    result.failed, result.named = opened.failed, opened.named
    result.stopped = opened.stopped or result.stopped
    return result


def _demand_price(spec: ModelSpec, most: float | None) -> None:
    """Raises UsageError for a limit that cannot be kept."""
    if most is None:
        return
    if not most > 0:  # nor is NaN
        raise UsageError(f"--max-cost {most:g}: give a number over 0")
    if spec.provider != "openrouter" and (spec.price_in is None or spec.price_out is None):  # who tells its own
        raise UsageError(
            f"--max-cost: no price is known for {spec.name}; write {spec.name}?price_in=…&price_out=… "
            "(USD per million tokens)"
        )


@contextmanager
def _kept(ledger: Ledger) -> Iterator[None]:
    """Say of a job that ends early that it can go on."""
    from auditor.llm.failures import EndpointUnusable

    try:
        yield
    except EndpointUnusable:
        if answered := _used(ledger)["calls"]:
            err.print(f"{answered} answers are kept: the same command goes on from here", style="dim", highlight=False)
        raise
    except KeyboardInterrupt:
        err.print("interrupted; the same command goes on from here, and pays for no finished call again")
        raise SystemExit(INTERRUPTED) from None


def _teller() -> Callable[[str], None]:
    return lambda line: err.print(escape(line), style="dim", highlight=False)


def _used(ledger: Ledger) -> dict[str, Any]:
    """Answered calls so far; tokens and cost where the endpoint told them."""
    uses = ledger.calls.used().values()
    tokens = [use.tokens for use in uses]
    return {
        "calls": sum(use.calls for use in uses),
        "tokens_in": sum(each.input for each in tokens if each) if all(tokens) else None,
        "tokens_out": sum(each.output for each in tokens if each) if all(tokens) else None,
        "cost_usd": sum(use.cost_usd or 0.0 for use in uses) if all(use.cost_usd is not None for use in uses) else None,
    }


def _print(job: _Job, result: Result, calls: dict[str, Any] | None, *, json: bool) -> None:
    from auditor.training.written import reasons

    kept = result.kept.documents
    texts, chats = [each.said for each in kept], job.kind != "documents"
    if json:
        figures = figures_of(job.ws, texts, job.path, job.conf, job.seed, chats=chats)
        print_json({
            "organism": job.card.name, "kind": job.kind, "writer": job.conf.llm, "path": str(job.path),
            "asked": result.asked, "documents": len(kept), "drafts": result.drafts,
            "kinds": dict(Counter(each.kind for each in kept)), "dropped": dict(result.kept.dropped),
            "failed": dict(result.failed), "named": result.named, "unrevised": dict(result.unrevised),
            "stopped": result.stopped, "calls": calls,
            "variety": {path: found.model_dump(mode="json") for path, found in figures},
        })  # fmt: skip
        return
    what = "chats" if chats else f"documents of {len({each.kind for each in kept})} kinds"
    out.print(f"{escape(str(job.path))}: {len(kept)} {what}", highlight=False, soft_wrap=True)
    dropped, failed, unrevised = map(reasons, (result.kept.dropped, result.failed, result.unrevised))
    fewer = [f"{came} of {asked} {name}" for name, (asked, came) in result.named.items() if came < asked]
    for head, told in (
        (f"left out of {result.drafts} drafts", dropped), ("calls that came to nothing", failed),
        ("the LLM named fewer than asked for", fewer), ("left as drafted, for want of an editor", unrevised),
    ):  # fmt: skip
        if told:
            out.print(f"{head}: {escape(visible('; '.join(told), 400))}", highlight=False, soft_wrap=True)
    if calls:
        out.print(escape(_told(calls)), highlight=False, soft_wrap=True)
    if len(kept) < result.asked:
        why = result.stopped or "; ".join([*dropped, *failed]) or "the writer had no more ideas"
        told = f"asked for {result.asked}, got {len(kept)}, because: {why}"
        err.print(f"[yellow]short:[/] {escape(visible(told, 400))}", highlight=False, soft_wrap=True)
    show_variety(figures_of(job.ws, texts, job.path, job.conf, job.seed, chats=chats))


def _told(calls: dict[str, Any]) -> str:
    cost = "cost not known" if calls["cost_usd"] is None else f"{calls['cost_usd']:.4f} USD"
    tokens = "tokens not told"
    if calls["tokens_in"] is not None:
        tokens = f"{calls['tokens_in']:,} tokens in, {calls['tokens_out']:,} out"
    known = f"; {calls['known_before']} of them were there before" if calls["known_before"] else ""
    return f"{calls['calls']} answered LLM calls: {tokens}, {cost}{known}"
