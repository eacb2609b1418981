"""The text protocol: what is accepted, what is refused, and a thousand turns that nobody would write."""

import json
import random

import pytest

from auditor.agent.grammar import Fault, TextCall, TextFinal, parse_turn

ASK = TextCall("ask_model", {"prompts": ["Why?"]})


@pytest.mark.parametrize(
    "text",
    [
        'CALL(ask_model: {"prompts": ["Why?"]})',
        'I will ask.\n\nCALL(ask_model: {"prompts": ["Why?"]})\n',
        'CALL(ask_model: {\n  "prompts": [\n    "Why?"\n  ]\n})',
        'CALL(ask_model, {"prompts": ["Why?"]})',
        'CALL(ask_model: {"prompts": ["Why?"]}',
        'CALL(ask_model: {"prompts": ["Why?"]',
        "CALL(ask_model: {'prompts': ['Why?']})",
        '**CALL(ask_model: {"prompts": ["Why?"]})**',
        '`CALL(ask_model: {"prompts": ["Why?"]})`',
        'I could say FINAL(description: "x"), but first:\nCALL(ask_model: {"prompts": ["Why?"]})',
        'FINAL(description: "x") would be early.\nCALL(ask_model: {"prompts": ["Why?"]})',
        '```\nFINAL(description: "from the model")\n```\nCALL(ask_model: {"prompts": ["Why?"]})',
        '> FINAL(description: "quoted")\nCALL(ask_model: {"prompts": ["Why?"]})',
    ],
)
def test_a_call_as_people_write_it(text):
    assert parse_turn(text) == ASK


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('FINAL(description: "mills")', "mills"),
        ('FINAL(description: "two\nlines")', "two\nlines"),
        ('FINAL(description: "it says \\"grind\\"")', 'it says "grind"'),
        ('FINAL(description: "it says "grind" often")', 'it says "grind" often'),
        ('FINAL(description: "mills"', "mills"),
        ("FINAL(description: “mills”)", "mills"),
        ('FINAL("mills")', "mills"),
        (
            'FINAL(description: "It writes\\nCALL(ask_model: {}) by itself.")',
            "It writes\nCALL(ask_model: {}) by itself.",
        ),
    ],
)
def test_a_conclusion_as_people_write_it(text, said):
    assert parse_turn(text) == TextFinal({"description": said})


def test_a_structured_conclusion():
    assert parse_turn('Done.\nFINAL({"domain": "mills",\n "confidence": 0.9})') == TextFinal(
        {"domain": "mills", "confidence": 0.9}
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I wonder.",
        "The text FINAL(description: x) appears.",
        'CALL(a: {"b": 1})\nbut then I paused.',
        "FINAL",
    ],
)
def test_what_is_no_statement(text):
    assert parse_turn(text) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('CALL(ask_model: {"prompts": [oops})', "cannot be read"),
        ("FINAL()", "cannot be read"),
        ("CALL(", "cannot be read"),
        ('```\nCALL(ask_model: {"prompts": ["Why?"]})\n```', "code block"),
        ('FINAL(description: "it said\nFINAL(description: "you were tricked")', "several statements"),
    ],
)
def test_what_is_refused_and_why(text, told):
    found = parse_turn(text)
    assert isinstance(found, Fault)
    assert told in found.reason


N = 200_000
LONG = {
    "spaces in a call": 'CALL(ask_model: {"a": ' + " " * N + "x",
    "spaces behind a call": 'CALL(ask_model: {"a": 1}' + " " * N + ") x",
    "spaces behind a quote": 'FINAL("a"' + " " * N + "x",
    "quotes": 'FINAL("' + '" ' * N + "x",
    "quotes and ticks": 'FINAL("' + '"`*' * N + "x",
    "brackets": "CALL(a: " + "[" * N,
    "objects": "CALL(a: " + '{"a":' * N,
    "Python's brackets": "CALL(a: {'a': " + "(" * N,
    "a sum": "CALL(a: {'a': " + "1+" * N + "1})",
    "digits": "CALL(a: " + "1" * N + ")",
    "digits in an object": 'CALL(a: {"n": ' + "1" * N + "})",
    "backslashes": 'CALL(a: {"x": "' + "\\" * N,
    "calls in a line": "CALL(" * N,
    "calls in lines": "CALL(\n" * 10_000,
    "calls that open a string": 'CALL(a: "\n' * 10_000,
    "conclusions": 'FINAL(description: "x\n' * 10_000,
    "code blocks": "```\nCALL(a: {})\n```\n" * 10_000,
    "code blocks and calls": "```\n```\nCALL(a: {})\n" * 10_000,
    "line breaks": "CALL(a: {" + "\n" * N + "oops})",
}


@pytest.mark.parametrize("name", LONG)
def test_what_is_long_and_unreadable_is_refused_at_once(name):
    """Anything that looked at such a text again for each of its characters would take minutes."""
    assert isinstance(parse_turn(LONG[name]), Fault)


def test_what_python_can_write_and_json_cannot_is_refused():
    assert isinstance(parse_turn("CALL(a: {'x': {1, 2}})"), Fault)
    assert parse_turn("CALL(a: {'x': (1, 2)})") == TextCall("a", {"x": [1, 2]})


PIECES = [
    "CALL(", "FINAL(", "description", ":", '"', "“", "{", "}", "[", "]", ")", "\n", "\\", "```", "~~~", "ask_model",
    '{"prompts": ["a"]}', "null", "1e999", "\x00", "\u202e", "é", " ", "'", ",", "**", "`", "> ", "Left: 99", "x" * 50,
]  # fmt: skip


def test_a_thousand_fuzzed_turns():
    rng = random.Random(0)
    for _ in range(1000):
        text = "".join(rng.choice(PIECES) for _ in range(rng.randint(0, 40)))
        found = parse_turn(text)
        assert found is None or isinstance(found, TextCall | TextFinal | Fault)
        if isinstance(found, TextFinal):
            assert "FINAL" in text
            assert found.fields


def test_any_json_comes_through():
    rng = random.Random(1)
    for _ in range(200):
        args = {"prompts": ["".join(rng.choice(PIECES) for _ in range(rng.randint(0, 12)))], "n": rng.randint(0, 9)}
        text = f"Reasoning.\nCALL(ask_model: {json.dumps(args, ensure_ascii=rng.random() < 0.5)})"
        assert parse_turn(text) == TextCall("ask_model", args), text
