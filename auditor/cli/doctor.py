"""`auditor doctor`: is everything here that an audit needs?"""

from __future__ import annotations

import os
import platform
import re
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from rich.markup import escape
from rich.table import Table

from auditor.cli.shared import JsonFlag, out, print_json, settings
from auditor.memory import available_memory, usable_cpus

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "nnsight",
    "langgraph",
    "langchain-openai",
    "sentence-transformers",
)
EXTRAS = {  # what each brings that nothing else needs
    "agreement": "krippendorff", "anthropic": "langchain_anthropic", "data": "datasets", "inspect": "inspect_ai",
    "otel": "opentelemetry.sdk", "parquet": "pyarrow", "ray": "ray", "slurm": "submitit", "vllm": "vllm",
}  # fmt: skip
KEYS = ("OPENAI_API_KEY", "OPENROUTER_API_KEY", "ANTHROPIC_API_KEY", "HF_TOKEN")
NEEDED_GB = 4.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what, how it is, and what to do about it (empty if nothing)."""

    what: str
    is_: str
    todo: str = ""


def doctor(json: JsonFlag = False) -> None:
    """Versions, device, memory, cache, keys and network, each with what to do."""
    findings = [*_software(), *_machine(), *_models(), *_network(), *_keys()]
    if json:
        print_json([{"check": f.what, "found": f.is_, "todo": f.todo} for f in findings])
        return
    table = Table("check", "found", "what to do")
    for f in findings:
        table.add_row(f.what, escape(f.is_), escape(f.todo) if f.todo else "[green]fine[/]")
    out.print(table)


def _software() -> list[Finding]:
    found = [Finding("python", platform.python_version())]
    for name in PACKAGES:
        try:
            found.append(Finding(name, version(name)))
        except PackageNotFoundError:
            found.append(Finding(name, "missing", "pip install auditor-adl again"))
    there = [extra for extra, module in EXTRAS.items() if _has(module)]
    missing = ", ".join(extra for extra in EXTRAS if extra not in there)
    told = ", ".join(there) or "none"
    return [*found, Finding("extras", f"{told}; not here: {missing}" if missing else told)]


def _has(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package around it
        return False


def _machine() -> list[Finding]:
    import torch

    conf = settings()
    free = available_memory() / 2**30
    return [
        Finding("device", conf.device, "" if conf.device != "cpu" else "the CPU is enough for models up to 1B"),
        Finding("dtype", str(conf.torch_dtype).removeprefix("torch.")),
        Finding("threads", f"{torch.get_num_threads()} of {usable_cpus()} cores that may be used"),
        Finding(
            "memory",
            f"{free:.1f} GB available",
            f"free some: the embedded default needs {NEEDED_GB:g} GB" if free < NEEDED_GB else "",
        ),
    ]


def _models() -> list[Finding]:
    from auditor.models.embedded import hub_reachable, is_converted

    conf = settings()
    cache = conf.cache_dir
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free / 2**30
    embedded = is_converted(conf)
    reachable = hub_reachable()
    return [
        Finding("cache", f"{cache} ({free:.0f} GB free)", "set AUDITOR_CACHE to a larger disk" if free < 2 else ""),
        Finding(
            "embedded model",
            "converted, in the cache" if embedded else "not here yet",
            "" if embedded else "the first audit fetches and converts it (about a minute)",
        ),
        Finding(
            "model hub",
            "reachable" if reachable else "not reachable",
            "" if reachable else "local folders and the embedded model work without it; else see HF_ENDPOINT",
        ),
    ]


def _network() -> list[Finding]:
    """Proxies of the environment, and what they need; passwords are not shown."""
    found = []
    for name, address in sorted(os.environ.items()):
        if not (name.lower().endswith("_proxy") and address):
            continue
        todo = "hosts that are asked without a proxy" if name.lower() == "no_proxy" else ""
        if address.lower().startswith("socks") and find_spec("socksio") is None:
            todo = "pip install 'httpx[socks]': without it nothing is reached through a SOCKS proxy"
        found.append(Finding(name, re.sub(r"//[^@/]*@", "//…@", address), todo))
    return found


def _keys() -> list[Finding]:
    from auditor.llm.proxies import missing_socks

    conf = settings()
    base = os.environ.get("OPENAI_BASE_URL")
    found = [
        Finding(
            name,
            "set" if os.environ.get(name) else "not set",
            "" if os.environ.get(name) else "only if you use it",
        )
        for name in KEYS
    ]
    found.append(Finding("OPENAI_BASE_URL", base or "not set (OpenAI's own)"))
    if problem := missing_socks():
        found.append(Finding("proxy", "cannot be used", problem))
    todo = "" if conf.llm != "offline" else "AUDITOR_LLM or --llm names a chat model; offline needs none"
    return [*found, Finding("agent's model", conf.llm, todo)]
