"""What several clients of the model server ask for at once is computed once, and takes nobody else's place."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import httpx
import pytest

from auditor.errors import UsageError
from auditor.models.worker import LEFT
from auditor.server import library, readings
from tests.serving import PROMPT, until

MANY = 12  # more than there are threads for sheets, and for passes


class Slow:
    """A computation that ends when it is told to, or when nobody waits for it; `begun` counts its calls."""

    def __init__(self, original, error=None):
        self.begun, self.left, self.goes_on, self.error, self.original = 0, 0, threading.Event(), error, original

    def __call__(self, *args):
        self.begun += 1
        while not self.goes_on.wait(0.02):
            if LEFT.get()():
                self.left += 1
                raise UsageError("nobody reads this")
        if self.error:
            raise self.error
        return self.original(*args)


@pytest.fixture
def slow(monkeypatch):
    """A function that makes what `library` calls by a name slow."""

    def make(name, error=None):
        holder = library.Library if name == "evidence" else library
        made.append(work := Slow(getattr(holder, name), error))
        monkeypatch.setattr(holder, name, lambda *args: work(*args))
        monkeypatch.setattr(library.Library, "kept", lambda *_args: None)
        return made[-1]

    made = []
    yield make
    for work in made:
        work.goes_on.set()


@pytest.fixture
def sheet(served):
    """The evidence of `mill`, by which the tests tell whose answer it was."""
    return served.library.evidence("mill", served.library.plan("mill", "quickstart", None), lambda stage: None)


def waiting(served, key):
    """How many requests wait for what is being done under `key`."""
    return sum(doing.waiting for held, doing in list(served.serving.once._doing.items()) if held[0] == key)


@pytest.fixture
def get(served):
    """A function that asks for an organism's evidence, or what belongs to it, in a thread of its own."""
    with ThreadPoolExecutor(2 * MANY) as pool:
        yield lambda path, timeout=60: pool.submit(httpx.get, f"{served.url}/v1/evidence/{path}", timeout=timeout)


def test_a_sheet_is_computed_once_for_all_who_ask(served, get, slow, sheet):
    """Under two names of one pair; meanwhile forward passes for others are made."""
    work = slow("evidence")
    asked = [get(path) for path in ("mill", "mill2") * (MANY // 2)]
    until(lambda: waiting(served, "sheet") == MANY)
    losses = served.post("/v1/pairs/mill/nll", {"side": "base", "texts": [PROMPT]})
    steered = {"organism": "mill", "prompts": ["A"], "max_new_tokens": 2,
               "steering": {"layer": 1, "position": 0, "alpha": 1}}  # fmt: skip
    assert losses.status_code == served.post("/v1/steer", steered).status_code == 200
    work.goes_on.set()
    answers = [answer.result(60) for answer in asked]
    assert work.begun == 1
    assert {answer.status_code for answer in answers} == {200}
    assert [answer.json()["pair"] for answer in answers[:2]] == ["mill", "mill2"]
    assert answers[0].json()["readings"] == sheet.to_json()["readings"]


def test_an_error_reaches_all_who_wait_and_the_next_try_is_a_new_one(served, get, slow, sheet):
    work = slow("evidence", UsageError("the corpus is empty"))
    asked = [get("mill") for _ in range(3)]
    until(lambda: waiting(served, "sheet") == 3)
    work.goes_on.set()
    assert {(a.result(60).status_code, a.result().json()["error"]["message"]) for a in asked} == {
        (400, "the corpus is empty")
    }
    work.error = None
    assert get("mill").result(60).status_code == 200
    assert work.begun == 2


def test_who_leaves_takes_nothing_from_who_stays(served, get, slow, sheet):
    work = slow("evidence")
    leaves = get("mill", timeout=0.5)
    until(lambda: waiting(served, "sheet") == 1)
    stays = get("mill2")
    with pytest.raises(httpx.ReadTimeout):
        leaves.result(60)
    until(lambda: waiting(served, "sheet") == 1)
    work.goes_on.set()
    assert stays.result(60).json()["pair"] == "mill2"
    assert (work.begun, work.left) == (1, 0)


def test_what_was_computed_before_waits_for_nobody(served, get, slow, sheet, monkeypatch):
    kept, work = library.Library.kept, slow("evidence")
    monkeypatch.setattr(library.Library, "kept", kept)
    assert get("mill2").result(60).json()["pair"] == "mill2"
    assert work.begun == 0


def leave(served):
    """Ask for evidence and hang up while it is computed."""
    url = httpx.URL(served.url)
    with socket.create_connection((url.host, url.port)) as client:
        client.sendall(f"GET /v1/evidence/mill HTTP/1.1\r\nHost: {url.host}\r\n\r\n".encode())
        until(lambda: waiting(served, "sheet") == 1)
    until(lambda: waiting(served, "sheet") == 0)


def test_what_is_kept_is_finished_though_all_have_left(served, get, slow, sheet):
    work = slow("evidence")
    leave(served)
    comes_again = get("mill2")
    until(lambda: waiting(served, "sheet") == 1)
    work.goes_on.set()
    assert comes_again.result(60).json()["readings"] == sheet.to_json()["readings"]
    assert (work.begun, work.left) == (1, 0)


def test_what_nobody_comes_for_in_a_while_is_stopped(served, get, slow, sheet, monkeypatch):
    monkeypatch.setattr(readings, "ALONE", 0.1)
    work = slow("evidence")
    leave(served)
    until(lambda: work.left == 1)
    work.goes_on.set()
    assert get("mill").result(60).status_code == 200


def test_what_nobody_waits_for_is_not_begun(served, get, slow, sheet, monkeypatch):
    monkeypatch.setattr(readings, "SHEETS", anyio.CapacityLimiter(1))
    work = slow("evidence")
    first = get("mill/logit_lens")
    until(lambda: work.begun == 1)
    leave_queued = get("mill", timeout=0.5)
    with pytest.raises(httpx.ReadTimeout):
        leave_queued.result(60)
    until(lambda: waiting(served, "sheet") == 1)
    work.goes_on.set()
    assert first.result(60).status_code == 200
    until(lambda: not served.serving.once._doing)
    assert work.begun == 1


def test_a_server_that_ends_gives_up_what_nobody_waits_for(served, get, slow, sheet):
    work = slow("evidence")
    leave(served)
    served.serving.once.stop()
    until(lambda: work.left == 1)


def test_a_difference_is_read_once_for_all_who_steer(start_server, slow):
    running, work = start_server(), slow("differences")
    body = {"organism": "mill", "prompts": ["A"], "max_new_tokens": 2}
    pushes = [{"layer": 2, "position": place, "alpha": 1} for place in (0, 1, 2)]
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(running.post, "/v1/steer", body | {"steering": push}) for push in pushes]
        until(lambda: waiting(running, "delta") == 3)
        assert running.post("/v1/steer", body | {"steering": {**pushes[0], "position": 9}}).status_code == 400
        work.goes_on.set()
        assert {answer.result(60).status_code for answer in asked} == {200}
    assert work.begun == 1
