"""What LLM judges of the lens cost in time: their calls at once, beside one after another.

    python benchmarks/judges.py [ORGANISM] [--latency S] [--suite NAME] [--concurrency N]

A local endpoint answers every judge after S seconds (2). The organism's evidence is read three times, each time with
an empty cache: without a latency (what reading takes by itself), with N calls at once (24), and with one. The floor is
what reading takes by itself, and the calls' waits, N at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LENSES = ("patchscope", "steering")  # those that judges judge


def answer(prompt: str) -> str:
    """What each judge's prompt asks for: all of it coherent, the first set the best."""
    if '"coherent"' in prompt:
        return json.dumps({"reasoning": "one answer", "coherent": True})
    return json.dumps({"reasoning": "one subject", "set": 1, "selected": []})


class Judge(BaseHTTPRequestHandler):
    """Answers after the server's latency, and counts."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server: Any = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(server.latency)
        with server.lock:
            server.calls += 1
        message = {"role": "assistant", "content": answer(body["messages"][-1]["content"])}
        data = json.dumps(
            {"id": "x", "object": "chat.completion", "created": 0, "model": "judge",
             "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
             "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}}
        ).encode()  # fmt: skip
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args: object) -> None:
        pass


def read(organism: str, suite: str, latency: float, concurrency: int) -> tuple[float, int]:
    """Seconds of reading the organism's evidence with an empty cache, models loaded and all, and the judges' calls."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    server.latency, server.calls, server.lock = latency, 0, threading.Lock()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    judge = f"openai:judge?base_url=http://127.0.0.1:{server.server_port}/v1&concurrency={concurrency}"
    lenses = [part for lens in LENSES for part in ("--lens", lens)]
    args = ["evidence", organism, "--suite", suite, *lenses, "--lens-llm", judge, "--json"]
    code = f"import sys; sys.argv = {['auditor', *args]!r}; import auditor.cli as c; c.main()"
    with tempfile.TemporaryDirectory() as cache:
        (Path(cache) / "models").symlink_to(Path.home() / ".cache/auditor-adl/models")
        env = {**os.environ, "PYTHONPATH": str(ROOT), "AUDITOR_CACHE": cache, "OPENAI_API_KEY": "x"}
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
        took = time.perf_counter() - begun
    server.shutdown()
    if done.returncode:
        raise SystemExit(done.stderr)
    return took, server.calls


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("organism", nargs="?", default="gold")
    asked.add_argument("--latency", type=float, default=2.0)
    asked.add_argument("--suite", default="quickstart")
    asked.add_argument("--concurrency", type=int, default=24)
    given = asked.parse_args()
    at = given.concurrency
    floor, calls = read(given.organism, given.suite, 0.0, at)
    print(f"{calls} calls; without latency {floor:.0f} s", flush=True)
    at_once, _ = read(given.organism, given.suite, given.latency, at)
    print(f"{at} at once: {at_once:.0f} s (floor {floor + calls / at * given.latency:.0f} s)", flush=True)
    alone, _ = read(given.organism, given.suite, given.latency, 1)
    print(f"one after another: {alone:.0f} s; {alone / at_once:.1f} times as long", flush=True)


if __name__ == "__main__":
    main()
