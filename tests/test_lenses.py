"""A lens is one typed function: checked when it is defined, run in the order of needs, kept on its own."""

import gzip
import json

import pytest
import torch

from auditor import LensContext, ModelPair, Reading, Record, lens
from auditor.audits.bench import Bench
from auditor.errors import BadModel, Refused
from auditor.evidence import cache
from auditor.evidence.compute import evidence_for
from auditor.evidence.recipe import closure, named_by
from auditor.files import SEAL, seal
from auditor.models.local import LocalPair
from auditor.workspace import load_workspace
from tests.tiny import SENTENCES


class Numbers(Record):
    texts: int = 4


class Lengths(Reading):
    total: int

    @property
    def verdict(self) -> str:
        return "long"


def test_what_a_lens_must_be():
    def lengths(pair: ModelPair, ctx: LensContext, settings: Numbers) -> Lengths:
        """How long texts are."""

    made = lens(needs=("differences",))(lengths)
    assert (made.name, made.needs, made.settings, made.reading) == ("lengths", ("differences",), Numbers, Lengths)
    assert made.description == "How long texts are."

    def silent(pair: ModelPair, ctx: LensContext, settings: Numbers) -> Lengths: ...

    def loose(pair: ModelPair, ctx: LensContext, settings: Numbers) -> int:
        """Gives a number."""

    def short(pair: ModelPair, ctx: LensContext) -> Lengths:
        """Takes no settings."""

    for wrong, told in ((silent, "needs a docstring"), (loose, "subclass of auditor.Reading"), (short, "must take")):
        with pytest.raises(TypeError, match=told):
            lens(wrong)


PLUGIN = '''
"""Lengths of texts, and what is built on them."""
from auditor import Args, Context, Figures, LensContext, ModelPair, Reading, Record, lens, tool

class Numbers(Record):
    texts: int = 4

class Lengths(Reading):
    total: int
    def show(self):
        return [Figures(title="Lengths", lines=(f"{self.total} letters",))]

@lens
def lengths(pair: ModelPair, ctx: LensContext, settings: Numbers) -> Lengths:
    """How long the corpus is."""
    return Lengths(total=sum(map(len, ctx.corpus.texts[:settings.texts])))

@lens(needs=("lengths",))
def broken(pair: ModelPair, ctx: LensContext, settings: Numbers) -> Lengths:
    """Has a bug."""
    return Lengths(total=1 // (ctx.reading("lengths", Lengths).total * 0))

@lens(needs=("broken",))
def above(pair: ModelPair, ctx: LensContext, settings: Numbers) -> Lengths:
    """Builds on what has a bug."""
    return Lengths(total=1)

@lens(needs=("above", "round"))
def round(pair: ModelPair, ctx: LensContext, settings: Numbers) -> Lengths:
    """Needs itself."""
    return Lengths(total=1)

@lens(needs=("nowhere",))
def lost(pair: ModelPair, ctx: LensContext, settings: Numbers) -> Lengths:
    """Needs what there is not."""
    return Lengths(total=1)

@lens
def wrong(pair: ModelPair, ctx: LensContext, settings: Numbers) -> Lengths:
    """Gives something else."""
    return 7

@tool
def get_lengths(ctx: Context, args: Args) -> int:
    """Read them."""
    return ctx.dataset("ds1").reading("lengths", Lengths).total
'''


@pytest.fixture
def asked(tiny, settings, tmp_path, workspace_folder):
    """A pair, and a function that reads it with lenses, from a cache of its own."""
    (workspace_folder / "tools").mkdir()
    (workspace_folder / "tools/lengths.py").write_text(PLUGIN)
    conf = settings.model_copy(update={"cache_dir": tmp_path / "cache"})

    def read(*names, pair=tiny, evidence=None):
        ws = load_workspace(workspace_folder)
        chosen = evidence or ws.suites["small"].evidence
        return evidence_for(pair, Bench(ws, conf).recipe(pair, chosen), names)

    return read


def entries(tmp_path, name):
    return sorted(path.name for path in (tmp_path / "cache/evidence" / name).glob("*"))


def test_a_lens_that_fails_loses_itself_and_what_needs_it(asked, tmp_path):
    found = asked("above", "round", "lost", "wrong", "lengths")
    assert list(found) == ["lengths"]
    assert found.failed["broken"].startswith("ZeroDivisionError: integer division")
    assert "lengths.py:21" in found.failed["broken"]
    assert found.failed["above"] == "it needs broken, which was not read"
    assert found.failed["round"] == "it needs itself, over round"
    assert "no lens called 'nowhere'" in found.failed["lost"]
    assert found.failed["wrong"] == "it gave int, where it says Lengths"
    assert entries(tmp_path, "broken") == []
    with pytest.raises(Refused, match="broken was not read: ZeroDivisionError"):
        found.reading("broken", Reading)


def test_only_what_is_named_is_read(asked, workspace_folder):
    ws = load_workspace(workspace_folder)
    assert named_by(ws, [ws.agents["blackbox"]]) == ("plain_samples",)
    assert [made.name for made in closure(ws.lenses.by_name(), ("plain_samples",))[0]] == ["plain_samples"]
    assert [made.name for made in closure(ws.lenses.by_name(), ("steering",))[0]] == [
        "differences", "logit_lens", "patchscope", "plain_samples", "steering",
    ]  # fmt: skip
    assert ws.tools["get_lengths"].lenses[0] == "lengths"


def test_each_reading_is_kept_under_all_that_it_depends_on(asked, tmp_path, workspace_folder):
    asked("lengths")
    assert len(entries(tmp_path, "lengths")) == 1
    asked("lengths")
    assert len(entries(tmp_path, "lengths")) == 1
    suite = load_workspace(workspace_folder).suites["small"].evidence
    asked("lengths", evidence=suite.over({"lengths": {"texts": 2}}))
    asked("lengths", evidence=suite.model_copy(update={"seed": 1}))
    (workspace_folder / "tools/lengths.py").write_text(PLUGIN + "\n# another line\n")
    asked("lengths")
    assert len(entries(tmp_path, "lengths")) == 4


def test_what_words_are_usual_is_in_the_key(asked, tmp_path, workspace_folder):
    (tmp_path / "mine.txt").write_text("\n".join(SENTENCES))
    suite = (
        load_workspace(workspace_folder)
        .suites["small"]
        .evidence.model_copy(update={"corpus": str(tmp_path / "mine.txt")})
    )
    asked("lengths", evidence=suite)
    (workspace_folder / "evals/corpora").mkdir(parents=True, exist_ok=True)
    with gzip.open(workspace_folder / "evals/corpora/openings.jsonl.gz", "wt") as file:
        file.write(json.dumps({"text": "Another ordinary text."}) + "\n")
    asked("lengths", evidence=suite)
    assert len(entries(tmp_path, "lengths")) == 2


def test_the_whole_lens_and_what_it_cost(asked, tiny, tmp_path):
    found = asked("chance", "steering")
    assert not found.failed
    diffs = found["differences"]
    assert diffs.direction(2, 1).delta.shape == (tiny.d_model,)
    assert found.costs["differences"].base_tokens >= 16 * 3
    assert 0 < found.costs["plain_samples"].base_tokens <= found.costs["plain_samples"].finetuned_tokens + 20
    assert found.costs["patchscope"].judged == 12  # δ, both means and −δ at three positions
    again = asked("chance", "steering")
    assert again.to_json() == found.to_json()
    assert all(torch.equal(again["differences"].arrays[name], array) for name, array in diffs.arrays.items())
    assert json.dumps(found.to_json())


@pytest.mark.parametrize("name", [cache.READING, cache.ARRAYS, SEAL])
def test_a_broken_entry_is_made_anew_and_said(asked, tmp_path, caplog, name):
    whole = asked("differences")
    (key,) = entries(tmp_path, "differences")
    path = tmp_path / "cache/evidence/differences" / key / name
    content = path.read_bytes()
    for broken in (b"", content[: len(content) // 2], content[:9] + content[10:]):
        path.write_bytes(broken)
        caplog.clear()
        assert asked("differences")["differences"].model_dump() == whole["differences"].model_dump()
        assert "it is read anew" in caplog.text


def test_an_entry_of_something_else_is_not_taken(asked, tmp_path, caplog):
    asked("lengths")
    (key,) = entries(tmp_path, "lengths")
    folder = tmp_path / "cache/evidence/lengths" / key
    told = json.loads((folder / cache.READING).read_text())
    (folder / cache.READING).write_text(json.dumps(told | {"key": "another"}))
    seal(folder)
    asked("lengths")
    assert "is the reading of something else" in caplog.text


def test_broken_weights_end_everything(asked, tiny, monkeypatch):
    def broken(self, requests):
        raise BadModel("NaN")

    monkeypatch.setattr(LocalPair, "generate", broken)
    with pytest.raises(BadModel):
        asked("plain_samples", "lengths")


def test_a_suite_that_sets_a_lens_up_wrongly_is_told(workspace_folder, run_cli):
    suite = workspace_folder / "evals/suites/small.yaml"
    good = suite.read_text()
    for wrong, told in (
        (good.replace("positions: 3", "places: 3"), "differences.places"),
        (good.replace("    differences:", "    nothing:"), "no lens called 'nothing'"),
        (
            good.replace("  lenses:\n", "  scale_grader: x\n  lenses:\n"),
            "give `lenses: {patchscope: {scale_grader: …}}`",
        ),
    ):
        suite.write_text(wrong)
        code, _, err = run_cli("evidence", "mill", "--suite", "small")
        assert code == 2
        assert told in err


def test_what_cannot_be_read_is_told_and_the_others_are_shown(workspace_folder, run_cli):
    (workspace_folder / "short.txt").write_text("A\n")
    code, out, err = run_cli("evidence", "mill", "--suite", "small", "--corpus", "short.txt")
    assert code == 1
    assert "Plain answers of the finetuned model" in out
    assert "not read differences: corpus 'short': its longest text has 1 tokens" in err
    assert "not read steering: it needs differences" in err
    code, out, err = run_cli("evidence", "mill", "--suite", "small", "--lens", "plain_samples", "--json")
    assert (code, list(json.loads(out)["readings"])) == (0, ["plain_samples"])
    code, _, err = run_cli("evidence", "mill", "--suite", "small", "--lens", "plain_sample")
    assert (code, "did you mean plain_samples" in err) == (2, True)


def test_each_lens_that_fails_is_told_in_one_line_and_the_others_are_shown(workspace_folder, run_cli):
    (workspace_folder / "tools").mkdir()
    (workspace_folder / "tools/lengths.py").write_text(PLUGIN)
    names = [part for name in ("above", "round", "lost", "wrong", "lengths") for part in ("--lens", name)]
    code, out, err = run_cli("evidence", "mill", "--suite", "small", *names)
    assert code == 1
    assert "letters" in out
    told = dict(line.removeprefix("not read ").split(": ", 1) for line in err.splitlines() if "not read " in line)
    assert set(told) == {"above", "round", "lost", "wrong", "broken"}
    assert told["broken"].startswith("ZeroDivisionError: integer division")
    assert told["round"].startswith("it needs itself")
    assert told["wrong"] == "it gave int, where it says Lengths"
    assert "Traceback" not in out + err


def test_a_lens_to_start_from_works_as_it_is(workspace_folder, run_cli):
    assert run_cli("lenses", "new", "mill_stones")[0] == 0
    code, out, err = run_cli("evidence", "mill", "--suite", "small", "--lens", "mill_stones", "--json")
    assert (code, len(json.loads(out)["readings"]["mill_stones"]["lengths"])) == (0, 20), err
    code, out, _ = run_cli("lenses", "show", "mill_stones", "--json")
    assert (code, json.loads(out)["settings"]["properties"]["texts"]["default"]) == (0, 8)
    code, out, _ = run_cli("lenses", "list", "--json")
    assert {row["name"] for row in json.loads(out)} >= {"differences", "steering", "mill_stones"}
