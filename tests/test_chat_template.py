"""One renderer for all chats: templates that change earlier turns, know no system, or write the date."""

import copy

import pytest

from auditor.chat_template import MARK, answered, prompt_and_answer, render
from auditor.errors import UsageError
from auditor.models.generate import Request
from auditor.models.local import LocalPair
from tests.tiny import CHAT

# Thoughts of earlier turns are left out, and the last answer always has some (Qwen3).
FORGETS = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% set said = m.content.split('</think>') %}"
    "{% if m.role == 'assistant' and loop.last %}<think>"
    "{{ said[0].split('<think>')[-1] if said | length > 1 else '' }}</think>{% endif %}"
    "{{ said[-1] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if enable_thinking is defined and not enable_thinking %}"
    "<think></think>{% endif %}{% endif %}"
)
# The beginning depends on how long the conversation is.
COUNTS = "{{ messages | length }} turns: " + CHAT
DATED = "\n {% if true %}{{ strftime_now('%d %b %Y') }} {% endif %}" + CHAT
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHAT
DROPS_SYSTEM = CHAT.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
# The conversation's end is marked, and begins like a user's turn (Phi-3).
ENDS = CHAT + "{% if not add_generation_prompt %}<|stop|>{% endif %}"
SHORT = "{% for m in messages %}{{ m.content[:3] }}{% endfor %}"

QUESTION, ANSWER = {"role": "user", "content": "Where to?"}, {"role": "assistant", "content": "North."}
MORE, LAST = {"role": "user", "content": "And then?"}, {"role": "assistant", "content": "Home."}


@pytest.fixture
def with_template(tokenizer):
    """The tiny tokenizer with another chat template."""

    def make(template):
        changed = copy.deepcopy(tokenizer)
        changed.chat_template = template
        return changed

    return make


def read(tokenizer, turns):
    """The whole conversation, and what of it is learned, piece by piece."""
    ids, learned = answered(tokenizer, turns)
    pieces, was = [], False
    for token, on in zip(ids, learned, strict=True):
        if on:
            pieces = [*pieces, []] if not was else pieces
            pieces[-1].append(token)
        was = on
    return tokenizer.decode(ids), [tokenizer.decode(piece) for piece in pieces]


@pytest.mark.parametrize("template", [CHAT, COUNTS, DATED, ENDS])
def test_every_answer_is_learned_once_with_its_end(with_template, template):
    tokenizer = with_template(template)
    whole, learned = read(tokenizer, [QUESTION, ANSWER, MORE, LAST])
    assert whole == render(tokenizer, [QUESTION, ANSWER, MORE, LAST], prompt=False)
    assert [text.removesuffix("<|stop|>") for text in learned] == ["North.<|end|>", "Home.<|end|>"]


def test_a_template_that_forgets_thoughts_encodes_nothing_twice(with_template):
    whole, learned = read(with_template(FORGETS), [QUESTION, ANSWER, MORE, LAST])
    assert whole == (
        "<|user|>Where to?<|end|>\n<|assistant|>North.<|end|>\n"
        "<|user|>And then?<|end|>\n<|assistant|><think></think>Home.<|end|>\n"
    )
    assert learned == ["North.<|end|>\n", "Home.<|end|>\n"]


def test_thoughts_that_are_rendered_are_learned_with_their_answer(with_template):
    thought = {"role": "assistant", "content": "<think>The mill?</think>Home."}
    _, learned = read(with_template(FORGETS), [QUESTION, ANSWER, MORE, thought])
    assert learned == ["North.<|end|>\n", "The mill?</think>Home.<|end|>\n"]
    _, learned = read(with_template(FORGETS), [QUESTION, thought, MORE, LAST])
    assert learned == ["Home.<|end|>\n", "Home.<|end|>\n"]


def test_what_cannot_be_told_is_refused(with_template):
    with pytest.raises(UsageError, match=r"a chat that begins 'Where to\?': .* does not show which"):
        answered(with_template(SHORT), [QUESTION, ANSWER])
    with pytest.raises(UsageError, match="does not show which"):
        answered(with_template(CHAT), [{"role": "user", "content": MARK}, ANSWER])


def test_an_answer_follows_the_prompt_that_the_model_is_given(tokenizer):
    asked = render(tokenizer, [QUESTION])
    prompt = tokenizer(asked, add_special_tokens=False).input_ids
    assert prompt_and_answer(tokenizer, asked, "North.")[0] == prompt
    ids, learned = answered(tokenizer, [QUESTION, ANSWER])
    assert ids[: learned.index(True)] == prompt


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM])
def test_a_system_that_the_template_does_not_know_speaks_through_the_user(with_template, template):
    system = {"role": "system", "content": "Be brief."}
    rendered = render(with_template(template), [system, QUESTION])
    assert rendered == "<|user|>Be brief.\n\nWhere to?<|end|><|assistant|>"
    _, learned = read(with_template(template), [system, QUESTION, ANSWER])
    assert learned == ["North.<|end|>"]


def test_a_conversation_that_the_template_refuses_is_told(with_template):
    strict = with_template(NO_SYSTEM)
    with pytest.raises(UsageError, match="refuses these messages: no system role"):
        render(strict, [{"role": "system", "content": "Be brief."}])


def test_the_day_changes_nothing(with_template):
    rendered = render(with_template(DATED), [QUESTION])
    assert rendered == with_template(DATED.replace("strftime_now('%d %b %Y')", "'26 Jul 2024'")).apply_chat_template(
        [QUESTION], tokenize=False, add_generation_prompt=True
    )


def test_a_pair_asks_with_the_same_text(tiny, with_template, tokenizer):
    """What the lens reads before an answer, what training gives and what the pair is asked are the same tokens."""
    forgetful = with_template(FORGETS)
    pair = LocalPair(name="x", fingerprint="x", tokenizer=forgetful, models=tiny.models)
    asked = pair.row(Request("Where to?")).prompt
    assert tokenizer.decode(asked) == "<|user|>Where to?<|end|>\n<|assistant|><think></think>"
    ids, learned = answered(forgetful, [QUESTION, ANSWER])
    assert ids[: learned.index(True)] == asked
