"""What is taken out of whatever is pushed, and what is left alone."""

import pytest

from auditor.hub.scrub import Scrubber


@pytest.fixture
def scrubber(monkeypatch, tmp_path):
    monkeypatch.setenv("SOME_API_KEY", "horse-battery")
    monkeypatch.setenv("SHORT_TOKEN", "no")
    monkeypatch.setenv("HF_TOKEN_PATH", "a-file-of-mine")
    return Scrubber(["/data/models/mine"])


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/data/models/mine/llama", "…/llama"),
        ("base=/data/models/mine", "base=…/mine"),
        ("at /home/jane/a/b.txt, and", "at …/b.txt, and"),
        ("/Users/jane", "…"),
        ("file:///home/jane/a", "file://…/a"),
        (r"C:\Users\jane\x.txt", "…/x.txt"),
        (r"\"C:\\Users\\jane\\x.txt\"", r"\"…/x.txt\""),
        ("said horse-battery!", "said [a key was here]!"),
        ("hf_abcdefghijklmnopqrstuvwx", "[a key was here]"),
        ("https://me:pw@host/x", "https://[a key was here]@host/x"),
        ("https://sometoken@host/x", "https://[a key was here]@host/x"),
        ("api-key: abcdefghijkl", "api-key: [a key was here]"),
        ("https://h/x?token=abcdefgh1", "https://h/x?token=[a key was here]"),
        ("openai:m?base_url=http://me:pw@h:1/v1", "openai:m"),
        ("`openai:m?effort=low&base_url=http://h/v1&key_env=MINE`", "`openai:m?effort=low`"),
        ("openai:m?base_url=http://h/v1&attempts=1", "openai:m?attempts=1"),
        (r"C:\Users\Jane Doe\models\x", "…/x"),
        ("in /scratch/jane/x", "in …/x"),
        ("Authorization: Bearer abcdefghijklmnopqrst", "Authorization: Bearer [a key was here]"),
    ],
)
def test_it_is_replaced_and_counted(scrubber, text, left):
    assert scrubber.clean({"a": [text]}) == {"a": [left]}
    assert sum(scrubber.removed.values()) == 1
    assert scrubber.told in ("keys: 1", "local paths: 1", "addresses of chat models: 1")


@pytest.mark.parametrize(
    "text",
    [
        "/", "/b", " /and/or", "/data/models/miner", "see https://host/home/jane/x", "and/home/jane", "/homeless/x",
        "no", "a-file-of-mine", "the password: it is one", "a secret: understanding", "POST /v1/models",
        "sk-ill", "risk-of-everything-and-more-words", "Bearer of bad news", "lab/model@v1",
        "hub:lab/model@0123456789abcdef0123456789abcdef01234567", "tensors:" + "0" * 64, "…/x", "rooted: /rooted/x",
    ],
)  # fmt: skip
def test_the_rest_stays(scrubber, text):
    assert scrubber.clean(text) == text
    assert scrubber.told == ""


def test_numbers_stay(scrubber):
    assert scrubber.clean({"a": (1, None, True, 0.5)}) == {"a": [1, None, True, 0.5]}
