"""`auditor evidence`: what the lens reads, without an agent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from auditor.cli.shared import (
    AdapterRank,
    AdapterScale,
    JsonFlag,
    ServerOption,
    announce,
    err,
    out,
    print_json,
    settings,
    stages,
    variant_of,
    workspace,
)
from auditor.errors import UsageError
from auditor.types import Evidence, EvidenceSettings


def evidence(
    organism: Annotated[str | None, typer.Argument(help="An organism; or give --base and --model.")] = None,
    base: Annotated[str | None, typer.Option(help="Base model: hub id, folder, or `embedded`.")] = None,
    model: Annotated[str | None, typer.Option(help="Finetune: PEFT adapter or whole model.")] = None,
    adapter_base: Annotated[
        str | None, typer.Option(help="What the adapter belongs to, if not --base: a chat model, say.")
    ] = None,
    suite: Annotated[str, typer.Option(help="Suite whose evidence settings are used.")] = "quickstart",
    layers: Annotated[
        str | None, typer.Option(help="Instead of the middle one: numbers or shares of the depth (0.25,0.5), or `all`.")
    ] = None,
    positions: Annotated[int | None, typer.Option(min=1, max=128, help="First token positions to read.")] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus name, .jsonl or .txt file, or `sampled`.")] = None,
    texts: Annotated[int | None, typer.Option(min=1, help="Texts of the corpus to average over.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Steer two positions only, after a short search.")] = False,
    lens_llm: Annotated[str | None, typer.Option(help="The judge of scales and coherence; default: offline.")] = None,
    adapter_scale: AdapterScale = None,
    adapter_rank: AdapterRank = None,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page.")] = None,
    server: ServerOption = None,
    json: JsonFlag = False,
) -> None:
    """Differences, logit lens, patchscope and steering for one pair; computed once, then cached."""
    if html is not None and not html.parent.is_dir():
        raise UsageError(f"--html {html}: there is no folder {html.parent}")
    if html is not None and html.is_dir():
        raise UsageError(f"--html {html}: that is a folder; give a file in it")
    ws, conf = workspace(), settings(lens_llm=lens_llm, server=server)
    if conf.server is not None and organism is None:
        raise UsageError("with --server, name the ORGANISM as the server calls it")
    if organism in ws.organisms.items:
        card = ws.organisms[organism]
        base, model = card.base, card.finetuned
    elif organism is not None and conf.server is None:
        ws.organisms[organism]  # tells which there are
    if conf.server is None and (base is None or model is None):
        raise UsageError("name an ORGANISM, or give both --base and --model")
    own = ws.organisms[organism].variant if organism in ws.organisms.items else None
    variant = variant_of(adapter_scale, adapter_rank, own, conf.server)
    given: dict[str, object] = {
        "positions": positions,
        "corpus": corpus,
        "texts": texts,
    }

    from auditor.evaluation.job import judged_by
    from auditor.evidence import evidence_for, grading_for, make_lens
    from auditor.models.remote import open_pair

    pair = open_pair(base or "", model or "", conf, name=organism or "", adapter_base=adapter_base, variant=variant)
    if pair.note:
        err.print(f"[yellow]note:[/] {escape(pair.note)}", highlight=False)
    given["layers"] = layers_of(layers, pair.n_layers) if layers is not None else None
    usual = judged_by(ws.suites[suite], conf).evidence.model_dump()
    chosen = EvidenceSettings.model_validate(usual | {k: v for k, v in given.items() if v is not None})
    if fast:
        chosen = chosen.model_copy(update={"steering": chosen.steering.fast()})
    lens = make_lens(ws, pair, chosen, grading_for(ws, conf, pair))
    announce(chosen)
    with stages("evidence") as tell:
        sheet = evidence_for(pair, lens, tell).evidence
    if html is not None:
        from auditor.evidence_page import to_html

        html.write_text(to_html(sheet), encoding="utf-8")
    if json:
        print_json(sheet)
    else:
        show(sheet)
        if html is not None:
            out.print(f"\n{escape(str(html))}", style="dim", highlight=False)


def layers_of(text: str, n_layers: int) -> tuple[int, ...]:
    """`7,15`, `0.25,0.5` (of the depth) or `all` as layer numbers, each once. Raises UsageError."""
    if text.strip() == "all":
        return tuple(range(n_layers))
    try:
        numbers = [int(float(part) * n_layers) if "." in part else int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--layers {text}: give numbers, shares such as 0.25,0.5, or `all`") from None
    if bad := [number for number in numbers if not 0 <= number < n_layers]:
        raise UsageError(f"--layers {text}: {bad[0]} is not there; this model has layers 0 to {n_layers - 1}")
    return tuple(dict.fromkeys(numbers))


def show(sheet: Evidence) -> None:
    """The test against chance, norms and tokens as tables, then steered beside plain answers."""
    from auditor.sheet_readings import readings_of
    from auditor.views.terminal import rendered

    readings = readings_of(sheet)
    read = f"corpus {sheet.corpus} · {sheet.texts_read:,} texts"
    out.print(f"[bold]{escape(sheet.pair)}[/] · {escape(read)}", highlight=False)
    for line in (line for reading in readings.values() for line in reading.notes):
        out.print(f"[yellow]note:[/] {escape(line)}", highlight=False, soft_wrap=True)
    for reading in readings.values():
        for shown in rendered(reading.show()):
            out.print(shown, highlight=False)
    out.print(" · ".join(f"{k} {v:.0f} s" for k, v in sheet.seconds.items()), style="dim", highlight=False)
