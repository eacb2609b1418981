"""Tiny random-weight models of many architectures, on disk as real checkpoints."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test reaches for the hub
os.environ["COLUMNS"] = "200"  # as wide as that is what consoles are made for when they are imported

from auditor.runtime import tune_process

tune_process()  # before torch comes in
# ruff: noqa: E402

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from auditor.config import Settings
from auditor.files import sha256_of
from auditor.models.load import load_pair
from tests.tiny import add_adapter, make_base, make_tokenizer

LONG = ("test_notebooks", "test_engines", "test_embedded", "test_kills", "test_mcp", "test_hub_corpus")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest first: of two workers none is left with one at the end."""
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Byte-level BPE with about 300 tokens and a chat template."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Any:
    """A function from an architecture's name to the folders of a tiny base and of a random adapter for it.

    All tests read the same ones: the last of them fails if any was written over.
    """
    root = tmp_path_factory.mktemp("checkpoints")
    written: dict[Path, str] = {}

    def make(name: str) -> tuple[Path, Path]:
        base, adapter = root / name, root / f"{name}-adapter"
        if not base.exists():
            add_adapter(make_base(name, tokenizer, base), str(base), adapter, gpt2=name == "gpt2")
            written.update({path: sha256_of(path) for folder in (base, adapter) for path in folder.iterdir()})
        return base, adapter

    yield make
    assert [path for path, digest in written.items() if sha256_of(path) != digest] == [], "written over by a test"


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """CPU, float32, a cache of the test run's own."""
    return Settings(cache_dir=tmp_path_factory.mktemp("cache"), device="cpu")


@pytest.fixture(scope="session")
def real_settings() -> Settings:
    """The machine's own cache, where the embedded model is; skips if it is nowhere to be had."""
    from auditor.config import load_settings
    from auditor.errors import BadModel
    from auditor.models.embedded import embedded_model_dir

    found = load_settings(device="cpu")
    try:
        embedded_model_dir(found)
    except BadModel as error:
        pytest.skip(f"no embedded model: {error}")
    return found


@pytest.fixture(scope="session")
def tiny(checkpoints: Any, settings: Settings) -> Any:
    """A llama base with a LoRA finetune, both of random weights."""
    return load_pair(*map(str, checkpoints("llama")), settings)


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Any:
    """A function that runs `auditor ARGS…` in this process: (exit code, stdout, stderr)."""
    from auditor.cli import main, shared

    monkeypatch.setenv("AUDITOR_CACHE", str(settings.cache_dir))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args: object) -> tuple[int, str, str]:
        shared.workspace.cache_clear()
        monkeypatch.setattr("sys.argv", ["auditor", *map(str, args)])
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return run


SUITE = """\
name: small
organisms: [mill]
agents: [adl, blackbox]
budgets: [2]
repeats: 2
ask: {max_new_tokens: 8}
evidence:
  texts: 16
  lenses:
    differences: {norm_texts: 8, norm_tokens: 8, positions: 3}
    patchscope: {scales: [1.0, 3.0], keep: 8, common_top: 100}
    diff_mining: {texts: 8, chats: 4, tokens: 6, top: 12, topics: 2}
    plain_samples: {prompts: 4, samples: 1, max_new_tokens: 8}
    steering:
      positions: 1
      calibration: {upper: 2.0, iterations: 2, more_iterations: 1, generations: 2, max_new_tokens: 8}
"""


@pytest.fixture
def workspace_folder(tmp_path: Path, checkpoints: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's workspace with a tiny organism `mill` and a suite `small`; the current folder."""
    base, adapter = checkpoints("llama")
    files = {
        "auditor.toml": "",
        "evals/suites/small.yaml": SUITE,
        "evals/organisms/mill/organism.yaml": (
            f"name: mill\nfamily: sdf\nbase: {base}\nadapter: {adapter}\ndescription: About mills.\n"
            "topic: mills\nbroad_topic: buildings\nfacts: [Mills grind flour.]\nprobes: ['What is a mill?']\n"
        ),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


ThreadingHTTPServer.request_queue_size = 128  # an endpoint is asked many calls at once; 5 may wait otherwise


class Endpoint:
    """Answers each request with what `reply(body)` gives: a message, or an HTTP status."""

    def __init__(self, reply):
        self.requests = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.requests.append((self.headers["Authorization"], body))
                said = reply(body)
                status = said if isinstance(said, int) else 200
                answer = {"error": {"message": "no"}} if isinstance(said, int) else {
                    "id": "x", "object": "chat.completion", "created": 0, "model": body["model"],
                    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **said}}],
                    "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
                }  # fmt: skip
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Start an endpoint and point the environment at it."""
    started = []

    def start(reply):
        endpoint = Endpoint(reply)
        started.append(endpoint)
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-1234")
        return endpoint

    yield start
    for endpoint in started:
        endpoint.server.shutdown()
        endpoint.server.server_close()


def judge(body):
    """Plays every judge: it recognises a prompt by the answer that the prompt asks for."""
    prompt = body["messages"][-1]["content"]
    if '"coherent"' in prompt:
        return {"content": json.dumps({"reasoning": "one answer", "coherent": True})}
    if '"selected"' in prompt:
        return {"content": json.dumps({"reasoning": "one subject", "set": 1, "selected": []})}
    return {"content": "Five: no. Three: yes.\nSCORE: 3"}


@pytest.fixture(scope="session")
def start_server(checkpoints, settings, tmp_path_factory):
    """A function that starts a model server of two organisms on one base, `mill` and `mill2`."""
    from auditor.server.library import Library, Served
    from auditor.workspace import load_workspace
    from tests.serving import EVIDENCE, Running

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


@pytest.fixture(scope="session")
def served(start_server):
    """A running model server."""
    return start_server()


@pytest.fixture
def client(served):
    """An OpenAI client of the server."""
    import openai

    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as made:
        yield made
