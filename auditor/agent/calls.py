"""One tool call: checked, charged, run, and made an observation."""

from __future__ import annotations

import difflib
import hashlib
import json
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AnyMessage, ToolMessage
from pydantic import ValidationError

from auditor.agent.pages import READ_MORE, as_data, capped, first_page
from auditor.agent.protocol import CONCLUDE
from auditor.agent.purse import Charge, Spending, Unbound
from auditor.agent.state import AuditState
from auditor.errors import AuditorError, Refused
from auditor.models import generate
from auditor.models.generate import derive_seed
from auditor.models.kept import Kept
from auditor.models.worker import out_of_memory
from auditor.plugins import Tool, as_price
from auditor.text import quote

if TYPE_CHECKING:
    from auditor.agent.graph import Investigation

MODELS = Path(generate.__file__).parent  # an error from there is no tool's


@dataclass(frozen=True, slots=True)
class Purse:
    """Where an audit's interactions are charged, and what the models were asked in it."""

    spends: Spending = field(default_factory=Unbound)
    kept: Kept = field(default_factory=Kept)


def answer_call(job: Investigation, tool: Tool | None, call: dict[str, Any], state: AuditState) -> tuple[str, int, Any]:
    """The observation for one tool call, what it cost, and the whole result as data.

    What is wrong with call or tool becomes the observation.

    Raises what failed under the tool, which the agent must not be graded for: models, their server, memory.
    """
    if call.get("fault"):
        return f"Not accepted: {call['fault']}. No interaction was charged.", 0, None
    if call["name"] == CONCLUDE:
        return f"Not accepted: call {CONCLUDE} alone, after you have read the other results.", 0, None
    if tool is None:
        near = difflib.get_close_matches(call["name"][:100], job.tools, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        return f"There is no tool {quote(str(call['name']), 60)}{hint} Tools: {', '.join(job.tools)}.", 0, None
    try:
        args = tool.args.model_validate(call["args"])
        cost = as_price(tool.cost(args))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors())
        return f"Wrong arguments for {tool.name}: {wrong}. No interaction was charged.", 0, None
    except Refused as refusal:
        return f"Refused: {refusal}. No interaction was charged.", 0, None
    except Exception as error:  # of the plugin's own price
        return (
            f"{tool.name} failed: {type(error).__name__}: {quote(str(error), 500)}. No interaction was charged.",
            0,
            None,
        )
    seed = derive_seed(job.context.seed, state["interactions"], call["id"] if cost == 0 else "")
    context = replace(job.context, seed=seed, results=results(state["messages"]))
    return _charged(replace(job, context=context), tool, call, state, args, cost)


def results(messages: Sequence[AnyMessage]) -> dict[str, Any]:
    """What tools gave, whole, under the id of each observation; None for what was refused."""
    told = [message.artifact for message in messages if isinstance(message, ToolMessage)]
    return {f"O{number}": value for number, value in enumerate(told, 1)}


def _charged(
    job: Investigation, tool: Tool, call: dict[str, Any], state: AuditState, args: Any, cost: int
) -> tuple[str, int, Any]:
    """Charge the call, then make it. A charge is given back only if no model was asked."""
    spends, audit, asked = job.purse.spends, job.purse.kept.job, job.purse.kept.asked
    key, remaining = _key(call, state), job.limits.interactions - state["interactions"]
    if cost > remaining or (cost and spends.charge(audit, key, cost, job.limits.interactions) is Charge.REFUSED):
        return (
            f"Refused: this call costs {cost} interactions and {remaining} are left. No interaction was charged.",
            0,
            None,
        )
    value: Any = None
    try:
        value = capped(tool.returns.dump_python(tool.run(job.context, args), mode="json"))
        number = f"O{len(job.context.results) + 1}"
        text, came = (as_data(value) if tool.name == READ_MORE else first_page(value, number)), True
    except Refused as refusal:
        text, came = f"Refused: {refusal}.", False
    except (Exception, SystemExit) as error:
        if not _own_bug(error):
            raise
        text, came = f"{tool.name} failed: {type(error).__name__}: {quote(str(error), 500)}.", False
    if not came and (not cost or job.purse.kept.asked == asked):
        if cost:
            spends.give_back(audit, key)
        return f"{text} No interaction was charged.", 0, None
    if cost:
        spends.answered(audit, key)
    return text if came else f"{text} The models had been asked: {cost} interactions are spent.", cost, value


def _key(call: dict[str, Any], state: AuditState) -> str:
    """The same for the same call in the same turn, however often it is made."""
    told = json.dumps([state["turns"], call["id"], call["name"], call["args"]], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()


def _own_bug(error: BaseException | None) -> bool:
    """Whether the plugin itself is wrong: nothing under it failed, not even where it says something else of that."""
    while error is not None:
        if (isinstance(error, AuditorError) and not isinstance(error, Refused)) or out_of_memory(error):
            return False
        places = (Path(frame.f_code.co_filename) for frame, _ in traceback.walk_tb(error.__traceback__))
        if any(MODELS in place.parents for place in places):
            return False
        error = error.__cause__ or error.__context__
    return True
