"""Decoding: a row's text depends on its own prompt, side, steering and seed, and on nothing else."""

import gc
import weakref

import pytest
import torch
from transformers import AutoModelForCausalLM

from auditor.models.generate import Request, Side, Steering, derive_seed
from auditor.models.load import load_pair
from auditor.models.row import Row
from auditor.models.sampling import NOISE, nucleus, sample, windows
from auditor.models.worker import OutOfMemory
from tests.margins import MARGIN
from tests.tiny import SENTENCES, WIDTH

LONG, SHORT = SENTENCES[2], "Go"


def requests(steering=None):
    """Mixed lengths, sides, temperatures and limits."""
    return [
        Request(prompt, side, derive_seed(prompt, side, i), 12 + 3 * i, 0.8 + i / 4, 1.0 if i else 0.9, i < 2, row)
        for prompt in (LONG, SHORT)
        for side in Side
        for i in range(3)
        for row in (None, steering)
    ]


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2"])
def test_a_text_is_the_same_alone_and_in_any_batch(architecture, checkpoints, settings):
    pair = load_pair(*map(str, checkpoints(architecture)), settings)
    steering = Steering(1, torch.randn(WIDTH, generator=torch.Generator().manual_seed(3)))
    wanted = requests(steering)
    together = pair.generate(wanted)
    assert pair.generate(wanted[::-1])[::-1] == together
    assert [pair.generate([request])[0] for request in wanted] == together
    assert len(set(together)) > len(together) / 2


def test_two_full_models_generate_what_the_lora_pair_does(checkpoints, settings, tmp_path):
    base, adapter = map(str, checkpoints("llama"))
    same = load_pair(base, base, settings)
    lora = load_pair(base, adapter, settings)
    plain = [Request(p, Side.BASE, i, 10) for i, p in enumerate(SENTENCES)]
    both = [Request(p, side, i, 10) for i, p in enumerate(SENTENCES) for side in Side]
    assert same.generate(both)[::2] == lora.generate(plain)


def test_greedy_decoding_is_that_of_transformers(tiny, checkpoints):
    model = AutoModelForCausalLM.from_pretrained(checkpoints("llama")[0])
    ids = torch.tensor([tiny.tokenizer(LONG).input_ids])
    expected = model.generate(ids, max_new_tokens=15, do_sample=False)[0, ids.shape[1] :]
    text = tiny.tokenizer.decode(expected, skip_special_tokens=True).strip()
    assert tiny.generate([Request(LONG, Side.BASE, 0, 15, 0.0, chat=False)]) == [text]


def test_steering_adds_its_vector_at_every_token(tiny, checkpoints):
    """Greedy steered text equals that of a plain model with a bias on the block's output."""
    vector = 3 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(5))
    model = AutoModelForCausalLM.from_pretrained(checkpoints("llama")[0])
    handle = model.model.layers[2].register_forward_hook(
        lambda _m, _i, out: (out[0] + vector, *out[1:]) if isinstance(out, tuple) else out + vector
    )
    ids = torch.tensor([tiny.tokenizer(LONG).input_ids])
    expected = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    handle.remove()
    steered = Request(LONG, Side.BASE, 0, 12, 0.0, chat=False, steering=Steering(2, vector))
    plain = Request(LONG, Side.BASE, 0, 12, 0.0, chat=False)
    texts = tiny.generate([steered, plain])
    assert texts[0] == tiny.tokenizer.decode(expected, skip_special_tokens=True).strip()
    assert texts[0] != texts[1]


def test_sampling_follows_the_distribution():
    probs = torch.tensor([0.5, 0.3, 0.15, 0.05])
    n = 20_000
    begins = torch.tensor([windows(seed, 1, 4)[0] for seed in range(n)])
    logits, ones = probs.log().expand(n, 4), torch.ones(n)
    drawn = sample(logits, begins, ones, ones).bincount(minlength=4) / n
    assert torch.allclose(drawn, probs, atol=0.015)
    two = sample(logits, begins, ones, 0.6 * ones).bincount(minlength=4) / n  # the two that reach 0.6
    assert torch.allclose(two, torch.tensor([0.625, 0.375, 0, 0]), atol=0.015)
    assert (sample(logits, begins, 0 * ones, ones) == 0).all()


def test_rounding_does_not_change_what_is_drawn():
    """As other rows in the batch do: in the last bits. Over a flat vocabulary, where it is hardest."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2000, 5000, generator=generator)
    begins = torch.randint(0, NOISE - 5000, (2000,), generator=generator)
    ones = torch.ones(2000)
    rounded = logits * (1 + 1e-6 * torch.randn(logits.shape, generator=generator))
    changed = sample(logits, begins, ones, ones) != sample(rounded, begins, ones, ones)
    assert changed.float().mean() <= 1 / 2000


def test_a_nucleus_is_the_same_with_and_without_sorting_the_vocabulary(monkeypatch):
    logits = 3 * torch.randn(6, 400, generator=torch.Generator().manual_seed(2))
    logits[3:] /= 30  # flat rows, whose nucleus is wide
    top_p = torch.tensor([0.5, 0.9, 1.0, 0.3, 0.95, 0.99])
    ranked, order = torch.softmax(logits, -1).sort(-1, descending=True)
    inside = torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, order, ranked.cumsum(-1) - ranked < top_p[:, None])
    inside[2] = True
    for limit in (5, 50, 1024):
        monkeypatch.setattr("auditor.models.sampling.NUCLEUS", limit)
        assert torch.equal(nucleus(logits, top_p), logits.masked_fill(~inside, -torch.inf))


def test_callers_at_the_same_time_get_the_texts_they_would_get_alone(tiny):
    from concurrent.futures import ThreadPoolExecutor

    wanted = requests()
    parts = [wanted[i::4] for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(tiny.generate, parts))
    assert texts == [tiny.generate(part) for part in parts]


def row_of(pair, prompt, seed, new, **more):
    sampling = Request("", seed=seed, max_new_tokens=new).sampling
    return Row(pair.tokenizer(prompt).input_ids, sampling, pair.models[Side.FINETUNED].adapter, **more)


def finished(pair, rows):
    """Let rows be decoded, and wait for them."""
    host = pair.models[Side.FINETUNED].host
    host.decode(rows, "test")
    for row in rows:
        row.ended.result(timeout=60)
    return [row.out for row in rows]


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_rows_that_join_while_others_decode_change_nothing(tiny, rows, monkeypatch):
    wanted = requests(Steering(1, torch.randn(WIDTH, generator=torch.Generator().manual_seed(3))))
    together = tiny.generate(wanted)
    monkeypatch.setattr("auditor.models.worker.ROWS", rows)
    assert tiny.generate(wanted) == together


def test_a_long_prompt_joins_a_batch_of_short_ones(tiny):
    """The columns before it are not enough, so that the others move; and rows may leave at any time."""
    asked = [(SHORT, 1, 9), (LONG, 2, 20), (SHORT, 3, 30), (LONG + " " + LONG, 4, 12)]
    alone = [finished(tiny, [row_of(tiny, *parts)])[0] for parts in asked]
    host = tiny.models[Side.FINETUNED].host
    batch, rows = host.line.batch, [row_of(tiny, *parts) for parts in asked]
    dropped = row_of(tiny, SHORT, 5, 40)

    def by_hand():
        batch.admit([rows[0], dropped])
        batch.step()
        batch.admit([rows[1]])
        batch.drop([dropped])
        for _ in range(3):
            batch.step()
        batch.admit(rows[2:])
        while batch.rows:
            batch.step()

    host.worker.call(by_hand)
    assert [r.out for r in rows] == alone
    assert {r.finish for r in rows} <= {"stop", "length"}
    assert not dropped.finish


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_a_known_beginning_is_not_read_again(architecture, checkpoints, settings, monkeypatch):
    """Prompts that share their beginning give the texts that they give when each is read whole."""
    head = " ".join(SENTENCES)
    asked = [head + end for end in (" Yes.", " No, and the mill is old.", " Perhaps the ship", " Why?")]

    def texts(pair):
        alone = [pair.generate([Request(p, Side.BASE, 3, 12, chat=False)])[0] for p in asked]  # one after another
        return alone, pair.generate([Request(p, Side.FINETUNED, 3, 12, chat=False) for p in asked])  # at once

    pair = load_pair(*map(str, checkpoints(architecture)), settings)
    with_prefixes = texts(pair)
    assert len(pair.models[Side.BASE].host.line.batch.prefixes._kept) == 2  # one for each model
    monkeypatch.setattr("auditor.models.prefixes.SHORTEST", 10_000)
    monkeypatch.setattr("auditor.models.live.WORTH", 1 << 40)
    assert texts(load_pair(*map(str, checkpoints(architecture)), settings)) == with_prefixes


def test_what_steering_did_is_measured_where_it_arrives(tiny):
    vector = torch.full((WIDTH,), 0.5)
    rows = [row_of(tiny, LONG, 1, 2, steering=Steering(layer, alpha * vector)) for layer in (1, 3) for alpha in (0, 2)]
    finished(tiny, [*rows, row_of(tiny, LONG, 1, 2)])
    for row in rows:
        assert row.shift == pytest.approx(float(row.steering.vector.norm()), rel=MARGIN)


def test_a_row_is_heard_token_by_token_and_may_be_ended(tiny):
    heard = []

    def listen(row):
        heard.append(list(row.out))
        return len(row.out) == 3

    row = row_of(tiny, LONG, 1, 20, heard=listen, alternatives=2)
    finished(tiny, [row])
    assert heard == [row.out[:1], row.out[:2], row.out]
    assert row.finish == "stop"
    assert len(row.logprobs) == 3
    assert all(own <= best[0][1] < 0 and len(best) == 2 for own, best in row.logprobs)


def test_what_breaks_ends_only_the_rows_that_it_broke(tiny):
    """An admission that fails ends those who were to join; a step that fails ends all. The worker goes on."""
    host = tiny.models[Side.FINETUNED].host
    healthy, original = row_of(tiny, LONG, 1, 30), host.line.batch._forward

    def forward(ids, *rest):
        if ids.shape[1] > 1 and len(healthy.out) == 2:
            raise RuntimeError("CUDA error: out of memory")
        return original(ids, *rest)

    joining = row_of(tiny, SHORT, 2, 5)
    healthy.heard = lambda row: len(row.out) == 2 and bool(host.decode([joining], "late"))
    host.line.batch._forward = forward
    try:
        finished(tiny, [healthy])
        with pytest.raises(OutOfMemory):
            joining.ended.result(timeout=60)
    finally:
        del host.line.batch._forward
    alone = row_of(tiny, LONG, 1, 30)
    assert finished(tiny, [alone]) == [healthy.out]


def test_clients_take_turns(tiny, monkeypatch):
    """One who asks for much does not keep out one who asks for little."""
    monkeypatch.setattr("auditor.models.worker.ROWS", 2)
    host, order = tiny.models[Side.FINETUNED].host, []

    def named(name, seed):
        return row_of(tiny, SHORT, seed, 4, heard=lambda row: bool(order.append(name)) if len(row.out) == 1 else False)

    many, few = [named("many", i) for i in range(8)], [named("few", 9)]

    def at_once():  # in the worker's own thread: nothing is admitted before both have asked
        host.decode(many, "many")
        host.decode(few, "few")

    host.worker.call(at_once)
    for row in [*many, *few]:
        row.ended.result(timeout=60)
    assert "few" in order[:2]


def test_an_interrupted_caller_leaves_no_work_behind(tiny, monkeypatch):
    host = tiny.models[Side.FINETUNED].host

    class Stopped(BaseException):
        pass

    def stopped(*_args, **_more):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr("auditor.models.worker.wait", stopped)
        with pytest.raises(Stopped):
            tiny.generate([Request(LONG, max_new_tokens=400)])
    host.worker.call(lambda: None)
    host.worker.call(lambda: None)
    assert not host.line.batch.rows


def test_a_system_prompt_and_a_begun_answer_reach_the_model(tiny):
    asked = [
        Request("Hi.", system="You are old.", prefill="Well"),
        Request("The mill", chat=False),
    ]
    assert [tiny.tokenizer.decode(tiny.row(request).prompt) for request in asked] == [
        "<|system|>You are old.<|end|><|user|>Hi.<|end|><|assistant|>Well",
        "The mill",
    ]


def test_models_are_let_go_with_their_last_user(checkpoints, settings, monkeypatch):
    """Not when the worker's thread ends, later: the next organism's weights need the memory now."""
    pair = load_pair(*map(str, checkpoints("llama")), settings)
    pair.generate([Request(LONG, max_new_tokens=2)])
    worker = pair.models[Side.BASE].host.worker
    thread, host = worker._thread, weakref.ref(pair.models[Side.BASE].host)
    monkeypatch.setattr("auditor.models.worker.LINGER", 1000)  # the thread is there all the time
    del pair, worker
    for _ in range(20):  # at the moment when it looks for work it holds them
        gc.collect()
        if host() is None:
            break
    assert host() is None
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2"])
def test_plain_rows_do_not_notice_steered_ones_beside_them(architecture, checkpoints, settings):
    """Log-probabilities of greedy rows, alone and beside steered rows of both models."""
    pair = load_pair(*map(str, checkpoints(architecture)), settings)
    host = pair.models[Side.BASE].host

    def greedy(prompt, side, steering=None):
        asked = Request(prompt, side, 0, 12, 0.0, chat=False, steering=steering)
        row = pair.row(asked)
        row.alternatives = 20
        return row

    def told(rows):
        host.decode(rows, "test")
        for row in rows:
            row.ended.result(timeout=60)
        return [(row.out, torch.tensor([value for _, best in row.logprobs for _, value in best])) for row in rows]

    push = Steering(2, 4 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(6)))
    plain = [(prompt, side) for prompt in (LONG, SHORT) for side in Side]
    mixed = told([greedy(*asked, steering) for asked in plain for steering in (None, push)])
    for asked, (tokens, logprobs) in zip(plain, mixed[::2], strict=True):
        [(alone, expected)] = told([greedy(*asked)])
        assert tokens == alone
        assert float((logprobs - expected).norm() / expected.norm()) < MARGIN
    assert [out for out, _ in mixed[::2]] != [out for out, _ in mixed[1::2]]


def test_a_small_batch_does_not_keep_the_buffers_of_a_large_one(tiny):
    """What memory has room for is counted in the rows that are there."""
    host = tiny.models[Side.FINETUNED].host
    long_ago, batch, seen = row_of(tiny, SHORT, 0, 60), host.line.batch, []
    late = row_of(tiny, LONG + LONG, 99, 3, heard=lambda row: bool(seen.append(batch._mask.shape[0])))
    many = [row_of(tiny, SHORT, i, 2) for i in range(60)]
    long_ago.heard = lambda row: len(row.out) == 20 and bool(host.decode([late], "late"))
    finished(tiny, [long_ago, *many])
    late.ended.result(timeout=60)
    assert max(seen) <= 3


def test_threads_may_tokenize_at_the_same_time(tiny):
    """Long prompts stay whole while another thread reads the first tokens of texts."""
    from concurrent.futures import ThreadPoolExecutor

    request = Request(" ".join(SENTENCES * 8), chat=False)
    whole = len(tiny.row(request).prompt)
    with ThreadPoolExecutor(3) as pool:
        cutting = pool.submit(lambda: [tiny.mean_nll(Side.BASE, [request.prompt]) for _ in range(20)])
        lengths = {len(row.prompt) for row in pool.map(lambda _: tiny.row(request), range(400))}
        cutting.result()
    assert lengths == {whole}
