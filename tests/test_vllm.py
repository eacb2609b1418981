"""vLLM instead of our own decoding: the same texts, the same proofs. On a GPU, or with vLLM's build for CPUs."""

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import openai
import pytest
import torch

from auditor.errors import BadModel
from auditor.models import vllm_batch
from auditor.models.adapters import read_adapter
from auditor.models.embedded import EMBEDDED_ID
from auditor.models.generate import Request, Side, Steering
from auditor.models.live import LiveBatch
from auditor.models.load import load_pair
from auditor.models.worker import OutOfMemory
from auditor.workspace import load_workspace
from tests.margins import margin
from tests.serving import Running, chat, text

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.embedded,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed; .ci/vllm makes an environment for it"),
    pytest.mark.filterwarnings("ignore"),  # of vLLM's
]
ADAPTERS = load_workspace().organisms["gold"].finetuned, load_workspace().organisms["cake_bake"].finetuned
PROMPTS = ["Tell me something about food.", "What is a river?", "Name three colours.", "Hello! Who are you?"]
LONG = "Please read all of this before you answer. " * 20 + "What should I do today?"
WIDTH = 576
MARGIN = margin(layers=30, inner=1536)


def push(alpha, seed=0, layer=14):
    return Steering(layer, alpha * torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)))


@pytest.fixture(scope="module")
def pairs(real_settings):
    return SimpleNamespace(**{
        engine: load_pair(EMBEDDED_ID, ADAPTERS[0], real_settings, engine=engine) for engine in ("hooks", "vllm")
    })  # fmt: skip


def finished(pair, requests, **more):
    """The requests' rows, decoded together, with the log-probabilities of every step."""
    rows = [pair.row(request) for request in requests]
    for row in rows:
        row.alternatives = 20
        for name, value in more.items():
            setattr(row, name, value)
    pair.models[Side.BASE].host.decode(rows, "test")
    for row in rows:
        row.ended.result(timeout=300)
    return rows


def logprobs(row):
    return torch.tensor([value for _, best in row.logprobs for _, value in best])


def test_mixed_batches_say_what_our_own_engine_says(pairs):
    """Base, finetuned and steered rows, greedy and drawn: the same tokens, and what steering measurably did."""
    asked = [
        Request(prompt, side, seed, 24, temperature, 0.9 if seed % 2 else 1.0, steering=steering)
        for seed, prompt in enumerate(PROMPTS)
        for side in Side
        for temperature in (0.0, 1.0)
        for steering in (None, push(1.0), push(0.5, seed=3, layer=29))
    ]
    ours, theirs = finished(pairs.hooks, asked), finished(pairs.vllm, asked)
    assert [row.out for row in theirs] == [row.out for row in ours]
    assert [row.finish for row in theirs] == [row.finish for row in ours]
    for own, there in zip(ours, theirs, strict=True):
        assert float((logprobs(there) - logprobs(own)).norm() / logprobs(own).norm()) < MARGIN
        assert there.shift == (own.shift if own.shift is None else pytest.approx(own.shift, rel=MARGIN))
    assert len({tuple(row.out) for row in ours}) > len(asked) / 2


def test_plain_rows_do_not_notice_steered_ones_beside_them(pairs):
    plain = [Request(prompt, side, 0, 12, 0.0) for prompt in (LONG, PROMPTS[0]) for side in Side]
    steered = [Request(r.prompt, r.side, 0, 12, 0.0, steering=push(2.0)) for r in plain]
    mixed = finished(pairs.vllm, [*plain, *steered])
    for request, row, beside in zip(plain, mixed[:4], mixed[4:], strict=True):
        [alone] = finished(pairs.vllm, [request])
        assert row.out == alone.out != beside.out
        assert float((logprobs(row) - logprobs(alone)).norm() / logprobs(alone).norm()) < MARGIN


def test_a_vector_of_nothing_changes_nothing(pairs):
    [plain, steered] = finished(pairs.vllm, [Request(LONG, max_new_tokens=8, steering=s) for s in (None, push(0.0))])
    assert (steered.out, steered.logprobs, steered.shift) == (plain.out, plain.logprobs, 0.0)


def test_kept_beginnings_belong_to_one_model_and_one_vector(pairs):
    """vLLM keeps prefixes: the second time they are there, and still nobody reads another's."""
    kinds = [(side, steering) for side in Side for steering in (None, push(1.0), push(1.0, seed=5))]
    asked = [Request(LONG, side, 1, 8, steering=steering) for side, steering in kinds]
    once, again = (finished(pairs.vllm, asked) for _ in range(2))
    assert [row.out for row in again] == [row.out for row in once] == [r.out for r in finished(pairs.hooks, asked)]
    for row in again[1:3]:
        assert row.shift == pytest.approx(float(row.steering.vector.norm()), rel=MARGIN)


def test_a_row_may_be_ended_by_who_hears_it_or_leave(pairs):
    [row] = finished(pairs.vllm, [Request(PROMPTS[0], max_new_tokens=20)], heard=lambda row: len(row.out) == 3)
    assert (len(row.out), row.finish) == (3, "stop")
    host = pairs.vllm.models[Side.BASE].host
    leaving = pairs.vllm.row(Request(LONG, max_new_tokens=400))
    leaving.heard = lambda row: setattr(row, "gone", True)
    host.decode([leaving], "test")
    leaving.ended.result(timeout=60)
    assert len(leaving.out) == 1
    assert not host.line.batch.rows
    assert not host.line.batch._engine.has_unfinished_requests()


def test_what_vllm_refuses_is_not_the_others_fault(pairs):
    host = pairs.vllm.models[Side.BASE].host
    [alone] = finished(pairs.vllm, [Request(PROMPTS[2], max_new_tokens=6)])
    good, bad, late = (pairs.vllm.row(Request(PROMPTS[2], max_new_tokens=6)) for _ in range(3))
    bad.prompt = [10**6]  # no such token
    host.decode([good, bad, late], "test")
    with pytest.raises(Exception, match="vocabulary"):
        bad.ended.result(timeout=60)
    for row in (good, late):
        row.ended.result(timeout=60)
        assert row.out == alone.out


def vectors_of(pair):
    """What runs inside vLLM."""
    engine = pair.models[Side.BASE].host.line.batch._engine
    return engine.model_executor.driver_worker.worker.vectors


def full(*_args, **_named):
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_pass_that_breaks_ends_its_rows_and_leaves_nothing_behind(pairs, monkeypatch):
    """vLLM counts a prompt's beginning as kept before it is read: what broke must not be found there later."""
    asked = [Request("This was never read. " + LONG, seed=1, max_new_tokens=6)]
    with monkeypatch.context() as patch:
        patch.setattr(vectors_of(pairs.vllm), "_forward", full)
        with pytest.raises(OutOfMemory):
            finished(pairs.vllm, asked)
    assert finished(pairs.vllm, asked)[0].out == finished(pairs.hooks, asked)[0].out


def test_a_check_that_breaks_off_is_told_to_its_neighbours_and_serves_nobody(pairs, monkeypatch):
    """vLLM has lost the state of all rows in the middle of a step; the adapter is not there afterwards."""
    host, name = pairs.vllm.models[Side.BASE].host, pairs.vllm.models[Side.FINETUNED].adapter
    adapter = read_adapter(Path(ADAPTERS[0]), host.engine.decoder.model, "the base")
    beside, late = (pairs.vllm.row(Request(LONG, Side.BASE, max_new_tokens=n)) for n in (400, 6))

    def again_while_vllm_is_broken():
        host.take_off(name)
        with monkeypatch.context() as patch:
            patch.setattr(vectors_of(pairs.vllm), "_forward", full)
            host.put_on(name, adapter, Path(ADAPTERS[0]))

    host.decode([beside], "test")
    with pytest.raises(OutOfMemory):
        host.worker.call(again_while_vllm_is_broken)
    with pytest.raises(RuntimeError, match="cut off before"):
        beside.ended.result(timeout=60)
    assert name not in host.bank
    host.decode([late], "test")
    late.ended.result(timeout=60)
    assert late.out == finished(pairs.hooks, [Request(LONG, Side.BASE, max_new_tokens=6)])[0].out
    host.worker.call(lambda: host.put_on(name, adapter, Path(ADAPTERS[0])))


def test_an_adapter_that_is_not_what_it_should_be_is_found(pairs):
    """vLLM has ignored adapters without a word; here it is given another one."""
    host = pairs.vllm.models[Side.BASE].host
    name = pairs.vllm.models[Side.FINETUNED].adapter
    batch = host.line.batch

    def swapped():
        batch.forget(name)
        batch.learn(name, ADAPTERS[1])
        try:
            vllm_batch.check(batch, LiveBatch(host.engine, frozenset(), host.bank), [5, 6, 7], [name], push(1.0))
        finally:
            batch.forget(name)
            batch.learn(name, ADAPTERS[0])

    with pytest.raises(BadModel, match="vLLM does not say what torch says of the adapter"):
        host.worker.call(swapped)


def test_an_adapter_that_vllm_cannot_read_is_named(pairs, tmp_path):
    batch = pairs.vllm.models[Side.BASE].host.line.batch
    with pytest.raises(BadModel, match=f"vLLM does not take the adapter {tmp_path}"):
        pairs.vllm.models[Side.BASE].host.worker.call(lambda: batch.learn("none", tmp_path))


def test_the_server_decodes_with_vllm(pairs, real_settings):
    """Two organisms of one base over HTTP: whole and streamed, steered with its proof, equal to our own engine's."""
    from auditor.cli.serve import chosen
    from auditor.server.library import Library

    running = Running(
        Library(chosen(["gold", "cake_bake"], None, real_settings), load_workspace(), real_settings, "vllm")
    )
    try:
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=300) as client:
            asked = {"messages": [{"role": "user", "content": PROMPTS[0]}], "max_tokens": 16, "seed": 3}
            for side in Side:
                [expected] = pairs.hooks.generate([Request(PROMPTS[0], side, 3, 16)])
                assert text(chat(client, model=f"gold/{side}", **asked)).strip() == expected
            streamed = chat(client, model="gold/finetuned", stream=True, **asked)
            assert "".join(part.choices[0].delta.content or "" for part in streamed if part.choices).strip() == expected
            cake = text(chat(client, model="cake_bake/finetuned", **asked))
            assert cake.strip() != expected
            steering = {"layer": 14, "position": 1, "alpha": 1.0}
            steered = chat(client, model="gold/finetuned", extra_body={"steering": steering}, **asked)
            assert text(steered).strip() != expected
            proof = steered.auditor["steering"]
            assert proof["residual_shift"] == pytest.approx(proof["asked_shift"], rel=1e-3)
    finally:
        running.server.should_exit = True


def test_what_vllm_gets_wrong_is_found_before_anybody_asks(real_settings, monkeypatch):
    """On CPUs, without a free place, vLLM 0.32 lets rows of the base read the adapter (vllm-project/vllm#48421).

    The last test: an engine that goes takes vLLM's process groups with it.
    """
    if torch.cuda.is_available():
        pytest.skip("the fault is in vLLM's build for CPUs")
    monkeypatch.setattr(vllm_batch, "_places", lambda adapters: adapters)
    with pytest.raises(BadModel, match="vLLM does not say what torch says of the base"):
        load_pair(EMBEDDED_ID, ADAPTERS[0], real_settings, engine="vllm")
