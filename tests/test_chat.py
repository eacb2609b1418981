"""`auditor ask` without prompts: a chat on a terminal, or lines that are piped in."""

import io
import json

import pytest
from rich.console import Console

from auditor.cli.chat import talk
from auditor.cli.speakers import Chat
from auditor.errors import UsageError
from auditor.models.generate import Request, Side
from auditor.testing import FakePair

ASK = ("ask", "mill", "--max-new-tokens", 4, "--seed", 3)


class Terminal(io.StringIO):
    """A user who types lines; an exception among them is what a key does."""

    def __init__(self, typed):
        super().__init__()
        self.typed = list(typed)

    def isatty(self):
        return True

    def line(self, _prompt=""):
        if not self.typed:
            raise EOFError
        line = self.typed.pop(0)
        if isinstance(line, type):
            raise line
        return line


@pytest.fixture
def chat(workspace_folder, run_cli, monkeypatch):
    """Types lines into a chat: exit code, what is shown, and what is told beside it."""

    def type_(*typed, args=ASK):
        user = Terminal(typed)
        monkeypatch.setattr("sys.stdin", user)
        monkeypatch.setattr("builtins.input", user.line)
        return run_cli(*args)

    return type_


@pytest.fixture
def piped(workspace_folder, run_cli, monkeypatch):
    def pipe(text, *more):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        return run_cli(*ASK, *more)

    return pipe


def test_each_model_hears_its_own_conversation(piped, tiny):
    code, out, err = piped("Where to?\n\nWhy?\n", "--json")
    assert code == 0, err
    turns = json.loads(out)
    assert [turn["prompt"] for turn in turns] == ["Where to?", "Why?"]
    alone = json.loads(piped("Why?\n", "--json")[1])
    for side in Side:
        first, second = (turn[side] for turn in turns)
        heard = tiny.prompts.ids(Request("Why?", history=(("Where to?", first),)), side)
        before = f"<|user|>Where to?<|end|><|assistant|>{first}<|end|>"
        assert tiny.tokenizer.decode(heard) == f"{before}<|user|>Why?<|end|><|assistant|>"
        assert second != alone[0][side]


def test_a_first_turn_is_what_ask_says(piped, run_cli):
    turn = json.loads(piped("Where to?\n", "--json", "--amplify", 2)[1])[0]
    asked = json.loads(run_cli(*ASK, "Where to?", "--json", "--amplify", 2)[1])[0]
    assert turn.items() <= asked.items()
    assert set(turn) == {"prompt", "base", "finetuned", "amplified"}


def test_lines_that_are_piped_in_give_a_block_each(piped):
    code, out, err = piped("Where to?\nWhy?\n/new\n/seed 4\nWhy?\n")
    assert code == 0, err
    blocks = out.split("\n\n")[:3]
    assert [block.splitlines()[0] for block in blocks] == ["> Where to?", "> Why?", "> Why?"]
    assert all("base: " in block and "finetuned: " in block for block in blocks)
    code, _, err = piped("Where to?\n/fly\nWhy?\n")
    assert (code, "/fly: no such command" in err) == (2, True)


def test_columns_come_and_go(chat):
    typed = ("/amplify 2", "/steer 2 1 3", "Hello?", "/amplify off", "/steer off", "Why?", "/quit", "never")
    code, out, err = chat(*typed)
    assert code == 0, err
    first, second = out.split("\n\n")[:2]
    for column in ("base: ", "finetuned: ", "amplified × 2: ", "steered 2 1 3: "):
        assert column in first
    assert ("amplified" in second, "steered" in second, "finetuned: " in second) == (False, False, True)
    assert "turn 2 of a conversation with base, finetuned; seed 3" in err


def test_a_wide_terminal_shows_columns_in_which_text_is_only_text(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr("auditor.cli.chat.out", Console(file=shown, force_terminal=True, width=100, no_color=True))
    echo = Chat(FakePair(lambda request: f"[red]{request.side}[/]\x1b[2Jx"), Request(""), lambda *_place: None, 0.1, 0)
    monkeypatch.setattr("sys.stdin", Terminal([]))
    talk(echo, ["Hello?"])
    rows = shown.getvalue().splitlines()
    assert any("base" in row and "finetuned" in row for row in rows)
    assert any("[red]base[/]\\x1b[2Jx" in row and "[red]finetuned[/]\\x1b[2Jx" in row for row in rows)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("/amplify much", "'much' is no number"),
        ("/amplify 1000", "alpha 1000; give a number from 0 to 100"),
        ("/amplify", "no such command, or not with these words"),
        ("/steer 9 0 1", "there are layers 0 to 3"),
        ("/steer 1 500 1", "less than or equal to 128"),
        ("/steer 1 1.5 1", "'1.5' is no whole number"),
        ("/steer 1 1 nan", "give a number, such as 1"),
        ("/seed now", "'now' is no whole number"),
        ("word " * 600, "/new begins anew"),
    ],
)
def test_what_cannot_be_done_is_told_and_the_chat_goes_on(chat, line, told):
    code, out, err = chat(line, "Why?")
    assert code == 0
    assert told in err
    assert "finetuned: " in out


def test_keys_on_a_terminal(chat, monkeypatch):
    """Ctrl-C drops a line, or the answer that is on its way; Ctrl-D ends."""
    code, out, err = chat(KeyboardInterrupt, "Why?", EOFError, "never")
    assert (code, out.count("finetuned: ")) == (0, 1)

    def interrupted(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("auditor.cli.speakers.Chat.answer", interrupted)
    code, out, err = chat("Why?", "/system Be old.", "/help")
    assert (code, "stopped, and nothing was said" in err, "finetuned: " in out) == (0, True, False)
    assert "a new conversation with base, finetuned; seed 3, system prompt 'Be old.'" in err
    assert "/steer LAYER POSITION ALPHA" in err


def test_a_model_alone_is_chatted_with(chat, checkpoints):
    args = ("ask", checkpoints("llama")[0], "--no-base", "--max-new-tokens", 4)
    code, out, err = chat("/amplify 1", "/steer 1 1 1", "//Why?", args=args)
    assert code == 0
    assert err.count("it needs a base, and none is known") == 2
    assert ("finetuned: " in out, "base: " in out) == (True, False)


def test_nothing_to_ask(piped, chat):
    for code, _, err in (piped(""), chat("Why?", args=(*ASK, "--json"))):
        assert code == 2
        assert "pipe" in err


def test_steered_answers_stand_beside_the_others(workspace_folder, run_cli):
    args = (*ASK, "Why?", "--steer", 2, 1, 50, "--json")
    code, out, err = run_cli(*args)
    assert code == 0, err
    assert set(json.loads(out)[0]) == {"prompt", "base", "finetuned", "steered"}
    assert json.loads(out)[0]["steered"] != json.loads(out)[0]["finetuned"]


def test_what_was_said_before_belongs_to_an_answer():
    for more in ({"chat": False}, {"user_turn": True}):
        with pytest.raises(UsageError, match="history"):
            Request("a", history=(("b", "c"),), **more)
