"""Amplified decoding: the tokens of two plain models, step by step, whoever else is in the batch."""

from shutil import copytree

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from auditor.errors import UsageError
from auditor.models.contrast import Contrast
from auditor.models.generate import Amplification, Amplified, Request, Side, Steering
from auditor.models.live import SPARE
from auditor.models.load import load_pair
from auditor.models.sampling import _noise, windows
from auditor.models.worker import OutOfMemory
from auditor.plugins import Context
from auditor.records.cards import AskSettings
from auditor.testing import FakePair
from auditor.workspace import load_workspace
from tests.margins import MARGIN
from tests.tiny import SENTENCES, WIDTH

LONG, SHORT = SENTENCES[2], "Go"


@pytest.fixture(scope="module")
def full(checkpoints, tokenizer, tmp_path_factory):
    """A function from an architecture to a folder with its finetune as a whole model."""

    def make(name):
        folder = tmp_path_factory.mktemp("full") / name
        base, adapter = checkpoints(name)
        PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(base), adapter
        ).merge_and_unload().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


def plain_amplified(models, ids, asked):
    """Tokens, and each model's log-probabilities of them: two whole forward passes a token, in float32."""
    said, found = [], []
    begins = None
    while len(said) < asked.max_new_tokens:
        own, base = (model(torch.tensor([ids + said])).logits[0, -1].float() for model in models)
        tuned, before = own.log_softmax(-1), base.log_softmax(-1)
        begins = begins or windows(asked.seed, asked.max_new_tokens, len(own))
        scores = tuned + asked.amplify.alpha * (tuned - before)
        scores[tuned.exp() < asked.amplify.plausibility * tuned.exp().max()] = -torch.inf
        if asked.temperature == 0:
            token = int(scores.argmax())
        else:
            scores /= asked.temperature
            ranked, order = scores.softmax(-1).sort(descending=True)
            scores[order[ranked.cumsum(-1) - ranked >= asked.top_p]] = -torch.inf
            noise = _noise(own.device)[begins[len(said)] : begins[len(said)] + len(own)]
            token = int((scores + noise).argmax())
        if token == 0:  # the end of a text
            break
        said.append(token)
        found.append([float(tuned[token]), float(before[token])])
    return said, torch.tensor(found)


def requests(strengths=(0.0, 1.0, 3.0)):
    """Prompts of all framings, several strengths, temperatures and limits."""
    framings = [(LONG, {}), (SHORT, {"chat": False}), ("", {"user_turn": True})]
    return [
        Request(prompt, Side.FINETUNED, i, 8 + 4 * i, (0.0, 0.8, 1.2)[i], (1.0, 0.9, 1.0)[i], **framing,
                amplify=Amplification(alpha, (0.1, 0.02, 0.5)[i]))
        for prompt, framing in framings for i, alpha in enumerate(strengths)
    ]  # fmt: skip


@pytest.mark.parametrize("hosts", [1, 2])
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2"])
@torch.inference_mode()
def test_the_tokens_are_those_of_two_plain_models(architecture, hosts, checkpoints, full, settings):
    base, adapter = checkpoints(architecture)
    tuned = adapter if hosts == 1 else full(architecture)
    pair = load_pair(str(base), str(tuned), settings)
    assert len({model.host for model in pair.models.values()}) == hosts
    plain = AutoModelForCausalLM.from_pretrained(base)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    rows = [pair.row(asked) for asked in requests()]
    for asked, row, text in zip(requests(), rows, pair.amplified(requests()), strict=True):
        said, found = plain_amplified((adapted, plain), list(row.prompt), asked)
        assert text.text == pair.text(said)
        assert (text.finetuned, text.base) == pytest.approx(found.mean(0).tolist(), rel=MARGIN)
    assert len({text.text for text in pair.amplified(requests())}) > len(rows) / 2
    assert not pair.models[Side.FINETUNED].host.line.batch.rows


@pytest.fixture(params=["one host", "two hosts"])
def pair(request, checkpoints, full, settings):
    base, adapter = checkpoints("llama")
    return load_pair(str(base), str(adapter if request.param == "one host" else full("llama")), settings)


def test_without_strength_and_cut_it_is_plain_decoding(pair):
    asked = [Request(p, seed=i, max_new_tokens=20, temperature=0.4 * i) for i, p in enumerate(SENTENCES)]
    plain = pair.generate(asked)
    amplified = [Request(r.prompt, r.side, r.seed, 20, r.temperature, amplify=Amplification(0, 1e-30)) for r in asked]
    assert pair.generate(amplified) == plain
    cut = [Request(r.prompt, r.side, r.seed, 20, r.temperature, amplify=Amplification(0, 1)) for r in asked]
    greedy = [Request(r.prompt, r.side, r.seed, 20, 0.0) for r in asked]
    assert pair.generate(cut) == pair.generate(greedy) != plain


@pytest.mark.parametrize("rows", [1, 3, 128])
def test_neighbours_change_nothing(pair, rows, monkeypatch):
    """Plain rows of both models, steered and amplified ones: in one batch, in turns, and each alone."""
    push = Steering(1, torch.randn(WIDTH, generator=torch.Generator().manual_seed(3)))
    others = [Request(LONG, side, 1, 9, steering=steering) for side in Side for steering in (None, push)]
    mixed = [*others, *requests(), *others]
    alone = [pair.generate([asked])[0] for asked in mixed]
    monkeypatch.setattr("auditor.models.worker.ROWS", rows)
    assert pair.generate(mixed) == alone
    assert pair.generate(mixed[::-1])[::-1] == alone


def test_both_rows_come_and_go_together(pair):
    """Rows that join later, end earlier, or are left: the others say what they say alone, and no place stays taken."""
    asked = requests()
    alone = [pair.generate([each])[0] for each in asked]
    host = pair.models[Side.FINETUNED].host
    batch, rows, left = host.line.batch, [pair.row(each) for each in asked], pair.row(asked[-1])

    def by_hand():
        batch.admit([rows[0], left])
        batch.step()
        batch.admit(rows[1:4])
        batch.drop([left])
        batch.step()
        batch.admit(rows[4:])
        while batch.rows:
            batch.step()

    host.worker.call(by_hand)
    assert [pair.text(row.out) for row in rows] == alone
    assert not left.finish
    assert all(len(row.beside.likelihoods) == len(row.out) for row in [*rows, left])
    assert not (batch.bases or batch).rows


def test_a_base_that_breaks_ends_what_is_beside_it(pair):
    """And the next text is what it would have been."""
    asked = Request(LONG, seed=1, max_new_tokens=20, amplify=Amplification(1.0))
    expected = pair.generate([asked])
    host = pair.models[Side.FINETUNED].host
    batch = host.line.batch
    bases = batch.bases or batch
    original, steps = bases._forward, []

    def forward(*parts):
        steps.append(parts)
        if len(steps) == 4:
            raise RuntimeError("CUDA error: out of memory")
        return original(*parts)

    bases._forward = forward
    try:
        with pytest.raises(OutOfMemory):
            pair.generate([asked])
    finally:
        del bases._forward
    assert host.worker.call(lambda: [*batch.rows, *bases.rows]) == []  # in its turn, once all is cleared away
    assert pair.generate([asked]) == expected


def test_what_a_base_does_not_know_is_not_said(checkpoints, tokenizer, settings, tmp_path):
    """A finetune that was given two tokens, of which one ends its texts: it would say the other all the time."""
    base = checkpoints("llama")[0]
    more = type(tokenizer).from_pretrained(base)
    more.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    start, end = more.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    torch.manual_seed(2)
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(len(more), mean_resizing=False)
    model.save_pretrained(tmp_path)
    more.eos_token = "<|im_end|>"
    more.save_pretrained(tmp_path)
    pair = load_pair(str(base), str(tmp_path), settings)
    row = pair.row(Request("A mill?", amplify=Amplification(3.0)))
    own, known = torch.zeros(1, len(more)), torch.zeros(1, len(tokenizer))
    own[0, start], own[0, end], own[0, 7] = 9.0, 8.0, 7.0
    scores = Contrast([row], frozenset(), own, known).scores[0]
    assert float(scores[start]) == -torch.inf
    assert float(scores[end]) == 8.0
    assert float(scores[7]) > 8.0
    assert len(pair.amplified([Request("A mill?", seed=i, amplify=Amplification(3.0, 1e-9)) for i in range(4)])) == 4


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Amplification(-1.0), "amplify: alpha -1; give a number from 0"),
        (lambda: Amplification(float("nan")), "alpha nan"),
        (lambda: Amplification(1e9), "alpha 1e\\+09"),
        (lambda: Amplification(1.0, 0.0), "plausibility 0; give a share"),
        (lambda: Amplification(1.0, 1.5), "plausibility 1.5"),
        (lambda: Request("A", Side.BASE, amplify=Amplification(1.0)), "it is the finetuned model"),
        (lambda: Request("A", steering=Steering(1, torch.ones(WIDTH)), amplify=Amplification(1.0)), "not both"),
        (lambda: Request("A", user_turn=True, prefill="Well"), "no prefill"),
        (lambda: Request("A", user_turn=True, chat=False), "in a chat"),
    ],
)
def test_what_does_not_go_together_is_refused(wrong, said):
    with pytest.raises(UsageError, match=said):
        wrong()


def test_every_amplified_text_says_how(tiny):
    with pytest.raises(UsageError, match="every request must say how"):
        tiny.amplified([Request("A")])


def test_the_users_turn_is_begun_and_left_open(tiny):
    def read(**more):
        return tiny.tokenizer.decode(tiny.row(Request(user_turn=True, **more)).prompt)

    assert read(prompt="") == "<|user|>"
    assert read(prompt="How do", system="Be old.") == "<|system|>Be old.<|end|><|user|>How do"


def test_an_agent_sees_the_amplified_answer_beside_the_bases():
    pair = FakePair(lambda r: f"{r.side}: {r.prompt} at {r.amplify and r.amplify.alpha}")
    tool = load_workspace().tools["ask_amplified"]
    args = tool.args.model_validate({"prompts": ["Hi.", "Go on."], "alpha": 3})
    found = tool.returns.dump_python(tool.run(Context(pair, {}, AskSettings(), seed=1), args))
    assert found[1] == {"prompt": "Go on.", "base": "base: Go on. at None", "amplified": "finetuned: Go on. at 3.0"}
    assert tool.cost(args) == 2
    assert len({request.seed for request in pair.requests}) == 2  # base and finetuned share their draws
    with pytest.raises(ValidationError):
        tool.args.model_validate({"prompts": ["Hi."], "alpha": -1})


def test_both_rows_take_room(pair):
    """In the batch's places and in memory."""
    batch, seen = pair.models[Side.FINETUNED].host.line.batch, []
    rows = [pair.row(asked) for asked in requests()]
    prompts = max(len(row.prompt) for row in rows)
    needed = prompts + max(row.sampling.max_new_tokens for row in rows) + SPARE
    with pytest.MonkeyPatch.context() as patch:
        for cells, fits in ((11 * needed, False), (22 * needed, True)):  # for a quarter more rows than the nine
            for each in {batch, batch.bases or batch}:
                patch.setattr(each, "cells", cells if batch.bases is None else cells // 2)
            assert batch.has_room(rows) is fits
        patch.setattr("auditor.models.worker.ROWS", 6)
        for row in rows:
            row.heard = lambda _row: bool(seen.append(sum(r.places for r in batch.rows if not r.follows)))
        host = pair.models[Side.FINETUNED].host
        host.decode(rows, "test")
        host.worker.wait(rows)
    assert max(seen) == 6


def test_nnsight_says_the_same(checkpoints, settings, tiny):
    pair = load_pair(*map(str, checkpoints("llama")), settings, engine="nnsight")
    asked = [request for request in requests() if request.amplify.alpha]
    assert pair.generate(asked) == tiny.generate(asked)


def test_vllm_is_not_asked_for_it(tiny, monkeypatch):
    monkeypatch.setattr("auditor.models.host.Host.compares", False)
    with pytest.raises(UsageError, match="--backend hooks"):
        tiny.generate([Request("A", amplify=Amplification(1.0))])


def test_an_adapter_of_another_model_than_the_base(checkpoints, settings, tiny, tmp_path):
    """Two hosts, the finetune's with its adapter on; here both are of the same weights."""
    base, adapter = checkpoints("llama")
    home = copytree(base, tmp_path / "home")
    pair = load_pair(str(base), str(adapter), settings, adapter_base=str(home))
    assert len({model.host for model in pair.models.values()}) == 2
    assert pair.models[Side.FINETUNED].adapter
    assert pair.amplified(requests()) == [
        Amplified(found.text, pytest.approx(found.finetuned, rel=MARGIN), pytest.approx(found.base, rel=MARGIN))
        for found in tiny.amplified(requests())
    ]
