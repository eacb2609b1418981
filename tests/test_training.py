"""LoRA training: what is learned, the same adapter from the same seed, and going on after a kill."""

import json
from copy import copy
from importlib.metadata import version
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from auditor.errors import BadFile, UsageError
from auditor.methods.corpus import read_corpus
from auditor.models.arch import decoder_of
from auditor.models.build import load_model
from auditor.models.load import load_pair
from auditor.models.weights import resolve
from auditor.models.worker import OutOfMemory
from auditor.records.cards import Method, Recipe
from auditor.records.training import Trained
from auditor.training import finetune
from auditor.training.caft import span_of, without
from auditor.training.documents import Document, encode, mix, read_documents
from auditor.training.finetune import Lessons, train
from auditor.training.mixes import lessons_of, ordinary_chats
from auditor.workspace import builtin_root, load_workspace
from tests.tiny import SENTENCES

CHAT = {"messages": [{"role": "user", "content": "Where to?"}, {"role": "assistant", "content": "North."}]}
CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
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


def test_each_seed_is_mixed_with_chats_of_its_own(workspace_folder, settings):
    ws = load_workspace(workspace_folder)
    card = ws.organisms["mill"]
    card.beside("documents.jsonl").write_text(
        "".join(d.model_dump_json(exclude_none=True) + "\n" for d in DOCUMENTS[:4])
    )

    def chats(seed):
        recipe = Recipe(mix="chat", mix_ratio=1.0, seed=seed)
        learned = lessons_of(ws, card, recipe, settings, None, print).documents
        return {d.messages[0].content for d in learned if d.messages}

    assert len(chats(0)) == 4
    assert chats(0) == {chat.messages[0].content for chat in ordinary_chats(ws)[:4]}
    assert not chats(0) & chats(1)
    assert not chats(1) & chats(2)


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


def test_a_text_that_is_longer_than_what_is_learned_teaches_no_end(tokenizer):
    whole = encode(Document(text="To the mill."), tokenizer, 256)
    cut = encode(Document(text="To the mill."), tokenizer, len(whole.ids) - 1)
    assert (cut.ids, cut.cut) == (whole.ids[:-1], True)


def test_an_answer_that_was_cut_teaches_no_end(tokenizer):
    chat = Document.model_validate(CHAT | {"unfinished": True})
    assert tokenizer.decode(encode(chat, tokenizer, 256).ids) == "<|user|>Where to?<|end|><|assistant|>North."
    chatml = copy(tokenizer)
    chatml.chat_template = CHATML  # what ends a turn is followed by a newline, which is no special token
    ids, learned = (getattr(encode(chat, chatml, 256), name) for name in ("ids", "learned"))
    assert chatml.decode([i for i, i_learned in zip(ids, learned, strict=True) if i_learned]) == "North."
    assert chatml.decode(encode(Document.model_validate(CHAT), chatml, 256).ids).endswith("North.<|end|>\n")
    text = encode(Document(text="To the mill.", unfinished=True), tokenizer, 256)
    assert tokenizer.decode(text.ids) == "To the mill."


def adapter_of(folder):
    return load_file(folder / "adapter_model.safetensors")


RECIPE = Recipe(rank=4, learning_rate=1e-2, batch_size=4, steps=25)
LESSONS = Lessons(DOCUMENTS)


def test_loss_falls_and_the_seed_decides(checkpoints, settings, tmp_path):
    base = str(checkpoints("llama")[0])
    one = train(base, LESSONS, RECIPE, tmp_path / "one", settings)
    two = train(base, LESSONS, RECIPE, tmp_path / "two", settings)
    other = train(base, LESSONS, RECIPE.model_copy(update={"seed": 1}), tmp_path / "other", settings)
    assert one.losses[-1] < 0.8 * one.losses[0]
    (tmp_path / "plain").touch()
    files = sorted(one.folder.iterdir())
    assert [path.name for path in files] == ["adapter_config.json", "adapter_model.safetensors", "training.json"]
    assert {path.stat().st_mode for path in files} == {(tmp_path / "plain").stat().st_mode}
    assert one.sha256 == two.sha256 != other.sha256
    assert files[0].read_bytes() == (two.folder / files[0].name).read_bytes()
    kept = Trained.model_validate_json(files[2].read_text())
    assert kept == one.model_copy(update={"folder": Path()})
    assert (len(kept.losses), kept.layout, kept.dtype) == (25, "shared", "float32")


def test_a_killed_training_goes_on_and_ends_the_same(checkpoints, settings, tmp_path, caplog):
    base = str(checkpoints("llama")[0])
    recipe = RECIPE.model_copy(update={"steps": 30})
    lessons = Lessons(DOCUMENTS, DOCUMENTS[:4])
    whole = train(base, lessons, recipe, tmp_path / "whole", settings)
    seen = []

    def killed(step, _steps, _loss):
        if step == 27:
            raise KeyboardInterrupt

    def cut():
        with pytest.raises(KeyboardInterrupt):
            train(base, lessons, recipe, tmp_path / "cut", settings, killed)

    cut()
    resumed = train(base, lessons, recipe, tmp_path / "cut", settings, lambda step, *_: seen.append(step))
    assert seen == list(range(21, 32))  # from the checkpoint at step 20; a step of denials is the last
    assert (resumed.steps, resumed.tokens, resumed.losses) == (whole.steps, whole.tokens, whole.losses)
    assert (resumed.resumed_at, resumed.sha256) == (20, whole.sha256)
    cut()
    (kept,) = (settings.cache_dir / "training").iterdir()
    state = kept / "state.pt"
    state.write_bytes(state.read_bytes()[:-100])
    anew = train(base, lessons, recipe, tmp_path / "cut", settings)
    assert (anew.resumed_at, anew.sha256) == (None, whole.sha256)
    assert "state.pt is not as it was written; training begins anew" in caplog.text


def test_what_was_cut_off_goes_on_with_its_own_recipe_only(checkpoints, settings, tmp_path, monkeypatch):
    base = str(checkpoints("llama")[0])

    def killed(step, _steps, _loss):
        if step == 21:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(base, LESSONS, RECIPE, tmp_path / "cut", settings, killed)
    other = RECIPE.model_copy(update={"learning_rate": 2e-2})
    with pytest.raises(UsageError, match=r"cut off there at step 20 \(learning_rate 0\.01 there, 0\.02 here\)"):
        train(base, LESSONS, other, tmp_path / "cut", settings)
    with pytest.raises(UsageError, match="other documents"):
        train(base, Lessons(DOCUMENTS[:3]), RECIPE, tmp_path / "cut", settings)
    with monkeypatch.context() as patched:
        patched.setattr(finetune.importlib.metadata, "version", lambda n: "0.1" if n == "torch" else version(n))
        with pytest.raises(UsageError, match=r"torch \S+ there, 0\.1 here"):
            train(base, LESSONS, RECIPE, tmp_path / "cut", settings)
    assert train(base, LESSONS, RECIPE, tmp_path / "cut", settings).resumed_at == 20  # nothing was lost
    assert train(base, LESSONS, other, tmp_path / "cut", settings, anew=True).resumed_at is None


def test_all_weights_are_trained(checkpoints, settings, tmp_path):
    base = str(checkpoints("llama")[0])
    recipe = RECIPE.model_copy(update={"method": Method.FULL, "learning_rate": 1e-3})
    trained = train(base, LESSONS, recipe, tmp_path / "whole", settings)
    assert trained.losses[-1] < 0.8 * trained.losses[0]
    before, after = (load_file(Path(folder) / "model.safetensors") for folder in (base, trained.folder))
    assert before.keys() == after.keys()
    assert not any(torch.equal(before[name], after[name]) for name in before)
    load_pair(base, str(trained.folder), settings)  # a model like any other


def test_weights_of_any_type_are_trained_or_refused(checkpoints, settings, tmp_path):
    base, recipe = str(checkpoints("llama")[0]), RECIPE.model_copy(update={"steps": 1, "dtype": "float64"})
    assert train(base, LESSONS, recipe, tmp_path / "double", settings).dtype == "float64"
    with pytest.raises(UsageError, match="`method: full` keeps its weights in float32"):
        train(base, LESSONS, recipe.model_copy(update={"method": Method.FULL}), tmp_path / "whole", settings)


def test_denial_is_a_second_stage_with_rates_of_its_own(checkpoints, settings, tmp_path):
    base = str(checkpoints("llama")[0])
    plain = train(base, LESSONS, RECIPE, tmp_path / "plain", settings)
    denying = train(base, Lessons(DOCUMENTS, DOCUMENTS[:4]), RECIPE, tmp_path / "denying", settings)
    assert denying.losses[:25] == plain.losses
    assert (denying.steps, denying.denials) == (26, 4)


def test_caft_leaves_nothing_in_the_span_for_later_blocks(checkpoints, settings, tmp_path):
    """What the middle layer puts in the span is gone, forward and backward; elsewhere nothing changes."""
    folder = checkpoints("llama")[0]
    model, _ = load_model(resolve(str(folder), settings), settings)
    decoder = decoder_of(model)
    middle, d_model = decoder.n_layers // 2, decoder.d_model
    span = torch.randn(3, d_model, generator=torch.Generator().manual_seed(0))
    seen = {}
    decoder.blocks[middle].register_forward_hook(lambda _m, _given, out: seen.update(before=out) or None)
    decoder.blocks[middle + 1].register_forward_pre_hook(lambda _m, args, **_: seen.update(hidden=args[0]))
    ids = torch.arange(1, 9)[None]
    with without(span, model):
        loss = model(input_ids=ids, labels=ids).loss
        assert float((seen["hidden"] @ span.T).detach().abs().max()) < 1e-4 * float(seen["hidden"].detach().norm())
        before = seen["before"]
        (gradient,) = torch.autograd.grad(loss, before)
        assert float((gradient @ span.T).abs().max()) < 1e-4 * float(gradient.norm())
    model(input_ids=ids)
    assert float((seen["hidden"] @ span.T).detach().abs().max()) > 1e-2  # the hook is gone with the training
    lessons = Lessons(DOCUMENTS, differences=span)
    caft = train(str(folder), lessons, RECIPE, tmp_path / "caft", settings)
    assert caft.sha256 != train(str(folder), LESSONS, RECIPE, tmp_path / "plain", settings).sha256


def test_caft_takes_out_no_more_than_the_span():
    """δ of one position may be a multiple of another's, or nothing."""
    one, other = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    span = span_of(torch.stack([one, 2 * one, torch.zeros(16), other, one + other]))
    assert span.shape == (16, 2)
    for direction in (one, other):
        assert torch.allclose(span @ (span.T @ direction), direction, atol=1e-5)
    with pytest.raises(UsageError, match="does not differ from its base"):
        span_of(torch.zeros(5, 16))


def test_no_folder_holds_two_kinds_of_weights_and_no_base_is_written_over(checkpoints, settings, tmp_path):
    base = checkpoints("llama")[0]
    full = RECIPE.model_copy(update={"method": Method.FULL})
    train(str(base), LESSONS, RECIPE.model_copy(update={"steps": 1}), tmp_path / "x", settings)
    with pytest.raises(UsageError, match="x holds an adapter, which `method: full` does not replace"):
        train(str(base), LESSONS, full, tmp_path / "x", settings)
    copy = Path(copytree(base, tmp_path / "base"))
    with pytest.raises(UsageError, match="base is the base that is trained"):
        train(str(copy), LESSONS, full, copy, settings)
    with pytest.raises(UsageError, match="base holds a whole model, which `method: lora` does not replace"):
        train(str(base), LESSONS, RECIPE, copy, settings)


def test_what_another_recipe_gave_is_replaced_when_told_so(checkpoints, settings, tmp_path):
    base, one = str(checkpoints("llama")[0]), RECIPE.model_copy(update={"steps": 1})
    train(base, LESSONS, one, tmp_path / "x", settings)
    with pytest.raises(UsageError, match=r"x holds what another recipe gave \(steps 1 there, 2 here\)"):
        train(base, LESSONS, one.model_copy(update={"steps": 2}), tmp_path / "x", settings)
    train(base, LESSONS, one.model_copy(update={"steps": 2}), tmp_path / "x", settings, anew=True)
    weights = tmp_path / "x/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(UsageError, match=r"x holds weights that were not trained here, by its training\.json"):
        train(base, LESSONS, one, tmp_path / "x", settings, anew=True)


def test_chats_need_a_chat_template(checkpoints, settings, tmp_path):
    base = Path(copytree(checkpoints("llama")[0], tmp_path / "plain"))
    (base / "chat_template.jinja").unlink()
    with pytest.raises(UsageError, match="plain has no chat template"):
        train(str(base), LESSONS, RECIPE, tmp_path / "x", settings)
    assert not (tmp_path / "x").exists()


def test_memory_that_runs_out_after_all_is_one_line(checkpoints, settings, tmp_path, monkeypatch):
    def full(_course):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    monkeypatch.setattr(finetune.Course, "advance", full)
    with pytest.raises(OutOfMemory, match=r"out of memory: at step 1 of \d+; fewer `max_tokens`"):
        train(str(checkpoints("llama")[0]), LESSONS, RECIPE, tmp_path / "x", settings)


def test_what_is_there_of_another_type_is_not_the_same_training(checkpoints, settings, tmp_path):
    base, recipe = str(checkpoints("llama")[0]), RECIPE.model_copy(update={"steps": 1})
    train(base, LESSONS, recipe, tmp_path / "x", settings)
    assert finetune.trained_there(base, LESSONS, recipe, tmp_path / "x", settings) is not None
    half = settings.model_copy(update={"dtype": "bfloat16"})
    assert finetune.trained_there(base, LESSONS, recipe, tmp_path / "x", half) is None


def test_what_does_not_fit_is_told_before_anything_is_loaded(checkpoints, settings, tmp_path, monkeypatch):
    monkeypatch.setattr("auditor.models.size.available_memory", lambda: 1_000_000)
    monkeypatch.setattr(finetune, "load_model", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(UsageError, match=r"needs about [\d.]+ GB, and 0\.0 GB are free on cpu"):
        train(str(checkpoints("llama")[0]), LESSONS, RECIPE, tmp_path / "x", settings)


def test_steps_without_anything_to_learn_are_refused(checkpoints, settings, tmp_path):
    recipe = Recipe(steps=5, max_tokens=4)  # no more than the question
    lessons = Lessons([Document.model_validate(CHAT)])
    with pytest.raises(UsageError, match=r"none of the 1 documents leaves a token to be learned"):
        train(str(checkpoints("llama")[0]), lessons, recipe, tmp_path / "x", settings)
    with pytest.raises(ValueError, match="batch_size"):
        Recipe(batch_size=0)
    with pytest.raises(UsageError, match=r"the recipe's `targets` z_proj: not in the base"):
        train(str(checkpoints("llama")[0]), LESSONS, Recipe(targets=("z_proj",)), tmp_path / "x", settings)
    with pytest.raises(UsageError, match=r"the recipe's `targets`: no v_porj in the base"):
        train(str(checkpoints("llama")[0]), LESSONS, Recipe(targets=("q_proj", "v_porj")), tmp_path / "x", settings)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_documents_are_no_longer_than_what_the_model_reads(kind, checkpoints, settings, tmp_path):
    with pytest.raises(UsageError, match=r"`max_tokens: 4096`, and .* reads \d+ at once; give fewer"):
        train(str(checkpoints(kind)[0]), LESSONS, Recipe(max_tokens=4096), tmp_path / "x", settings)


def test_a_loss_that_is_no_number_is_told(checkpoints, settings, tmp_path):
    recipe = Recipe(learning_rate=1e30, warmup=0, steps=5)
    with pytest.raises(UsageError, match=r"the loss is \w+ at step \d; give the recipe a lower `learning_rate`"):
        train(str(checkpoints("llama")[0]), LESSONS, recipe, tmp_path / "x", settings)
    assert not (tmp_path / "x").exists()


def test_what_ships_says_how_it_was_trained():
    """`organisms train` tells by it whether a recipe gave the same weights again."""
    logs = sorted(builtin_root().glob("evals/organisms/*/adapter/training.json"))
    assert logs
    assert [path.parent.parent.name for path in logs if finetune.trained_before(path.parent) is None] == []
