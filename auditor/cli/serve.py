"""`auditor serve`: the model server."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from auditor.cli.organisms import is_ready
from auditor.cli.pairs import AdapterRank, AdapterScale, variant_of
from auditor.cli.shared import err, settings, workspace
from auditor.errors import UsageError

if TYPE_CHECKING:
    from auditor.config import Settings
    from auditor.server.library import Served


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL|NAME=MODEL[@BASE]]…",
            help="Organisms, adapters or whole models, served under a NAME of yours or their own; default: all "
            "organisms.",
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Base of all that are no organisms; default: an adapter's config names it.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; any but loopback demands a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with the key that clients must send; or AUDITOR_API_KEY.")
    ] = None,
    backend: Annotated[
        str, typer.Option(help="What decodes texts: hooks (torch, anywhere), or vllm (GPUs; an extra of its own).")
    ] = "hooks",
    adapter_scale: AdapterScale = None,
    adapter_rank: AdapterRank = None,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Log what is asked, too.")] = False,
) -> None:
    """Serve pairs over HTTP: OpenAI's chat completions, steering, evidence, metrics."""
    from auditor.server.library import Library
    from auditor.server.run import read_key, run_server

    if backend not in ("hooks", "vllm"):
        raise UsageError(f"--backend {backend}: give hooks or vllm")
    host = host.removeprefix("[").removesuffix("]")  # as an IPv6 address stands in a URL
    key = read_key(api_key_file, os.environ.get("AUDITOR_API_KEY"), host)
    ws, conf = workspace(), settings()
    if backend == "vllm" and conf.device not in ("cpu", "cuda", "balanced"):
        raise UsageError(f"--backend vllm --device {conf.device}: give cuda, and the GPU in CUDA_VISIBLE_DEVICES")
    served = chosen(models or [], base, conf)
    if (variant := variant_of(adapter_scale, adapter_rank)) is not None:
        served = {own: replace(pair, variant=variant) for own, pair in served.items()}
    library = Library(served, ws, conf, "vllm" if backend == "vllm" else "hooks")
    library.check()
    err.print(f"serving {escape(', '.join(library.served))} ({'with' if key else 'without'} a key)", highlight=False)
    run_server(library, host, port, key=key, log_prompts=log_prompts)


def chosen(names: list[str], base: str | None, conf: Settings) -> dict[str, Served]:
    """What is to be served, by name. `base`: of all that are no organisms. Raises UsageError, or UnknownName."""
    from auditor.audits.named import pair_named, plain_name
    from auditor.models.weights import base_of
    from auditor.server.library import Served

    ws = workspace()
    found: dict[str, Served] = {}

    def put(own: str, served: Served) -> None:
        if own in found:
            raise UsageError(f"two of these are called {own}: give one as NAME=MODEL")
        found[own] = served

    for name in names or [item.value.name for item in ws.organisms if is_ready(item.value)]:
        own, equals, pair = name.partition("=")
        if not equals or "/" in own:  # a folder may have such a sign in its name
            target = pair_named(ws, conf, name, None if name in ws.organisms else base)
            own = name if name in ws.organisms else plain_name(name)
            put(own, Served(own, str(target.base), target.finetuned, target.variant, target.adapter_base))
            continue
        model, of_it = _model_and_base(name, pair, base)
        if not own.replace("-", "").replace("_", "").isalnum() or not model:
            raise UsageError(f"{name}: give NAME=MODEL or NAME=MODEL@BASE, the name of letters, digits, - and _")
        put(own, Served(own, of_it or base_of(model), model))
    if not found:
        raise UsageError("there is no organism whose weights are here; name one, or give NAME=MODEL@BASE")
    return found


def _model_and_base(name: str, pair: str, base: str | None) -> tuple[str, str | None]:
    """What MODEL@BASE says; with a base given apart, all of it is the model, which may have a revision."""
    from auditor.models.embedded import is_embedded
    from auditor.models.hub import HubName

    model, at, after = pair.partition("@")
    if base is not None or not at:
        return pair, base
    if not (is_embedded(after) or HubName.parse(after) or (after and Path(after).expanduser().is_dir())):
        raise UsageError(
            f"{name}: behind @ stands the base, and {after!r} is no folder and no hub id; "
            "for a MODEL of some revision give its base as --base"
        )
    return model, after
