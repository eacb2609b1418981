"""`auditor audit`: a pair of one's own, whose truth nobody knows."""

from __future__ import annotations

import json as jsonlib
import re
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markdown import Markdown
from rich.markup import escape

from auditor.cli.shared import JsonFlag, err, out, print_json, settings, workspace
from auditor.errors import UsageError
from auditor.types import Limits, Protocol, TokenUse, VetReport


def audit(
    model: Annotated[str, typer.Argument(help="The finetune: PEFT adapter or whole model; hub id or folder.")],
    base: Annotated[str | None, typer.Option(help="Its base; an adapter's own config names it.")] = None,
    agent: Annotated[str, typer.Option(help="Who audits.")] = "adl",
    budget: Annotated[int, typer.Option(min=0, help="Model interactions that it may spend.")] = 5,
    llm: Annotated[str | None, typer.Option(help="The agent: `offline`, or PROVIDER:MODEL[?option=value&…].")] = None,
    protocol: Annotated[Protocol, typer.Option(help="How the agent calls tools.")] = Protocol.AUTO,
    suite: Annotated[str, typer.Option(help="Suite whose evidence and sampling settings are used.")] = "quickstart",
    out_dir: Annotated[Path, typer.Option("--out", help="Folder that reports are kept in.")] = Path("runs"),
    name: Annotated[str | None, typer.Option(help="The audit's name; default: model and time.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Finish an interrupted audit (needs --name).")] = False,
    seed: Annotated[int, typer.Option(help="Everything random derives from it.")] = 0,
    json: JsonFlag = False,
) -> int:
    """Find out what MODEL was finetuned for: evidence, audit, and a report with its claims; no grade."""
    if resume and name is None:
        raise UsageError("--resume needs the --name of the audit to finish")
    ws, conf = workspace(), settings(llm=llm)
    if conf.llm == "offline":
        err.print("agent: the offline investigator (no LLM; give --llm or AUDITOR_LLM for one)", style="dim")
    base = base or base_of(model)
    short = re.sub(r"[^\w.-]+", "-", model.strip("/")).strip("-.")[-40:]
    folder = out_dir / (name or f"audit-{short}-{datetime.now():%Y%m%d-%H%M%S}")
    about = {"model": model, "base": base, "agent": agent, "budget": budget, "llm": conf.llm, "seed": seed}

    with err.status("loading") as status:
        report = _vet(ws, conf, about, ws.suites[suite], protocol, folder, resume, lambda s: status.update(f"{s} …"))
    from auditor.evaluation.vet import to_markdown

    page = to_markdown(report)
    (folder / "report.md").write_text(page)
    (folder / "report.json").write_text(report.model_dump_json(indent=1))
    if json:
        print_json(report)
    else:
        out.print(Markdown(page))
        out.print(f"\n{escape(str(folder / 'report.md'))}", style="dim", highlight=False)
    return 1 if report.error else 0


def base_of(model: str) -> str:
    """The base that an adapter's config names. Raises UsageError if there is none."""
    from huggingface_hub import hf_hub_download

    path = Path(model).expanduser() / "adapter_config.json"
    if not path.parent.is_dir() and model.count("/") == 1:
        try:
            path = Path(hf_hub_download(model, "adapter_config.json"))
        except Exception:
            path = Path("nowhere")
    try:
        found = jsonlib.loads(path.read_text()).get("base_model_name_or_path")
    except (OSError, ValueError):
        found = None
    if not found:
        raise UsageError(f"{model} names no base of its own (it is no adapter, or not here); give --base")
    return str(found)


def _vet(ws: Any, conf: Any, about: dict[str, Any], suite: Any, protocol: Protocol, folder: Path, resume: bool,
         tell: Any) -> VetReport:  # fmt: skip
    import sqlite3

    from langgraph.checkpoint.sqlite import SqliteSaver

    from auditor.agent.chat import make_caller
    from auditor.agent.hypothesis import observations
    from auditor.evaluation.audit import investigate, plan
    from auditor.evaluation.store import RunStore
    from auditor.evaluation.vet import lens_words
    from auditor.evidence import evidence_for, make_lens
    from auditor.lens.corpus import read_corpus
    from auditor.lens.words import background_of
    from auditor.llm.caller import CallLog
    from auditor.models.embed import load_embedder
    from auditor.models.load import load_pair
    from auditor.plugins import GraderContext

    agent = ws.agents[about["agent"]]
    store = RunStore.open(folder, about, resume=resume)
    embed = load_embedder(conf.embedder)
    background = read_corpus(ws.corpora["openings"]).texts
    log = CallLog(folder / "calls.jsonl")
    caller = make_caller(conf.llm, embed, background_of(tuple(background)), log)
    clock = time.perf_counter()
    pair = load_pair(about["base"], about["model"], conf, name="audited")
    grading = GraderContext(embed, conf, pair, background, prompts={n: ws.prompts[n] for n in ws.prompts.items})
    dataset = evidence_for(pair, make_lens(ws, pair, suite.evidence, grading), tell)
    seconds = {"evidence": time.perf_counter() - clock}
    limits = Limits(interactions=about["budget"], turns=suite.turns, tokens=suite.tokens)
    made = plan(
        ws, agent, limits, suite.ask, about["seed"],
        name="audit", pair=pair, dataset=dataset, caller=caller, protocol=protocol,
    )  # fmt: skip
    tell("agent")
    with closing(sqlite3.connect(store.checkpoints, check_same_thread=False)) as connection:
        ended = investigate(
            made, SqliteSaver(connection), embed,
            lambda state, more: store.write_transcript("audit", state["messages"], {**about, **more}),
        )  # fmt: skip
    state = ended.state
    return VetReport(
        **about,
        hypothesis=state["hypothesis"] or "",
        findings=ended.findings,
        checks=ended.checks,
        observations=observations(state["messages"]),
        tokens=lens_words(dataset.evidence),
        interactions_used=state["interactions"],
        turns_used=state["turns"],
        tokens_used=TokenUse(input=state["tokens_in"], output=state["tokens_out"]),
        cost_usd=state["cost_usd"] if conf.llm != "offline" else None,
        seconds={**seconds, "agent": ended.seconds},
        error=ended.error,
    )
