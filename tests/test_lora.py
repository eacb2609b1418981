"""Adapters side by side on one model: each row sees its own, as PEFT would apply it."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from auditor.models.adapters import Adapter, read_adapter
from auditor.models.generate import Request, Side
from auditor.models.load import load_host, load_pair, pair_on
from auditor.models.lora import LoraBank
from auditor.models.weights import resolve
from auditor.models.worker import Worker
from tests.margins import MARGIN
from tests.tiny import ARCHITECTURES, SENTENCES, WIDTH

KINDS = {
    "plain": {"r": 4, "target_modules": "all-linear"},
    "attention only, rank-stabilized": {"r": 6, "target_modules": ["q_proj", "v_proj"], "use_rslora": True},
    "ranks and alphas by layer": {
        "r": 2, "lora_alpha": 6, "target_modules": "all-linear",
        "rank_pattern": {"layers.1.mlp.up_proj": 5}, "alpha_pattern": {"down_proj": 3},
    },
}  # fmt: skip
ODD = {"dora": {"r": 4, "target_modules": "all-linear", "use_dora": True}, "biases": {
    "r": 4, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}}  # fmt: skip


def trained(base, folder, kind, seed):
    """An adapter's folder with random weights."""
    torch.manual_seed(seed)
    config = LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **kind)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, parameter in adapted.named_parameters():
        if "modules_to_save" in name or "magnitude" in name:
            parameter.data.mul_(1 + 0.1 * torch.rand_like(parameter))
    adapted.save_pretrained(folder)
    return folder


@pytest.fixture
def base(checkpoints):
    return checkpoints("llama")[0]


@pytest.fixture
def shared(base, tmp_path, settings):
    """A host and three pairs on it."""
    weights = resolve(str(base), settings)
    host = load_host(weights, settings, Worker())
    folders = [trained(base, tmp_path / str(i), kind, i) for i, kind in enumerate(KINDS.values())]
    return host, [pair_on(host, weights, resolve(str(folder), settings), settings) for folder in folders], folders


def relative(a, b):
    return float((a - b).norm() / b.norm())


def test_each_adapter_is_applied_as_peft_does(shared, base):
    _, pairs, folders = shared
    ids = torch.tensor([pairs[0].tokenizer(SENTENCES[0]).input_ids])
    for pair, folder in zip(pairs, folders, strict=True):
        expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
        with torch.inference_mode():
            wanted = expected(ids, output_hidden_states=True).hidden_states[3]
        assert relative(pair.residuals(Side.FINETUNED, ids, [2])[2], wanted) < MARGIN


def test_rows_of_the_base_and_of_three_finetunes_share_a_batch(shared):
    """Logits of each row in a mixed pass equal those of its own pass, but for rounding."""
    host, pairs, _ = shared
    adapters = ["", *(pair.models[Side.FINETUNED].adapter for pair in pairs)]
    ids = torch.tensor([pairs[0].tokenizer(SENTENCES[1]).input_ids] * 6)

    def logits(names, rows):
        def run():
            host.bank.choose(names)
            return host.engine.forward({"input_ids": ids[:rows]}).logits

        return host.worker.call(run)

    order = [adapters[i] for i in (2, 0, 3, 1, 2, 0)]
    mixed = logits(order, 6)
    for row, name in enumerate(order):
        assert relative(mixed[row], logits([name], 1)[0]) < MARGIN
    assert relative(mixed[0], mixed[1]) > 0.01


def test_texts_are_the_same_whoever_shares_the_model(shared, base, settings):
    _, pairs, folders = shared
    asked = [Request(p, side, i, 10) for i, p in enumerate(SENTENCES) for side in Side]
    for pair, folder in zip(pairs, folders, strict=True):
        assert pair.generate(asked) == load_pair(str(base), str(folder), settings).generate(asked)


def test_an_adapter_that_is_taken_off_leaves_the_others_as_they_were(shared):
    host, pairs, _ = shared
    ids = torch.tensor([pairs[0].tokenizer(SENTENCES[0]).input_ids])
    before = [pair.residuals(Side.FINETUNED, ids, [2])[2] for pair in pairs]
    size = host.bank.nbytes
    host.worker.call(lambda: host.bank.remove(pairs[1].models[Side.FINETUNED].adapter))
    assert host.bank.nbytes < size
    for i in (0, 2):
        assert torch.equal(pairs[i].residuals(Side.FINETUNED, ids, [2])[2], before[i])


@pytest.mark.parametrize("kind", ODD)
def test_what_is_more_than_two_matrices_gets_weights_of_its_own(kind, base, tmp_path, settings):
    folder = trained(base, tmp_path / "odd", ODD[kind], 7)
    assert read_adapter(folder, AutoModelForCausalLM.from_pretrained(base), "the base") is None
    pair = load_pair(str(base), str(folder), settings)
    assert pair.models[Side.BASE].host is not pair.models[Side.FINETUNED].host
    ids = torch.tensor([pair.tokenizer(SENTENCES[0]).input_ids])
    for side, model in [
        (Side.BASE, AutoModelForCausalLM.from_pretrained(base)),
        (Side.FINETUNED, PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)),
    ]:
        with torch.inference_mode():
            wanted = model(ids).logits[0]
        last = pair.residuals(side, ids, [pair.n_layers - 1])[pair.n_layers - 1][0]
        assert relative(pair.unembed(side, last), wanted) < MARGIN


def test_rows_share_layers_whose_input_is_one_long_row(checkpoints, settings, monkeypatch):
    """OPT's MLP is given (rows · tokens, width), and so are the shared experts of some mixtures."""
    monkeypatch.setitem(ARCHITECTURES, "opt", {
        "hidden_size": WIDTH, "word_embed_proj_dim": WIDTH, "ffn_dim": 64, "num_hidden_layers": 4,
        "num_attention_heads": 4, "max_position_embeddings": 512,
    })  # fmt: skip
    pair = load_pair(*map(str, checkpoints("opt")), settings)
    assert pair.models[Side.BASE].host is pair.models[Side.FINETUNED].host
    asked = [Request(p, side, i, 10) for i, p in enumerate(SENTENCES) for side in Side]
    assert pair.generate(asked) == [pair.generate([request])[0] for request in asked]
    assert pair.generate(asked[:1]) != pair.generate([Request(SENTENCES[0], Side.FINETUNED, 0, 10)])


class Routed(torch.nn.Module):
    """A layer for all tokens, and one for those that a router chose."""

    def __init__(self):
        super().__init__()
        self.embed, self.shared, self.expert = torch.nn.Embedding(9, 4), *(torch.nn.Linear(4, 4) for _ in range(2))

    def forward(self, input_ids, use_cache):
        stream = self.embed(input_ids)
        return self.shared(stream.flatten(0, 1)), self.expert(stream[input_ids > 4])


def test_tokens_that_were_routed_belong_to_no_row():
    bank = LoraBank(Routed(), torch.tensor([[1, 2, 5], [3, 7, 1]]))
    pair = torch.zeros(2, 4), torch.zeros(4, 2)
    assert bank.takes(Adapter({"shared": pair}, 2))
    assert not bank.takes(Adapter({"shared": pair, "expert": pair}, 2))
