"""The model server day by day: leaving clients, full queues, lost memory, keys, limits."""

import json
import threading
import time

import httpx
import openai
import pytest
import torch

from auditor.errors import UsageError
from auditor.models import local
from auditor.models.generate import Amplification, Request, Side, derive_seed
from auditor.models.load import load_pair
from auditor.models.remote import connect
from auditor.models.wire import Generate
from auditor.server.bodies import demand_few_keys
from auditor.server.jobs import MOST_WAITING
from auditor.server.library import Served
from auditor.server.run import read_key
from tests.serving import PROMPT, chat, text, until


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
            until(lambda: not served.metric("auditor_live_rows") + served.metric("auditor_queue_rows"))
        assert served.metric("auditor_generated_tokens_total") - before < 8 * 400

    def test_forward_passes_for_a_client_that_leaves_are_not_begun(self, served, monkeypatch):
        """Not only texts: a lens from afar that is interrupted leaves no pile of work behind."""
        passes, original = [], local.token_nll

        def slow(*args, **more):
            passes.append(time.sleep(0.1))
            return original(*args, **more)

        monkeypatch.setattr(local, "token_nll", slow)
        asked = {"side": "base", "texts": [PROMPT] * 40 * local.TEXTS_PER_BATCH}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{served.url}/v1/pairs/mill/nll", json=asked, timeout=0.3)
        time.sleep(0.5)
        begun = len(passes)
        time.sleep(0.5)
        assert 0 < begun == len(passes) < 40

    def test_a_full_queue_says_when_to_come_again(self, served, monkeypatch):
        monkeypatch.setattr("auditor.server.jobs.MOST_WAITING", 80)
        monkeypatch.setattr("auditor.models.worker.ROWS", 1)
        body = {"organism": "mill", "prompts": ["a"] * 40, "max_new_tokens": 60}
        waiting = threading.Thread(target=served.post, args=("/v1/ask", body))
        waiting.start()
        until(lambda: served.metric("auditor_queue_rows"))
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

    def test_models_that_are_being_loaded_are_a_503(self, start_server):
        running = start_server()
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
            until(lambda: caplog.records)  # it is written after the answer
        assert "canary" not in json.dumps([record.fields for record in caplog.records])

    def test_organisms_of_one_base_share_its_weights(self, start_server, checkpoints, settings):
        base, adapter = map(str, checkpoints("llama"))
        running = start_server(served={name: Served(name, base, adapter) for name in ("a", "b", "c")})
        for name in ("a", "b", "c"):
            assert running.post("/v1/ask", {"organism": name, "prompts": ["x"], "max_new_tokens": 2}).status_code == 200
        assert len(running.library.hosts) == 1

    def test_adapters_make_room_for_one_another(self, start_server, checkpoints, settings, tmp_path, monkeypatch, tiny):
        """With room for one, each organism still answers as itself; one that is in use is not taken away."""
        base, adapter = checkpoints("llama")
        other = tmp_path / "other"
        other.mkdir()
        for file in adapter.iterdir():
            (other / file.name).write_bytes(file.read_bytes())
        config = json.loads((other / "adapter_config.json").read_text())
        (other / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 32}))
        monkeypatch.setattr("auditor.server.library.ADAPTER_SHARE", 0.0)
        running = start_server(
            served={"mill": Served("mill", str(base), str(adapter)), "other": Served("other", str(base), str(other))}
        )
        library = running.library
        pairs = {"mill": tiny, "other": load_pair(str(base), str(other), settings)}
        for name in ("mill", "other", "mill"):
            said = running.post("/v1/ask", {"organism": name, "prompts": [PROMPT], "max_new_tokens": 8}).json()
            asked = [Request(PROMPT, side, derive_seed(0, 0), 8, 0.7) for side in Side]
            assert [said["answers"][0][side] for side in Side] == pairs[name].generate(asked)
            assert library.loaded == [name]
        with library.using("mill"):
            assert running.post("/v1/ask", {"organism": "other", "prompts": ["x"]}).status_code == 503


class TestSecurity:
    KEY = "a-key-of-enough-characters"

    def test_every_route_demands_the_key_but_health_and_the_description(self, start_server):
        running = start_server(key=self.KEY)
        app = running.app._app
        routes = [(route.path, method) for route in app.routes for method in route.methods or ()]
        assert len(routes) > 20
        for path, method in routes:
            url = running.url + path.replace("{organism}", "mill").replace("{name}", "mill").replace("{side}", "base")
            is_open = path.startswith("/health") or path in ("/docs", "/openapi.json")
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {self.KEY}"}):
                status = httpx.request(method, url, headers=headers).status_code
                assert (status != 401) is is_open, (method, path, status)
        assert httpx.get(f"{running.url}/v1/models", headers={"authorization": f"Bearer {self.KEY}"}).status_code == 200
        assert httpx.get(f"{running.url}/v1/no-such-route").status_code == 401

    def test_the_remote_pair_sends_the_key(self, start_server, settings, monkeypatch):
        running = start_server(key=self.KEY)
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
        for written in (b"", b"\n", b"two words of a key", b"\xff\xfe\x00" * 9):
            (tmp_path / "key").write_bytes(written)
            with pytest.raises(UsageError, match=r"--api-key-file .*key: "):
                read_key(tmp_path / "key", None, "127.0.0.1")
        assert read_key(None, "", "127.0.0.1") is None
        assert read_key(None, self.KEY + "\n", "0.0.0.0") == self.KEY
        (tmp_path / "key").write_text(self.KEY + "\r\n")
        assert read_key(tmp_path / "key", None, "0.0.0.0") == self.KEY

    def test_without_a_key_a_foreign_host_name_is_refused(self, served):
        assert httpx.get(f"{served.url}/v1/models", headers={"host": "evil.example:80"}).status_code == 403
        assert httpx.get(f"{served.url}/v1/models", headers={"host": "[::1"}).status_code == 403
        for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
            assert httpx.get(f"{served.url}/v1/models", headers={"host": host}).status_code == 200

    def test_too_long_a_body_is_refused(self, served, monkeypatch):
        """Whether it says how long it is or not, whatever is wrong with it besides, and before it is read."""
        body = b'{"organism": "mill", "prompts": ["' + b"x" * 2000 + b'"]}'
        for limit in ("auditor.server.guard.MOST_BYTES", "auditor.models.wire.Body.most_bytes"):
            for content in (body, iter([body[:1000], body[1000:]]), body[:-1]):
                with monkeypatch.context() as patch:
                    patch.setattr(limit, 1000)
                    headers = {"content-type": "application/json"}
                    refused = httpx.post(f"{served.url}/v1/ask", content=content, headers=headers)
                assert refused.status_code == 413
                assert refused.json()["error"]["code"] == "body_too_long"

    def test_what_is_wrong_many_times_is_told_once(self, served):
        """A report on each of a million wrong ids would keep the server from all others for half a minute."""
        for body in ({"ids": [["x"] * 1000]}, {"ids": [[1, "x"] * 1000]}):
            refused = served.post("/v1/pairs/mill/residuals", {"side": "base", "layers": [1], **body})
            assert "ids.0." in refused.json()["error"]["message"]
            assert "more)" not in refused.json()["error"]["message"]
        parts = [{"type": "text"}] * 1000
        refused = served.post("/v1/chat/completions", {
            "model": "mill/base", "messages": [{"role": "user", "content": parts}]})  # fmt: skip
        assert refused.status_code == 400
        assert "(and 1 more)" in refused.json()["error"]["message"]  # it is no string either

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("pairs/mill/nll", {"side": "base", "texts": ["a"], **{f"k{i}": 1 for i in range(5_000)}}),
            ("pairs/mill/generate", {"requests": [{f"k{i}": 1 for i in range(500)}] * 100}),
            ("chat/completions", {"model": "mill/base", "logit_bias": {f"k{i}": "x" for i in range(20_000)}}),
        ],
    )
    def test_a_body_of_too_many_keys_is_refused_unread(self, served, path, body):
        """A report on each of a million unknown ones would keep the server from all others for seconds."""
        refused = served.post(f"/v1/{path}", body)
        assert (refused.status_code, "keys" in refused.json()["error"]["message"]) == (400, True)

    @pytest.mark.parametrize(
        ("text", "keys"),
        [
            ('{"a": 1, "b" : {"c\\\\": [{"d":": \\":"}]}}', 4),
            ('["a", "b:", ":", {"c": "d:"}]', 1),
            ('{"a": "' + "x: " * 99 + '"}', 1),
            ('{"a": "\\": \\": \\"', 1),
            ("", 0),
        ],
    )
    def test_keys_are_counted_outside_of_texts(self, text, keys):
        demand_few_keys(text.encode(), keys)
        if keys:
            with pytest.raises(UsageError, match="over"):
                demand_few_keys(text.encode(), keys - 1)

    def test_as_many_requests_as_may_be_made_have_room(self):
        asked = Request("a", system="b", prefill="c", amplify=Amplification(1.0))
        body = Generate.of([asked] * MOST_WAITING).model_dump_json().encode()
        demand_few_keys(body, Generate.most_keys)

    def test_only_json_is_read(self, served):
        """What a web page may send without asking is none."""
        body = b'{"organism": "mill", "prompts": ["x"]}'
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            refused = httpx.post(f"{served.url}/v1/ask", content=body, headers={"content-type": kind})
            assert refused.status_code == 400
        broken = httpx.post(f"{served.url}/v1/ask", content=body[:-1], headers={"content-type": "application/json"})
        assert broken.status_code == 400
        assert "JSON" in broken.json()["error"]["message"]
