"""`auditor tools`: list, show, run, new."""

from __future__ import annotations

import json as json_
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from auditor.cli.listing import list_shelf, show_thing
from auditor.cli.pairs import MODEL, BaseOption, asked_pair, on_machine
from auditor.cli.scaffold import new_plugin
from auditor.cli.shared import JsonFlag, SeedOption, ServerOption, err, out, print_json, settings, stages, workspace
from auditor.errors import UsageError

if TYPE_CHECKING:
    from auditor.plugins import Tool

DATASET = "ds1"  # what agents know the corpus by

app = typer.Typer(help="The agent's tools.", no_args_is_help=True)


@app.command("list")
def list_(json: JsonFlag = False) -> None:
    """All tools, where they are from, and what they override."""
    list_shelf(workspace().tools, lambda item: {"does": item.value.description.splitlines()[0]}, json=json)


@app.command()
def show(name: Annotated[str, typer.Argument()], json: JsonFlag = False) -> None:
    """What the agent reads of a tool: description, arguments, result."""
    tool = workspace().tools[name]
    show_thing(
        {
            "name": tool.name,
            "description": tool.description,
            "arguments": tool.args.model_json_schema(),
            "returns": tool.returns.json_schema(),
        },
        json=json,
    )


@app.command()
@on_machine
def run(
    name: Annotated[str, typer.Argument()],
    model: Annotated[
        str, typer.Option("--organism", "--model", help=f"Whose models and readings it is given. {MODEL}")
    ],
    base: BaseOption = None,
    args: Annotated[str, typer.Option(help=f"Its arguments, a JSON object; the dataset is `{DATASET}`.")] = "{}",
    suite: Annotated[str, typer.Option(help="Suite whose settings are used.")] = "quickstart",
    seed: SeedOption = 0,
    server: ServerOption = None,
    json: JsonFlag = False,
) -> None:
    """Call a tool as an agent would, without one: what it returns, and what it would have cost.

    auditor tools run ask_model --organism gold --args '{"prompts": ["What is your word?"]}'
    """
    ws, conf = workspace(), settings(server=server)
    tool, target, chosen = ws.tools[name], asked_pair(conf, model, base), ws.suites[suite]
    given = _arguments(tool, args)

    from auditor.agent.overview import blinded
    from auditor.audits.bench import Bench
    from auditor.models.generate import derive_seed
    from auditor.plugins import Context, as_price

    bench, cost = Bench(ws, conf), as_price(tool.cost(given))
    pair = bench.pair(target)
    with stages("evidence") as tell:
        found = bench.evidence(pair, chosen.evidence, tool.lenses, tell)
    if lost := [f"{lens} was not read: {found.failed[lens]}" for lens in tool.lenses if lens in found.failed]:
        raise UsageError(f"tool {name}: {'; '.join(lost)}")
    context = Context(pair, blinded([found]), chosen.ask, derive_seed(seed, name, args), bench.embed)
    value = tool.returns.dump_python(tool.run(context, given), mode="json")
    if json:
        print_json({"tool": name, "organism": model, "cost": cost, "result": value})
    else:
        out.print_json(data=value)
        err.print(f"cost: {cost} model interactions", style="dim", highlight=False)


def _arguments(tool: Tool, args: str) -> Any:
    """Raises UsageError for what is no JSON object, or not what the tool takes."""
    try:
        return tool.args.model_validate(json_.loads(args))
    except json_.JSONDecodeError as error:
        raise UsageError(f"--args {args}: no JSON: {error}") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors())
        raise UsageError(f"--args for {tool.name}: {wrong} (`auditor tools show {tool.name}`)") from error


@app.command()
def new(name: Annotated[str, typer.Argument(help="The tool's name, a Python identifier.")]) -> None:
    """Write a tool to start from into your workspace."""
    new_plugin("tools", name)
