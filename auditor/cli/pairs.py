"""How every command is told which pair, and on which machine part: MODEL [--base B], --device, --dtype."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auditor.cli.shared import choose_machine, workspace
from auditor.config import Settings
from auditor.errors import UsageError
from auditor.records.cards import AdapterVariant

if TYPE_CHECKING:
    from auditor.records.results import Target

MODEL = (
    "An organism (`auditor organisms list`), an adapter or whole model (a folder, or a hub id with /sub/folder and "
    "@revision where it has them), or its name on --server."
)
ModelArgument = Annotated[str, typer.Argument(help=MODEL)]
PerhapsModel = Annotated[str | None, typer.Argument(help=MODEL)]
ModelOption = Annotated[str | None, typer.Option("--model", help="The same as the argument MODEL.")]
BaseOption = Annotated[
    str | None, typer.Option(help="Its base; an organism's card or an adapter's config names one, too.")
]
NoBaseFlag = Annotated[bool, typer.Option("--no-base", help="The base is not known: read and ask the finetune alone.")]
AdapterScale = Annotated[
    float | None, typer.Option(help="Take the finetune's change of the weights times this; over 1 amplifies it.")
]
AdapterRank = Annotated[
    int | None, typer.Option(help="Keep only the best part of this rank of the finetune's change of each matrix.")
]
ReferenceOption = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="What ppl_diff compares with instead of the base: another model, or `none`."),
]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, or balanced (all GPUs); default: what is there.")
]
DtypeOption = Annotated[str | None, typer.Option(help="float32, bfloat16, float16; default: by device.")]

# What a base is needed for, as said in one line; by the option that asks for it.
NEEDS_BASE = {
    "--base": "then it is known",
    "--adapter-base": "an adapter runs on its base only",
    "--server": "the server's pairs have theirs (--server or AUDITOR_SERVER)",
    "--adapter-scale or --adapter-rank": "what training changed is known from the base only",
    "--amplify": "each token is held against the base",
    "--steer": "the push is along the difference from the base",
    "--reference base": "give another model, or none",
}


def on_machine(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same command with --device and --dtype, which hold for all that it loads."""
    options = {"device": DeviceOption, "dtype": DtypeOption}

    @wraps(command)
    def run(*args: Any, device: str | None = None, dtype: str | None = None, **given: Any) -> Any:
        choose_machine(device=device, dtype=dtype)
        return command(*args, **given)

    own, by_name = inspect.signature(command, eval_str=True), inspect.Parameter.KEYWORD_ONLY
    more = [inspect.Parameter(name, by_name, default=None, annotation=kind) for name, kind in options.items()]
    run.__signature__ = own.replace(parameters=[*own.parameters.values(), *more])  # type: ignore[attr-defined]
    run.__annotations__ = {**command.__annotations__, **options}
    return run


def one_model(argument: str | None, option: str | None) -> str:
    """Raises UsageError unless the model is named, and once only."""
    if (argument is None) == (option is None):
        raise UsageError("name the MODEL, once: an organism, an adapter or a whole model")
    return str(argument or option)


def asked_pair(
    conf: Settings,
    model: str,
    base: str | None = None,
    *,
    no_base: bool = False,
    variant: AdapterVariant | None = None,
    adapter_base: str | None = None,
    needing: Mapping[str, object] | None = None,
) -> Target:
    """The pair that the command line names. `needing`: options that --no-base does not go with, None if not given.

    Raises UsageError, BadModel.
    """
    from auditor.audits.named import alone, pair_named

    if not no_base:
        return pair_named(workspace(), conf, model, base, adapter_base=adapter_base, variant=variant)
    given = {"--base": base, "--adapter-base": adapter_base, "--adapter-scale or --adapter-rank": variant,
             "--server": conf.server, **(needing or {})}  # fmt: skip
    for option, reason in NEEDS_BASE.items():
        if given.get(option) is not None:
            raise UsageError(f"--no-base with {option}: {reason}; leave one of them out")
    return alone(workspace(), conf, model)


def variant_of(scale: float | None, rank: int | None, server: str | None = None) -> AdapterVariant | None:
    """The finetune's variant that the flags ask for; None where they ask for none. Raises UsageError."""
    if scale is None and rank is None:
        return None
    if server is not None:
        raise UsageError("--adapter-scale and --adapter-rank are the server's: give them to `auditor serve`")
    if scale is not None and (scale == 0 or not math.isfinite(scale)):
        raise UsageError(f"--adapter-scale {scale:g}: give a number that is not 0, over 1 to amplify")
    if rank is not None and rank < 1:
        raise UsageError(f"--adapter-rank {rank}: give 1 or more, up to the adapter's own rank")
    return AdapterVariant(scale=1.0 if scale is None else scale, rank=rank)
