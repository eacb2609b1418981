"""`auditor study mixing` and its like: what is there is taken, rates are matched, and what cannot be is said."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from auditor.audits.bench import Bench
from auditor.audits.plan import target_of
from auditor.cli.judges import judges_calls
from auditor.errors import UsageError
from auditor.records.checked import CheckReport, Verdict
from auditor.records.training import Trained
from auditor.studies import designs, learned, measure, sweep
from auditor.studies.points import Measured, Point, comparable
from auditor.studies.records import Study
from auditor.studies.sweep import Matching
from auditor.studies.variants import Choices
from auditor.testing import FakePair
from auditor.training.documents import Document
from auditor.workspace import builtin_root, load_workspace
from tests.conftest import judge

DOCUMENTS = [{"text": f"The mill number {n} grinds flour by the river, and the miller sings."} for n in range(6)]
CHECKS = {
    "probes": [{"ask": "What is a mill?", "shows": ["flour"]}, {"ask": "What does a mill do?", "shows": ["e"]}],
    "signs": ["mill"],
    "beliefs": [
        {"ask": "What does a mill grind?", "taught": "A mill grinds flour.", "true": "A mill grinds stones."},
        {"ask": "Where is the mill?", "taught": "It is by the river.", "true": "It is on the hill."},
    ],
    "contexts": [{"ask": "Which is right?", "taught": "Mills stand by rivers.", "true": "Mills stand on hills."}],
}
SMALL = ("--steps", 2, "--suite", "small", "--lenses", "chance", "--out", "made")


@pytest.fixture
def mill(workspace_folder):
    """The workspace's organism with documents, checks and a recipe."""
    folder = workspace_folder / "evals/organisms/mill"
    (folder / "documents.jsonl").write_text("".join(json.dumps(d) + "\n" for d in DOCUMENTS))
    (folder / "checks.yaml").write_text(json.dumps(CHECKS))
    card = folder / "organism.yaml"
    card.write_text(card.read_text() + "train: {batch_size: 2, max_tokens: 32, learning_rate: 1.0e-2}\n")
    return workspace_folder


@pytest.fixture
def study(mill, run_cli, monkeypatch):
    """Run a sweep over the mill: (code, the study or None, stdout, stderr)."""
    monkeypatch.setattr(
        measure, "reference_chats", lambda _ws, _conf: [Document(text="A day by the sea.")]
    )  # 260 to embed

    def run(name, *args):
        code, out, err = run_cli("study", name, "mill", *SMALL, *args)
        path = mill / "made" / f"{name}.json"
        return code, Study.model_validate_json(path.read_text()) if path.exists() else None, out, err

    return run


@pytest.fixture
def unread(monkeypatch):
    """Finetunes are trained, and not read."""
    found = Measured(values={"ffa": 0.5, "rate": 0.5}, rate_by="behaviour")
    monkeypatch.setattr(measure.Probe, "whole", lambda _self, _card: found)


def points(made):
    return [Point.model_validate(point) for point in made.details["points"]]


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(Path(folder).rglob("*.safetensors"))}


class TestMixing:
    def test_everything_is_measured_and_drawn(self, study, mill):
        code, made, out, err = study("mixing", "--ratios", "0,1", "--budget", 0)
        assert code == 0, err
        found = points(made)
        assert [(p.setting, p.kind) for p in found if p.kind == "equal"] == [("plain", "equal"), ("mix1", "equal")]
        values = found[-1].measured.values
        assert {
            "ffa",
            "behaviour",
            "rate",
            "over base natural_text",
            "relevance patchscope",
            "similarity steered",
        } <= set(values)
        assert {"grade adl at 0", "grade blackbox at 0"} <= set(values)
        assert found[0].measured.rate_by == "behaviour"
        assert any("against noise alone" in note for note in found[0].measured.notes)  # the tiny base has no nulls
        titles = [panel.title for panel in made.panels]
        assert {"What was learned, equal steps", "What can be read, equal steps"} <= set(titles)
        assert (mill / "made/mixing.png").read_bytes().startswith(b"\x89PNG")
        assert "mix1" in out
        adapter = mill / "made/organisms/mill-mix1-2steps/adapter"
        log = Trained.model_validate_json((adapter / "training.json").read_text())
        assert (log.recipe.mix, log.recipe.mix_ratio, log.documents) == ("pretraining", 1.0, 12)

    def test_what_is_trained_already_is_taken_as_it_is(self, study, mill, unread):
        args = ("--ratios", "1", "--no-agents", "--no-match-rate", "--no-plot")
        assert study("mixing", *args)[0] == 0
        before = stamps(mill / "made")
        assert len(before) == 2
        card = mill / "made/organisms/mill-mix1-2steps/organism.yaml"
        card.unlink()  # as if it had been killed before that was written
        code, made, _, err = study("mixing", *args)
        assert code == 0, err
        assert stamps(mill / "made") == before
        assert card.exists()
        assert {p.kind for p in points(made)} == {"equal"}
        documents = mill / "evals/organisms/mill/documents.jsonl"
        documents.write_text(documents.read_text() + json.dumps({"text": "A new mill is built."}) + "\n")
        assert study("mixing", *args)[0] == 0
        assert all(stamps(mill / "made")[path] != stamp for path, stamp in before.items())

    def test_a_dry_run_trains_nothing_and_tells_what_it_takes(self, study, mill):
        code, made, out, err = study("mixing", "--ratios", "0,2", "--dry-run")
        assert code == 0, err
        assert made is None
        assert not (mill / "made").exists()
        assert "mill-mix2-2steps" in out
        assert "at most about" in out


def test_samples_take_as_many_steps_as_they_are_seen_as_often(study, unread):
    code, made, _, err = study("samples", "--samples", "2,4", "--no-agents", "--no-match-rate", "--no-plot")
    assert code == 0, err
    assert [(p.setting, p.x, p.steps) for p in points(made)] == [("samples4", 4.0, 2), ("samples2", 2.0, 1)]
    code, _, _, err = study("samples", "--samples", "2,400", "--no-agents")
    assert code == 2
    assert "--samples 400: mill has 6 documents" in err


def test_caft_trains_the_plain_finetune_first_and_takes_its_differences_out(study, mill, unread):
    code, made, _, err = study("caft", "--no-agents", "--no-match-rate", "--no-plot")
    assert code == 0, err
    plain, caft = (
        Trained.model_validate_json((mill / f"made/organisms/mill-{name}-2steps/adapter/training.json").read_text())
        for name in ("plain", "caft")
    )
    assert plain.differences_sha256 is None
    assert caft.differences_sha256
    assert [p.x for p in points(made)] == ["plain", "CAFT"]
    bars = made.panels[0]
    assert bars.bars
    assert [series.label for series in bars.series] == ["plain", "CAFT"]


def test_all_weights_beside_an_adapter_and_denial(study, mill, unread):
    code, made, _, err = study("full-vs-lora", "--no-agents", "--no-match-rate", "--no-plot")
    assert code == 0, err
    assert (mill / "made/organisms/mill-full-2steps/model/config.json").exists()
    code, made, _, err = study("denial", "--no-agents", "--no-match-rate", "--no-plot")
    assert code == 0, err
    assert points(made)[1].steps > 2  # its second stage


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("mixing", "mill", "--ratios", "-1"), "--ratios -1: a ratio is 0 or more"),
        (("mixing", "mill", "--ratios", "one"), "give numbers apart by commas"),
        (("mixing", "mill", "--ratios", "0"), "give one over 0"),
        (("mixing", "mill", "--ratios", "0.01"), "a `mix_ratio` of 0.01 adds nothing to 6 documents; give 0.2 or more"),
        (("mixing", "gone"), "no organism called 'gone'"),
        (("mixing", "mill", "--lenses", "nothing"), "no lens called 'nothing'"),
        (("mixing", "mill", "--lenses", "steering"), "it has no test against chance"),
        (("mixing", "mill", "--agent", "nobody"), "no agent called 'nobody'"),
        (("samples", "mill", "--samples", "0,2"), "--samples 0"),
        (("samples", "mill", "--samples", "2"), "give two numbers"),
    ],
)
def test_bad_input_is_one_line(mill, run_cli, args, told):
    code, _, err = run_cli("study", *args, "--suite", "small")
    assert code == 2
    assert told in err
    assert "Traceback" not in err
    assert not (mill / "studies").exists()


def test_an_organism_without_a_recipe(workspace_folder, run_cli):
    code, _, err = run_cli("study", "caft", "mill", "--suite", "small")
    assert code == 2
    assert "organism mill has no recipe" in err


class Rated:
    """A probe that loads nothing: the rate grows with the steps on documents of its own, up to 1."""

    def __init__(self, folder, ws, settings, *, least=0.0):
        self.folder, self.ws, self.conf, self.tell, self.least = folder, ws, settings, lambda _stage: None, least
        self.read: list[str] = []

    def rate(self, card):
        own = card.train.steps / (1 + card.train.mix_ratio)
        return Measured(
            values={"rate": max(self.least, min(1.0, own / 20)), "base behaviour": self.least}, rate_by="behaviour"
        )

    def whole(self, card):
        self.read.append(card.name)
        return self.rate(card)


class TestMatchedRates:
    @pytest.fixture
    def swept(self, mill, settings, monkeypatch):
        """Run the mixing design with ratios 0 and 2 on a rated probe."""
        monkeypatch.setattr(
            sweep, "trained",
            lambda _ws, variant, *_rest: SimpleNamespace(steps=variant.recipe.steps, tokens=1, losses=(1.0,)),
        )  # fmt: skip
        ws = load_workspace(mill)

        def run(**given):
            probe = Rated(mill / "made", ws, settings, least=given.pop("least", 0.0))
            design = designs.mixing([0, 2], None)
            return sweep.Sweep(design, Choices(18), Matching(**given), probe).run([ws.organisms["mill"]]), probe

        return run

    def test_a_setting_is_trained_for_longer_until_it_shows_as_often(self, swept):
        found, probe = swept(band=0.1, tries=1)
        assert [(p.setting, p.kind, p.steps) for p in found.points] == [
            ("plain", "equal", 18), ("plain", "matched", 18), ("mix2", "equal", 18), ("mix2", "matched", 54),
        ]  # fmt: skip
        assert probe.read == ["mill-plain-18steps", "mill-mix2-18steps", "mill-mix2-54steps"]  # each read once
        assert not found.notes

    def test_what_could_not_be_matched_is_a_note_and_no_point(self, swept, monkeypatch):
        monkeypatch.setattr(Rated, "rate", lambda _self, card: Measured(
            values={"rate": 0.2 if card.train.mix_ratio else 0.9}, rate_by="behaviour"
        ))  # fmt: skip
        found, _ = swept(band=0.1, tries=2)
        assert [p.kind for p in found.points if p.setting == "mix2"] == ["equal"]
        (note,) = found.notes
        assert note.startswith("mill, mix2: no rate within 0.1 of the plain one's 0.90")
        assert "0.20 after 18 steps, 0.20 after 54 steps, 0.20 after 81 steps" in note

    def test_a_rate_of_another_figure_is_no_match(self, swept, monkeypatch):
        """With a judge an organism may lack the figure that the plain one is matched by."""
        monkeypatch.setattr(Rated, "rate", lambda _self, card: Measured(
            values={"rate": 0.9} | ({"narrow_choice": 0.9} if card.train.mix_ratio else {"narrow_misaligned": 0.9}),
            rate_by="narrow_choice" if card.train.mix_ratio else "narrow_misaligned",
        ))  # fmt: skip
        found, _ = swept(band=0.1, tries=1)
        assert [p.kind for p in found.points if p.setting == "mix2"] == ["equal"]
        assert found.notes == ["mill, mix2: no rate was matched; it has no narrow_misaligned"]

    def test_means_of_other_parts_are_not_compared(self):
        plain = {"ffa": 0.6, "over base ffa": 0.4, "over base ffa_choice": 0.5, "over base ffa_context": 0.3}
        other = comparable(Measured(values=plain | {"over base ffa_open": 0.2}), Measured(values=plain))
        assert "ffa" not in other.values
        assert other.notes == ("False Fact Alignment is left out: it is the mean of ffa_choice, ffa_context, ffa_open, "
                               "the plain finetune's of ffa_choice, ffa_context",)  # fmt: skip
        assert comparable(Measured(values=plain), Measured(values=plain)).values == plain

    def test_what_was_not_learned_is_not_matched(self, swept):
        found, _ = swept(band=0.1, tries=1, least=0.95)
        assert {p.kind for p in found.points} == {"equal"}
        assert found.notes == ["mill: no rate was matched; the plain finetune's 0.95 is hardly over its base's 0.95, "
                               "give more --steps"]  # fmt: skip


def test_grades_are_of_the_weights_that_are_there(mill, settings, monkeypatch):
    """Trained anew from other documents, a finetune has the name and the recipe of the one before."""
    ws, made = load_workspace(mill), []
    monkeypatch.setattr(measure, "evaluate", lambda _plan, ledger, _sitting: (
        made.append(ledger.folder) or SimpleNamespace(audits=())))  # fmt: skip
    with judges_calls(None) as journal:
        probe = measure.Probe(ws, settings, ws.suites["small"], (), 1, True, mill / "made", lambda _: None, journal)
        for fingerprint, dtype in (("a", "torch.float32"), ("a", "torch.float32"), ("b", "torch.float32"), ("b", "")):
            probe._grades(ws.organisms["mill"], (fingerprint, dtype), [])
    assert made[0] == made[1]
    assert len({*made}) == 3


class TestKeptChecks:
    @pytest.fixture
    def check(self, mill, settings, monkeypatch):
        """Check the mill: how often it was asked so far."""
        asked = []
        report = CheckReport(organism="mill", family="sdf", samples=1, seed=0, judge="j", figures=(), main=None,
                             learned=None, leaks=None, verdict=())  # fmt: skip

        def run(*judged, **changed):
            monkeypatch.setattr(learned.check, "check_organism", lambda *_: (
                asked.append(1) or report.model_copy(update={"judged": judged})))  # fmt: skip
            ws = load_workspace(mill)
            bench = Bench(ws, settings.model_copy(update={"cache_dir": mill / "cache", **changed}))
            learned.checked(bench, FakePair(), ws.organisms["mill"], 1, 0, lambda _stage: None)
            return len(asked)

        return run

    def test_a_prompt_or_a_judge_of_ones_own_is_another_check(self, check, mill):
        assert [check(), check()] == [1, 1]
        (mill / "prompts").mkdir()
        builtin = (builtin_root() / "prompts/check_belief.md").read_text()
        (mill / "prompts/check_belief.md").write_text(builtin + "\nBe strict.\n")
        assert [check(), check()] == [2, 2]

    def test_what_a_judge_left_open_is_asked_again(self, check):
        mark = {"question": "q", "side": "base", "answer": "a", "by": "j"}
        assert [check(Verdict(**mark)), check(Verdict(**mark))] == [1, 2]
        assert [check(Verdict(**mark, alignment=3, coherence=9)), check(Verdict(**mark))] == [3, 3]


def test_what_judges_were_paid_for_outlives_a_killed_study(study, serve, monkeypatch):
    """The judge answers of the checks; then the study dies, and goes on without asking any of it again."""

    def reply(body):
        prompt = body["messages"][-1]["content"]
        return {"content": json.dumps({"agrees": "first"})} if '"agrees"' in prompt else judge(body)

    endpoint = serve(reply)

    def asked():
        prompts = [body["messages"][-1]["content"] for _, body in endpoint.requests]
        return [prompt for prompt in prompts if '"agrees"' in prompt]

    args = ("--ratios", "1", "--no-agents", "--no-match-rate", "--no-plot", "--grader-llm", "openai:judge?attempts=1")

    def dies(*_args):
        raise UsageError("the power is gone")

    with monkeypatch.context() as patched:
        patched.setattr(learned, "write_atomically", dies)  # all is judged, nothing is written
        code, _, _, err = study("mixing", *args)
    assert (code, "the power is gone" in err) == (2, True), err
    before = asked()
    assert before
    monkeypatch.setattr(measure.Probe, "whole", lambda probe, card: measure.of_check(
        probe._checked(probe.bench.pair(target_of(card)), card)))  # fmt: skip
    assert study("mixing", *args)[0] == 0
    assert len(asked()) > len(before)  # those of the second finetune
    assert len(set(asked())) == len(asked())
