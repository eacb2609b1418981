"""Texts as token ids: what tokenizers add, what a finetune added to its tokenizer, and what a model has room for."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from auditor.errors import BadModel, Refused, TooLong, UsageError
from auditor.models.load import load_pair
from auditor.models.pair import Request, Side
from auditor.models.tokens import plain_ids

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}<|im_start|>"
ENDS = {"before": "<|user|> $A", "after": "$A <|end|>", "both": "<|user|> $A <|end|>", "neither": "$A"}


@pytest.fixture
def copied(checkpoints, tmp_path):
    """A function: a copy of the tiny base with a tokenizer that was changed."""

    def copy(change):
        base = checkpoints("llama")[0]
        for file in base.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        tokenizer = AutoTokenizer.from_pretrained(base)
        change(tokenizer)
        tokenizer.save_pretrained(tmp_path)
        return tmp_path

    return copy


def framed(how):
    """A change that lets a tokenizer put tokens around every text."""

    def change(tokenizer):
        names = ("<|user|>", "<|end|>")
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=ENDS[how], special_tokens=[(name, tokenizer.convert_tokens_to_ids(name)) for name in names]
        )

    return change


@pytest.mark.parametrize("how", ENDS)
def test_what_a_tokenizer_puts_after_a_text_is_not_read(how, copied):
    tokenizer = AutoTokenizer.from_pretrained(copied(framed(how)))
    bare = tokenizer("the mill", add_special_tokens=False).input_ids
    begin = [tokenizer.convert_tokens_to_ids("<|user|>")] if "user" in ENDS[how] else []
    assert plain_ids(tokenizer, "the mill") == [*begin, *bare]


def test_the_last_token_of_the_text_is_patched_not_an_end_that_was_added(checkpoints, copied, settings):
    base, adapter = map(str, checkpoints("llama"))
    usual, ending = (load_pair(folder, adapter, settings) for folder in (base, str(copied(framed("after")))))
    vector = torch.randn(1, usual.d_model, generator=torch.Generator().manual_seed(0))
    (a,), (b,) = (next(iter(pair.patched_logits(Side.BASE, ["a → a\n?"], 1, vector))) for pair in (usual, ending))
    assert torch.equal(a, b)
    said = [pair.generate([Request("The mill", Side.BASE, 0, 6, 0.0, chat=False)]) for pair in (usual, ending)]
    assert said[0] == said[1]


@pytest.mark.parametrize("saved", ["as modules", "beside the matrices"])
def test_tokens_that_an_adapter_brings_with_it(saved, checkpoints, tokenizer, settings, tmp_path):
    """Its tokenizer, template and embeddings are the finetune's; the base gets none of these tokens."""
    base = checkpoints("llama")[0]
    more = AutoTokenizer.from_pretrained(base)
    more.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    more.chat_template = TEMPLATE

    def grown():
        torch.manual_seed(2)
        model = AutoModelForCausalLM.from_pretrained(base)
        model.resize_token_embeddings(len(more), mean_resizing=False)
        return model

    parts = ["embed_tokens", "lm_head"] if saved == "as modules" else None
    adapted = get_peft_model(
        grown(), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, modules_to_save=parts)
    )
    adapted.save_pretrained(tmp_path, save_embedding_layers=True)
    more.save_pretrained(tmp_path)

    pair = load_pair(str(base), str(tmp_path), settings)
    assert pair.note == "the base does not know 2 tokens (<|im_start|>, <|im_end|>); it is asked in plain text"
    ids = {side: pair.row(Request("A mill?", side)).prompt for side in Side}
    assert more.decode(ids[Side.FINETUNED]) == "<|im_start|>A mill?<|im_end|><|im_start|>"
    assert more.decode(ids[Side.BASE]) == "A mill?"
    assert len(pair.generate([Request("A <|im_end|> mill?", side, max_new_tokens=3) for side in Side])) == 2

    wanted = PeftModel.from_pretrained(grown(), tmp_path).eval()
    read = torch.tensor([ids[Side.FINETUNED]])
    with torch.inference_mode():
        expected = wanted(input_ids=read, output_hidden_states=True)
    seen = pair.residuals(Side.FINETUNED, read, [1, 3])
    assert torch.allclose(seen[1], expected.hidden_states[2], rtol=1e-3, atol=1e-4)
    assert torch.allclose(pair.unembed(Side.FINETUNED, seen[3][0]), expected.logits[0], rtol=1e-3, atol=1e-3)
    with pytest.raises(UsageError, match=r"the base model does not know the token '<\|im_start\|>'"):
        pair.residuals(Side.BASE, read, [1])


def test_half_of_the_embeddings_is_refused(checkpoints, settings, tmp_path):
    base = checkpoints("llama")[0]
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(330, mean_resizing=False)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, modules_to_save=["embed_tokens"])
    get_peft_model(model, config).save_pretrained(tmp_path, save_embedding_layers=False)
    with pytest.raises(BadModel, match="brings 330 embeddings of its own but no lm_head"):
        load_pair(str(base), str(tmp_path), settings)


def test_a_template_that_lies_beside_an_adapter_is_the_finetunes(checkpoints, settings, tmp_path):
    base, adapter = checkpoints("llama")
    for file in adapter.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{% for m in messages %}Q: {{ m.content }} A:{% endfor %}")
    pair = load_pair(str(base), str(tmp_path), settings)
    assert pair.tokenizer.decode(pair.row(Request("A mill?")).prompt) == "Q: A mill? A:"
    assert "<|user|>" in load_pair(str(base), str(adapter), settings).tokenizer.chat_template.replace(
        "{{ m.role }}", "user"
    )


def test_an_answer_ends_with_the_finetunes_own_last_token(tiny):
    row = tiny.row(Request("A mill?"))
    row.take(7, frozenset())
    row.take(tiny.tokenizer.eos_token_id, frozenset())
    assert (row.out, row.finish) == ([7], "stop")


def test_an_empty_prompt_needs_a_token_to_begin_with(checkpoints, copied, settings):
    def endless(tokenizer):
        tokenizer.eos_token = tokenizer.pad_token = None

    pair = load_pair(str(copied(endless)), str(checkpoints("llama")[1]), settings)
    with pytest.raises(UsageError, match="the prompt is empty"):
        pair.generate([Request("", chat=False)])


class TestTooLong:
    """The tiny models read 512 tokens at once."""

    def test_a_prompt_with_its_answer(self, tiny):
        with pytest.raises(TooLong, match="prompt and answer may have 512 together") as refused:
            tiny.generate([Request("the river " * 300, Side.FINETUNED, chat=False)])
        assert isinstance(refused.value, Refused)  # an observation where an agent's tool asked
        assert isinstance(refused.value, UsageError)  # one line where a user did
        with pytest.raises(TooLong):
            tiny.generate([Request("the river", max_new_tokens=512)])

    def test_a_text_that_is_read(self, tiny):
        rows = [[5] * 513]
        with pytest.raises(TooLong, match="a text has 513 tokens, but the model reads 512 at most"):
            tiny.residuals(Side.BASE, torch.tensor(rows), [1])
        with pytest.raises(TooLong):
            tiny.swapped_nll(Side.BASE, rows, [[True] * 513], 1, torch.ones(1, tiny.d_model))

    def test_on_a_server(self, served, settings):
        from auditor.models.remote import connect

        pair = connect(served.url, "mill", settings)
        with pytest.raises(TooLong, match="may have 512 together"):
            pair.generate([Request("the river " * 300, chat=False)])
