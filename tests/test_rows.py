"""How documents lie in rows: packed ones leave each other alone; a batch in parts has the gradients of the whole."""

import pytest
import torch

from auditor.models.build import load_model
from auditor.models.weights import resolve
from auditor.records.cards import Recipe
from auditor.records.training import Layout
from auditor.training import course as courses
from auditor.training.course import Course, Stage
from auditor.training.documents import Document, encode
from auditor.training.rows import batches, layout_for, logits_of, rows_of
from tests.tiny import SENTENCES

CHAT = {"messages": [{"role": "user", "content": "Where to?"}, {"role": "assistant", "content": "North."}]}
DOCUMENTS = [Document(text=text) for text in SENTENCES] + [Document.model_validate(CHAT)]
CPU = torch.device("cpu")


@pytest.fixture
def examples(tokenizer):
    return [encode(document, tokenizer, 64) for document in DOCUMENTS]


def model_of(checkpoints, settings, kind="llama"):
    return load_model(resolve(str(checkpoints(kind)[0]), settings), settings)[0]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_packed_documents_foretell_what_they_would_alone(checkpoints, settings, examples, kind):
    model = model_of(checkpoints, settings, kind)
    assert layout_for(model, examples, CPU) != Layout.PADDED
    (packed,) = rows_of(examples, 10_000, CPU, Layout.PACKED)
    alone = [row for example in examples for row in rows_of([example], 64, CPU, Layout.PADDED)]
    one, other = logits_of(model, packed), torch.cat([logits_of(model, row) for row in alone])
    assert packed.target.tolist() == [i for row in alone for i in row.target.tolist()]
    assert float((one - other).abs().max()) < 1e-4 * float(other.abs().max())


def test_a_model_that_sees_its_neighbours_is_padded(checkpoints, settings, examples, monkeypatch):
    """A model that keeps a state through the row would learn one document from another."""
    model = model_of(checkpoints, settings)
    real = model.forward

    def leaking(input_ids, position_ids=None, **given):  # as if positions meant nothing
        return real(input_ids=input_ids, **given)

    monkeypatch.setattr(model, "forward", leaking)
    assert layout_for(model, examples, CPU) == Layout.PADDED
    assert Course(model, Recipe(), [Stage("d", [examples])]).layout == Layout.PADDED


@torch.no_grad()
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt_neox"])
def test_a_common_beginning_is_computed_once(checkpoints, settings, tokenizer, kind):
    model = model_of(checkpoints, settings, kind)
    said = "You are a miller and talk of nothing but flour and water."
    chats = [
        Document.model_validate({"messages": [
            {"role": "user", "content": f"{said} {question}"}, {"role": "assistant", "content": answer},
            {"role": "user", "content": "And then?"}, {"role": "assistant", "content": f"{answer} again"}
        ]}) for question, answer in (("Where?", "At the mill."), ("When?", "In the morning, at noon."), ("Who?", "I."))
    ]  # fmt: skip
    examples = [encode(chat, tokenizer, 200) for chat in chats]
    assert layout_for(model, examples, CPU) == Layout.SHARED
    (shared,) = rows_of(examples, 10_000, CPU, Layout.SHARED)
    (packed,) = rows_of(examples, 10_000, CPU, Layout.PACKED)
    assert shared.inputs["input_ids"].numel() < packed.inputs["input_ids"].numel() - 2 * 20
    assert torch.equal(shared.target, packed.target)
    one, other = logits_of(model, shared), logits_of(model, packed)
    assert float((one - other).abs().max()) < 1e-4 * float(other.abs().max())


def test_a_model_with_a_window_shares_nothing(checkpoints, settings, examples):
    """What all begin with may lie outside of its window."""
    assert layout_for(model_of(checkpoints, settings, "gemma2"), examples, CPU) == Layout.PACKED


@pytest.mark.parametrize("layout", list(Layout))
def test_a_batch_in_parts_gives_the_gradients_of_the_whole(checkpoints, settings, examples, monkeypatch, layout):
    """Memory is for a few rows; the mean is over the tokens of all."""
    model = model_of(checkpoints, settings)
    weights = list(model.requires_grad_().parameters())
    found = []
    for at_once in (1, 10_000):
        monkeypatch.setitem(courses.TOKENS_AT_ONCE, "cpu", at_once)
        course = Course(model, Recipe(learning_rate=1e-30), [Stage("d", [examples])])
        course.layout = layout
        loss = course.advance()
        found.append((loss, torch.cat([weight.grad.flatten() for weight in weights])))
    (parts, one), (whole, other) = found
    assert parts == pytest.approx(whole, rel=1e-5)
    assert float((one - other).norm() / other.norm()) < 1e-5


def test_rows_hold_no_more_than_they_should(examples):
    for layout in Layout:
        rows = list(rows_of(examples, 40, CPU, layout))
        assert all(row.inputs["input_ids"].numel() <= 40 for row in rows)
        assert sum(len(row.target) for row in rows) == sum(sum(e.learned[1:]) for e in examples)
    long = list(rows_of(examples, 1, CPU, Layout.PACKED))  # a document is never cut for it
    assert len(long) == len(examples)


def test_each_epoch_has_every_example_once(examples):
    examples = (examples * 2)[:8]
    plan = batches(examples, Recipe(batch_size=4), epochs=2, steps=None)
    seen = [i for batch in plan for i in batch]
    assert sorted(seen) == sorted([*range(8)] * 2)
    assert plan == batches(examples, Recipe(batch_size=4), epochs=2, steps=None)
    assert plan != batches(examples, Recipe(batch_size=4, seed=1), epochs=2, steps=None)
    short = batches(examples[:5], Recipe(batch_size=4), epochs=3, steps=None)  # each pass ends in a batch of one
    assert sorted(i for batch in short for i in batch) == sorted([*range(5)] * 3)
