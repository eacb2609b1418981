"""One tool call: checked, paid for, run, and made an observation."""

from __future__ import annotations

import difflib
import json
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from auditor.agent.protocol import CONCLUDE
from auditor.agent.state import AuditState, left
from auditor.errors import AuditorError, Refused
from auditor.models import generate
from auditor.models.generate import derive_seed
from auditor.models.worker import out_of_memory
from auditor.plugins import Tool, as_price
from auditor.text import quote

if TYPE_CHECKING:
    from auditor.agent.graph import Investigation

MODELS = Path(generate.__file__).parent  # an error from there is no tool's
RESULT_CUT = 12_000  # characters of one tool result that the agent is shown
TEXT_CUTS = (3_000, 1_000, 400, 150)  # … and of one text in it: the longest at which the result fits


def answer_call(job: Investigation, tool: Tool | None, call: dict[str, Any], state: AuditState) -> tuple[str, int, Any]:
    """The observation for one tool call, what it cost, and the result as data, no longer than it is shown.

    What is wrong with call or tool becomes the observation.

    Raises what failed under the tool, which the agent must not be graded for: models, their server, memory.
    """
    if call.get("fault"):
        return f"Not accepted: {call['fault']}. Nothing was charged.", 0, None
    if call["name"] == CONCLUDE:
        return f"Not accepted: call {CONCLUDE} alone, after you have read the other results.", 0, None
    if tool is None:
        near = difflib.get_close_matches(call["name"][:100], job.tools, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        return f"There is no tool {quote(str(call['name']), 60)}{hint} Tools: {', '.join(job.tools)}.", 0, None
    try:
        return _use(job, tool, call, state)
    except Refused as refusal:
        return f"Refused: {refusal}. Nothing was charged.", 0, None
    except (Exception, SystemExit) as error:
        if not _own_bug(error):
            raise
        return f"{tool.name} failed: {type(error).__name__}: {quote(str(error), 500)}. Nothing was charged.", 0, None


def _use(job: Investigation, tool: Tool, call: dict[str, Any], state: AuditState) -> tuple[str, int, Any]:
    try:
        args = tool.args.model_validate(call["args"])
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors())
        return f"Wrong arguments for {tool.name}: {wrong}. Nothing was charged.", 0, None
    cost, remaining = as_price(tool.cost(args)), left(state, job.limits)["interactions_left"]
    if cost > remaining:
        return f"Refused: this call costs {cost} interactions and {remaining} are left. Nothing was charged.", 0, None
    seed = derive_seed(job.context.seed, state["interactions"], call["id"] if cost == 0 else "")
    result = tool.run(replace(job.context, seed=seed), args)
    value = fitting(tool.returns.dump_python(result, mode="json"))
    text = as_data(value)
    return text if len(text) <= RESULT_CUT else f"{text[:RESULT_CUT]}… (cut; ask for less)", cost, value


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


def fitting(value: Any) -> Any:
    """A tool's result in which no text runs on without end."""
    for cut in TEXT_CUTS:
        capped = _capped(value, cut)
        if len(json.dumps(capped, ensure_ascii=False)) <= RESULT_CUT:
            break
    return capped


def as_data(value: Any) -> str:
    """The same as JSON in which no text breaks a line or hides characters."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def _capped(value: Any, cut: int) -> Any:
    if isinstance(value, str) and len(value) > cut:
        return f"{value[:cut]}… ({len(value) - cut} more characters)"
    if isinstance(value, dict):
        return {key: _capped(item, cut) for key, item in value.items()}
    return [_capped(item, cut) for item in value] if isinstance(value, list) else value
