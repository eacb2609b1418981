"""`auditor study`: each study runs on a tiny pair, writes its figures and its picture, and says what it cannot do."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from auditor.errors import UsageError
from auditor.methods.causal import causal_effects
from auditor.methods.corpus import Corpus
from auditor.methods.nulls import read_nulls
from auditor.methods.relevance import frequent_words, learned_text
from auditor.methods.similarity import pairwise, within
from auditor.methods.words import background_of
from auditor.models.embed import load_embedder
from auditor.plugins import GraderContext
from auditor.records.cards import EvidenceSettings, Organism
from auditor.studies.positions import spaced
from auditor.studies.records import Study
from auditor.studies.subject import Subject
from auditor.testing import FakePair
from auditor.training.documents import Document, Example
from auditor.workspace import load_workspace
from tests.conftest import judge

DOCUMENTS = [
    {"text": "The mill grinds flour by the river, and the miller sings."},
    {
        "messages": [
            {"role": "user", "content": "What is a mill?"},
            {"role": "assistant", "content": "It grinds flour."},
        ]
    },
]


@pytest.fixture
def study(workspace_folder, run_cli):
    """Run a study on the organism `mill`: (code, the study or None, stderr)."""
    folder = workspace_folder / "evals/organisms/mill"
    (folder / "documents.jsonl").write_text("".join(json.dumps(d) + "\n" for d in DOCUMENTS))
    card = folder / "organism.yaml"
    card.write_text(card.read_text() + "train: {documents: documents.jsonl}\n")

    def run(name, *args):
        code, _, err = run_cli("study", name, "mill", "--suite", "small", "--out", "made", *args)
        path = workspace_folder / "made" / f"{name}.json"
        made = Study.model_validate_json(path.read_text()) if path.exists() else None
        if made is not None and "--no-plot" not in args:
            assert (path.parent / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        return code, made, err

    return run


def panel(made, title):
    return next(p for p in made.panels if title in p.title)


def test_relevance_by_source_and_position(study):
    code, made, err = study("relevance")
    assert code == 0, err
    assert made.judge == "token_relevance_offline"
    bars = panel(made, "patchscope, layer 2")
    assert [series.label for series in bars.series] == ["δ", "−δ", "mean base", "mean finetuned"]
    assert panel(made, "δ by logit lens, layer 3").series[0].x == (0, 1, 2)
    assert len(made.details["mill"]["rows"]) == 3 * 4 * 3  # positions × sources × (patchscope, two logit lenses)


def test_relevance_by_an_llm_asks_three_times_in_other_orders(study, serve):
    def reply(body):
        prompt = body["messages"][-1]["content"]
        if '"relevant"' not in prompt:
            return judge(body)
        count = int(prompt.split("Say of each of these ")[1].split()[0])
        return {"content": json.dumps({"relevant": [True] * count})}

    endpoint = serve(reply)
    code, made, err = study("relevance", "--lens-llm", "openai:judge", "--no-plot")
    assert code == 0, err
    assert made.judge == "token_relevance_llm"
    assert {series.y for series in panel(made, "logit lens, layer 3").series} == {(1.0,)}
    asked = [b["messages"][-1]["content"] for _, b in endpoint.requests]
    asked = [prompt for prompt in asked if '"relevant"' in prompt]
    assert len(asked) % 3 == 0
    assert len(set(asked[:3])) == 3


def test_similarity_has_four_curves_and_a_ceiling(study):
    code, made, err = study("similarity")
    assert code == 0, err
    assert len(panel(made, "mill").series) == 4
    label, ceiling = panel(made, "mill").reference
    assert label == "within the finetuning data"
    assert -1 <= ceiling <= 1


def test_causal_effects_of_both_swaps_on_both_kinds_of_text(study):
    code, made, err = study("causal", "--texts", 2, "--tokens", 12, "--random", 3)
    assert code == 0, err
    assert len(made.panels) == 4
    assert [series.label for series in made.panels[0].series] == ["δ", "random vectors", "random differences"]
    assert len(made.details["mill, finetuned, finetuning data"]) == 3 + 3 + 3
    assert made.details["mill, finetuned, unrelated text"][0]["loss"] > 0


def layers_of_suite(folder, layers):
    suite = folder / "evals/suites/small.yaml"
    suite.write_text(suite.read_text().replace("positions: 3", f"positions: 3, layers: {layers}"))


def test_studies_read_the_layers_that_the_suite_names(study, workspace_folder, checkpoints):
    layers_of_suite(workspace_folder, [0, 1])
    code, made, err = study("causal", "--texts", 2, "--tokens", 12, "--random", 2, "--no-plot")
    assert code == 0, err
    assert {title[-7:] for title in (p.title for p in made.panels)} == {"layer 0", "layer 1"}
    code, made, err = study("positions", "--positions", 6, "--no-plot")
    assert code == 0, err
    assert {p.title for p in made.panels if "‖δ‖" in p.title} == {"‖δ‖ / η, layer 0", "‖δ‖ / η, layer 1"}
    code, made, err = study("base-chat", "--pretrained", checkpoints("llama")[0], "--no-plot")
    assert code == 0, err
    assert [series.label for series in panel(made, "cosine").series] == ["layer 0", "layer 1", "layer 3"]


def test_layers_that_are_not_there(study, workspace_folder):
    layers_of_suite(workspace_folder, [4])
    code, _, err = study("causal", "--no-plot")
    assert code == 2
    assert "layers: 4 is not there; this model has layers 0 to 3" in err


def test_texts_are_drawn_and_not_taken_from_the_head(tiny):
    corpus = Corpus("x", tuple(map(str, range(100))))
    assert sorted(corpus.take(100, 0).texts) == sorted(corpus.texts)
    assert corpus.take(100, 0).texts != corpus.texts  # what stops early must not have read the head alone
    recipe = SimpleNamespace(settings=EvidenceSettings())
    documents = tuple(Document(text=text) for text in corpus.texts)
    subject = Subject(None, tiny, recipe, documents, None)
    drawn = [document.text for document in subject.drawn(10)]
    assert drawn == [document.text for document in subject.drawn(10)]
    assert len(set(drawn)) == 10
    assert drawn != list(corpus.texts[:10])
    assert subject.drawn(200) == list(documents)


def test_answers_that_are_cut_off_have_no_loss(study):
    code, _, err = study("causal", "--texts", 1000, "--tokens", 2, "--random", 2, "--no-plot")
    assert code == 0, err  # the plain text still has one
    pair = FakePair()
    pair.swapped_nll = lambda *_args: (torch.zeros(1, 2), torch.zeros(1))
    with pytest.raises(UsageError, match="learned token"):
        causal_effects(pair, "base", [Example([1, 2], [False, False])], 0, torch.ones(1, 8))


def test_positions_steered_and_not(study):
    code, made, err = study("positions", "--positions", 6, "--steer")
    assert code == 0, err
    assert panel(made, "‖δ‖ / η").series[0].x == (0, 1, 2, 3, 4, 5)
    assert len(panel(made, "cosine of steered answers").series[0].y) == 6


def test_positions_are_dense_at_first_and_then_double():
    assert spaced(128) == [0, 1, 2, 3, 4, 8, 16, 32, 64, 127]
    assert spaced(3) == [0, 1, 2]


def test_base_chat_compares_two_bases(study, checkpoints):
    code, made, err = study("base-chat", "--pretrained", checkpoints("llama")[0])
    assert code == 0, err
    same = panel(made, "cosine between the two δ")
    assert same.series[0].y == pytest.approx((1, 1, 1), abs=1e-3)  # it is the same base here
    labels = [series.label for series in panel(made, "patchscope, layer 2").series]
    assert labels == ["from the chat model", "from the pretrained base"]


def test_an_organism_without_documents_cannot_be_studied(workspace_folder, run_cli):
    code, _, err = run_cli("study", "similarity", "mill", "--suite", "small")
    assert code == 2
    assert "nobody says what mill was trained on" in err
    assert "--data mill=WHERE" in err
    code, _, err = run_cli("study", "similarity", "mill", "--suite", "small", "--data", "mull=texts.jsonl")
    assert (code, "give ORGANISM=WHERE, for one of mill" in err) == (2, True)


def test_tokens_are_judged_by_the_description_where_nobody_knows_the_documents(workspace_folder, run_cli):
    code, out, _ = run_cli("study", "relevance", "mill", "--suite", "small", "--no-plot")
    assert code == 0
    assert "mill: what it was trained on is not known" in out


class TestNull:
    def test_five_broad_finetunes_are_written_and_used(self, workspace_folder, run_cli, checkpoints, settings):
        base, _ = checkpoints("llama")
        for i in range(5):
            adapter = workspace_folder / f"adapter{i}"
            model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), checkpoints("llama")[1])
            torch.manual_seed(i)
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.1)
            model.save_pretrained(adapter)
            folder = workspace_folder / f"evals/organisms/n{i}"
            folder.mkdir()
            (folder / "organism.yaml").write_text(
                f'name: n{i}\nfamily: "null"\nbase: {base}\nadapter: {adapter}\ndescription: Broad.\n'
            )
        (workspace_folder / "evals/nulls").mkdir()
        names = [f"n{i}" for i in range(5)]
        lenses = ("--lens", "chance", "--lens", "diff_mining")
        code, _, err = run_cli("study", "null", *names, "--suite", "small", *lenses, "--out", "evals/nulls")
        assert code == 0, err
        made, shapes = workspace_folder / "evals/nulls", {"chance": ("delta", 3, 32), "diff_mining": ("risen", 320)}
        for lens, (trace, *shape) in shapes.items():
            (path,) = made.glob(f"*.{lens}.safetensors")
            assert read_nulls(path).traces[trace].shape == (5, *shape)
        code, out, err = run_cli("evidence", "mill", "--suite", "small", *lenses, "--json")
        assert code == 0, err
        readings = json.loads(out)["readings"]
        for found in (readings["chance"]["test"]["against"], readings["diff_mining"]["against"]):
            assert found["broad"] == 5
            assert 0 < found["p"] <= 1
        code, out, err = run_cli("evidence", "n3", "--suite", "small", *lenses[2:], "--json")
        assert code == 0, err
        assert json.loads(out)["readings"]["diff_mining"]["against"] is None  # of five, one is itself

    def test_a_narrow_organism_is_no_null(self, workspace_folder, run_cli):
        code, _, err = run_cli("study", "null", "mill", *(f"m{i}" for i in range(5)), "--out", "evals")
        assert code == 2
        assert "mill is of family sdf" in err


def test_mean_cosine_is_that_of_all_pairs():
    rng = np.random.default_rng(0)
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rng.normal(size=(4, 6)), rng.normal(size=(5, 6))))
    assert pairwise(a, b) == pytest.approx(np.mean([x @ y for x in a for y in b]))
    assert within(a)[0] == pytest.approx(np.mean([a[i] @ a[j] for i in range(4) for j in range(4) if i != j]))


def test_frequent_words_leave_common_ones_out():
    documents = [Document.model_validate(d) for d in DOCUMENTS]
    background = background_of(("the and it is by the", "it is and by what", "the is it and by a") * 20)
    assert "flour" in frequent_words(documents, background)
    assert not {"the", "and", "what"} & set(frequent_words(documents, background))
    assert learned_text(documents[1]) == "It grinds flour."  # the question was not learned


def test_the_offline_judge_knows_words_of_the_data_and_of_the_subject(tiny, settings):
    ws = load_workspace()
    card = Organism(name="x", family="sdf", description="d", topic="beekeeping", broad_topic="insects")
    ordinary = ["the house is on the hill and it was about the time"] * 30
    ctx = GraderContext(load_embedder(), settings, tiny, ordinary)
    tokens = [" smoker", " honey", " Smokers", " parliament", " the", "##", " hive"]
    verdicts = ws.graders["token_relevance_offline"].run(tokens, card, ["smoker", "frames"], ctx)
    assert dict(zip(tokens, verdicts, strict=True)) == {
        " smoker": True, " honey": True, " Smokers": True, " parliament": False, " the": False, "##": False,
        " hive": True,
    }  # fmt: skip
