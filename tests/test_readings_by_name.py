"""What lenses read, asked of a server by name: as JSON, as lines with progress, and by commands with --server."""

import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch
import yaml

from auditor.audits.bench import Bench
from auditor.errors import BadModel, UsageError
from auditor.evidence import compute
from auditor.evidence.compute import evidence_for
from auditor.evidence.sources import source_hash
from auditor.models.host import Host
from auditor.models.http import Declined, Unusable
from auditor.models.local import LocalPair
from auditor.models.remote import RemotePair, connect
from auditor.server import readings
from auditor.workspace import load_workspace
from tests.conftest import SUITE
from tests.margins import MARGIN
from tests.serving import until

PATCHSCOPE = ["differences", "logit_lens", "patchscope"]  # with what it needs
LINES = {"accept": "application/x-ndjson"}
ROUNDING = 10 * MARGIN  # what is computed of residuals and logits spreads their errors


@pytest.fixture
def fresh(served, tmp_path, monkeypatch):
    """A server that has read nothing yet."""
    conf = served.library.settings.model_copy(update={"cache_dir": tmp_path / "server"})
    monkeypatch.setattr(served.library, "settings", conf)
    return served


@pytest.fixture
def ask(tiny, settings, tmp_path, workspace_folder):
    """A function that reads a pair with lenses, in a cache that the server does not have."""

    def read(pair, *names, **more):
        conf = settings.model_copy(update={"cache_dir": tmp_path / f"client-{type(pair).__name__}"})
        ws = load_workspace(workspace_folder)
        chosen = ws.suites["small"].evidence.model_copy(update=more)
        return evidence_for(pair, Bench(ws, conf).recipe(pair, chosen), names)

    return read


@pytest.fixture
def remote(fresh, settings, monkeypatch):
    """The server's pair. What a client would have to compute itself is an error, unless `own` says that it may."""
    pair, original = connect(fresh.url, "mill", settings), compute._read
    pair.own = set()

    def guarded(pair_, recipe, lens, *more):
        assert not hasattr(pair_, "own") or lens.name in pair_.own, f"{lens.name} was read by the client"
        return original(pair_, recipe, lens, *more)

    monkeypatch.setattr(compute, "_read", guarded)
    return pair


def get(running, path, **more):
    return httpx.get(f"{running.url}/v1/evidence/{path}", timeout=120, **more)


def same(one, other):
    """Whether two evidences say the same, arrays too; rows that share a batch with others are rounded otherwise."""
    agree({**one.to_json(), "costs": 0, "pair": 0}, {**other.to_json(), "costs": 0, "pair": 0})
    for name, reading in one.items():
        assert reading.arrays.keys() == other[name].arrays.keys()
        for key, array in reading.arrays.items():
            torch.testing.assert_close(array, other[name].arrays[key], rtol=ROUNDING, atol=ROUNDING)


def agree(one, other, where=""):
    """Raises AssertionError with the place at which two values of JSON part by more than rounding."""
    if isinstance(one, float) and isinstance(other, float):
        assert other == pytest.approx(one, rel=ROUNDING, abs=ROUNDING), where
    elif isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            agree(value, other[key], f"{where}.{key}")
    elif isinstance(one, list) and isinstance(other, list):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            agree(a, b, f"{where}.{i}")
    else:
        assert one == other, where


SMALL = {
    **yaml.safe_load(SUITE)["evidence"]["lenses"],
    "diff_mining": {"texts": 12, "chats": 4, "tokens": 6},
    "jacobian": {"texts": 6, "tokens": 6},
    "ppl_diff": {"prefills": 6, "new_tokens": 8},
    "amplified": {"prefills": 3, "new_tokens": 8},
}
OWN = """
from auditor import LensContext, ModelPair, Reading, Record, lens

class Few(Record):
    texts: int = 2

class Own(Reading):
    nll: tuple[float, ...]

@lens(needs=("patchscope",))
def own(pair: ModelPair, ctx: LensContext, settings: Few) -> Own:
    'How likely texts are.'
    return Own(nll=tuple(pair.mean_nll("base", ctx.corpus.texts[:settings.texts])))
"""


def declines(*_args):
    raise Declined("it differs in code")


class TestRoute:
    def test_one_lens_with_what_it_needs(self, fresh, tiny, ask):
        told = get(fresh, "mill/patchscope").json()
        assert (told["pair"], list(told["readings"]), told["failed"]) == ("mill", PATCHSCOPE, {})
        assert told["settings"]["patchscope"]["scales"] == [1, 3]
        assert told["readings"] == ask(tiny, "patchscope").to_json()["readings"]
        assert told["costs"]["differences"]["base_tokens"] > 0
        assert get(fresh, "mill/patchscope").json() == told

    @pytest.mark.parametrize(
        ("path", "said"),
        [
            ("mil/patchscope", "did you mean mill"),
            ("mill/patchscop", "did you mean patchscope"),
            ("mill/patchscope?suite=quick", "did you mean quickstart"),
        ],
    )
    @pytest.mark.parametrize("headers", [{}, LINES])
    def test_what_there_is_not_is_named(self, served, path, said, headers):
        refused = get(served, path, headers=headers)
        assert refused.status_code == 404
        assert said in refused.json()["error"]["message"]

    def test_progress_comes_in_lines(self, fresh):
        answer = get(fresh, "mill/patchscope", headers=LINES)
        *stages, last = map(json.loads, answer.text.splitlines())
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        assert [line["stage"] for line in stages] == PATCHSCOPE
        assert last == {"evidence": get(fresh, "mill/patchscope").json()}
        assert get(fresh, "mill/patchscope", headers=LINES).text.count("\n") == 1

    def test_a_long_stage_is_told_again_and_again(self, fresh, monkeypatch):
        monkeypatch.setattr(readings, "PULSE", 0.02)
        original, told = LocalPair.residuals, []

        def slow(*args):
            until(lambda: sum(line["stage"] == "differences" for line in told) > 1)
            return original(*args)

        monkeypatch.setattr(LocalPair, "residuals", slow)
        url = f"{fresh.url}/v1/evidence/mill/differences"
        with httpx.stream("GET", url, headers=LINES, timeout=60) as answer:
            for line in answer.iter_lines():
                told.append(json.loads(line))
        stages = [line["stage"] for line in told[:-1]]
        assert set(stages) <= {"waiting", "differences"}  # it may wait for its turn first
        assert stages.count("differences") > 1
        assert "evidence" in told[-1]

    @pytest.mark.parametrize(("headers", "status"), [({}, 400), (LINES, 200)])
    def test_what_goes_wrong_is_the_answer_or_its_last_line(self, fresh, monkeypatch, headers, status):
        def broken(*_args):
            raise BadModel("NaN in layer 1")

        monkeypatch.setattr(LocalPair, "residuals", broken)
        answer = get(fresh, "mill/differences", headers=headers)
        assert answer.status_code == status
        assert json.loads(answer.text.splitlines()[-1])["error"]["message"] == "NaN in layer 1"

    def test_a_lens_that_cannot_be_read_is_told(self, fresh, monkeypatch):
        """Its reference is not here."""
        suites = fresh.library.workspace.suites
        held = suites["quickstart"].evidence.over({"ppl_diff": {"reference": "./nowhere"}})
        changed = suites["quickstart"].model_copy(update={"evidence": held})
        monkeypatch.setitem(suites.items, "quickstart", replace(suites.items["quickstart"], value=changed))
        told = get(fresh, "mill/ppl_diff").json()
        assert told["readings"] == {}
        assert "nowhere" in told["failed"]["ppl_diff"]

    def test_code_that_was_changed_since_the_server_began_is_refused(self, fresh, monkeypatch):
        monkeypatch.setitem(fresh.library._code, "differences", "of another time")
        refused = get(fresh, "mill/differences")
        assert refused.status_code == 409
        assert "start it again" in refused.json()["error"]["message"]


class TestByServer:
    @pytest.mark.parametrize("by_name", [True, False], ids=["by name", "over the pair"])
    def test_every_lens_reads_the_same(self, remote, tiny, ask, monkeypatch, by_name):
        """Whoever computes it. `remote` refuses to compute it where the server is asked for it."""
        names = [lens.name for lens in load_workspace(None).lenses.by_name().values()]
        assert set(names) >= {"differences", "steering", "chance", "diff_mining", "ppl_diff", "amplified", "jacobian"}
        if not by_name:
            remote.own = set(names)
            monkeypatch.setattr(RemotePair, "reading", declines)
        here, there = ask(tiny, *names, lenses=SMALL), ask(remote, *names, lenses=SMALL)
        assert not here.failed
        same(here, there)
        assert [(c.base_tokens, c.finetuned_tokens) for c in here.costs.values()] == [
            (c.base_tokens, c.finetuned_tokens) for c in there.costs.values()
        ]

    def test_what_vllm_cannot_do_loses_the_lens_that_needs_it(self, remote, ask, monkeypatch):
        monkeypatch.setattr(Host, "compares", False)
        for refused in (lambda: None, lambda: monkeypatch.setattr(RemotePair, "reading", declines)):
            refused()
            found = ask(remote, "amplified", "ppl_diff", "logit_lens", lenses=SMALL)
            assert list(found) == ["differences", "logit_lens"]
            assert {name: "vLLM draws no token from two models" in why for name, why in found.failed.items()} == {
                "amplified": True, "ppl_diff": True,
            }  # fmt: skip
            remote.own = {"amplified", "ppl_diff"}

    def test_stages_are_told(self, remote, settings, tmp_path, workspace_folder):
        told = []
        ws = load_workspace(workspace_folder)
        conf = settings.model_copy(update={"cache_dir": tmp_path / "other"})
        recipe = Bench(ws, conf).recipe(remote, ws.suites["small"].evidence)
        found = evidence_for(remote, recipe, ["steering"], told.append)
        assert [stage for stage in told if stage in found] == list(found)
        assert len(told) > len(found)  # the strengths that it looks for, too

    def test_what_the_server_does_not_have_is_read_over_its_pair(self, remote, tiny, ask, workspace_folder, caplog):
        """A lens of the user's own, one whose code is another here, and whatever is built on them."""
        (workspace_folder / "tools").mkdir()
        built_in = Path(load_workspace(None).tools.items["get_patchscope_details"].path)
        (workspace_folder / "tools/patchscope.py").write_text(f"{built_in.read_text()}\n# mine\n")
        (workspace_folder / "tools/own.py").write_text(OWN)
        remote.own = {"patchscope", "own"}
        same(ask(tiny, "own", "logit_lens"), ask(remote, "own", "logit_lens"))
        assert "patchscope is read by this process" in caplog.text
        assert "it differs in code" in caplog.text

    def test_texts_that_only_the_client_has_never_leave_as_a_path(self, remote, tiny, ask, tmp_path, caplog):
        (tmp_path / "texts.txt").write_text("One text.\nAnother text, of more words.\n")
        remote.own = {"differences"}
        corpus = str(tmp_path / "texts.txt")
        same(ask(tiny, "differences", corpus=corpus), ask(remote, "differences", corpus=corpus))
        assert "it has no corpus" in caplog.text

    def test_a_model_beside_the_pair_is_never_loaded_there(self, remote, fresh, ask, checkpoints):
        """It may be a path, or a name on the hub."""
        base, _ = map(str, checkpoints("gpt2"))
        held = {**SMALL, "ppl_diff": {**SMALL["ppl_diff"], "reference": base}}
        remote.own = {"ppl_diff"}
        assert not ask(remote, "ppl_diff", lenses=held).failed
        body = {"lens": "ppl_diff", "settings": {"lenses": held}, "parts": {}}
        refused = fresh.post("/v1/pairs/mill/reading", body)
        assert refused.status_code == 409
        assert "no model beside its pairs" in refused.json()["error"]["message"]

    def test_other_weights_under_the_same_name_end_everything(self, remote, ask):
        remote.fingerprint = "before the server was started again"
        with pytest.raises(Unusable, match="other weights"):
            ask(remote, "differences")

    def test_a_lens_that_fails_there_loses_itself_only(self, remote, ask, monkeypatch):
        def broken(*_args):
            raise UsageError("amplify: vLLM draws no token from two models")

        monkeypatch.setattr(LocalPair, "patched_logits", broken)
        found = ask(remote, "patchscope", "logit_lens")
        assert found.failed == {"patchscope": "amplify: vLLM draws no token from two models"}
        assert list(found) == ["differences", "logit_lens"]

    def test_broken_weights_end_everything(self, remote, ask, monkeypatch):
        def broken(*_args):
            raise BadModel("NaN in layer 1")

        monkeypatch.setattr(LocalPair, "residuals", broken)
        with pytest.raises(BadModel, match="NaN in layer 1"):
            ask(remote, "patchscope")

    def test_what_a_pair_refuses_over_http_loses_a_lens_only(self, remote, ask, monkeypatch, tmp_path):
        """As in process; a server that is gone ends everything."""
        (tmp_path / "texts.txt").write_text("One text.\n")
        remote.own = {"differences"}

        def refuses(*_args, **_more):
            raise UsageError("no")

        monkeypatch.setattr("auditor.server.pairs._fits", refuses)
        assert "no (HTTP 400)" in ask(remote, "differences", corpus=str(tmp_path / "texts.txt")).failed["differences"]


def test_the_same_code_has_the_same_hash_wherever_it_lies(tmp_path):
    """As a checkout and as a wheel have it."""
    lens = Path(load_workspace(None).tools.items["get_patchscope_details"].path)
    for folder in ("0", "zzz"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_bytes(lens.read_bytes())
        assert source_hash(tmp_path / folder / "a.py") == source_hash(lens)


def test_an_llm_judge_is_asked_by_the_client(remote, settings, serve, tmp_path, workspace_folder):
    """Neither it nor its key goes to the server."""
    from tests.conftest import judge

    serve(judge)
    ws = load_workspace(workspace_folder)
    conf = settings.model_copy(update={"cache_dir": tmp_path / "judged", "lens_llm": "openai:judge"})
    remote.own = {"patchscope"}
    recipe = Bench(ws, conf).recipe(remote, ws.suites["small"].evidence)
    found = evidence_for(remote, recipe, ["patchscope", "logit_lens"])
    assert list(found) == PATCHSCOPE
    assert found.costs["patchscope"].judged > 0
