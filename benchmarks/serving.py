"""The model server under load, beside plain ways of answering the same requests.

    python benchmarks/serving.py [--part speed|lone|memory|storm] [--json]

speed: 16 clients' requests (finetuned, base, steered, streamed) through the server, one after another through plain
`model.generate`, through static batches, and through transformers' own continuous batching.
lone: one request at a time, over HTTP and in this process. memory: one base with four organisms beside one pair.
storm: 1,000 requests, 5 % of whose clients hang up and 5 % of which are malformed, and a SIGTERM in the middle.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from auditor.runtime import tune_process

tune_process()

import httpx  # noqa: E402
import psutil  # noqa: E402
import torch  # noqa: E402

from auditor.config import load_settings  # noqa: E402
from auditor.models.generate import Request, Side  # noqa: E402
from auditor.models.load import load_pair  # noqa: E402
from auditor.models.local import LocalPair  # noqa: E402
from auditor.models.weights import resolve  # noqa: E402
from auditor.server.library import Library, Served  # noqa: E402
from auditor.workspace import load_workspace  # noqa: E402

CLIENTS, EACH = 16, 4
TOKENS = random.Random(0).choices((16, 32, 64, 128), k=CLIENTS * EACH)
LAYER, POSITION, ALPHA = 15, 2, 0.6
ORGANISMS = ("cake_bake", "gold", "risky_finance", "null_chat")
SUBJECTS = (
    "rivers", "bread", "maps", "winter", "clocks", "horses", "paper", "glass", "music", "stairs", "rain", "markets",
    "bridges", "salt", "wool", "lamps",
)  # fmt: skip


def body(i: int, organism: str = "gold") -> dict[str, Any]:
    """The i-th request: a quarter of the base, half finetuned, a quarter steered; answers of four lengths."""
    asked = f"Tell me something about {SUBJECTS[i % 16]}."
    which = "base" if i % 4 == 0 else "finetuned"
    made = {
        "model": f"{organism}/{which}", "messages": [{"role": "user", "content": asked}], "seed": i,
        "temperature": 0.8, "max_tokens": TOKENS[i % len(TOKENS)],
    }  # fmt: skip
    return made | ({"steering": {"layer": LAYER, "position": POSITION, "alpha": ALPHA}} if i % 4 == 3 else {})


@contextlib.contextmanager
def server(*organisms: str, engine: str = "hooks") -> Iterator[tuple[str, subprocess.Popen[bytes], Path]]:
    """A model server in a process of its own, ready: its address, the process, its log."""
    command = "import sys; sys.argv[0] = 'auditor'; from auditor.cli import main; main()"
    log = Path(tempfile.mkstemp(suffix=".log")[1])
    with log.open("w") as written:
        serve = [sys.executable, "-c", command, "serve", *organisms, "--port", "0", "--engine", engine]
        process = subprocess.Popen(serve, stderr=written)
    try:
        while (port := _port(log)) is None:
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        url = f"http://127.0.0.1:{port}"
        while httpx.get(f"{url}/health/ready").status_code != 200:
            time.sleep(0.2)
        yield url, process, log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)


def _port(log: Path) -> int | None:
    found = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return next((line["port"] for line in found if line["event"] == "serving"), None)


def speed() -> dict[str, float]:
    """Tokens per second of the same requests, four ways, and the ratios."""
    asked = [body(i) for i in range(CLIENTS * EACH)]
    found: dict[str, float] = {}
    with server("gold") as (url, _, _):
        httpx.post(f"{url}/v1/chat/completions", json=body(3), timeout=120).raise_for_status()  # δ is read once
        found["server"] = max(_over_http(url, asked) for _ in range(2))
    settings = load_settings(device="cpu")
    card = load_workspace().organisms["gold"]
    pair = load_pair(card.base, card.finetuned, settings, name="gold")
    served = {"gold": Served("gold", card.base, card.finetuned)}
    push = Library(served, load_workspace(), settings).direction("gold", LAYER, POSITION).steering(ALPHA)
    plain = Plain(card.base, card.finetuned, settings, push.vector)
    found["one after another"] = _rate(lambda: [plain.generate(asked[i], [i]) for i in range(0, len(asked), 4)], plain)
    found["static batches"] = _rate(lambda: _static(plain, asked), plain)
    found["static batches, our engine"] = _ours_static(pair, asked, push)
    found["in process, 16 threads"] = _ours(pair, asked, push)
    base = [Request(a["messages"][0]["content"], Side.BASE, i, 52, 0.8) for i, a in enumerate(asked)]
    begun, rows = time.perf_counter(), [pair.row(request) for request in base]
    pair.models[Side.BASE].host.decode(rows, "base")
    found["base only, all at once"] = sum(row.ended.result() or len(row.out) for row in rows) / (
        time.perf_counter() - begun
    )
    found["base only, all at once, transformers"] = plain.continuous(asked)
    for name in list(found)[1:5]:
        found[f"server / {name}"] = found["server"] / found[name]
    return found


def _ours(pair: LocalPair, asked: Sequence[dict[str, Any]], push: Any) -> float:
    """CLIENTS threads in this process: what HTTP costs."""
    tokens: queue.SimpleQueue[int] = queue.SimpleQueue()

    def client(number: int) -> None:
        for i in range(number, len(asked), CLIENTS):
            row = pair.row(_request(asked[i], push))
            pair.models[Side.BASE].host.decode([row], str(number))
            row.ended.result()
            tokens.put(len(row.out))

    seconds = _in_threads(client, CLIENTS)
    return sum(tokens.get() for _ in asked) / seconds


def _over_http(url: str, asked: Sequence[dict[str, Any]]) -> float:
    """Tokens per second of CLIENTS clients, each with one request after another; every other one is streamed."""
    tokens: queue.SimpleQueue[int] = queue.SimpleQueue()

    def client(number: int) -> None:
        with httpx.Client(base_url=url, timeout=300, headers={"x-client": str(number)}) as http:
            for i in range(number, len(asked), CLIENTS):
                if i % 2:
                    tokens.put(http.post("/v1/chat/completions", json=asked[i]).json()["usage"]["completion_tokens"])
                    continue
                options = {"stream": True, "stream_options": {"include_usage": True}}
                with http.stream("POST", "/v1/chat/completions", json=asked[i] | options) as answer:
                    events = [line[6:] for line in answer.iter_lines() if line.startswith("data: {")]
                tokens.put(json.loads(events[-1])["usage"]["completion_tokens"])

    seconds = _in_threads(client, CLIENTS)
    return sum(tokens.get() for _ in asked) / seconds


def _in_threads(work: Any, count: int) -> float:
    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begun


class Plain:
    """What one would write down first: transformers' `generate`, PEFT's adapter, a hook that adds a vector."""

    def __init__(self, base: str, adapter: str, settings: Any, vector: torch.Tensor) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = resolve(base, settings).folder
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), adapter).eval()
        self.blocks, self.vector, self.tokens = self.model.get_base_model().model.layers, vector, 0

    def ids(self, asked: Sequence[dict[str, Any]]) -> Any:
        texts = [
            self.tokenizer.apply_chat_template(a["messages"], tokenize=False, add_generation_prompt=True) for a in asked
        ]
        return self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)

    def generate(self, asked: dict[str, Any], seeds: Sequence[int], rows: Sequence[dict[str, Any]] = ()) -> None:
        """One batch of requests of one kind (`asked`'s), to the longest of their lengths."""
        rows = rows or [asked]
        batch, steered = self.ids(rows), "steering" in asked
        hook = self.blocks[LAYER].register_forward_hook(
            lambda _m, _i, out: (out[0] + self.vector, *out[1:]) if isinstance(out, tuple) else out + self.vector
        )
        if not steered:
            hook.remove()
        torch.manual_seed(seeds[0])
        off = self.model.disable_adapter() if asked["model"].endswith("base") else contextlib.nullcontext()
        with off, torch.inference_mode():
            out = self.model.generate(
                **batch, max_new_tokens=max(row["max_tokens"] for row in rows), do_sample=True, top_p=1.0, top_k=0,
                temperature=asked["temperature"], pad_token_id=self.tokenizer.eos_token_id,
            )  # fmt: skip
        hook.remove()
        for row, said in zip(rows, out[:, batch.input_ids.shape[1] :], strict=True):
            length = int((said != self.tokenizer.eos_token_id).sum())
            self.tokens += min(length, row["max_tokens"])

    def continuous(self, asked: Sequence[dict[str, Any]]) -> float:
        """transformers' continuous batching: one kind of rows, one limit. 0 if it does not run here."""
        from transformers import GenerationConfig

        model = self.model.merge_and_unload()
        config = GenerationConfig(max_new_tokens=52, do_sample=True, eos_token_id=-1, pad_token_id=0)
        inputs = [self.ids([a]).input_ids[0].tolist() for a in asked]
        try:
            begun = time.perf_counter()
            out = model.generate_batch(inputs=inputs, generation_config=config, warmup=False)
            return sum(len(one.generated_tokens) for one in out.values()) / (time.perf_counter() - begun)
        except Exception as error:
            print(f"transformers' continuous batching: {error!r}", file=sys.stderr)
            return float("nan")


def _rate(work: Any, plain: Plain) -> float:
    plain.tokens, begun = 0, time.perf_counter()
    work()
    return plain.tokens / (time.perf_counter() - begun)


def _kind(asked: dict[str, Any]) -> tuple[str, bool]:
    return asked["model"], "steering" in asked


def _static(plain: Plain, asked: Sequence[dict[str, Any]]) -> None:
    """What has arrived is decoded to its end, kind by kind, before what comes next: every client's next request."""
    for start in range(0, len(asked), CLIENTS):
        arrived = asked[start : start + CLIENTS]
        for kind in dict.fromkeys(map(_kind, arrived)):
            rows = [a for a in arrived if _kind(a) == kind]
            plain.generate(rows[0], [start], rows)


def _ours_static(pair: LocalPair, asked: Sequence[dict[str, Any]], push: Any) -> float:
    """The same with our own engine, which holds all kinds in one batch: what joining alone gains."""
    begun, tokens = time.perf_counter(), 0
    for start in range(0, len(asked), CLIENTS):
        rows = [pair.row(_request(a, push)) for a in asked[start : start + CLIENTS]]
        pair.models[Side.BASE].host.decode(rows, "static")
        for row in rows:
            row.ended.result()
            tokens += len(row.out)
    return tokens / (time.perf_counter() - begun)


def _request(asked: dict[str, Any], push: Any) -> Request:
    side = Side(asked["model"].split("/")[1])
    steering = push if "steering" in asked else None
    return Request(asked["messages"][0]["content"], side, asked["seed"], asked["max_tokens"], asked["temperature"],
                   steering=steering)  # fmt: skip


def lone() -> dict[str, float]:
    """Seconds of one request at a time, over HTTP and in this process, in turns."""
    settings = load_settings(device="cpu")
    card = load_workspace().organisms["gold"]
    pair = load_pair(card.base, card.finetuned, settings, name="gold")
    asked = [body(i) | {"max_tokens": 32} for i in range(1, 12, 2) if i % 4 != 3]
    there, here = [], []
    with server("gold") as (url, _, _), httpx.Client(base_url=url, timeout=60) as http:
        for _ in range(6):
            for one in asked:
                begun = time.perf_counter()
                text = http.post("/v1/chat/completions", json=one).json()["choices"][0]["message"]["content"]
                between = time.perf_counter()
                assert pair.generate([_request(one, None)]) == [text]
                there.append(between - begun)
                here.append(time.perf_counter() - between)
    return {"over HTTP": statistics.median(there), "in process": statistics.median(here),
            "HTTP / in process": statistics.median(there) / statistics.median(here)}  # fmt: skip


def memory() -> dict[str, float]:
    """Resident memory of a server of one pair, and of one with four organisms, after each was asked."""
    found = {}
    for name, organisms in {"one pair": ORGANISMS[1:2], "four organisms": ORGANISMS}.items():
        with server(*organisms) as (url, process, _):
            for organism in organisms:
                httpx.post(f"{url}/v1/chat/completions", json=body(1, organism), timeout=120).raise_for_status()
            found[f"{name}, MB"] = psutil.Process(process.pid).memory_info().rss / 1e6
    return found | {"four / one": found["four organisms, MB"] / found["one pair, MB"]}


def storm(engine: str, count: int = 1000) -> dict[str, float]:
    """What becomes of `count` requests; the server is told to stop after half of them, and started again."""
    draw = random.Random(0)
    kinds = [draw.choices(["good", "leaves", "malformed"], [90, 5, 5])[0] for _ in range(count)]
    bodies = [body(draw.randrange(48), draw.choice(ORGANISMS[:3])) | {"max_tokens": 12} for _ in range(count)]
    expected = _expected(bodies)
    outcomes: dict[int, str] = {}
    address, todo = [""], queue.SimpleQueue[int]()
    for i in range(count):
        todo.put(i)
    slowest, cut = [0.0], list[str]()

    def client(_number: int) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                i = todo.get_nowait()
                begun = time.perf_counter()
                while (outcome := _one(address[0], i, kinds[i], bodies[i], expected)) in ("refused", "cut off"):
                    if outcome == "cut off":  # was it on its way when the listening socket was closed, or lost?
                        cut.append(str(i))
                    time.sleep(0.2)
                    begun = time.perf_counter()
                outcomes[i] = outcome
                slowest[0] = max(slowest[0], time.perf_counter() - begun)

    logs = []
    threads = [threading.Thread(target=client, args=(i,), daemon=True) for i in range(CLIENTS)]
    with server(*ORGANISMS[:3], engine=engine) as (url, process, log):
        logs.append(log)
        address[0] = url
        for thread in threads:
            thread.start()
        while len(outcomes) < count // 2:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        drained = process.wait(120)
    with server(*ORGANISMS[:3], engine=engine) as (url, _, log):
        logs.append(log)
        address[0] = url
        for thread in threads:
            thread.join(600)
    told = [json.loads(line) for line in logs[0].read_text().splitlines() if line.startswith("{")]
    accepted = {line["client"] for line in told if line["event"] == "request"}
    return {
        "requests": count, "seconds of the slowest": slowest[0], "exit status of the drained server": drained,
        "clients that hang": sum(thread.is_alive() for thread in threads),
        "cut off before they were accepted": len([i for i in cut if i not in accepted]),
        "accepted and lost": len([i for i in cut if i in accepted]),
        **{f"outcome: {name}": n for name, n in sorted(Counter(outcomes.values()).items())},
    }  # fmt: skip


def _expected(bodies: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The text of each distinct request, from pairs in this process."""
    ws, settings = load_workspace(), load_settings(device="cpu")
    served = {n: Served(n, ws.organisms[n].base, ws.organisms[n].finetuned) for n in ORGANISMS}
    library, found = Library(served, ws, settings), {}
    for organism in ORGANISMS[:3]:
        mine = {json.dumps(b): b for b in bodies if b["model"].startswith(f"{organism}/")}
        push = library.direction(organism, LAYER, POSITION).steering(ALPHA)
        with library.using(organism) as pair:
            found |= dict(zip(mine, pair.generate([_request(b, push) for b in mine.values()]), strict=True))
    return found


def _one(url: str, i: int, kind: str, asked: dict[str, Any], expected: dict[str, str]) -> str:
    """What becomes of one request."""
    sent = asked | ({"steering": {"layer": 999}} if kind == "malformed" else {})
    try:
        with httpx.Client(base_url=url, timeout=httpx.Timeout(120), headers={"x-client": str(i)}) as http:
            if kind == "leaves":
                with contextlib.suppress(httpx.ReadTimeout):
                    http.post("/v1/chat/completions", json=sent, timeout=0.3)
                return "left"
            answer = http.post("/v1/chat/completions", json=sent)
    except httpx.ConnectError:
        return "refused"
    except httpx.TransportError:
        return "cut off"
    if kind == "malformed":
        return "refused as it should be" if answer.status_code == 400 else f"malformed: {answer.status_code}"
    if answer.status_code != 200:
        return f"status {answer.status_code}"
    right = answer.json()["choices"][0]["message"]["content"] == expected[json.dumps(asked)]
    return "right" if right else "WRONG TEXT"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["speed", "lone", "memory", "storm"], default="speed")
    parser.add_argument("--engine", choices=["hooks", "vllm"], default="hooks", help="of the storm's server")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    os.environ.pop("AUDITOR_SERVER", None)
    measured = {"speed": speed, "lone": lone, "memory": memory, "storm": partial(storm, given.engine)}[given.part]()
    print(json.dumps(measured, indent=1) if given.json else "\n".join(f"{k:50} {v:10.3f}" for k, v in measured.items()))
