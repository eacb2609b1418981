"""The lenses that let the pair speak: amplified texts, and completions ranked by perplexity."""

import re
from dataclasses import replace

import pytest
import torch

from auditor.agent.overview import render_overview
from auditor.audits.bench import Bench
from auditor.errors import Refused, UsageError
from auditor.evidence.compute import evidence_for
from auditor.methods.frames import Frame
from auditor.methods.nulls import Nulls
from auditor.methods.recurring import BUCKETS
from auditor.plugins import Context
from auditor.readings import RankedTokens, SideBySide
from auditor.records.cards import AskSettings
from auditor.workspace import load_workspace
from tests.tiny import SENTENCES

WORKSPACE = load_workspace()
AMPLIFIED = {"prefills": 4, "new_tokens": 8}
PPL_DIFF = {"prefills": 4, "new_tokens": 6, "alike": 1.0}


@pytest.fixture
def read(tiny, settings, tmp_path):
    """A function from lenses' settings to what they read, from a cache of its own."""
    (tmp_path / "mine.txt").write_text("\n".join((*SENTENCES, "It", "Bake the bread, and sail north.")))
    conf = settings.model_copy(update={"cache_dir": tmp_path / "cache"})

    def run(*nulls, **lenses):
        suite = WORKSPACE.suites["quickstart"].evidence
        suite = suite.model_copy(update={"corpus": str(tmp_path / "mine.txt"), "lenses": lenses})
        recipe = Bench(WORKSPACE, conf).recipe(tiny, suite)
        return evidence_for(tiny, replace(recipe, nulls=[(each.lens, each) for each in nulls]), lenses)

    return run


def calls(evidence, tool, **args):
    """What the tool answers, as an agent is told it."""
    made = WORKSPACE.tools[tool]
    ctx = Context(None, {"ds1": evidence}, AskSettings(), seed=0)
    return made.returns.dump_python(made.run(ctx, made.args.model_validate({"dataset": "ds1", **args})), mode="json")


def texts(section):
    return {column.label: [row.texts[i] for row in section.rows] for i, column in enumerate(section.columns)}


def test_amplified_texts_stand_beside_plain_ones_and_the_bases(read, tiny):
    found = read(amplified=AMPLIFIED)
    assert not found.failed
    _, _, *shown = found["amplified"].show()
    assert {section.title for section in shown} == {f"Amplified texts, {frame.called}" for frame in Frame}
    for section in shown:
        assert [(c.label, c.role) for c in section.columns] == [
            ("base", "base"), ("α = 0", "plain"), ("α = 1", "pushed"), ("α = 3", "pushed"),
        ]  # fmt: skip
        assert len(section.rows) == 4
        assert {len(said) for row in section.rows for said in row.texts} == {1}
        (at_3,) = (call for call in section.calls if call.args["alpha"] == 3)
        told = calls(found, at_3.tool, **at_3.args)
        assert [(each["text"],) for each in told] == texts(section)["α = 3"]
    raw = next(section for section in shown if "plain text" in section.title)
    assert all(row.texts[1][0].startswith(row.prompt) for row in raw.rows)
    again = read(amplified={**AMPLIFIED, "alphas": [3]})
    assert texts(again["amplified"].show()[2])["α = 3"] == texts(shown[0])["α = 3"]  # whatever else is in the batch


def test_amplified_texts_are_searched(read):
    found = read(amplified={**AMPLIFIED, "framings": ["raw"]})
    (whole,) = (calls(found, "get_amplified_texts", framing="raw", alpha=3, prompts_subset=[2]),)
    assert whole[0]["number"] == 2
    assert whole[0]["logprob_finetuned"] != whole[0]["logprob_base"]
    word = whole[0]["text"].split()[0]
    hits = calls(found, "get_amplified_texts", framing="raw", alpha=3, word=word.upper())
    assert 2 in [hit["number"] for hit in hits]
    assert all(word.lower() in hit["text"].lower() for hit in hits)
    (nearest,) = calls(found, "get_amplified_texts", framing="raw", alpha=3, meaning=whole[0]["text"], n=1)
    assert nearest["text"] == whole[0]["text"]
    base = calls(found, "get_amplified_texts", framing="raw", alpha=None)
    assert {each["logprob_base"] for each in base} == {None}
    for args, told in (
        ({"framing": "user", "alpha": 3}, "nothing was read in the framing user; there is raw"),
        ({"framing": "raw", "alpha": 2}, "nothing was read at alpha 2; there is 0, 1, 3"),
        ({"framing": "raw", "prompts_subset": [4]}, r"no prompts \[4\]; they are numbered 0 to 3"),
    ):
        with pytest.raises(Refused, match=told):
            calls(found, "get_amplified_texts", **args)


def test_completions_are_ranked_in_each_framing(read):
    found = read(ppl_diff=PPL_DIFF)
    assert not found.failed
    words, *shown = found["ppl_diff"].show()
    assert isinstance(words, RankedTokens)
    assert [section.title for section in shown] == [
        "Perplexity differences, plain text", "Perplexity differences, assistant's turn",
    ]  # fmt: skip
    for section in shown:
        assert isinstance(section, SideBySide)
        (call,) = section.calls
        told = calls(found, call.tool, **call.args)
        assert [each["text"] for each in told] == [row.texts[0][0] for row in section.rows]
        assert [each["gap"] for each in told] == sorted((each["gap"] for each in told), reverse=True)


def test_completions_are_paged_and_searched(read):
    found = read(ppl_diff=PPL_DIFF)
    every = calls(found, "search_completions")
    assert {each["framing"] for each in every} == {"raw", "asked"}
    assert calls(found, "search_completions", start=2, n=3) == every[2:5]
    assert calls(found, "search_completions", start=len(every)) == []
    wanted = every[-1]
    assert calls(found, "search_completions", meaning=wanted["text"], n=1)[0]["text"] == wanted["text"]
    word = wanted["text"].split()[-1]
    assert wanted in calls(found, "search_completions", word=word.upper())
    with pytest.raises(Refused, match="nothing was read in the framing user; there is raw, asked"):
        calls(found, "search_completions", framing="user")


def test_another_model_and_none_may_be_the_reference(read, checkpoints):
    other = str(checkpoints("qwen2")[0])
    found = read(ppl_diff={**PPL_DIFF, "reference": other})
    assert {(ranked.reference, ranked.unit) for ranked in found["ppl_diff"].framings} == {
        ("another model", "character")
    }
    found = read(ppl_diff={**PPL_DIFF, "reference": "none", "temperatures": [1.0]})
    assert {ranked.reference for ranked in found["ppl_diff"].framings} == {"none"}
    assert found.costs["ppl_diff"].base_tokens == 0


def test_without_a_chat_template_plain_text_alone_is_read(read, tiny, monkeypatch):
    monkeypatch.setattr(tiny.tokenizer, "chat_template", None)
    found = read(amplified=AMPLIFIED, ppl_diff=PPL_DIFF)
    for name in ("amplified", "ppl_diff"):
        assert [framing.frame for framing in found[name].framings] == [Frame.RAW]
        assert f"{name}: there is no chat template, so nothing was read in the assistant's turn" in found.notes
    lost = read(amplified={"framings": ["user"]}, ppl_diff=PPL_DIFF)
    assert list(lost) == ["ppl_diff"]
    assert lost.failed["amplified"].endswith("has no chat template; ask for the framing raw")


def test_more_than_there_is_is_said(read):
    found = read(amplified={"prefills": 99, "new_tokens": 2}, ppl_diff={**PPL_DIFF, "prefills": 99})
    assert "amplified: 99 prefills were asked for, but there are only 16" in found.notes
    assert "ppl_diff: 99 prefills were asked for, but the corpus has only 5 texts of 3 tokens or more" in found.notes


@pytest.mark.parametrize(("lens", "wrong", "told"), [
    ("amplified", {"framings": ["chat"]}, "amplified.framings.0: Input should be 'raw', 'asked' or 'user'"),
    ("amplified", {"framings": []}, "amplified.framings: Tuple should have at least 1 item"),
    ("amplified", {"alphas": [-1]}, "amplified.alphas.0: Input should be greater than or equal to 0"),
    ("amplified", {"plausibility": 0}, "amplified.plausibility: Input should be greater than 0"),
    ("amplified", {"prefills": 0}, "amplified.prefills: Input should be greater than or equal to 1"),
    ("ppl_diff", {"framings": ["chat"]}, "ppl_diff.framings.0: Input should be 'raw', 'asked' or 'user'"),
    ("ppl_diff", {"prefill_tokens": 0}, "ppl_diff.prefill_tokens: Input should be greater than or equal to 1"),
])  # fmt: skip
def test_settings_that_cannot_be_are_told(lens, wrong, told):
    with pytest.raises(UsageError, match=re.escape(told)) as error:
        WORKSPACE.lenses[lens].fitting(wrong)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("wrong", "told"), [
    ({"prefill_tokens": 500}, "has no text of 500 tokens or more; give longer texts"),
    ({"reference": "none", "temperatures": [0]}, "without a reference, give one above 0"),
])  # fmt: skip
def test_what_cannot_be_ranked_is_told_and_the_others_are_read(read, wrong, told):
    found = read(ppl_diff={**PPL_DIFF, **wrong}, amplified=AMPLIFIED)
    assert list(found) == ["amplified"]
    assert told in found.failed["ppl_diff"]


@pytest.mark.parametrize(("name", "asked"), [("amplified", AMPLIFIED), ("ppl_diff", PPL_DIFF)])
def test_what_comes_back_is_held_against_broad_finetunes(read, tiny, name, asked, monkeypatch):
    """The pair itself, which is among them, is left out. Those that are made later make no reading old."""
    first = read(**{name: asked})
    reading = first[name]
    assert (reading.p, reading.verdict, reading.above_chance) == (None, "", None)
    assert set(reading.trace) == {framing.frame for framing in reading.framings}
    others = 2.0 * (torch.rand(7, BUCKETS, generator=torch.Generator().manual_seed(0)) < 0.001)
    traces = {key: torch.cat([others, trace[None]]) for key, trace in reading.trace.items()}
    told = first.settings[name].model_dump(mode="json")
    monkeypatch.setattr(tiny, "generate", None)
    found = read(Nulls(name, (), traces, told), **{name: asked})[name]
    monkeypatch.undo()
    assert found.test.pairs == 7
    assert found.p > 0.5
    figures, words, *_ = found.show()
    assert figures.title.endswith(found.verdict)
    assert words.tested
    assert read(Nulls(name, (), traces, {**told, "new_tokens": 9}), **{name: asked})[name].p is None


def test_agents_of_one_lens_are_shown_it_alone(read):
    found = read(amplified=AMPLIFIED, ppl_diff=PPL_DIFF)
    for name, tool in (("amplified", "get_amplified_texts"), ("ppl_diff", "search_completions")):
        agent = WORKSPACE.agents[f"{name}-only"]
        assert tool in agent.tools
        told = render_overview(WORKSPACE.prompts["agent_overview"], agent, {"ds1": found})
        first = found[name].show()[-1].rows[0]
        assert all(section.title in told for section in found[name].show())
        assert all(section.about.endswith(".") for section in found[name].show())
        assert first.prompt in told
