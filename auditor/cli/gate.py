"""`auditor gate`: for the CI of finetuning jobs, whether what a model was finetuned on is readable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from auditor.audits.asked import on_corpus
from auditor.cli.pairs import (
    AdapterRank,
    AdapterScale,
    BaseOption,
    ModelOption,
    PerhapsModel,
    asked_pair,
    one_model,
    variant_of,
)
from auditor.cli.shared import (
    CorpusOption,
    JsonFlag,
    ServerOption,
    announce,
    err,
    out,
    print_json,
    settings,
    stages,
    workspace,
)
from auditor.errors import UsageError
from auditor.files import write_atomically

if TYPE_CHECKING:
    from auditor.audits.gate import Ask
    from auditor.models.pair import ModelPair
    from auditor.workspace import Workspace


def gate(
    model: PerhapsModel = None,
    base: BaseOption = None,
    finetune: ModelOption = None,
    max_trace: Annotated[
        float, typer.Option(metavar="P", help="Family-wise level: what p of all tests together is a readable trace.")
    ] = 0.05,
    lens: Annotated[
        list[str] | None, typer.Option(help="Only these lenses; default: every one that has a null for this base.")
    ] = None,
    suite: Annotated[str, typer.Option(help="Suite whose evidence settings are used.")] = "quickstart",
    corpus: CorpusOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="What could not be tested fails the gate, too.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write the report as one self-contained page.")] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write gate.json, gate.md and gate.html there.")
    ] = None,
    adapter_scale: AdapterScale = None,
    adapter_rank: AdapterRank = None,
    server: ServerOption = None,
    json: JsonFlag = False,
) -> int:
    """Exit 1 if a finetune's trace is readable, 0 if it is not, 2 for a wrong request (docs/gate.md)."""
    demand_places(html, out_dir)
    ws, conf = workspace(), settings(server=server)
    name = one_model(model, finetune)
    target = asked_pair(conf, name, base, variant=variant_of(adapter_scale, adapter_rank, conf.server))

    from auditor.audits.bench import Bench
    from auditor.audits.gate import Ask, gated, lenses_read
    from auditor.audits.gate_report import document
    from auditor.views.report import to_markdown
    from auditor.views.report_page import to_html
    from auditor.views.whole import ordered

    wanted = tuple(ws.lenses[each].name for each in lens or ())
    chosen = on_corpus(ws.suites[suite], corpus).evidence
    assert target.base is not None
    ask = Ask(name, "" if conf.server else target.finetuned, target.base, suite, max_trace, wanted, strict)
    bench = Bench(ws, conf)
    pair = bench.pair(target)
    demand_trained(pair, ask, ws)
    if pair.note:
        err.print(f"[yellow]note:[/] {escape(pair.note)}", highlight=False)
    recipe = bench.recipe(pair, chosen)
    announce(chosen, lenses_read(recipe, ask), conf)
    with stages("gate") as tell:
        report, evidence = gated(ask, pair, recipe, tell)
    text = to_markdown(document(report))
    if html is not None or out_dir is not None:
        page = to_html(document(report, [section for reading in ordered(evidence) for section in reading.show()]))
        if html is not None:
            write_atomically(html, page)
        if out_dir is not None:
            out_dir.mkdir(parents=True, exist_ok=True)
            write_atomically(out_dir / "gate.html", page)
            write_atomically(out_dir / "gate.md", text)
            write_atomically(out_dir / "gate.json", report.model_dump_json(indent=1))
    if json:
        print_json(report)
    else:
        from rich.markdown import Markdown  # slow to import, with all languages that it colours

        out.print(Markdown(text))
    return 0 if report.passed else 1


def demand_trained(pair: ModelPair, ask: Ask, ws: Workspace) -> None:
    """Raises UsageError for a base that was taken for its finetune: no trace would pass for a clearance. An organism
    may be such a control.
    """
    base, _, tuned = pair.fingerprint.partition("-")
    if base == tuned and ask.model not in ws.organisms:
        raise UsageError(f"{ask.model} has the very weights of its base: nothing was trained, or the base was exported")


def demand_places(html: Path | None, out_dir: Path | None) -> None:
    """Raises UsageError if the report cannot be written where it is wanted, before anything is read."""
    from auditor.cli.evidence import demand_writable

    if html is not None:
        demand_writable(html)
    if out_dir is not None and out_dir.exists() and not out_dir.is_dir():
        raise UsageError(f"--out {out_dir}: that is a file; give a folder")
