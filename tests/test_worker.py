"""Nobody waits for ever: whatever breaks in the thread that runs the models is told to those who wait for it."""

from concurrent.futures import Future

import pytest

from auditor.models.generate import Request, Sampling, Side
from auditor.models.load import load_pair
from auditor.models.row import Row
from auditor.models.worker import Line, Worker

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
WAIT = 60  # seconds; nothing here takes one


class Batch:
    """Says token 7 for every row, as long as nothing in `breaks` is called."""

    torn, nbytes = False, 0

    def __init__(self, **breaks):
        self.rows, self.breaks = [], breaks

    def _called(self, name):
        if name in self.breaks:
            raise self.breaks[name]

    def has_room(self, more):
        self._called("has_room_for_two" if len(more) > 1 else "has_room")
        return True

    def admit(self, rows):
        self._called("admit")
        self.rows += rows
        return self.step()

    def step(self):
        self._called("step")
        for row in self.rows:
            row.take(7, frozenset())
            if row.finish:
                row.close()
        self.rows = [row for row in self.rows if not row.finish]
        return 1

    def drop(self, rows):
        self._called("drop")

    def clear(self):
        self.rows = []
        self._called("clear")


def rows(count, **more):
    return [Row([1], Sampling(max_new_tokens=3), **more) for _ in range(count)]


BREAKS = {
    "a batch that has no answer for a second row": {"has_room_for_two": ValueError("bug")},
    "a batch that cannot be mended": {"admit": RuntimeError("broken"), "clear": RuntimeError("still broken")},
    "a step that leaves Python": {"step": SystemExit(3)},
    "an admission that leaves Python": {"admit": SystemExit(3)},
}


@pytest.mark.parametrize("what", BREAKS)
def test_every_row_hears_what_broke_the_batch(what):
    worker = Worker()
    line, two = worker.open(Batch(**BREAKS[what])), rows(2)
    worker.call(lambda: worker.decode(line, two, "test"))  # both wait before the first is looked at
    for row in two:
        assert str(row.ended.exception(WAIT)) in map(str, BREAKS[what].values())
    assert not line.busy
    assert worker.call(lambda: "still there") == "still there"


def test_a_step_that_breaks_before_it_begins_ends_its_rows():
    batch, begun = Batch(), rows(2)
    line = Line(batch)
    line.put(begun, "client")
    line.advance()
    batch.breaks = {"step": RuntimeError("broken")}
    line.advance()
    assert [str(row.ended.exception(WAIT)) for row in begun] == ["broken", "broken"]
    assert not line.busy


def test_a_line_that_was_given_no_rows_has_nothing_to_do():
    line = Line(Batch())
    line.put([], "test")
    assert not line.busy


def test_jobs_that_wait_hear_that_the_thread_has_ended():
    worker, later = Worker(), Future()
    line = worker.open(Batch(step=SystemExit(3)))

    def first():
        worker.decode(line, rows(1))
        worker._jobs.append((lambda: None, Future()))  # done first
        worker._jobs.append((lambda: None, later))

    worker.call(first)
    assert isinstance(later.exception(WAIT), SystemExit)
    assert worker.call(lambda: 1) == 1


def test_a_thread_that_cannot_be_started_is_told_and_tried_again(monkeypatch):
    worker = Worker()

    def cannot(_thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", cannot)
        with pytest.raises(RuntimeError, match="start new thread"):
            worker.call(lambda: None)
    assert worker.call(lambda: 1) == 1


def test_who_waits_for_many_rows_hears_of_the_first_that_breaks():
    worker, line = Worker(), None
    line = worker.open(Batch())
    healthy = [Row([1], Sampling(max_new_tokens=10**9))]

    def bug(_row):
        raise KeyError("of the listener")

    broken = rows(1, heard=bug)
    worker.decode(line, [*healthy, *broken])
    with pytest.raises(KeyError):
        worker.wait([*healthy, *broken])
    worker.call(lambda: line.fail(RuntimeError("enough")))


def test_the_thread_that_decodes_does_not_wait_for_itself():
    worker = Worker()
    line, one = worker.open(Batch()), rows(1)
    worker.decode(line, one)
    with pytest.raises(RuntimeError, match="cannot wait"):
        worker.call(lambda: worker.wait(one))


def test_asking_one_of_two_whole_models_leaves_the_other_as_it_was(checkpoints, settings):
    base = str(checkpoints("llama")[0])
    pair = load_pair(base, base, settings)
    [said] = pair.generate([Request("hi", Side.FINETUNED, 0, 4)])
    assert not any(model.host.line.busy for model in pair.models.values())
    assert pair.generate([Request("hi", Side.BASE, 0, 4)]) == [said]
