"""`auditor evidence`: what the lens reads, without an agent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from auditor.cli.judges import RolesOption, roles_of
from auditor.cli.pairs import (
    AdapterRank,
    AdapterScale,
    BaseOption,
    ModelOption,
    NoBaseFlag,
    PerhapsModel,
    ReferenceOption,
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
from auditor.records.cards import EvidenceSettings

if TYPE_CHECKING:
    from auditor.evidence.mapping import Evidence


def evidence(
    model: PerhapsModel = None,
    base: BaseOption = None,
    finetune: ModelOption = None,
    adapter_base: Annotated[
        str | None, typer.Option(help="What the adapter belongs to, if not --base: a chat model, say.")
    ] = None,
    no_base: NoBaseFlag = False,
    suite: Annotated[str, typer.Option(help="Suite whose evidence settings are used.")] = "quickstart",
    layers: Annotated[
        str | None, typer.Option(help="Instead of the middle one: numbers or shares of the depth (0.25,0.5), or `all`.")
    ] = None,
    positions: Annotated[int | None, typer.Option(min=1, max=128, help="First token positions to read.")] = None,
    lens: Annotated[
        list[str] | None, typer.Option(help="Lenses to read with (see `auditor lenses list`); default: the suite's.")
    ] = None,
    corpus: CorpusOption = None,
    texts: Annotated[int | None, typer.Option(min=1, help="Texts of the corpus to average over.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Steer two positions only, after a short search.")] = False,
    lens_llm: Annotated[str | None, typer.Option(help="The judge of scales and coherence; default: offline.")] = None,
    llm_role: RolesOption = None,
    adapter_scale: AdapterScale = None,
    adapter_rank: AdapterRank = None,
    reference: ReferenceOption = None,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page.")] = None,
    server: ServerOption = None,
    json: JsonFlag = False,
) -> int:
    """What lenses read in one pair; each is computed once, then cached."""
    if html is not None:
        demand_writable(html)
    ws, conf = workspace(), settings(lens_llm=lens_llm, llm_roles=roles_of(llm_role), server=server)
    target = asked_pair(
        conf, one_model(model, finetune), base, no_base=no_base, adapter_base=adapter_base,
        variant=variant_of(adapter_scale, adapter_rank, conf.server),
        needing={"--reference base": True if reference == "base" else None},
    )  # fmt: skip
    names = [ws.lenses[name].name for name in lens] if lens else named_by_default(suite, no_base=no_base)

    from auditor.audits.bench import Bench, lens_calls
    from auditor.evidence.recipe import held_against

    changed: dict[str, Any] = {"corpus": corpus, "texts": texts}
    chosen = ws.suites[suite].evidence.model_copy(update={k: v for k, v in changed.items() if v is not None})
    if reference is not None:
        chosen = held_against(ws, chosen, names, reference)
    with lens_calls(conf) as journal:
        bench = Bench(ws, conf, journal)
        pair = bench.pair(target)
        if pair.note:
            err.print(f"[yellow]note:[/] {escape(pair.note)}", highlight=False)
        diffs = {"positions": positions, "layers": layers_of(layers, pair.n_layers) if layers is not None else None}
        own = {"differences": {key: value for key, value in diffs.items() if value is not None}}
        chosen = chosen.over(own | (fast_over(chosen) if fast else {}))
        announce(chosen, names, conf)
        with stages("evidence") as tell:
            found = bench.evidence(pair, chosen, names, tell)
    return told(found, html, json=json)


def demand_writable(html: Path) -> None:
    """Raises UsageError if the page cannot be written there, before anything is read."""
    if not html.parent.is_dir():
        raise UsageError(f"--html {html}: there is no folder {html.parent}")
    if html.is_dir():
        raise UsageError(f"--html {html}: that is a folder; give a file in it")


def told(found: Evidence, html: Path | None, *, json: bool) -> int:
    """Print what was read, and write the page. Returns the exit code."""
    if html is not None:
        from auditor.views.whole import page_of

        write_atomically(html, page_of(found))
    if json:
        print_json(found.to_json())
    else:
        show(found)
        if html is not None:
            out.print(f"\n{escape(str(html))}", style="dim", highlight=False)
    for name, reason in found.failed.items():
        err.print(f"[red]not read[/] {name}: {escape(reason)}", highlight=False, soft_wrap=True)
    return 1 if found.failed else 0


SEARCH = {"iterations": 5, "more_iterations": 2, "generations": 4, "max_new_tokens": 24}


def fast_over(chosen: EvidenceSettings) -> dict[str, dict[str, Any]]:
    """A look instead of a measurement: two positions, ten prompts, a coarse search; temperatures stay."""
    search = dict(chosen.lenses.get("steering", {}).get("calibration", {}))
    search |= SEARCH | {"upper": min(search.get("upper", 100.0), 4.0)}
    plain = {"prompts": 10, "samples": 1, "max_new_tokens": 48}
    return {"plain_samples": plain, "steering": {"positions": 2, "calibration": search}}


def named_by_default(suite: str, *, no_base: bool) -> tuple[str, ...]:
    """The lenses that the suite's agents name; without a base, those that the agent `no-base` names."""
    from auditor.evidence.recipe import named_by

    ws = workspace()
    return named_by(ws, [ws.agents[name] for name in (["no-base"] if no_base else ws.suites[suite].agents)])


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


def show(found: Evidence) -> None:
    """Verdicts, what is short, and every section of every reading."""
    from auditor.evidence.mapping import TOGETHER
    from auditor.views.terminal import rendered
    from auditor.views.whole import ordered

    out.print(f"[bold]{escape(found.pair)}[/] · corpus {escape(found.corpus)}", highlight=False)
    if TOGETHER in found.verdicts:
        out.print(f"[bold]{escape(found.verdicts[TOGETHER])}[/]", highlight=False, soft_wrap=True)
    for line in found.notes:
        out.print(f"[yellow]note:[/] {escape(line)}", highlight=False, soft_wrap=True)
    for reading in ordered(found):
        for shown in rendered(reading.show()):
            out.print(shown, highlight=False)
    spent = " · ".join(f"{name} {cost.seconds:.0f} s" for name, cost in found.costs.items())
    out.print(spent, style="dim", highlight=False)
