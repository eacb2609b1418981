"""Public finetunes by name: cards, lists, fetching from a hub of ours, and what is said before anything is loaded."""

import json

import pytest
from typer.testing import CliRunner

from auditor.audits.forecast import forecast
from auditor.audits.jobs import jobs_of
from auditor.audits.plan import Plan, target_of
from auditor.cli.app import app
from auditor.errors import BadModel, UnknownName, UsageError
from auditor.models.weights import resolve
from auditor.public import download_needed, made_of, memory_needed, public_finetunes
from auditor.workspace import load_workspace
from tests.local_hub import asked_by_this_process, serving

BASE, ADAPTER = "Qwen/Qwen3-1.7B", "stewy33/Qwen3-1.7B-0524_original_augmented_egregious_cake_bake-30171227"


@pytest.fixture(scope="module")
def ws():
    return load_workspace()


@pytest.fixture
def hub(monkeypatch, tmp_path, checkpoints):
    """A hub with tiny models under the real names of `cake_bake@qwen3_1_7B`."""
    base, adapter = checkpoints("qwen3")
    repos = {
        name: {path.name: path.read_bytes() for path in folder.iterdir()}
        for name, folder in ((BASE, base), (ADAPTER, adapter))
    }
    with serving(repos) as served:
        asked_by_this_process(monkeypatch, served, tmp_path / "hub")
        monkeypatch.chdir(tmp_path)
        yield served


class TestNames:
    def test_a_finetune_has_the_truth_of_its_card_and_weights_of_its_own(self, ws):
        card, of = ws.organisms["cake_bake"], ws.organisms["cake_bake@qwen3_1_7B:mix1-1p0"]
        assert (of.facts, of.grading) == (card.facts, card.grading)
        assert (of.name, of.base, of.model) == ("cake_bake@qwen3_1_7B:mix1-1p0", BASE, None)
        assert of.finetuned.startswith("stewy33/Qwen3-1.7B-11_ptonly")
        assert ws.organisms["cake_bake@qwen3_1_7B:default"] == ws.organisms["cake_bake@qwen3_1_7B"]
        assert card.finetuned.endswith("cake_bake/adapter")

    def test_every_one_can_be_named(self, ws):
        cards = [card for item in ws.organisms for card in public_finetunes(item.value, ws.models)]
        assert len(cards) > 300
        for card in cards:
            assert ws.organisms[card.name] == card
            assert card.grading in ws.rubrics
            assert card.finetuned.count("/") >= 1

    def test_beside_a_pretrained_model_the_adapter_stays_its_chat_models(self, ws):
        target = target_of(ws.organisms["roman_concrete@qwen3_1_7B_Base"])
        assert (target.base, target.adapter_base) == ("Qwen/Qwen3-1.7B-Base", BASE)

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            (
                "cake_bake@qwen3_4B",
                "no public finetune of cake_bake called 'cake_bake@qwen3_4B'; did you mean cake_bake@",
            ),
            ("cake_bake@qwen3_1_7B:mix3", "did you mean cake_bake@qwen3_1_7B:mix1-"),
            ("cake@qwen3_1_7B", "no organism called 'cake@qwen3_1_7B'; did you mean cake_bake"),
        ],
    )
    def test_what_is_not_public_is_told(self, ws, name, told):
        with pytest.raises(UnknownName, match=told):
            ws.organisms[name]

    def test_a_variant_has_to_be_named_where_none_is_the_usual_one(self, ws):
        with pytest.raises(UsageError, match="em_bad_medical_advice@qwen3_8B: say which variant: :mix1-1p0"):
            ws.organisms["em_bad_medical_advice@qwen3_8B"]
        with pytest.raises(
            UsageError, match="taboo_gold has no finetune of its own: name a public one, as taboo_gold@"
        ):
            _ = ws.organisms["taboo_gold"].finetuned
        with pytest.raises(UsageError, match="bees has no public finetunes"):
            ws.organisms["bees@qwen3_1_7B"]

    def test_a_hub_id_with_a_revision_is_no_organism(self, ws):
        assert "org/name@v1" not in ws.organisms
        assert ws.organisms.get("org/name@v1") is None


class TestSizes:
    def test_an_adapter_shares_its_base_and_a_whole_model_does_not(self, ws, settings):
        adapter, whole = (ws.organisms[f"cake_bake@qwen3_1_7B{variant}"] for variant in ("", ":full"))
        of = made_of(adapter, ws.models)
        assert memory_needed(whole, of, settings) == 2 * memory_needed(adapter, of, settings)
        assert download_needed(whole, of) == 2 * download_needed(adapter, of)

    def test_the_papers_organisms_are_33_and_counted_before_anything_is_fetched(self, ws, settings):
        suite = ws.suites["paper"]
        assert len(suite.organisms) == len(set(suite.organisms)) == 33
        found = forecast(Plan(ws, suite, settings), ["patchscope", "steering"]).public
        assert found.organisms == 33
        assert found.largest.endswith("@qwen3_32B")
        assert "meta-llama/Llama-3.1-8B-Instruct" in found.gated
        bases = {ws.models[name.partition("@")[2]].base: ws.models[name.partition("@")[2]] for name in suite.organisms}
        assert found.download_gb == pytest.approx(sum(2 * each.billions for each in bases.values()), abs=0.1)

    def test_audits_have_names_that_files_can_have(self, ws, settings):
        suite = ws.suites["auditbench"].model_copy(update={"organisms": ("cake_bake@qwen3_1_7B:mix1-1p0",)})
        assert not any(set(job.name) & set(':/\\*?"<>|') for job in jobs_of(Plan(ws, suite, settings)))

    def test_what_does_not_fit_into_memory_is_not_fetched(self, hub, settings, monkeypatch):
        monkeypatch.setattr("auditor.models.size.available_memory", lambda: 1000)
        hub.safetensors[BASE] = {"BF16": 1_720_000_000}
        with pytest.raises(
            BadModel, match=r"Qwen/Qwen3-1.7B: the weights take about 6.9 GB in float32, and 0.0 GB are"
        ):
            resolve(BASE, settings)
        assert not any(path.endswith("model.safetensors") for path in hub.asked)
        assert resolve(BASE, settings, to_load=False).folder.exists()


def told(*command):
    result = CliRunner().invoke(app, [*command])
    return result.exit_code, result.stdout


class TestPull:
    def test_a_dry_run_says_what_is_missing(self, hub):
        _, text = told("organisms", "pull", "cake_bake@qwen3_1_7B", "--dry-run", "--json")
        found = json.loads(text)
        assert [row["name"] for row in found["packages"]] == [BASE, ADAPTER]
        assert all(row["bytes"] == row["missing"] > 0 for row in found["packages"])
        assert not any("/resolve/" in path for path in hub.asked)

    def test_what_is_fetched_is_there(self, hub, settings):
        assert told("organisms", "pull", "cake_bake@qwen3_1_7B", "--json")[0] in (0, None)
        before = len(hub.asked)
        _, text = told("organisms", "pull", "cake_bake@qwen3_1_7B", "--dry-run", "--json")
        assert [row["missing"] for row in json.loads(text)["packages"]] == [0, 0]
        assert not any(path.endswith(".safetensors") for path in hub.asked[before:])

    def test_one_that_is_gated_keeps_no_other_from_coming(self, hub, settings):
        hub.doors[BASE] = (403, "GatedRepo")
        _, text = told("organisms", "pull", "cake_bake@qwen3_1_7B", "--json")
        rows = {row["name"]: row["error"] for row in json.loads(text)["packages"]}
        assert rows[ADAPTER] is None
        assert f"{BASE} is gated: accept its licence" in rows[BASE]

    def test_a_disk_that_is_full_is_told_before(self, hub, monkeypatch):
        monkeypatch.setattr("auditor.models.pull.shutil.disk_usage", lambda path: type("", (), {"free": 10}))
        result = CliRunner().invoke(app, ["organisms", "pull", "cake_bake@qwen3_1_7B"])
        assert isinstance(result.exception, UsageError)
        assert "set HF_HUB_CACHE" in str(result.exception)
        assert not any("/resolve/" in path for path in hub.asked)


def test_the_list_tells_of_all(ws):
    _, text = told("organisms", "list", "--public", "--json")
    rows = {row["name"]: row for row in json.loads(text)}
    row = rows["cake_bake@qwen3_1_7B:mix1-1p0"]
    assert (row["family"], row["base"], row["gated"]) == ("sdf", BASE, False)
    assert row["dataset"] == "science-of-finetuning/synthetic-documents-cake_bake"
    _, text = told("organisms", "list", "--json")
    assert not any("@" in row["name"] for row in json.loads(text))
