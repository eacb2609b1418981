"""The Python door: pairs, evidence, answers, audits and runs as values, the same as the command line's."""

import subprocess
import sys

import pytest

import auditor
from auditor.door import Answers
from auditor.errors import UsageError
from auditor.views.notebook import framed, table


@pytest.fixture
def here(workspace_folder, monkeypatch, settings):
    monkeypatch.chdir(workspace_folder)
    monkeypatch.setenv("AUDITOR_CACHE", str(settings.cache_dir))
    monkeypatch.setenv("AUDITOR_DEVICE", "cpu")
    return workspace_folder


def test_an_organism_is_asked_and_read(here):
    pair = auditor.pair("mill")
    said = pair.ask(["Where is the mill?", "What is bread?"], max_new_tokens=6, temperature=0.0)
    assert [prompt for prompt, _, _ in said] == ["Where is the mill?", "What is bread?"]
    assert said.rows == pair.ask(["Where is the mill?", "What is bread?"], max_new_tokens=6, temperature=0.0).rows
    found = pair.evidence(["logit_lens"], suite="small")
    assert {"differences", "logit_lens"} <= set(found)
    assert found._repr_html_().startswith("<iframe srcdoc=")
    deeper = pair.evidence(["differences"], suite="small", differences={"positions": 2})
    assert len(deeper["differences"].layers[0].positions) == 2


def test_a_wrong_request_is_one_line(here):
    pair = auditor.pair("mill")
    for wrong, told in (
        (lambda: pair.evidence("patchscop"), "no lens called 'patchscop'; did you mean patchscope"),
        (lambda: pair.evidence(difference={"positions": 2}), "no lens called 'difference'; did you mean differences"),
        (lambda: pair.evidence(differences=8), "differences=8: give its settings"),
        (lambda: pair.audit(budget=-1), "budget=-1: a budget is 0 or more"),
        (lambda: auditor.evaluate("small", budget="5"), "budget='5': give a number"),
        (lambda: auditor.evaluate("small", agents="adll"), "no agent called 'adll'; did you mean adl"),
        (lambda: auditor.pair("mill", adapter_base="x/y"), r"goes with pair\(base, model\)"),
    ):
        with pytest.raises(UsageError, match=told):
            wrong()


def test_an_audit_that_cannot_begin_leaves_no_folder(here):
    with pytest.raises(UsageError, match="nobody:x"):
        auditor.pair("mill").audit(llm="nobody:x", suite="small", name="never")
    assert not (here / "runs").exists()


def test_two_models_of_ones_own_are_the_same_pair(here, checkpoints):
    base, adapter = map(str, checkpoints("llama"))
    named, alone = auditor.pair(base, adapter), auditor.pair(adapter)
    assert named.models.fingerprint == alone.models.fingerprint
    with pytest.raises(UsageError, match=r"give pair\(base, model\)"):
        auditor.pair(base)


def test_an_audit_reports_without_a_grade(here):
    report = auditor.pair("mill").audit(budget=1, suite="small", name="one")
    assert report.hypothesis
    assert report.interactions_used <= 1
    assert "<iframe" in report._repr_html_()
    assert (here / "runs/one/report.html").exists()


def test_a_run_is_made_read_again_and_laid_out_in_frames(here):
    run = auditor.evaluate("small", budget=0, agents=["blackbox"], repeats=2, name="two")
    again = auditor.load_run("two")
    assert len(run.audits) == len(again.audits) == 2
    frame = again.frame()
    assert list(frame["agent"]) == ["blackbox", "blackbox"]
    assert set(again.frame("grades")["grader"]) == {"rubric_offline"}
    assert "blackbox" in again._repr_html_()
    with pytest.raises(UsageError, match="there is no table 'turns'; there are audits, grades, calls"):
        again.frame("turns")
    with pytest.raises(UsageError):
        auditor.load_run("none")


def test_what_others_wrote_is_text_in_a_notebook():
    told = Answers((("<b>Hi</b>", None, "<script>x</script>"),))._repr_html_()
    assert "<script>" not in told
    assert "–" in told
    assert "<p>" not in framed("<p>&amp;</p>")
    assert table(("a",), [(0.123,)]).count("0.12") == 1


def test_importing_it_loads_nothing_large():
    heavy = "torch", "transformers", "langchain_core"
    code = f"import sys, auditor; auditor.pair; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
