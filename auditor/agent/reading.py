"""What the offline investigator takes from a conversation: the same messages that an LLM would read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

_HEADER = re.compile(r"^## (E\d+) · (Patchscope|Logit lens|Steering), (\S+), layer (\d+)([^\n]*)", re.M)
_POSITION = re.compile(r"^- position (\d+)", re.M)
_NAMED = re.compile(r"position (\d+)")
_PLAIN = re.compile(r'^  plain: "(.*)"$', re.M)
_STEERED = re.compile(r'^  steered at \d+: "(.*)"$', re.M)
_CHANCE = re.compile(r"^Chance test on \S+: (.+?); tokens: (.*)$", re.M)
_BUDGET = re.compile(r"^Left: (\d+) model interactions, (\d+) turns", re.M)


@dataclass(frozen=True, slots=True)
class TokenList:
    """Tokens of one lens at one position, best first."""

    lens: str
    layer: int
    position: int
    tokens: tuple[str, ...]
    selected: tuple[str, ...] = ()
    sink: bool = False
    baseline: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What both models said to one question of ours."""

    prompt: str
    base: str
    finetuned: str


@dataclass
class Reading:
    """Everything seen so far."""

    lists: list[TokenList] = field(default_factory=list)
    steered: list[str] = field(default_factory=list)
    unsteered: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    sections: list[tuple[str, str, int, tuple[int, ...]]] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)  # text of the finetuned model -> observation's id
    trace: bool | None = None  # whether the sheet's own test finds one above chance; None: not told
    tested: list[str] = field(default_factory=list)  # tokens that the test judged, if there is a difference at all
    fetched: bool = False  # whether a free tool was called already
    rounds: int = 0  # of questions asked
    interactions_left: int = 0
    turns_left: int = 0


def read(messages: Sequence[BaseMessage]) -> Reading:
    """Collect tokens, samples and answers from the overview and from the tools' results."""
    reading = Reading()
    calls: dict[str, dict[str, Any]] = {}
    shown, fetched = _Samples(), _Samples()
    for message in messages:
        if isinstance(message, SystemMessage):
            continue
        if isinstance(message, HumanMessage):
            text = str(message.text)
            if budget := _BUDGET.findall(text):
                reading.interactions_left, reading.turns_left = map(int, budget[-1])
            _overview(reading, text, shown)
        elif isinstance(message, AIMessage):
            calls |= {str(call["id"]): dict(call) for call in message.tool_calls}
            reading.rounds += any(call["name"] == "ask_model" for call in message.tool_calls)
            reading.fetched |= any(call["name"].startswith("get_") for call in message.tool_calls)
        elif isinstance(message, ToolMessage):
            _result(reading, calls.get(message.tool_call_id, {}), str(message.text), fetched)
    # The overview's are the same ones, cut short: they count only where none were fetched whole.
    reading.steered = list(dict.fromkeys(fetched.steered or shown.steered))
    reading.unsteered = list(dict.fromkeys(fetched.plain or shown.plain))
    return reading


@dataclass
class _Samples:
    steered: list[str] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)


def _overview(reading: Reading, text: str, shown: _Samples) -> None:
    for verdict, tested in _CHANCE.findall(text):
        if verdict.startswith(("trace", "no ")):
            reading.trace = bool(reading.trace) or verdict.startswith("trace")
            reading.tested += [] if verdict.startswith("no difference") else tested.split(" | ")
    headers = list(_HEADER.finditer(text))
    ends = [*(header.start() for header in headers[1:]), len(text)]
    for header, end in zip(headers, ends, strict=False):
        body = text[header.end() : end]
        if header[2] == "Steering":
            positions = _NAMED.findall(header[5])
        elif header[2] == "Logit lens":
            positions = re.findall(r"\d+", header[5].partition(";")[0])
        else:
            positions = _POSITION.findall(body)
        hidden = re.search(r"; not shown[^:]*: layer ([\d, ]+)", header[5])
        for layer in [header[4], *(re.findall(r"\d+", hidden[1]) if hidden else [])]:
            reading.sections.append((header[2], header[3], int(layer), tuple(map(int, positions))))
        reading.sources |= dict.fromkeys(_quoted(_STEERED, body), header[1])
    shown.plain += _quoted(_PLAIN, text)
    shown.steered += _quoted(_STEERED, text)


def _quoted(what: re.Pattern[str], text: str) -> list[str]:
    return [found.replace('\\"', '"') for found in what.findall(text)]


def _result(reading: Reading, call: dict[str, Any], text: str, fetched: _Samples) -> None:
    observation, _, told = text.partition("\n")
    try:
        result = json.loads(told)
    except json.JSONDecodeError:
        return  # a refusal or a failure, told in words
    name, args = call.get("name"), call.get("args", {})
    if name == "get_patchscope_details":
        for position, found in result.items():
            reading.lists.append(
                TokenList(
                    "patchscope",
                    args["layer"],
                    int(position),
                    tuple(found["tokens"]),
                    tuple(found["selected"]),
                    found["sink"],
                    tuple(found["baseline"]),
                )
            )
    elif name == "get_logitlens_details":
        sinks = {(t.layer, t.position) for t in reading.lists if t.sink}
        for position, found in result.items():
            where = (args["layer"], int(position))
            reading.lists.append(TokenList("logit lens", *where, tuple(found["top"]), sink=where in sinks))
    elif name == "get_steering_samples":
        for sample in result:
            steered = sample.get("steered", [])
            fetched.steered += steered
            fetched.plain += sample.get("plain", [])
            reading.sources |= dict.fromkeys(steered, observation)
    elif name == "ask_model":
        reading.answers += [Answer(a["prompt"], a["base"], a["finetuned"]) for a in result]
        reading.sources |= {a["finetuned"]: observation for a in result}
    elif name == "generate_steered":
        fetched.steered += [text for texts in result.values() for text in texts]
        reading.sources |= {text: observation for texts in result.values() for text in texts}
