"""The model server over real HTTP: any OpenAI client, steering with proof, errors in one shape."""

import json
import threading
import time

import httpx
import openai
import pytest
import torch
import uvicorn
from langchain_openai import ChatOpenAI
from safetensors.torch import load

from auditor.errors import UsageError
from auditor.models.generate import Request, Side, Steering, derive_seed
from auditor.models.load import load_pair
from auditor.models.remote import connect
from auditor.server.app import create_app
from auditor.server.library import Library, Served
from auditor.server.metrics import Metrics
from auditor.server.run import read_key
from auditor.server.serving import Serving
from auditor.workspace import load_workspace
from tests.conftest import LAYERS, SENTENCES, WIDTH

PROMPT = SENTENCES[0]
EVIDENCE = json.dumps({
    "texts": 16, "norm_texts": 8, "norm_tokens": 8, "positions": 3,
    "patchscope": {"scales": [1, 3], "keep": 8, "common_top": 100},
    "steering": {"positions": 1, "prompts": 2, "samples": 1, "max_new_tokens": 4, "calibration": {
        "upper": 2, "iterations": 1, "more_iterations": 1, "generations": 2, "max_new_tokens": 4}},
})  # fmt: skip


class Running:
    """A server in a thread of this process."""

    def __init__(self, library, key=None):
        self.library, self.serving = library, Serving(library, Metrics(library))
        self.app = create_app(self.serving, key)
        config = uvicorn.Config(self.app, "127.0.0.1", 0, log_config=None, lifespan="off")
        self.server = uvicorn.Server(config)
        threading.Thread(target=self.server.run, daemon=True).start()
        while not self.server.started:
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    def post(self, path, body, **headers):
        return httpx.post(self.url + path, json=body, headers=headers, timeout=60)

    def metric(self, name):
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name) and line[0] != "#")


@pytest.fixture(scope="module")
def start(checkpoints, settings, tmp_path_factory):
    """A function that starts a server of two organisms on one base, `mill` with an adapter and `same` without."""
    base, adapter = map(str, checkpoints("llama"))
    corpus = tmp_path_factory.mktemp("ws")
    (corpus / "auditor.toml").touch()
    suite = corpus / "evals/suites/quickstart.yaml"
    suite.parent.mkdir(parents=True)
    suite.write_text("name: quickstart\norganisms: []\nagents: [adl]\nbudgets: [0]\nrepeats: 1\n"
                     f"evidence: {EVIDENCE}\n")  # fmt: skip
    workspace, started = load_workspace(corpus), []

    def make(key=None, served=None):
        pairs = served or {"mill": Served("mill", base, adapter), "mill2": Served("mill2", base, adapter)}
        started.append(Running(Library(pairs, workspace, settings), key))
        return started[-1]

    yield make
    for running in started:
        running.server.should_exit = True


@pytest.fixture(scope="module")
def served(start):
    return start()


@pytest.fixture(scope="module")
def local(checkpoints, settings):
    return load_pair(*map(str, checkpoints("llama")), settings)


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def chat(client, **more):
    asked = {"model": "mill/finetuned", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 12, "seed": 4}
    return client.chat.completions.create(**asked | more)


def text(answer):
    return answer.choices[0].message.content


class TestOpenAI:
    def test_models_are_listed(self, client):
        assert [model.id for model in client.models.list()][:2] == ["mill/base", "mill/finetuned"]
        assert client.models.retrieve("mill/base").id == "mill/base"

    @pytest.mark.parametrize("side", Side)
    def test_a_seed_gives_the_text_that_it_gives_in_process(self, client, local, side):
        answer = chat(client, model=f"mill/{side}", temperature=0.8, top_p=0.9)
        assert text(answer) == local.generate([Request(PROMPT, side, 4, 12, 0.8, 0.9)])[0]
        assert answer.usage.prompt_tokens == len(local.row(Request(PROMPT)).prompt)
        assert answer.choices[0].finish_reason in ("stop", "length")

    def test_n_choices_are_different_and_repeatable(self, client):
        said = [choice.message.content for choice in chat(client, n=4).choices]
        assert said == [choice.message.content for choice in chat(client, n=4).choices]
        assert len(set(said)) > 1
        assert chat(client, n=1).choices[0].message.content == said[0]

    @pytest.mark.parametrize("more", [{}, {"stop": ["e", " the"]}, {"n": 3}], ids=["plain", "stop", "three"])
    def test_a_stream_says_what_the_whole_answer_says(self, client, more):
        whole = [choice.message.content for choice in chat(client, **more).choices]
        streamed = dict.fromkeys(range(len(whole)), "")
        reasons, usage = {}, None
        for chunk in chat(client, stream=True, stream_options={"include_usage": True}, **more):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                streamed[choice.index] += choice.delta.content or ""
                reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
        assert list(streamed.values()) == whole
        assert set(reasons.values()) <= {"stop", "length"}
        assert usage.completion_tokens > 0

    def test_a_stop_text_ends_the_answer_before_it(self, client):
        whole = text(chat(client))
        stop = whole[4:6]
        assert text(chat(client, stop=stop)) == whole[: whole.find(stop)].rstrip()

    def test_logprobs_are_those_of_the_model(self, client, local):
        answer = chat(client, logprobs=True, top_logprobs=3, temperature=0, messages=[{"role": "user", "content": "A"}])
        token = answer.choices[0].logprobs.content[0]
        ids = torch.tensor([local.row(Request("A")).prompt])
        last = local.residuals(Side.FINETUNED, ids, [LAYERS - 1])[LAYERS - 1][0, -1:]
        expected = torch.log_softmax(local.unembed(Side.FINETUNED, last)[0], -1).sort(descending=True).values
        assert token.logprob == pytest.approx(float(expected[0]), abs=1e-5)
        assert [top.logprob for top in token.top_logprobs] == pytest.approx(expected[:3].tolist(), abs=1e-5)

    def test_a_begun_answer_is_gone_on_with(self, client, local):
        messages = [{"role": "system", "content": "Be old."}, {"role": "user", "content": "Hi."},
                    {"role": "assistant", "content": "Well"}]  # fmt: skip
        asked = Request("Hi.", Side.FINETUNED, 4, 12, system="Be old.", prefill="Well")
        assert text(chat(client, messages=messages)) == local.generate([asked])[0]

    def test_langchain_talks_to_it(self, served, local):
        model = ChatOpenAI(
            model="mill/base", base_url=f"{served.url}/v1", api_key="none", temperature=0.5, seed=4, max_tokens=9
        )
        expected = local.generate([Request(PROMPT, Side.BASE, 4, 9, 0.5)])[0]
        assert model.invoke(PROMPT).content == expected
        assert "".join(part.content for part in model.stream(PROMPT)) == expected

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            ({"model": "mil/base"}, "did you mean mill"),
            ({"model": "mill"}, "no model called"),
            ({"messages": []}, "messages"),
            ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
            ({"frequency_penalty": 0.5}, "frequency_penalty"),
            ({"temperature": -1}, "temperature"),
            ({"top_logprobs": 3}, "top_logprobs needs logprobs"),
            ({"stop": ""}, "stop"),
            ({"stop": ["x" * 300]}, "stop"),
            ({"n": 129}, "n:"),
            ({"messages": [{"role": "user", "content": "x" * 100_000}]}, "characters"),
            ({"messages": [{"role": "developer", "content": "x"}]}, "the last message"),
            ({"extra_body": {"steerring": {"layer": 1}}}, "steerring: Extra inputs"),
            ({"messages": [{"role": "user", "content": "word " * 600}]}, "may have 512 together"),
        ],
    )
    def test_what_is_wrong_is_said_in_one_line(self, client, more, said):
        with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as refused:
            chat(client, **more)
        body = refused.value.response.json()["error"]
        assert said in body["message"]
        assert "\n" not in body["message"]
        assert body["type"] == "invalid_request_error"


class TestSteering:
    push = {"layer": 2, "position": 1, "alpha": 3.0}  # noqa: RUF012

    def test_each_answer_carries_its_proof(self, client, served, local):
        answer = chat(client, extra_body={"steering": self.push})
        proof = answer.auditor["steering"]
        direction = served.library.direction("mill", 2, 1)
        expected = local.generate([Request(PROMPT, Side.FINETUNED, 4, 12, steering=direction.steering(3.0))])[0]
        assert text(answer) == expected != text(chat(client))
        assert proof["residual_shift"] == pytest.approx(proof["asked_shift"], rel=1e-5)
        assert proof["asked_shift"] == pytest.approx(3 * direction.eta, rel=1e-5)
        other = chat(client, extra_body={"steering": {**self.push, "position": 2}}).auditor["steering"]
        assert len(proof["vector_sha256"]) == 64
        assert proof["vector_sha256"] != other["vector_sha256"]

    def test_no_strength_is_no_steering(self, client):
        plain, nothing = chat(client), chat(client, extra_body={"steering": {**self.push, "alpha": 0}})
        assert text(nothing) == text(plain)
        assert nothing.auditor["steering"]["residual_shift"] == 0

    def test_a_stream_ends_with_the_proof(self, client):
        chunks = list(chat(client, stream=True, extra_body={"steering": self.push}))
        assert chunks[-1].auditor["steering"]["residual_shift"] > 0

    @pytest.mark.parametrize(
        "push",
        [
            "hard", {}, {"layer": 2, "position": 1}, {**push, "alpha": "x"}, {**push, "alpha": 1e9},
            {**push, "layer": 9},
            {**push, "position": 3}, {**push, "layer": -1}, {**push, "layer": 1.5}, {**push, "vector": [1]},
        ],
    )  # fmt: skip
    def test_a_malformed_push_is_refused(self, served, push):
        body = {"model": "mill/base", "messages": [{"role": "user", "content": "Hi"}], "steering": push}
        assert served.post("/v1/chat/completions", body).status_code == 400

    def test_steer_route(self, served, local):
        body = {
            "organism": "mill",
            "prompts": [PROMPT, "A"],
            "n": 2,
            "steering": self.push,
            "max_new_tokens": 8,
            "seed": 1,
        }
        answers = served.post("/v1/steer", body).json()["answers"]
        steering = served.library.direction("mill", 2, 1).steering(3.0)
        asked = [Request(p, Side.FINETUNED, derive_seed(1, i, j), 8, 0.7, steering=steering)
                 for i, p in enumerate([PROMPT, "A"]) for j in range(2)]  # fmt: skip
        assert [t for answer in answers for t in answer["texts"]] == local.generate(asked)
        assert all(answer["steering"]["residual_shift"] > 0 for answer in answers)


def test_ask_gives_both_models_answers(served, local):
    said = served.post("/v1/ask", {"organism": "mill", "prompts": [PROMPT], "seed": 3, "max_new_tokens": 9}).json()
    asked = [Request(PROMPT, side, derive_seed(3, 0), 9, 0.7) for side in Side]
    assert [said["answers"][0][side] for side in Side] == local.generate(asked)


def test_evidence_route_gives_the_sheet_and_its_directions(served):
    sheet = httpx.get(f"{served.url}/v1/evidence/mill", timeout=120).json()
    deltas = load(httpx.get(f"{served.url}/v1/evidence/mill/deltas", timeout=120).content)
    assert sheet["pair"] == "mill"
    assert {int(layer) for layer in deltas} == {layer["layer"] for layer in sheet["layers"]}
    middle = sheet["middle_layer"]
    assert torch.equal(deltas[str(middle)][1], served.library.direction("mill", middle, 1).delta)
    assert httpx.get(f"{served.url}/v1/evidence/nothing").status_code == 404


class TestRemotePair:
    @pytest.fixture(scope="class")
    def remote(self, served, settings):
        return connect(served.url, "mill", settings)

    def test_it_is_the_same_pair(self, remote, local):
        for name in ("fingerprint", "dtype", "n_layers", "d_model", "note"):
            assert getattr(remote, name) == getattr(local, name)
        assert remote.tokenizer(PROMPT).input_ids == local.tokenizer(PROMPT).input_ids
        assert remote.tokenizer.chat_template == local.tokenizer.chat_template

    def test_texts_are_the_same(self, remote, local):
        push = Steering(1, torch.randn(WIDTH, generator=torch.Generator().manual_seed(0)))
        asked = [
            Request(p, side, i, 8 + i, 0.9, 0.95, i % 2 == 0, None if i % 3 else push, "Be old." if i else "")
            for i, p in enumerate(SENTENCES) for side in Side
        ]  # fmt: skip
        assert remote.generate(asked) == local.generate(asked)

    def test_tensors_are_the_same(self, remote, local):
        ids = torch.tensor([local.tokenizer(PROMPT).input_ids[:6]] * 3)
        vectors = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1))
        rows, learned = [[5, 6, 7, 8], [9, 8, 7]], [[False, True, True, True], [True, True, False]]
        for side in Side:
            theirs, ours = (pair.residuals(side, ids, [0, 2]) for pair in (remote, local))
            assert all(torch.equal(theirs[layer], ours[layer]) for layer in (0, 2))
            assert torch.equal(remote.unembed(side, vectors), local.unembed(side, vectors))
            theirs, ours = (list(pair.patched_logits(side, ["a → a\n?", "b?"], 1, vectors)) for pair in (remote, local))
            assert all(torch.equal(a, b) for x, y in zip(theirs, ours, strict=True) for a, b in zip(x, y, strict=True))
            assert remote.mean_nll(side, [*SENTENCES, "x"]) == local.mean_nll(side, [*SENTENCES, "x"])
            theirs, ours = (pair.swapped_nll(side, rows, learned, 1, vectors) for pair in (remote, local))
            assert all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))

    @pytest.mark.parametrize(
        ("method", "body"),
        [
            ("residuals", {"side": "base", "layers": [99], "ids": [[1, 2]]}),
            ("residuals", {"side": "base", "layers": [1], "ids": [[1, 1 << 40]]}),
            ("residuals", {"side": "base", "layers": [1], "ids": [[1], [1, 2]]}),
            ("unembed", {"side": "base", "vectors": {"shape": [1, WIDTH + 1], "data": "AAAA" * (WIDTH + 1)}}),
            ("unembed", {"side": "base", "vectors": {"shape": [1, WIDTH], "data": "not base64!"}}),
            ("residuals", {"side": "base", "layers": [1], "ids": [[1] * 600]}),
            (
                "patched",
                {
                    "side": "base",
                    "layer": 1,
                    "prompts": [""],
                    "vectors": {"shape": [1, WIDTH], "data": "AAAA" * (WIDTH * 4 // 3) + "AAA="},
                },
            ),
            ("generate", {"requests": [{"prompt": "a"}] * 1025}),
            ("generate", {"requests": [{"prompt": "a", "steering": 0}]}),
            ("generate", {"requests": [{"prompt": "a", "max_new_tokens": 10**9}]}),
            ("nll", {"side": "third", "texts": ["a"]}),
        ],
    )
    def test_malformed_bodies_are_refused(self, served, method, body):
        assert served.post(f"/v1/pairs/mill/{method}", body).status_code == 400

    def test_no_server_is_one_clear_line(self, settings):
        with pytest.raises(UsageError, match="no model server answers"):
            connect("http://127.0.0.1:9", "mill", settings)
        with pytest.raises(UsageError, match="give its address"):
            connect("localhost:8000", "mill", settings)

    def test_an_unknown_organism_is_named(self, served, settings):
        with pytest.raises(UsageError, match="did you mean mill"):
            connect(served.url, "mil", settings)


class TestOperations:
    def test_a_client_that_leaves_stops_its_work(self, served, client):
        """Streaming or not: soon nobody decodes for it."""
        body = {"model": "mill/base", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 400, "n": 8,
                "temperature": 5}  # fmt: skip
        url, before = f"{served.url}/v1/chat/completions", served.metric("auditor_generated_tokens_total")
        for stream in (True, False):
            if stream:
                with httpx.stream("POST", url, json={**body, "stream": True}, timeout=60) as answer:
                    next(answer.iter_bytes())
            else:
                with pytest.raises(httpx.ReadTimeout):
                    httpx.post(url, json=body, timeout=0.2)
            deadline = time.monotonic() + 20
            while served.metric("auditor_live_rows") + served.metric("auditor_queue_rows"):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert served.metric("auditor_generated_tokens_total") - before < 8 * 400

    def test_a_full_queue_says_when_to_come_again(self, served, monkeypatch):
        monkeypatch.setattr("auditor.server.jobs.MOST_WAITING", 80)
        monkeypatch.setattr("auditor.models.worker.ROWS", 1)
        body = {"organism": "mill", "prompts": ["a"] * 40, "max_new_tokens": 60}
        waiting = threading.Thread(target=served.post, args=("/v1/ask", body))
        waiting.start()
        while served.metric("auditor_queue_rows") == 0:
            time.sleep(0.01)
        refused = served.post("/v1/ask", body)
        waiting.join()
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "queue_full"

    def test_what_one_row_breaks_is_not_the_others_fault(self, served, client, monkeypatch):
        """Rows that were to join together join one by one if that fails."""
        host = next(iter(served.library.hosts.values()))[0]
        original = host.line.batch._prefill

        def picky(rows):
            if any(row.sampling.seed == 666 for row in rows):
                raise IndexError("index out of range")
            return original(rows)

        monkeypatch.setattr(host.line.batch, "_prefill", picky)
        alone = text(chat(client, seed=5))
        pair = served.library._pairs["mill"]
        rows = [pair.row(Request(p, seed=seed, max_new_tokens=12)) for p, seed in ((PROMPT, 5), ("A", 666))]
        host.worker.call(lambda: host.decode(rows, "both"))
        assert pair.text(rows[0].ended.result(60) or rows[0].out) == alone
        with pytest.raises(IndexError):
            rows[1].ended.result(60)

    def test_models_that_are_being_loaded_are_a_503(self, start):
        running = start()
        running.serving.ready = False
        refused = running.post("/v1/ask", {"organism": "mill", "prompts": ["x"]})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert httpx.get(f"{running.url}/health/ready").status_code == 503
        assert httpx.get(f"{running.url}/health/live").status_code == 200

    def test_out_of_memory_is_told_and_survived(self, served, client, monkeypatch):
        host = next(iter(served.library.hosts.values()))[0]

        def burst(*_args):
            raise torch.OutOfMemoryError("CUDA out of memory")

        with monkeypatch.context() as patch:
            patch.setattr(host.line.batch, "_prefill", burst)
            with pytest.raises(openai.InternalServerError, match="out of memory") as told:
                chat(client)
        assert told.value.status_code == 503
        assert text(chat(client))

    def test_metrics_count_what_happens(self, served, client):
        before = served.metric("auditor_generated_tokens_total")
        answer = chat(client)
        assert served.metric("auditor_generated_tokens_total") - before >= answer.usage.completion_tokens
        for name in ("auditor_batch_rows_count", "auditor_request_seconds_count", "process_resident_memory_bytes"):
            assert served.metric(name) > 0

    def test_no_prompt_is_logged_unless_asked(self, served, client, caplog):
        with caplog.at_level("INFO", "auditor.server"):
            chat(client, messages=[{"role": "user", "content": "canary"}])
            for _ in range(500):  # it is written after the answer
                if caplog.records:
                    break
                time.sleep(0.01)
        assert caplog.records
        assert "canary" not in json.dumps([record.fields for record in caplog.records])

    def test_organisms_of_one_base_share_its_weights(self, start, checkpoints, settings):
        base, adapter = map(str, checkpoints("llama"))
        running = start(served={name: Served(name, base, adapter) for name in ("a", "b", "c")})
        for name in ("a", "b", "c"):
            assert running.post("/v1/ask", {"organism": name, "prompts": ["x"], "max_new_tokens": 2}).status_code == 200
        assert len(running.library.hosts) == 1

    def test_adapters_make_room_for_one_another(self, start, checkpoints, settings, tmp_path, monkeypatch, local):
        """With room for one, each organism still answers as itself; one that is in use is not taken away."""
        base, adapter = checkpoints("llama")
        other = tmp_path / "other"
        other.mkdir()
        for file in adapter.iterdir():
            (other / file.name).write_bytes(file.read_bytes())
        config = json.loads((other / "adapter_config.json").read_text())
        (other / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 32}))
        monkeypatch.setattr("auditor.server.library.ADAPTER_SHARE", 0.0)
        running = start(
            served={"mill": Served("mill", str(base), str(adapter)), "other": Served("other", str(base), str(other))}
        )
        library = running.library
        pairs = {"mill": local, "other": load_pair(str(base), str(other), settings)}
        for name in ("mill", "other", "mill"):
            said = running.post("/v1/ask", {"organism": name, "prompts": [PROMPT], "max_new_tokens": 8}).json()
            asked = [Request(PROMPT, side, derive_seed(0, 0), 8, 0.7) for side in Side]
            assert [said["answers"][0][side] for side in Side] == pairs[name].generate(asked)
            assert library.loaded == [name]
        with library.using("mill"):
            assert running.post("/v1/ask", {"organism": "other", "prompts": ["x"]}).status_code == 503


class TestSecurity:
    KEY = "a-key-of-enough-characters"

    def test_every_route_but_health_demands_the_key(self, start):
        running = start(key=self.KEY)
        app = running.app._app
        routes = [(route.path, method) for route in app.routes for method in route.methods or ()]
        assert len(routes) > 20
        for path, method in routes:
            url = running.url + path.replace("{organism}", "mill").replace("{name}", "mill").replace("{side}", "base")
            is_open = path.startswith("/health")
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {self.KEY}"}):
                status = httpx.request(method, url, headers=headers).status_code
                assert (status != 401) is is_open, (method, path, status)
        assert httpx.get(f"{running.url}/v1/models", headers={"authorization": f"Bearer {self.KEY}"}).status_code == 200
        assert httpx.get(f"{running.url}/v1/no-such-route").status_code == 401

    def test_the_remote_pair_sends_the_key(self, start, settings, monkeypatch):
        running = start(key=self.KEY)
        with pytest.raises(UsageError, match="AUDITOR_API_KEY"):
            connect(running.url, "mill", settings)
        monkeypatch.setenv("AUDITOR_API_KEY", self.KEY)
        assert connect(running.url, "mill", settings).name == "mill"

    def test_other_hosts_need_a_key(self, tmp_path):
        assert read_key(None, None, "127.0.0.1") is None
        with pytest.raises(UsageError, match="--api-key-file or AUDITOR_API_KEY"):
            read_key(None, None, "0.0.0.0")
        with pytest.raises(UsageError, match="16 or more"):
            read_key(None, "short", "127.0.0.1")
        (tmp_path / "key").write_text(self.KEY + "\n")
        assert read_key(tmp_path / "key", None, "0.0.0.0") == self.KEY

    def test_without_a_key_a_foreign_host_name_is_refused(self, served):
        assert httpx.get(f"{served.url}/v1/models", headers={"host": "evil.example:80"}).status_code == 403
        for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
            assert httpx.get(f"{served.url}/v1/models", headers={"host": host}).status_code == 200

    def test_too_long_a_body_is_refused(self, served, monkeypatch):
        monkeypatch.setattr("auditor.server.guard.MOST_BYTES", 1000)
        assert served.post("/v1/ask", {"organism": "mill", "prompts": ["x" * 2000]}).status_code == 413
        chunks = iter([b'{"organism": "mill", "prompts": ["', b"x" * 2000, b'"]}'])
        sent = httpx.post(f"{served.url}/v1/ask", content=chunks, headers={"content-type": "application/json"})
        assert sent.status_code == 400


def test_the_openapi_page_describes_every_route(served):
    described = httpx.get(f"{served.url}/openapi.json").json()
    assert {"/v1/chat/completions", "/v1/steer", "/v1/evidence/{organism}", "/metrics"} <= set(described["paths"])
    assert "alpha" in described["components"]["schemas"]["Push"]["properties"]
    assert httpx.get(f"{served.url}/docs").status_code == 200
