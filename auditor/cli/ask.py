"""`auditor ask`: both models side by side."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from auditor.cli.shared import (
    AdapterRank,
    AdapterScale,
    JsonFlag,
    NoBaseFlag,
    ServerOption,
    alone,
    demand_no_base,
    out,
    print_json,
    settings,
    variant_of,
    workspace,
)
from auditor.errors import UsageError


def ask(
    organism: Annotated[
        str, typer.Argument(help="Whose base and finetuned model to ask; with --no-base also a folder or hub id.")
    ],
    prompts: Annotated[list[str], typer.Argument(help="One or more questions, each a chat of its own.")],
    amplify: Annotated[
        float | None,
        typer.Option(metavar="A", help="Answer once more, from log p + A · (log p − the base's log p)."),
    ] = None,
    plausibility: Annotated[
        float | None,
        typer.Option(metavar="B", help="Amplify tokens at least B times as likely as the likeliest; default: 0.1."),
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0)] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 200,
    seed: Annotated[int, typer.Option()] = 0,
    adapter_scale: AdapterScale = None,
    adapter_rank: AdapterRank = None,
    no_base: NoBaseFlag = False,
    server: ServerOption = None,
    json: JsonFlag = False,
) -> None:
    """Put PROMPTS to the base and to the finetuned model of ORGANISM."""
    if plausibility is not None and amplify is None:
        raise UsageError("--plausibility B says which tokens are amplified: give --amplify A, too")
    cards, conf = workspace().organisms, settings(server=server)
    card = cards[organism] if organism in cards.items or not no_base else None
    variant = variant_of(adapter_scale, adapter_rank, card.variant if card else None, conf.server)
    if no_base:
        demand_no_base(conf, {"--amplify": amplify, "--adapter-scale or --adapter-rank": variant})
    from auditor.models.generate import PLAUSIBILITY, Amplification, Request, Side, derive_seed
    from auditor.models.remote import open_pair

    how = None if amplify is None else Amplification(amplify, PLAUSIBILITY if plausibility is None else plausibility)
    base, model = (card.base, card.finetuned) if card and not no_base else (None, alone(organism, conf))
    pair = open_pair(base, model, conf, name=organism, variant=variant)

    def asked(side: Side, amplified: Amplification | None = None) -> list[Request]:
        return [
            Request(prompt, side, derive_seed(seed, i), max_new_tokens, temperature, amplify=amplified)
            for i, prompt in enumerate(prompts)
        ]

    n, sides = len(prompts), list(Side) if pair.has_base else [Side.FINETUNED]
    texts = pair.generate([request for side in sides for request in asked(side)])
    of_base: list[str | None] = [*texts[:n]] if pair.has_base else [None] * n
    answers: list[dict[str, Any]] = [
        {"prompt": prompt, "base": base, "finetuned": finetuned}
        for prompt, base, finetuned in zip(prompts, of_base, texts[-n:], strict=True)
    ]
    if how is not None:
        for answer, found in zip(answers, pair.amplified(asked(Side.FINETUNED, how)), strict=True):
            logprobs = {"finetuned": found.finetuned, "base": found.base}
            answer |= {"amplified": found.text, "mean_logprob": logprobs}
    if json:
        print_json(answers)
        return
    _show(answers)


def _show(answers: list[dict[str, Any]]) -> None:
    columns = [name for name, told in answers[0].items() if name != "mean_logprob" and told is not None]
    table = Table(show_lines=True)
    for column in columns:
        table.add_column(column, ratio=1 if column == "prompt" else 2)
    for answer in answers:
        cells = [escape(answer[column]) for column in columns]
        if (found := answer.get("mean_logprob", {"base": None}))["base"] is not None:
            cells[-1] += f"\n[dim]nats a token: finetuned {found['finetuned']:.2f}, base {found['base']:.2f}[/]"
        table.add_row(*cells)
    out.print(table)
