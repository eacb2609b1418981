"""`auditor study`: the paper's measurements, on organisms whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from auditor.cli.shared import err, out, settings, workspace
from auditor.errors import UsageError

app = typer.Typer(help="Measurements on organisms: JSON and a plot each.", no_args_is_help=True)

Organisms = Annotated[list[str], typer.Argument(help="Organisms of one base.")]


@app.command()
def null(
    organisms: Organisms,
    to: Annotated[Path, typer.Option("--out", help="A .safetensors file in evals/nulls of a workspace.")],
    suite: Annotated[str, typer.Option(help="Suite whose corpus and positions are used.")] = "quickstart",
) -> None:
    """Write what finetuning on mixed text does to a base: `auditor evidence` then compares with it.

    The organisms must be finetunes of one base that have no narrow subject; five or more.
    """
    import torch

    from auditor.evidence import named_corpus
    from auditor.lens.chance import ENOUGH_PAIRS, BroadFinetunes, write_broad
    from auditor.lens.diff import differences
    from auditor.models.load import load_pair

    ws, conf = workspace(), settings()
    if len(set(organisms)) < ENOUGH_PAIRS:
        raise UsageError(f"{len(set(organisms))} organisms cannot tell what is usual; give {ENOUGH_PAIRS} or more")
    if to.suffix != ".safetensors" or not to.parent.is_dir():
        raise UsageError(f"--out {to}: give a .safetensors file in a folder that exists, such as evals/nulls")
    chosen, found = ws.suites[suite].evidence, []
    for name in dict.fromkeys(organisms):
        card = ws.organisms[name]
        if card.family != "null":
            raise UsageError(f"{name} is of family {card.family}; broad finetunes are of family null")
        with err.status(name):
            pair = load_pair(card.base, card.finetuned, conf, name=name)
            last = pair.n_layers - 1
            diff = differences(pair, named_corpus(ws, chosen.corpus, pair, chosen), chosen.positions, [last], 16, 16)[
                last
            ]
        found.append((pair.fingerprint[:16], last, pair.fingerprint, diff.delta))
    if len({(base, last) for base, last, *_ in found}) > 1:
        raise UsageError("these organisms have different bases; give finetunes of one")
    base, last = found[0][:2]
    deltas = torch.stack([delta for *_, delta in found])
    write_broad(to, BroadFinetunes(base, last, tuple(print_ for _, _, print_, _ in found), deltas))
    out.print(f"{escape(str(to))}: δ of {len(found)} finetunes at layer {last}", highlight=False)
