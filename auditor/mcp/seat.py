"""Where a player sits in an agent's place: the graph waits for its calls as it does for an LLM's reply."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from auditor.agent.protocol import CONCLUDE, read_conclusion

BEGIN = "begin_audit"
TOGETHER = 0.2  # seconds in which calls are one turn, as those in one message of an LLM are
MOST_CALLS = 16  # that may wait at once
MOST_CHARACTERS = 100_000  # of one call's arguments
LEFT_EARLY = "You did not wait for the answer to an earlier call of {name}. It was:\n{answer}\n\n"
RECORDED = f"The conclusion is recorded; this audit is over. If there is another one, {BEGIN} begins it."
ONLY_CONCLUDE = f"Nothing but {CONCLUDE} is left to call."
LOST = "The audit ended before this call was answered."


class NotNow(Exception):
    """What a player asks for is not to be had now; nothing of it was charged or written down."""


@dataclass(eq=False)
class Call:
    """One call of the player's, until it has been answered."""

    name: str
    args: dict[str, Any]
    id: str = ""
    answer: str | None = None
    left: bool = False  # the player waits for it no longer
    otherwise: str = LOST  # what is answered if the audit ends with it


@dataclass
class Seat:
    """Between the thread that walks the graph and the players' requests. One audit at a time."""

    over: str = ""  # why nothing is left to be played
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _messages: Sequence[BaseMessage] = ()  # the conversation that the graph waits with; none while it is at work
    _last: bool = False  # whether only a conclusion is left
    _begun: str = ""  # the conversation whose beginning the player has read
    _concluded: bool = False
    _waiting: list[Call] = field(default_factory=list)
    _taken: list[Call] = field(default_factory=list)
    _missed: list[Call] = field(default_factory=list)

    def turn(self, messages: Sequence[BaseMessage], *, last: bool) -> AIMessage:
        """The graph's side: hand over what was answered, and wait for what is called next."""
        with self._changed:
            self._answer(messages)
            if last or _name(messages) != self._begun:
                self._turn_away(ONLY_CONCLUDE if last else LOST)
            self._messages, self._last, self._concluded = messages, last, False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting)
        time.sleep(TOGETHER)
        with self._changed:
            self._taken, self._waiting, self._messages = self._waiting, [], ()
            for number, call in enumerate(self._taken):
                call.id = f"m{len(messages)}-{number}"
            calls: list[Any] = [{"name": c.name, "args": c.args, "id": c.id} for c in self._taken]
        return AIMessage("", tool_calls=calls)

    def close(self, reason: str) -> None:
        """The graph's side: nothing more is played."""
        with self._changed:
            self.over = reason
            self._answer(())
            self._turn_away(LOST)
            self._changed.notify_all()

    def _answer(self, messages: Sequence[BaseMessage]) -> None:
        """Give the calls that were taken what the graph made of them; the last one is told what is left, too."""
        told = {m.tool_call_id: m.text for m in messages if isinstance(m, ToolMessage)}
        behind = "\n\n".join(str(m.text) for m in messages[_after_calls(messages) :])
        for number, call in enumerate(self._taken, 1):
            answer = told.get(call.id)
            parts = [answer, behind] if number == len(self._taken) else [answer]
            call.answer = call.otherwise if answer is None else "\n\n".join(filter(None, parts))
        self._missed += [call for call in self._taken if call.left]
        self._taken = []

    def _turn_away(self, reason: str) -> None:
        """Answer what was put in while the graph was at work, and is not to be had any more."""
        for call in self._waiting:
            call.answer = reason
        self._waiting = []

    def ready(self, patience: float) -> bool:
        """The player's side: whether an audit can begin by then, or none is left to begin."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self.over or self._open()), patience)

    def _open(self) -> bool:
        """Whether there is a conversation to take part in."""
        return bool(self._messages) and not self._concluded

    def begin(self) -> str:
        """The player's side: the conversation so far, from its beginning. Raises NotNow if it cannot begin yet."""
        with self._changed:
            if self.over:
                raise NotNow(self.over)
            if not self._open():
                raise NotNow(f"Not yet: models are loaded and lenses read, which may take minutes. Call {BEGIN} again.")
            self._begun, self._missed = _name(self._messages), []
            return "\n\n".join(_shown(message) for message in self._messages)

    def ask(self, name: str, args: dict[str, Any]) -> Call:
        """The player's side: put in a call. Raises NotNow for what is not taken."""
        with self._changed:
            if self.over:
                raise NotNow(self.over)
            begun = self._taken or (self._messages and self._begun == _name(self._messages))
            if self._concluded or not begun:
                raise NotNow(f"Call {BEGIN} first: it shows what this audit is about.")
            if len(json.dumps(args, default=str, ensure_ascii=False)) > MOST_CHARACTERS:
                raise NotNow(f"{name}: arguments may have {MOST_CHARACTERS} characters at most.")
            if len(self._waiting) >= MOST_CALLS:
                raise NotNow(f"{MOST_CALLS} calls wait already; wait for their answers.")
            call = Call(name, args)
            if name == CONCLUDE:
                _, fault = read_conclusion(args)
                if fault and self._last:
                    raise NotNow(f"Not accepted: {fault}. {ONLY_CONCLUDE}")
                call.otherwise = LOST if fault else RECORDED  # beside other calls it is answered, and ends nothing
                self._concluded = not (fault or self._waiting or self._taken)
            elif self._last:
                raise NotNow(ONLY_CONCLUDE)
            self._waiting.append(call)
            self._changed.notify_all()
            return call

    def wait(self, call: Call, patience: float) -> str | None:
        """The player's side: the answer, after those that nobody waited for; None if there is none yet."""
        with self._changed:
            if not self._changed.wait_for(lambda: call.answer is not None or call.left, patience) or call.left:
                return None  # who has left is not told what the next one is to be told
            missed, self._missed = self._missed, []
        before = "".join(LEFT_EARLY.format(name=each.name, answer=each.answer) for each in missed)
        return f"{before}{call.answer}"

    def leave(self, call: Call) -> None:
        """The player's side: its answer is told with the next one's."""
        with self._changed:
            call.left = True
            if call.answer is not None:
                self._missed.append(call)
            self._changed.notify_all()


class Played(BaseChatModel):
    """A player as a chat model: a reply is what is called at the seat."""

    seat: Any
    last: bool = False

    @property
    def _llm_type(self) -> str:
        return "auditor-played"

    def bind_tools(self, tools: Sequence[Any], **_kwargs: Any) -> Any:
        return self.model_copy(update={"last": [each["function"]["name"] for each in tools] == [CONCLUDE]})

    def _generate(self, messages: list[BaseMessage], *_args: Any, **_kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.seat.turn(messages, last=self.last))])


def _name(messages: Sequence[BaseMessage]) -> str:
    """Of a conversation: the overview's id, which the graph gave it."""
    return str(messages[1].id) if messages else ""


def _after_calls(messages: Sequence[BaseMessage]) -> int:
    """Where what follows the last answers begins."""
    place = len(messages)
    while place and isinstance(messages[place - 1], HumanMessage):
        place -= 1
    return place


def _shown(message: BaseMessage) -> str:
    """One message for who reads all of them at once."""
    if isinstance(message, AIMessage):
        return "\n".join(f"You called {call['name']}({json.dumps(call['args'])})" for call in message.tool_calls)
    return str(message.text)
