"""What the tests of the model server share: a server in a thread, and requests to it."""

import json
import threading
import time

import httpx
import uvicorn

from auditor.server.app import create_app
from auditor.server.metrics import Metrics
from auditor.server.serving import Serving
from tests.tiny import SENTENCES

PROMPT = SENTENCES[0]
EVIDENCE = json.dumps({"texts": 16, "lenses": {
    "differences": {"norm_texts": 8, "norm_tokens": 8, "positions": 3},
    "patchscope": {"scales": [1, 3], "keep": 8, "common_top": 100},
    "plain_samples": {"prompts": 2, "samples": 1, "max_new_tokens": 4},
    "steering": {"positions": 1, "calibration": {
        "upper": 2, "iterations": 1, "more_iterations": 1, "generations": 2, "max_new_tokens": 4}},
}})  # fmt: skip


def until(holds, seconds=60):
    """Returns once `holds()`, and what it gave; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.02)
    return found


class Running:
    """A server in a thread of this process."""

    def __init__(self, library, key=None):
        self.library, self.serving = library, Serving(library, Metrics(library))
        self.app = create_app(self.serving, key)
        config = uvicorn.Config(self.app, "127.0.0.1", 0, log_config=None, lifespan="off")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        until(lambda: self.server.started)
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    def post(self, path, body, **headers):
        return httpx.post(self.url + path, json=body, headers=headers, timeout=60)

    def metric(self, name):
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name) and line[0] != "#")


def chat(client, **more):
    asked = {"model": "mill/finetuned", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 12, "seed": 4}
    return client.chat.completions.create(**asked | more)


def text(answer):
    return answer.choices[0].message.content
