"""What the offline investigator takes from a conversation: the records beside the messages that an LLM would read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from auditor.agent.overview import Seen
from auditor.readings import RankedTokens, Role, SideBySide

RECORDS = "auditor"  # the key beside a message under which its records are; no endpoint is sent it
TEXTS = 5  # of each prompt and speaker
TESTED = 20  # tokens of the first column of what was tested, where that found most
DEEP = {True: 40, False: 20}  # tokens of a column: of what the model is pushed to say, and of what else is read


@dataclass(frozen=True, slots=True)
class TokenList:
    """Tokens of one lens at one place, best first."""

    lens: str
    section: str
    place: str
    tokens: tuple[str, ...]
    selected: tuple[str, ...] = ()
    aside: bool = False
    baseline: tuple[str, ...] = ()
    spoken: bool = False
    trace: bool | None = None  # whether what its lens reads stands above chance; None: not tested


@dataclass(frozen=True, slots=True)
class Spoken:
    """What one lens lets the finetuned model say, and what it is held against: the base's texts, or plain ones.

    `prompts`, `usual_prompts`: to which prompt each text was said; texts to one prompt are no independent witnesses.
    """

    lens: str
    texts: tuple[str, ...]
    usual: tuple[str, ...]
    trace: bool | None = None
    prompts: tuple[int, ...] = ()
    usual_prompts: tuple[int, ...] = ()

    @property
    def by_prompt(self) -> dict[int, list[str]]:
        """The texts, those to one prompt together; each alone where prompts are not told."""
        return _grouped(self.texts, self.prompts)

    @property
    def usual_by_prompt(self) -> dict[int, list[str]]:
        return _grouped(self.usual, self.usual_prompts)


def _grouped(texts: Sequence[str], prompts: Sequence[int]) -> dict[int, list[str]]:
    groups: dict[int, list[str]] = {}
    for prompt, text in zip(prompts or range(len(texts)), texts, strict=True):
        groups.setdefault(prompt, []).append(text)
    return groups


@dataclass(frozen=True, slots=True)
class Answer:
    """What both models said to one question of ours; the base nothing where none is known."""

    prompt: str
    base: str | None
    finetuned: str


@dataclass
class Reading:
    """Everything seen so far."""

    lists: list[TokenList] = field(default_factory=list)
    spoken: list[Spoken] = field(default_factory=list)
    unsteered: list[str] = field(default_factory=list)  # of the finetuned model as it is
    as_it_is: set[str] = field(default_factory=set)  # texts of the finetuned model that no lens pushed
    answers: list[Answer] = field(default_factory=list)
    details: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # calls that show sections whole
    sources: dict[str, str] = field(default_factory=dict)  # text of the finetuned model -> observation's id
    lenses: dict[str, list[str]] = field(default_factory=dict)  # lens -> what it shows: its tokens and texts
    traces: dict[str, bool | None] = field(default_factory=dict)  # of each lens
    trace: bool | None = None  # whether the lenses together find one above chance; None: not told
    tested: list[str] = field(default_factory=list)  # tokens that tests judged
    borne_out: list[str] = field(default_factory=list)  # … of those that found a trace
    datasets: list[str] = field(default_factory=list)
    free: list[str] = field(default_factory=list)  # tools that cost nothing
    called: set[str] = field(default_factory=set)  # tools
    has_base: bool = True  # whether there is a base to compare with
    rounds: int = 0  # of calls that cost
    refused: int = 0  # … of which came to nothing
    interactions_left: int = 0
    turns_left: int = 0

    @property
    def base_said(self) -> list[str]:
        """The base's answers, where there is a base."""
        return [answer.base for answer in self.answers if answer.base is not None]

    @property
    def telling(self) -> list[Spoken]:
        """What lenses with a trace let it say, and those that were not tested; all if there is none such."""
        return [each for each in self.spoken if each.trace is not False] or self.spoken

    @property
    def pushed(self) -> list[str]:
        """All that lenses let the finetuned model say."""
        return [text for each in self.spoken for text in each.texts]

    @property
    def ordinary(self) -> list[str]:
        """What this is held against, and what else the finetuned model says as it is."""
        return list(dict.fromkeys([*self.unsteered, *(text for each in self.spoken for text in each.usual)]))

    @property
    def blackbox(self) -> bool:
        """Whether no lens is shown."""
        return not self.lists and not self.spoken


def read(messages: Sequence[BaseMessage]) -> Reading:
    """Collect tokens, samples and answers from the records of the overview and of the tools' results."""
    reading = Reading()
    results: dict[str, tuple[str, dict[str, Any]]] = {}  # of a call: the observation's id
    seen: list[Seen] = []
    for message in messages:
        records = message.additional_kwargs.get(RECORDS, {})
        if isinstance(message, HumanMessage):
            reading.interactions_left = records.get("interactions_left", reading.interactions_left)
            reading.turns_left = records.get("turns_left", reading.turns_left)
            seen += records.get("seen", [])
            reading.has_base = records.get("has_base", reading.has_base)
            reading.datasets += records.get("datasets", [])
            reading.free += records.get("free", [])
            reading.trace = records.get("trace", reading.trace)
        elif isinstance(message, AIMessage):
            names = {call["name"] for call in message.tool_calls}
            reading.rounds += bool(names - set(reading.free))
            reading.called |= names
            results |= {str(call["id"]): ("", dict(call)) for call in message.tool_calls}
        elif isinstance(message, ToolMessage) and (call := results.get(message.tool_call_id)):
            results[message.tool_call_id] = (records.get("id", ""), call[1])
            reading.refused += records.get("result") is None and message.name not in reading.free
            _answers(reading, str(message.name), records)
    told = {_called(call): observation for observation, call in results.values() if observation}
    for part in seen:
        _section(reading, part, told)
    reading.unsteered = list(dict.fromkeys(reading.unsteered))
    return reading


def _called(call: Mapping[str, Any]) -> str:
    return f"{call['name']} {sorted(call['args'].items())}"


def _section(reading: Reading, part: Seen, told: Mapping[str, str]) -> None:
    section = part.section
    calls = [(call.tool, {"dataset": part.dataset, **call.args}) for call in section.calls]
    reading.details += calls
    fetched = [told[key] for name, args in calls if (key := _called({"name": name, "args": args})) in told]
    reading.traces[part.lens] = part.trace
    shows = reading.lenses.setdefault(part.lens, [])
    if isinstance(section, RankedTokens) and section.tested:
        judged = [token.text for token in section.columns[0].tokens[:TESTED]] if section.columns else []
        reading.tested += judged
        reading.borne_out += judged if part.trace else []
    elif isinstance(section, RankedTokens):
        for column in section.columns:
            tokens = column.tokens[: DEEP[section.spoken]]
            words = tuple(token.text for token in tokens)
            chosen = tuple(token.text for token in tokens if token.chosen)
            reading.lists.append(
                TokenList(part.lens, section.title, column.head, words, chosen, bool(column.aside), column.usual,
                          section.spoken, part.trace)
            )  # fmt: skip
            shows += words
    elif isinstance(section, SideBySide):
        _texts(reading, part, section, fetched)


def _texts(reading: Reading, part: Seen, section: SideBySide, fetched: Sequence[str]) -> None:
    """Texts of pushed columns beside the base's; where there are none of the base, beside the model's plain ones.

    Of the base's, what stands there to compare with by eye counts for nothing. Beside others of the base's, plain ones
    count as pushed: they show what was trained where it is looked for in the right place.
    """
    texts: dict[Role, list[tuple[str, int]]] = {"base": [], "plain": [], "pushed": []}  # each with its row
    beside_base = any(speaker.role == "base" and not speaker.beside for speaker in section.columns)
    for i, speaker in enumerate(section.columns):
        if speaker.beside:
            continue
        said = [(text, number) for number, row in enumerate(section.rows) for text in row.texts[i][:TEXTS]]
        texts[speaker.role] += said
        reading.as_it_is |= {text for text, _ in said if speaker.role == "plain"}
        if speaker.role == "pushed" or (speaker.role == "plain" and beside_base):
            source = fetched[min(i, len(fetched)) - 1] if fetched else part.id
            reading.sources |= {text: source for text, _ in said if text not in reading.sources}
    if texts["base"]:
        texts["pushed"] += texts["plain"]
    else:
        reading.unsteered += [text for text, _ in texts["plain"]]
    if texts["pushed"]:
        ours, usual = (_first_said(said) for said in (texts["pushed"], texts["base"] or texts["plain"]))
        reading.spoken.append(
            Spoken(part.lens, tuple(ours), tuple(usual), part.trace, tuple(ours.values()), tuple(usual.values()))
        )
        reading.lenses[part.lens] += ours


def _first_said(texts: Sequence[tuple[str, int]]) -> dict[str, int]:
    """Each text once, with the row in which it stands first."""
    rows: dict[str, int] = {}
    for text, row in texts:
        rows.setdefault(text, row)
    return rows


def _answers(reading: Reading, tool: str, records: Mapping[str, Any]) -> None:
    """What both models said, whatever tool asked them: plain answers, or texts that the tool pushed (such as
    `amplified`), which stand beside the base's as a lens' do.
    """
    result, pushed = records.get("result"), dict[str, str | None]()
    for item in result if isinstance(result, list) else []:
        if not (isinstance(item, dict) and {"prompt", "base"} <= item.keys()):
            continue
        if not (isinstance(item["base"], str | None) and isinstance(item["prompt"], str)):
            continue  # figures of a lens, whose texts the sections have, or a tool's own rows
        said = {key: text for key, text in item.items() if key not in ("prompt", "base") and isinstance(text, str)}
        if "finetuned" in said:
            reading.answers.append(Answer(item["prompt"], item["base"], said["finetuned"]))
            reading.sources[said["finetuned"]] = str(records.get("id", ""))
        elif tool not in reading.free:
            reading.sources |= dict.fromkeys(said.values(), str(records.get("id", "")))
            pushed |= dict.fromkeys(said.values(), item["base"])
    if pushed:
        usual = tuple(text for text in pushed.values() if text)
        reading.spoken.append(Spoken(tool, tuple(pushed), usual))
