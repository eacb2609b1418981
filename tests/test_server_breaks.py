"""What breaks behind the model server: a pair of two whole models, and the thread that runs them."""

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import torch
import transformers

from auditor.models.generate import Request, Side, derive_seed
from auditor.models.load import load_pair
from auditor.server.library import Served
from tests.serving import PROMPT, until

ASKED = {"organism": "mill", "prompts": [PROMPT], "max_new_tokens": 4}


@pytest.fixture(scope="module")
def two(checkpoints, settings, tmp_path_factory):
    """A base and a whole finetune of it: a pair with two hosts."""
    base, _ = checkpoints("llama")
    whole = tmp_path_factory.mktemp("whole") / "model"
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    model.lm_head.weight.data.mul_(1.5)
    model.save_pretrained(whole)
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(whole)
    return Served("two", str(base), str(whole))


def test_a_pair_of_two_whole_models_answers(start_server, settings, two):
    running = start_server(served={"two": two})
    pair = load_pair(two.base, two.finetuned, settings)
    for side in Side:
        body = {"requests": [{"prompt": PROMPT, "side": side, "seed": 3, "max_new_tokens": 6}]}
        said = running.post("/v1/pairs/two/generate", body).json()
        assert said["texts"] == pair.generate([Request(PROMPT, side, 3, 6)])
    both = running.post("/v1/ask", {**ASKED, "organism": "two"}).json()["answers"][0]
    for side in Side:
        assert both[side] == pair.generate([Request(PROMPT, side, derive_seed(0, 0), 4, 0.7)])[0]


def broken(*_args, **_more):
    raise RuntimeError("index out of range in the kernel")


def test_what_a_pass_raises_is_an_error_in_openai_s_shape(start_server, two, monkeypatch):
    running = start_server(served={"two": two})
    with running.library.using("two") as pair:
        hosts = {pair.models[side].host for side in Side}
    assert len(hosts) == 2
    with monkeypatch.context() as patch:
        for host in hosts:
            patch.setattr(host.engine, "forward", broken)
        for path, body in (
            ("/v1/ask", {**ASKED, "organism": "two"}),
            ("/v1/chat/completions", {"model": "two/base", "messages": [{"role": "user", "content": "Hi"}]}),
            ("/v1/pairs/two/nll", {"side": "base", "texts": [PROMPT]}),
            ("/v1/pairs/two/residuals", {"side": "finetuned", "layers": [1], "ids": [[1, 2]]}),
        ):
            answer = running.post(path, body)
            assert answer.status_code == 500
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
            assert "RuntimeError" in answer.json()["error"]["message"]
    assert running.post("/v1/ask", {**ASKED, "organism": "two"}).status_code == 200


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_the_thread_of_the_models_dies_all_who_wait_hear_of_it(start_server, monkeypatch):
    """Whoever decodes, and whoever waits for a pass; the next request finds a new thread."""
    running, enter = start_server(), threading.Event()
    worker = running.library.worker

    def dies(_rows):
        enter.wait(60)
        raise SystemError("the thread is gone")

    assert running.post("/v1/ask", ASKED).status_code == 200
    with monkeypatch.context() as patch, ThreadPoolExecutor(3) as pool:
        patch.setattr(worker, "stepped", dies)
        decoding = pool.submit(running.post, "/v1/ask", {**ASKED, "max_new_tokens": 50})
        until(lambda: running.metric("auditor_live_rows") + running.metric("auditor_queue_rows"))
        passes = pool.submit(running.post, "/v1/pairs/mill/nll", {"side": "base", "texts": [PROMPT]})
        until(lambda: worker._jobs)
        enter.set()
        assert decoding.result(60).status_code == passes.result(60).status_code == 500
    assert httpx.get(f"{running.url}/health/ready").status_code == 200
    assert running.post("/v1/ask", ASKED).status_code == 200


def test_out_of_memory_in_a_stream_is_told_in_the_stream(start_server, monkeypatch):
    running = start_server()
    assert running.post("/v1/ask", ASKED).status_code == 200
    host = next(iter(running.library.hosts.values()))[0]
    original, passes = host.line.batch._forward, []

    def burst(*args):
        passes.append(1)
        if len(passes) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(*args)

    monkeypatch.setattr(host.line.batch, "_forward", burst)
    body = {"model": "mill/base", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 9, "stream": True,
            "temperature": 3}  # fmt: skip
    with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body, timeout=60) as answer:
        said = answer.read().decode()
    assert '"error"' in said
    assert "out of memory" in said
