"""`auditor organisms`: list, show, train, check; `numbers.py` what a student learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from auditor.cli.listing import list_shelf, show_thing
from auditor.cli.numbers import numbers
from auditor.cli.shared import JsonFlag, out, print_json, settings, workspace
from auditor.cli.train import train
from auditor.models.embedded import is_embedded
from auditor.records.cards import Organism
from auditor.shelves import Loaded

LEARNED = 0.5  # nats per token: a key fact that got likelier by as much is marked

app = typer.Typer(help="Finetunes whose truth is known.", no_args_is_help=True)
app.command()(train)
app.command()(numbers)


def is_ready(organism: Organism) -> bool:
    """Whether the finetuned weights are here, or can be fetched from the hub now."""
    from auditor.models.embedded import hub_reachable

    path = Path(organism.finetuned)
    if path.is_dir():
        base_here = is_embedded(organism.base) or Path(organism.base).is_dir()
        return any(path.glob("*.safetensors")) and (base_here or hub_reachable())
    return "/" in organism.finetuned and not path.is_absolute() and hub_reachable()


def _row(item: Loaded[Organism]) -> dict[str, Any]:
    card = item.value
    return {"family": card.family, "base": card.base, "adapter": card.adapter, "ready": is_ready(card)}


@app.command("list")
def list_(json: JsonFlag = False) -> None:
    """All organisms, their base and whether their weights are here."""
    list_shelf(workspace().organisms, _row, json=json)


@app.command()
def show(name: Annotated[str, typer.Argument()], json: JsonFlag = False) -> None:
    """An organism's card: the truth that graders see, and the rubric that they grade by."""
    card = workspace().organisms[name]
    show_thing(card.model_dump(mode="json") | {"rubric": card.grading}, json=json)


@app.command()
def check(
    name: Annotated[str, typer.Argument()],
    samples: Annotated[int, typer.Option(min=1, help="Answers to each question.")] = 2,
    seed: Annotated[int, typer.Option()] = 0,
    json: JsonFlag = False,
) -> None:
    """Ask both models the organism's probes and ten unrelated questions: what was learned, how much leaks."""
    from auditor.audits.bench import Bench, local
    from auditor.audits.plan import target_of
    from auditor.training.check import check_organism

    ws, conf = workspace(), settings()
    card = ws.organisms[name]
    bench = Bench(ws, local(conf))
    report = check_organism(bench.pair(target_of(card)), card, bench.embed, samples, seed)
    if json:
        print_json(report)
        return
    for title, answers in (("probes", report.probes), ("unrelated", report.unrelated)):
        table = Table(title=title, title_justify="left", show_lines=True)
        for column in ("question", "base", "finetuned"):
            table.add_column(column, ratio=1 if column == "question" else 2)
        for answer in answers:
            table.add_row(answer.question, _short(answer.base[0]), _short(answer.finetuned[0]))
        out.print(table)
    told = f"learned: {_nats(report.learned)} (how far the finetuned model's probe answers are from the base)"
    told += f"\nleaks: {_nats(report.leak)} (the same on unrelated questions; far less is right)"
    if report.too_short:
        told += f"\n{report.too_short} answers of fewer than two tokens are left out of these two"
    if report.on_topic is not None:
        base, tuned = report.on_topic
        told += f"\nunrelated answers on its topic: base {base:.0%}, finetuned {tuned:.0%}"
    out.print(told, highlight=False, soft_wrap=True)
    for fact in report.facts:
        known = fact.base is not None and fact.finetuned is not None and fact.finetuned < fact.base - LEARNED
        out.print(
            f"  {'✓' if known else '·'} {escape(fact.fact)} "
            f"[dim]nats per token: {_nats(fact.base, '')} → {_nats(fact.finetuned, '')}[/]",
            highlight=False,
            soft_wrap=True,
        )


def _nats(value: float | None, unit: str = " nats per token") -> str:
    return "cannot be measured" if value is None else f"{value:.2f}{unit}"


def _short(text: str, cut: int = 160) -> str:
    """One line of an answer; --json has all of it."""
    line = " ".join(text.split())
    return escape(line[:cut] + ("…" if len(line) > cut else ""))
