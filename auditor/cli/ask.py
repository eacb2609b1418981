"""`auditor ask`: both models side by side."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from auditor.cli.chat import lines, readable, talk
from auditor.cli.pairs import (
    AdapterRank,
    AdapterScale,
    BaseOption,
    ModelArgument,
    NoBaseFlag,
    asked_pair,
    variant_of,
)
from auditor.cli.shared import (
    JsonFlag,
    ServerOption,
    err,
    out,
    print_json,
    settings,
    workspace,
)
from auditor.cli.speakers import Chat, along
from auditor.errors import UsageError


def ask(
    model: ModelArgument,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(help="Questions, each a chat of its own; without any, chat on the terminal or pipe lines in."),
    ] = None,
    amplify: Annotated[
        float | None,
        typer.Option(metavar="A", help="Answer once more, from log p + A · (log p − the base's log p)."),
    ] = None,
    plausibility: Annotated[
        float | None,
        typer.Option(metavar="B", help="Amplify tokens at least B times as likely as the likeliest; default: 0.1."),
    ] = None,
    steer: Annotated[
        tuple[int, int, float] | None,
        typer.Option(metavar="LAYER POSITION ALPHA", help="Answer once more, pushed along the difference there."),
    ] = None,
    system: Annotated[str, typer.Option(help="What both are told first.")] = "",
    temperature: Annotated[float, typer.Option(min=0.0)] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 200,
    seed: Annotated[int, typer.Option()] = 0,
    adapter_scale: AdapterScale = None,
    adapter_rank: AdapterRank = None,
    base: BaseOption = None,
    no_base: NoBaseFlag = False,
    server: ServerOption = None,
    json: JsonFlag = False,
) -> None:
    """Put PROMPTS to a finetune and its base, or chat with both."""
    if plausibility is not None and amplify is None and prompts:
        raise UsageError("--plausibility B says which tokens are amplified: give --amplify A, too")
    conf = settings(server=server)
    target = asked_pair(
        conf, model, base, no_base=no_base, variant=variant_of(adapter_scale, adapter_rank, conf.server),
        needing={"--amplify": amplify, "--steer": steer},
    )  # fmt: skip
    typed = None if prompts else lines(json=json)
    from auditor.audits.bench import Bench
    from auditor.models.generate import PLAUSIBILITY, Request

    pair = Bench(workspace(), conf).pair(target)
    if pair.note:
        err.print(f"[yellow]note:[/] {escape(pair.note)}", highlight=False)
    how = Request("", max_new_tokens=max_new_tokens, temperature=temperature, system=system)
    chat = Chat(pair, how, along(pair, conf), PLAUSIBILITY if plausibility is None else plausibility, seed)
    if amplify is not None:
        chat.amplify(amplify)
    if steer is not None:
        chat.steer(*steer)
    answers = talk(chat, typed, quiet=json) if typed is not None else answered(chat, prompts or [])
    if json:
        print_json(answers)
    elif typed is None:
        _show(answers)


def answered(chat: Chat, prompts: list[str]) -> list[dict[str, Any]]:
    """What each speaker says to each prompt, every one in a chat of its own."""
    asked = {speaker.key: [chat.asked(speaker, prompt, i) for i, prompt in enumerate(prompts)]
             for speaker in chat.speakers}  # fmt: skip
    amplified = asked.pop("amplified", [])
    texts = iter(chat.pair.generate([request for each in asked.values() for request in each]))
    said = {key: [next(texts) for _ in prompts] for key in asked}
    answers: list[dict[str, Any]] = [
        {"prompt": prompt, "base": None, **{key: found[i] for key, found in said.items()}}
        for i, prompt in enumerate(prompts)
    ]
    for answer, found in zip(answers, chat.pair.amplified(amplified), strict=False):
        logprobs = {"finetuned": found.finetuned, "base": found.base}
        answer |= {"amplified": found.text, "mean_logprob": logprobs}
    return answers


def _show(answers: list[dict[str, Any]]) -> None:
    columns = [name for name, told in answers[0].items() if name != "mean_logprob" and told is not None]
    table = Table(show_lines=True)
    for column in columns:
        table.add_column(column, ratio=1 if column == "prompt" else 2)
    for answer in answers:
        cells = {column: escape(readable(answer[column])) for column in columns}
        if (found := answer.get("mean_logprob", {"base": None}))["base"] is not None:
            cells["amplified"] += (
                f"\n[dim]nats a token: finetuned {found['finetuned']:.2f}, base {found['base']:.2f}[/]"
            )
        table.add_row(*cells.values())
    out.print(table)
