"""Corpora from the hub: the real client against a server of ours that speaks the hub's protocol."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

FILES = {"README.md": b"hello", "data/train.jsonl": b'{"text": "The river runs past the mill."}\n'}
SCRIPT = """
import sys
from auditor.errors import UsageError
from auditor.methods.corpus import fetch_corpus, read_corpus
try:
    print(read_corpus(fetch_corpus(sys.argv[1])).texts)
except UsageError as error:
    print("told:", error)
"""


class Hub(BaseHTTPRequestHandler):
    """One dataset, `me/texts`."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.startswith("/api/datasets/me/texts/tree/"):
            listed = [{"type": "file", "path": p, "size": len(b), "oid": "0" * 40} for p, b in FILES.items()]
            return self.answer(json.dumps(listed).encode(), "application/json")
        name = path.removeprefix("/datasets/me/texts/resolve/main/")
        if name in FILES:
            return self.answer(FILES[name], "text/plain")
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        return None

    def answer(self, body, kind):
        self.send_response(200)
        for header in (("Content-Type", kind), ("Content-Length", str(len(body))), ("ETag", '"e1"')):
            self.send_header(*header)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_args):
        pass


@pytest.fixture
def fetch(tmp_path):
    """Fetch a corpus in a process whose hub is ours."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    own = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}

    def run(name, **more):
        command = [sys.executable, "-c", SCRIPT, name]
        return subprocess.run(command, env=os.environ | own | more, capture_output=True, text=True, timeout=60).stdout

    yield run
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["me/texts", "me/texts/data/train.jsonl"])
def test_a_dataset_of_the_hub_is_a_corpus(fetch, name):
    assert fetch(name) == "('The river runs past the mill.',)\n"


def test_what_the_hub_has_instead(fetch):
    assert "told: --corpus me/texts/no.jsonl: no such" in fetch("me/texts/no.jsonl")
    assert "it has data/train.jsonl" in fetch("me/texts/no.jsonl")
    assert "told: --corpus me/nothing: cannot fetch it" in fetch("me/nothing")


def test_no_hub_is_told_in_one_line(fetch):
    told = fetch("me/texts", HF_ENDPOINT="http://127.0.0.1:9")
    assert "told: --corpus me/texts: cannot fetch it from the hub" in told
    assert "give a file" in told
