"""`evaluate --dry-run`: what would be made, and what it takes."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from auditor.audits.forecast import Forecast, Public, forecast
from auditor.audits.plan import Plan
from auditor.cli.shared import out, print_json


def show_plan(plan: Plan, lenses: Iterable[str], *, json: bool) -> int:
    """Print it; nothing is begun."""
    found = forecast(plan, lenses)
    if json:
        print_json(found)
    else:
        _show(found)
    return 0


def _times(found: Forecast) -> list[str]:
    return [
        f"time: evidence about {found.evidence_seconds:.0f} s if none is in the cache, audits about "
        f"{found.audit_seconds:.0f} s without what LLMs take",
        f"({found.rates})",
    ]


def _of_public(public: Public) -> list[str]:
    lines = [
        f"{public.organisms} public organisms: about {public.download_gb:,.0f} GB and their adapters to fetch, if "
        "nothing is here (`auditor organisms pull --suite … --dry-run` asks the hub)",
        f"memory: up to {public.memory_gb:,.0f} GB for the weights of a pair ({public.largest})",
        f"GPU: about {public.gpu_hours:.1f} hours at least ({public.rates})",
    ]
    if public.gated:
        lines.append(f"gated, their licences to be accepted on the hub first: {', '.join(public.gated)}")
    return lines


def _show(found: Forecast) -> None:
    table = Table(title=f"suite {found.suite}: {found.audits} audits", title_justify="left")
    for head in ("agent", "budget", "organisms", "repeats", "audits"):
        table.add_column(head, justify="left" if head == "agent" else "right")
    for cell in found.cells:
        table.add_row(cell.agent, str(cell.budget), str(cell.organisms), str(cell.repeats), str(cell.audits))
    out.print(table)
    cost = "not known: a model has no price" if found.cost_usd is None else f"about {found.cost_usd:.2f} USD"
    lines = [
        f"model interactions: {found.interactions} at most",
        f"agent: about {found.agent_calls} LLM calls, {found.agent_tokens:,} tokens"
        + ("" if found.most_agent_tokens is None else f" (at most {found.most_agent_tokens:,} of input)")
        if found.agent_calls else "agent: offline, no LLM call",
        f"judges: {found.judge_calls} LLM calls, about {found.judge_tokens:,} tokens"
        if found.judge_calls else "judges: offline, no LLM call",
        f"cost: {cost}",
        *(_times(found) if found.evidence_seconds else ()),
        *(_of_public(found.public) if found.public else ()),
    ]  # fmt: skip
    out.print("\n".join(lines), highlight=False, markup=False)
