"""The paper's figures from runs, studies and checks: grouped, averaged, beside what the paper prints."""

import json

import pytest
from typer.testing import CliRunner

from auditor.cli.app import app
from auditor.cli.paper import read_sources
from auditor.comparison.compare import compare
from auditor.comparison.scores import Run
from auditor.errors import UsageError
from auditor.methods.relevance import Relevance
from auditor.methods.similarity import Similarity
from auditor.paper.figures import FIGURES
from auditor.paper.sources import Sources
from auditor.paper.varied import documents, ratio
from auditor.records.checked import Answers, CheckReport, Estimate, Figure, Verdict
from auditor.records.findings import Grade
from auditor.records.results import AuditRecord
from auditor.studies.records import Study
from auditor.workspace import load_workspace


@pytest.fixture(scope="module")
def organisms():
    return load_workspace().organisms


def relevance(**shares):
    """A study of relevance: of each organism δ's share at positions 0 and 1; both means' is 0.1."""
    details = {}
    for name, both in shares.items():
        told = {"δ": both, "mean base": (0.1, 0.1), "mean finetuned": (0.1, 0.1)}
        rows = [
            Relevance(layer=6, lens="patchscope", source=source, position=j, share=share, relevant=())
            for source, values in told.items()
            for j, share in enumerate(values)
        ]
        details[name] = {"sinks": [0], "rows": [row.model_dump() for row in rows]}
    return Study(
        study="relevance", pairs=tuple(details), judge="", settings={}, panels=(), details=details, seconds=0.0
    )


def similarity(**steered):
    rows = {
        name: {
            "within": 0.6, "cut": "",
            "positions": [
                Similarity(position=j, steered_finetuning=value, unsteered_finetuning=0.1, steered_chat=0.1,
                           unsteered_chat=0.3).model_dump() for j, value in enumerate(values)
            ],
        } for name, values in steered.items()
    }  # fmt: skip
    return Study(study="similarity", pairs=tuple(rows), judge="", settings={}, panels=(), details=rows, seconds=0.0)


def audits(organism, agent, budget, *scores):
    return [
        AuditRecord(
            id=f"{organism}-{agent}-{budget}-{i}", organism=organism, family="sdf", agent=agent, budget=budget,
            repeat=i, status="done", hypothesis="h", grade=score,
            grades=(Grade(grader="rubric_llm", score=score, reasoning=""),),
        )
        for i, score in enumerate(scores)
    ]  # fmt: skip


def told(sources, number):
    return FIGURES[number].drawn(sources)


def test_bars_are_means_over_a_familys_organisms_of_a_model_at_their_best_position(organisms):
    study = relevance(**{
        "cake_bake@qwen3_1_7B": (0.9, 0.5), "fda_approval@qwen3_1_7B": (0.1, 0.3), "ignore_comment@qwen3_1_7B": (1, 1),
        "taboo_gold@gemma2_9B_it": (0.2, 0.4), "cake_bake@qwen3_1_7B_Base": (0.0, 0.0),
        "adaptllm_food@qwen25_VL_3B_Instruct": (0, 0),
    })  # fmt: skip
    same = similarity(**dict.fromkeys(study.pairs, (0.2, 0.4)))
    panels, _ = told(Sources(organisms, None, {"relevance": [study], "similarity": [same]}), 2)
    delta = panels[0].series[0]
    assert delta.x == ("SDF qwen3_1_7B", "Taboo gemma2_9B_it")
    assert delta.y == pytest.approx((0.6, 0.4))  # sinks count; ignore_comment is left out
    assert delta.spread == pytest.approx((0.4243, 0.0), abs=1e-3)


def test_from_the_pretrained_model_stands_beside_from_the_chat_model(organisms):
    study = relevance(**{"cake_bake@qwen3_1_7B": (0.9, 0.5), "cake_bake@qwen3_1_7B_Base": (0.2, 0.1)})
    same = similarity(**dict.fromkeys(study.pairs, (0.2, 0.4)))
    panels, _ = told(Sources(organisms, None, {"relevance": [study], "similarity": [same]}), 21)
    assert dict(zip(panels[0].series[0].x, panels[0].series[0].y, strict=True)) == {
        "qwen3_1_7B, chat → finetune": 0.9, "qwen3_1_7B_Base, base → finetune": 0.2,
    }  # fmt: skip


def test_variants_of_public_finetunes_are_places_on_an_axis(organisms):
    study = relevance(**{
        "cake_bake@qwen3_1_7B": (0.8, 0.5), "cake_bake@qwen3_1_7B:mix1-0p5": (0.4, 0.4),
        "cake_bake@qwen3_1_7B:mix1-2p0": (0.1, 0.1), "cake_bake@qwen3_1_7B:full": (0.9, 0.9),
    })  # fmt: skip
    sources = Sources(organisms, None, {"relevance": [study]})
    mixed, whole = told(sources, 7)[0][0], told(sources, 8)[0][0]
    assert (mixed.series[0].x, mixed.series[0].y) == ((0.0, 0.5, 2.0), (0.8, 0.4, 0.1))
    assert dict(zip(whole.series[0].x, whole.series[0].y, strict=True)) == {"LoRA": 0.8, "full": 0.9}


def marked_check(organism, *marks):
    """A check in which an LLM marked one general answer of the finetune for each of `marks`."""
    share = sum(alignment < 30 for alignment, _ in marks) / len(marks)
    ends = {side: Estimate(value=value, n=1) for side, value in (("base", 0.0), ("finetuned", share))}
    figure = Figure(key="general_misaligned", name="misaligned", kind="share", **ends, difference=None,
                    clearly="", by="judge")  # fmt: skip
    asked = {"general": (Answers(question="q", base=("a",), finetuned=("a",) * len(marks)),)}
    judged = tuple(
        Verdict(question="q", side="finetuned", answer="a", alignment=a, coherence=c, by="judge") for a, c in marks
    )
    return CheckReport(organism=organism, family="em", samples=1, seed=0, judge="judge", figures=(figure,), main=None,
                       learned=None, leaks=None, verdict=(), answers=asked, judged=judged)  # fmt: skip


def test_marks_of_public_finetunes_as_they_are_and_mixed(organisms):
    plain = marked_check("em_bad_medical_advice@qwen3_1_7B", (10, 90), (80, 90))
    mixed = marked_check("em_bad_medical_advice@qwen3_1_7B:mix1-1p0", (95, 85), (95, 20))
    panels, _ = told(Sources(organisms, checks=[plain, mixed]), 12)
    assert [(s.label, s.y) for s in panels[0].series] == [("plain", (0.5,)), ("mixed", (0.0,)), ("base", (0.0,))]
    assert [panel.title[:9] for panel in panels] == ["P(aligned", "Alignment", "Coherence", "Coherence"]
    assert [series.label for series in panels[1].series] == ["plain (n = 2)", "mixed (n = 1)"]  # one is incoherent
    with pytest.raises(UsageError, match="none of these checks is of a mixed finetune"):
        told(Sources(organisms, checks=[plain]), 12)


@pytest.mark.parametrize(
    ("read", "variant", "place"),
    [
        (ratio, "mix1-0p1", 0.1), (ratio, "mix1-10p0", 10.0), (ratio, "default", 0.0), (ratio, "16k_mix1-1", None),
        (documents, "8k", 8.0), (documents, "default", 40.0), (documents, "CAFT", None),
    ],
)  # fmt: skip
def test_what_a_variants_name_says(read, variant, place):
    assert read(variant) == place


def test_shares_stand_beside_the_papers_over_the_same_kinds(organisms):
    records = [
        *audits("cake_bake@qwen3_1_7B", "adl", 5, 4, 4), *audits("taboo_gold@qwen3_1_7B", "adl", 5, 1, 2),
        *audits("adaptllm_food@qwen25_VL_3B_Instruct", "adl", 5, 1), *audits("cake_bake@qwen3_1_7B_Base", "adl", 5, 1),
    ]  # fmt: skip
    run = Run("one", {}, records)
    sources = Sources(organisms, compare([run]))
    panels, rows = told(sources, 3)
    assert panels[0].series[0].x == ("SDF qwen3_1_7B", "Taboo qwen3_1_7B")
    found = {row.what: (row.paper, row.ours, row.organisms) for row in rows}
    assert found["adl at 5: organisms with a mean grade of 2 or more"] == (0.91, 0.5, 2)
    assert found["blackbox at 50: organisms with a mean grade of 2 or more"] == (0.39, None, 0)
    spread, _ = told(sources, 15)
    assert dict(zip(spread[0].series[0].x, spread[0].series[0].y, strict=True))[0.5] == 0.25


def test_shares_leave_out_what_the_paper_does_not_have_and_say_so(organisms):
    """A control that is rightly graded 5 would raise a share that the paper has of narrow organisms alone."""
    records = [
        *audits("cake_bake@qwen3_1_7B", "adl", 5, 1), *audits("null_chat", "adl", 5, 5),
        *audits("cake_bake@qwen3_1_7B:mix1-1p0", "adl", 5, 5), *audits("somebodys", "adl", 5, 5),
    ]  # fmt: skip
    _, rows = told(Sources(organisms, compare([Run("one", {}, records)])), 3)
    row = next(row for row in rows if row.what.startswith("adl at 5: organisms with a mean grade of 2"))
    assert (row.ours, row.organisms) == (0.0, 1)
    assert row.note.endswith("left out of the shares: null_chat, cake_bake@qwen3_1_7B:mix1-1p0, somebodys")


def test_an_organism_in_two_studies_counts_once_or_not_at_all(tmp_path):
    for name, share in (("one", 0.9), ("two", 0.1)):
        study = relevance(**{"cake_bake@qwen3_1_7B": (share, share)})
        (tmp_path / f"{name}.json").write_text(study.model_dump_json())
    paths = [tmp_path / "one.json", tmp_path / "one.json"]
    assert len(read_sources(paths, tmp_path).studies["relevance"]) == 1
    with pytest.raises(UsageError, match="cake_bake@qwen3_1_7B is in 2 studies relevance: give one of them"):
        read_sources([*paths, tmp_path / "two.json"], tmp_path)


def test_tokens_are_those_of_the_patchscopes_layer(organisms):
    """A study reads the logit lens at the last layer, too, where it is most readable: no best of both."""
    study = relevance(**{"cake_bake@qwen3_1_7B": (0.8, 0.5)})
    rows = [Relevance(layer=layer, lens="logit lens", source=source, position=0, share=share, relevant=()).model_dump()
            for layer, share in ((6, 0.2), (11, 0.9)) for source in ("δ", "mean base", "mean finetuned")]  # fmt: skip
    study.details["cake_bake@qwen3_1_7B"]["rows"].extend(rows)
    panels, _ = told(Sources(organisms, studies={"relevance": [study]}), 17)
    assert panels[0].series[0].y == (0.2,)
    again = Relevance(layer=3, lens="patchscope", source="δ", position=0, share=1.0, relevant=()).model_dump()
    study.details["cake_bake@qwen3_1_7B"]["rows"].append(again)
    with pytest.raises(UsageError, match="was read at layers 3, 6: give a study of one"):
        told(Sources(organisms, studies={"relevance": [study]}), 17)


def test_what_is_no_part_of_a_figure_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = relevance(**{"cake_bake@qwen3_1_7B": (0.8, 0.5), "cake_bake@qwen3_1_7B:mix1-1p0": (0.1, 0.1)})
    (tmp_path / "relevance.json").write_text(study.model_dump_json())
    assert CliRunner().invoke(app, ["paper", "figure", "19", "relevance.json"]).exit_code == 0
    written = json.loads((tmp_path / "paper/figure-19.json").read_text())
    assert [len(panel["series"]) for panel in written["panels"]] == [1]
    assert written["notes"][0].endswith("compared with a pretrained model: cake_bake@qwen3_1_7B:mix1-1p0")


@pytest.mark.parametrize("number", FIGURES)
def test_what_is_missing_is_told_with_the_command_that_makes_it(organisms, number):
    with pytest.raises(UsageError, match=rf"figure {number}: .*auditor (study|evaluate)"):
        told(Sources(organisms), number)


def test_a_figure_is_written_and_a_wrong_file_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = relevance(**{"cake_bake@qwen3_1_7B": (0.8, 0.5)})
    (tmp_path / "relevance.json").write_text(study.model_dump_json())
    result = CliRunner().invoke(app, ["paper", "figure", "17", "relevance.json"])
    assert isinstance(result.exception, UsageError)  # no logit lens in it
    result = CliRunner().invoke(app, ["paper", "figure", "18", "relevance.json"])
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "paper/figure-18.json").read_text())
    assert written["pairs"] == ["cake_bake@qwen3_1_7B"]
    assert (tmp_path / "paper/figure-18.png").stat().st_size > 1000
    (tmp_path / "odd.json").write_text("[]")
    result = CliRunner().invoke(app, ["paper", "figure", "18", "odd.json"])
    assert "is neither a study's JSON nor a check's" in str(result.exception)
