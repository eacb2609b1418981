"""`auditor organisms list --public` and `auditor organisms pull`: finetunes that others made, on the hub."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from auditor.cli.shared import JsonFlag, err, out, print_json, settings, workspace
from auditor.errors import UsageError
from auditor.public import download_needed, made_of, memory_needed, public_finetunes, weights_of
from auditor.records.cards import Organism
from auditor.records.public import DEFAULT

if TYPE_CHECKING:
    from auditor.models.pull import Package


def list_public(*, json: bool) -> None:
    """All public finetunes that cards name, by organism and model; JSON has a row for each variant."""
    ws, conf = workspace(), settings()
    if json:
        print_json([_told(card) for item in ws.organisms for card in public_finetunes(item.value, ws.models)])
        return
    count = 0
    for name, item in sorted(ws.organisms.items.items()):
        if item.value.models:
            out.print(f"[bold]{name}[/]  {escape(item.value.topic or item.value.family)}", highlight=False)
        for model, variants in item.value.models.items():
            count += len(variants)
            first, of = ws.organisms[f"{name}@{model}:{next(iter(variants))}"], ws.models[model]
            size = f"{download_needed(first, of) / 1e9:.0f} GB to fetch, {memory_needed(first, of, conf) / 1e9:.0f} GB"
            gated = ", gated" if of.gated else ""
            named = ", ".join(f":{variant}" for variant in variants if variant != DEFAULT)
            also = "" if not named else f"  also {named}" if DEFAULT in variants else f"  only {named}"
            out.print(f"  {name}@{model}  [dim]{of.base}{gated}; {size} in memory[/]{also}", highlight=False)
    out.print(
        f"{count} public finetunes, whose weights in memory are counted as {conf.torch_dtype}. `auditor organisms pull "
        "NAME@MODEL:VARIANT` fetches one; with --dry-run it says what that takes.",
        style="dim", highlight=False,
    )  # fmt: skip


def _told(card: Organism) -> dict[str, Any]:
    ws = workspace()
    of = made_of(card, ws.models)
    assert of is not None
    return {
        "name": card.name, "family": card.family, "base": card.base, "adapter": card.adapter, "model": card.model,
        "adapter_base": card.adapter_base, "dataset": card.dataset.id if card.dataset else None,
        "billions": of.billions, "gated": of.gated, "images": of.images,
    }  # fmt: skip


def pull(
    names: Annotated[list[str] | None, typer.Argument(help="Organisms, such as cake_bake@qwen3_1_7B.")] = None,
    suite: Annotated[str | None, typer.Option(help="Those of a suite, too.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is to be fetched; fetch nothing.")] = False,
    json: JsonFlag = False,
) -> int:
    """Fetch finetunes and their bases from the hub into its cache; what is there, or in part, is not fetched again."""
    ws, conf = workspace(), settings()
    asked = dict.fromkeys([*(names or ()), *(ws.suites[suite].organisms if suite else ())])
    if not asked:
        raise UsageError("name organisms to fetch, or a --suite")
    cards = [ws.organisms[name] for name in asked]

    from auditor.models import pull as pulling

    wanted = pulling.on_hub(name for card in cards for name in weights_of(card))
    packages = pulling.looked_up(wanted, conf)
    free = pulling.demand_disk(packages)
    if not json:
        _show(packages, free, cards)
    good = [name for name, package in zip(wanted, packages, strict=True) if not package.refused]
    failed = {package.name: package.refused for package in packages if package.refused}
    if not dry_run:
        for name, problem in pulling.pull(good, conf, lambda line: err.print(f"fetching {line} …", style="dim")):
            failed |= {str(name): problem} if problem else {}
    if json:
        print_json({"packages": [_row(package, failed) for package in packages], "disk_free": free})
    for problem in failed.values():
        err.print(f"[red]not fetched[/] {escape(problem)}", highlight=False, soft_wrap=True)
    return 1 if failed else 0


def _row(package: Package, failed: dict[str, str]) -> dict[str, Any]:
    return {
        "name": package.name, "bytes": package.size, "missing": package.missing, "gated": package.gated,
        "error": failed.get(package.name),
    }  # fmt: skip


def _show(packages: Sequence[Package], free: int, cards: Iterable[Organism]) -> None:
    table = Table("on the hub", "GB", "to fetch, GB")
    table.columns[0].overflow = "fold"  # what is typed is not cut
    for each in packages:
        cells = ("–", "–") if each.refused else (f"{each.size / 1e9:.2f}", f"{each.missing / 1e9:.2f}")
        table.add_row(escape(each.name), *cells)
    out.print(table)
    missing = sum(each.missing for each in packages)
    out.print(f"to fetch: {missing / 1e9:.2f} GB; free on the disk: {free / 1e9:.1f} GB", highlight=False)
    ws, conf = workspace(), settings()
    needs = [(memory_needed(card, of, conf), card.name) for card in cards if (of := made_of(card, ws.models))]
    if needs:
        most, name = max(needs)
        out.print(f"memory: up to {most / 1e9:.0f} GB for the weights of both models ({name})", highlight=False)
