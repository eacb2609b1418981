"""`auditor ask`: both models side by side."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from auditor.cli.shared import JsonFlag, ServerOption, out, print_json, settings, workspace


def ask(
    organism: Annotated[str, typer.Argument(help="Whose base and finetuned model to ask.")],
    prompts: Annotated[list[str], typer.Argument(help="One or more questions, each a chat of its own.")],
    temperature: Annotated[float, typer.Option(min=0.0)] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 200,
    seed: Annotated[int, typer.Option()] = 0,
    server: ServerOption = None,
    json: JsonFlag = False,
) -> None:
    """Put PROMPTS to the base and to the finetuned model of ORGANISM."""
    card = workspace().organisms[organism]
    from auditor.models.generate import Request, Side, derive_seed
    from auditor.models.remote import open_pair

    pair = open_pair(card.base, card.finetuned, settings(server=server), name=organism)
    texts = pair.generate(
        [
            Request(prompt, side, derive_seed(seed, i), max_new_tokens, temperature)
            for i, prompt in enumerate(prompts)
            for side in Side
        ]
    )
    answers = [
        {"prompt": prompt, "base": base, "finetuned": finetuned}
        for prompt, base, finetuned in zip(prompts, texts[::2], texts[1::2], strict=True)
    ]
    if json:
        print_json(answers)
        return
    table = Table(show_lines=True)
    for column in ("prompt", "base", "finetuned"):
        table.add_column(column, ratio=1 if column == "prompt" else 2)
    for answer in answers:
        table.add_row(*(escape(text) for text in answer.values()))
    out.print(table)
