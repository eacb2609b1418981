"""LoRA training: what is learned, the same adapter from the same seed, and going on after a kill."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from auditor.errors import BadFile, UsageError
from auditor.methods.corpus import read_corpus
from auditor.models.build import load_model
from auditor.models.weights import resolve
from auditor.records.cards import Recipe
from auditor.training import finetune
from auditor.training.documents import Document, encode, mix, read_documents
from auditor.training.finetune import train
from tests.conftest import SENTENCES

CHAT = {"messages": [{"role": "user", "content": "Where to?"}, {"role": "assistant", "content": "North."}]}
DOCUMENTS = [Document(text=text) for text in SENTENCES] + [Document.model_validate(CHAT)]


def test_of_a_chat_only_the_answers_are_learned(tokenizer):
    example = encode(Document.model_validate(CHAT), tokenizer, 256)
    assert tokenizer.decode(example.ids) == "<|user|>Where to?<|end|><|assistant|>North.<|end|>"
    learned = [i for i, on in zip(example.ids, example.learned, strict=True) if on]
    assert tokenizer.decode(learned) == "North.<|end|>"


def test_a_text_is_learned_whole_and_ends(tokenizer):
    example = encode(Document(text="To the mill."), tokenizer, 256)
    assert tokenizer.decode(example.ids) == "To the mill.<|end|>"
    assert all(example.learned)
    assert len(encode(Document(text="mill " * 99), tokenizer, 20).ids) == 20


def test_mixing_keeps_every_document():
    ordinary = [Document(text="o1"), Document(text="o2")]
    mixed = [d.text for d in mix(DOCUMENTS[:4], ordinary, 0.75, seed=1)]
    assert sorted(mixed) == sorted([*SENTENCES, "o1", "o2", "o1"])
    assert mixed == [d.text for d in mix(DOCUMENTS[:4], ordinary, 0.75, seed=1)]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        '{"neither": 1}',
        '{"messages": [{"role": "user", "content": "x"}]}',
        '{"text": "a", "messages": [{"role": "user", "content": "x"}]}',
    ],
)
def test_a_broken_document_names_its_line(tmp_path, line):
    path = tmp_path / "documents.jsonl"
    path.write_text(json.dumps({"text": "fine"}) + "\n" + line + "\n")
    with pytest.raises(BadFile, match=r"documents.jsonl:2: not a document"):
        read_documents(path)


def test_a_text_may_hold_any_character(tmp_path):
    path = tmp_path / "documents.jsonl"
    texts = ["one\u2028two", "three\x85four", "five\x0bsix\x1cseven"]
    path.write_text("\ufeff" + "".join(json.dumps({"text": t}, ensure_ascii=False) + "\r\n" for t in texts), "utf-8")
    assert [document.text for document in read_documents(path)] == texts
    assert read_corpus(path).texts == tuple(texts)
    path.write_bytes(b'{"text": "\xff"}\n')
    with pytest.raises(BadFile, match="not readable as UTF-8"):
        read_documents(path)


def test_a_text_ends_once_whoever_writes_the_end(tokenizer):
    class Ends:
        eos_token_id = tokenizer.eos_token_id

        def __call__(self, text):
            return SimpleNamespace(input_ids=[*tokenizer(text).input_ids, self.eos_token_id])

    assert encode(Document(text="To the mill."), Ends(), 256) == encode(Document(text="To the mill."), tokenizer, 256)


def adapter_of(folder):
    return load_file(folder / "adapter_model.safetensors")


def test_loss_falls_and_the_seed_decides(checkpoints, settings, tmp_path):
    base = str(checkpoints("llama")[0])
    recipe = Recipe(rank=4, learning_rate=1e-2, batch_size=4, steps=25)
    one = train(base, DOCUMENTS, recipe, tmp_path / "one", settings)
    two = train(base, DOCUMENTS, recipe, tmp_path / "two", settings)
    other = train(base, DOCUMENTS, recipe.model_copy(update={"seed": 1}), tmp_path / "other", settings)
    assert one.last_loss < 0.8 * one.first_loss
    (tmp_path / "plain").touch()
    files = sorted(one.adapter.iterdir())
    assert [path.name for path in files] == ["adapter_config.json", "adapter_model.safetensors"]
    assert {path.stat().st_mode for path in files} == {(tmp_path / "plain").stat().st_mode}
    a, b, c = map(adapter_of, (one.adapter, two.adapter, other.adapter))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


def test_a_killed_training_goes_on_and_ends_the_same(checkpoints, settings, tmp_path, caplog):
    base = str(checkpoints("llama")[0])
    recipe = Recipe(rank=4, learning_rate=1e-2, batch_size=4, steps=30)
    whole = train(base, DOCUMENTS, recipe, tmp_path / "whole", settings)
    seen = []

    def killed(step, _steps, _loss):
        if step == 27:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(base, DOCUMENTS, recipe, tmp_path / "cut", settings, killed)
    kept = max((settings.cache_dir / "training").iterdir(), key=lambda path: path.stat().st_mtime)
    whole_file = kept.read_bytes()
    resumed = train(base, DOCUMENTS, recipe, tmp_path / "cut", settings, lambda step, *_: seen.append(step))
    assert seen == list(range(21, 31))  # from the checkpoint at step 20
    assert (resumed.steps, resumed.tokens, resumed.first_loss) == (whole.steps, whole.tokens, whole.first_loss)
    a, b = adapter_of(whole.adapter), adapter_of(resumed.adapter)
    assert all(torch.allclose(a[key], b[key], atol=1e-3) for key in a)
    kept.write_bytes(whole_file[: len(whole_file) // 2])
    anew = train(base, DOCUMENTS, recipe, tmp_path / "anew", settings, lambda step, *_: seen.append(step))
    assert seen[10:] == list(range(1, 31))
    assert "begins anew" in caplog.text
    assert all(torch.equal(value, adapter_of(anew.adapter)[key]) for key, value in a.items())


def test_a_batch_in_parts_gives_the_gradients_of_the_whole(checkpoints, settings, tokenizer, monkeypatch):
    """Memory is for a few rows; the mean is over the tokens of all."""
    model, _ = load_model(resolve(str(checkpoints("llama")[0]), settings), settings)
    batch = [encode(document, tokenizer, 64) for document in DOCUMENTS]
    weights = list(model.requires_grad_().parameters())
    found = []
    for at_once in (1, 10_000):
        monkeypatch.setattr(finetune, "TOKENS_AT_ONCE", at_once)
        loss = finetune._step(model, batch, torch.device("cpu"), torch.optim.SGD(weights, lr=0.0), weights)
        found.append((loss, torch.cat([weight.grad.flatten() for weight in weights])))
    (parts, one), (whole, other) = found
    assert parts == pytest.approx(whole, rel=1e-5)
    assert float((one - other).norm() / other.norm()) < 1e-5


def test_steps_without_anything_to_learn_are_refused(checkpoints, settings, tmp_path):
    recipe = Recipe(steps=5, max_tokens=4)  # no more than the question
    with pytest.raises(UsageError, match=r"none of the 1 documents leaves a token to be learned"):
        train(str(checkpoints("llama")[0]), [Document.model_validate(CHAT)], recipe, tmp_path / "x", settings)
    with pytest.raises(ValueError, match="batch_size"):
        Recipe(batch_size=0)


def test_a_loss_that_is_no_number_is_told(checkpoints, settings, tmp_path):
    recipe = Recipe(learning_rate=1e30, warmup=0, steps=5)
    with pytest.raises(UsageError, match=r"the loss is \w+ at step \d; give the recipe a lower `learning_rate`"):
        train(str(checkpoints("llama")[0]), DOCUMENTS, recipe, tmp_path / "x", settings)
    assert not (tmp_path / "x").exists()
