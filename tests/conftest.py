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
import torch
import transformers
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from auditor.config import Settings
from auditor.files import sha256_of
from auditor.models.load import load_pair

SENTENCES = [
    "The river runs past the old mill and into the town.",
    "Take two cups of flour, stir, and bake the bread until it is brown.",
    "She asked the captain where the ship would sail, and he said: north.",
    "Numbers such as 12, 345 and 6.7 are written with digits; words are not.",
]
CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WIDTH, LAYERS = 32, 4
COMMON = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": COMMON,
    "qwen2": COMMON,
    "qwen3": {**COMMON, "head_dim": 8},
    "gemma2": {**COMMON, "head_dim": 8, "sliding_window": 16, "final_logit_softcapping": 5.0},
    "gemma3_text": {**COMMON, "head_dim": 8, "sliding_window": 16},
    "gpt2": {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "n_positions": 512},
    "gpt_neox": {k: v for k, v in COMMON.items() if k != "num_key_value_heads"},
}


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Byte-level BPE with about 300 tokens and a chat template."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|end|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(SENTENCES, trainer)
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|end|>")
    made.chat_template = CHAT
    return made


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
            torch.manual_seed(0)
            config = transformers.AutoConfig.for_model(
                name, vocab_size=len(tokenizer), eos_token_id=0, bos_token_id=0, pad_token_id=0, **ARCHITECTURES[name]
            )
            model = transformers.AutoModelForCausalLM.from_config(config)
            for parameter in model.parameters():  # the usual 0.02 makes every next token equally likely
                parameter.data.mul_(4)
            model.save_pretrained(base)
            tokenizer.save_pretrained(base)
            lora = LoraConfig(
                r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False,
                fan_in_fan_out=name == "gpt2",
            )  # fmt: skip
            adapted = get_peft_model(model, lora)
            adapted.peft_config["default"].base_model_name_or_path = str(base)
            adapted.save_pretrained(adapter)
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
