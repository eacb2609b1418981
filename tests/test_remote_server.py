"""A model server that is not there, dies, says nothing, or is something else: one line, and nobody waits for ever."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
import torch

from auditor.errors import AuditorError, BadModel, UsageError
from auditor.models import http
from auditor.models.generate import Request, Side
from auditor.models.http import Client
from auditor.models.remote import connect
from auditor.models.wire import Nll, unframed
from tests.serving import PROMPT

ASKED = Nll(side="base", texts=["a"])
NO_ANSWER = "no answer"


@pytest.fixture
def quick(monkeypatch):
    """Signs of life are asked for, and waited for, for moments only."""
    monkeypatch.setattr(http, "PULSE", 0.1)
    monkeypatch.setattr(http, "SIGN_OF_LIFE", 0.3)
    monkeypatch.setattr(http, "LONGEST_WAIT", 0.05)


@pytest.fixture
def fake():
    """A function from `answer(method, path)` to the address of a server that sends what it gives, and hangs up."""
    started, over = [], threading.Event()

    def start(answer):
        class Handler(BaseHTTPRequestHandler):
            def any(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                said = answer(self.command, self.path)
                if said == NO_ANSWER:
                    over.wait(60)
                elif isinstance(said, bytes):
                    self.wfile.write(said)
                else:
                    status, text = said
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(text)))
                    self.end_headers()
                    self.wfile.write(text.encode())

            do_GET = do_POST = any

            def log_message(self, *_args):
                pass

        started.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=started[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{started[-1].server_port}"

    yield start
    over.set()
    for server in started:
        server.shutdown()
        server.server_close()


def alive(answer):
    """The same for a server that says that it lives."""
    return lambda method, path: (200, "{}") if path == "/health/live" else answer


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ("http://127.0.0.1:9", "no model server answers"),
        ("localhost:8000", "give its address"),
        ("http://", "no model server answers|--server http://"),
        ("http://127.0.0.1:99999", "--server http://127.0.0.1:99999|no model server answers"),
        ("http://[::1", "--server"),
    ],
)
def test_no_server_is_one_clear_line(settings, server, said):
    with pytest.raises(UsageError, match=said) as refused:
        connect(server, "mill", settings)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, "<html>\n<p>welcome</p>"), "is no model server of this version"),
        ((404, "<html>\n<p>nothing here</p>"), "says HTTP 404: <html> <p>nothing"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "went away"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "went away"),
        ((403, '{"error": {"message": "without a key only loopback is served"}}'), "only loopback"),
    ],
    ids=["page", "no page", "not http", "cut off", "forbidden"],
)
def test_what_is_no_model_server_is_one_line(fake, quick, settings, answer, said):
    with pytest.raises(UsageError, match=said) as refused:
        connect(fake(alive(answer)), "mill", settings)
    assert len(str(refused.value).splitlines()) == 1


def test_who_listens_and_says_nothing_is_given_up(fake, quick):
    with pytest.raises(UsageError, match=r"has not answered for 0\.3 s"):
        Client(fake(lambda *_: NO_ANSWER))


def test_a_server_that_falls_silent_is_given_up(fake, quick):
    """Its connection stays open: only the questions whether it lives tell."""
    silent = threading.Event()
    server = fake(lambda _, path: NO_ANSWER if silent.is_set() or path != "/health/live" else (200, "{}"))
    client = Client(server)
    silent.set()
    with pytest.raises(UsageError, match="no sign of life"):
        client.post("/v1/pairs/mill/nll", ASKED)


def test_a_server_that_is_gone_is_one_line(start_server, settings):
    running = start_server()
    remote = connect(running.url, "mill", settings)
    running.server.should_exit = True
    running.thread.join(60)
    with pytest.raises(UsageError, match=r"no model server answers at .* any more"):
        remote.generate([Request(PROMPT)])


def test_parts_that_break_off_are_an_error(fake, quick):
    begun = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n\x09\0\0\0\0\0\0\0abc"
    client = Client(fake(alive(begun)))
    with pytest.raises(AuditorError, match="broke off its answer"):
        list(client.parts("/v1/pairs/mill/patched", ASKED, unframed))


def test_what_breaks_in_the_middle_of_an_answer_is_told(served, settings, monkeypatch):
    """Its first part was fine, and so is the status."""
    from auditor.models import local

    remote, original, runs = connect(served.url, "mill", settings), local.patched, []

    def breaks(*args):
        runs.append(1)
        if len(runs) > 1:
            raise BadModel("after layer 1: NaN or Inf")
        return original(*args)

    monkeypatch.setattr(local, "patched", breaks)
    monkeypatch.setattr(local, "PATCHES_PER_BATCH", 2)
    parts = remote.patched_logits(Side.BASE, ["a b"], 1, torch.ones(4, remote.d_model))
    assert next(parts)[0].shape[0] == 2
    with pytest.raises(AuditorError, match="the model server says: after layer 1: NaN or Inf"):
        next(parts)


def test_an_answer_may_take_long_while_the_server_lives(served, settings, quick, monkeypatch):
    from auditor.models import local

    remote, original, takes = connect(served.url, "mill", settings), local.token_nll, threading.Event()

    def slow(*args, **more):
        takes.wait(1.5)  # many times as long as a server may be silent
        return original(*args, **more)

    monkeypatch.setattr(local, "token_nll", slow)
    assert remote.mean_nll("base", [PROMPT])[0] > 0


def test_no_proxy_leads_to_loopback(served, settings, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert connect(served.url, "mill", settings).name == "mill"
    with pytest.raises(UsageError, match="HTTP_PROXY and ALL_PROXY may stand between; NO_PROXY"):
        Client("http://model-server.example:8000")
    monkeypatch.setenv("http_proxy", "gopher://x")
    with pytest.raises(UsageError, match="--server http://model-server"):
        Client("http://model-server.example:8000")


def test_a_key_that_no_header_can_hold_is_refused(served, monkeypatch):
    monkeypatch.setenv("AUDITOR_API_KEY", "two\nlines")
    with pytest.raises(UsageError, match="AUDITOR_API_KEY"):
        Client(served.url)
    monkeypatch.setenv("AUDITOR_API_KEY", "key-with-a-newline-at-its-end\n")
    Client(served.url)


def test_a_busy_server_is_asked_again(fake, quick):
    said = iter([(503, '{"error": {"message": "loading"}}'), (429, "{}"), (200, "[1.5]")])
    client = Client(fake(lambda _, path: (200, "{}") if path == "/health/live" else next(said)))
    assert isinstance(answer := client.post("/v1/pairs/mill/nll", ASKED), httpx.Response)
    assert answer.json() == [1.5]
