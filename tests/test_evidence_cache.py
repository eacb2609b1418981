"""The evidence cache under stress: several at once, a disk that takes nothing, numbers that are none."""

import threading

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from auditor.audits.bench import Bench
from auditor.config import Settings
from auditor.errors import BadModel
from auditor.evidence import compute
from auditor.evidence.compute import evidence_for
from auditor.evidence.recipe import recipe_for
from auditor.models.load import load_pair
from auditor.records.evidence import ScoredToken
from auditor.workspace import load_workspace


@pytest.fixture
def recipe(tiny, settings, tmp_path, workspace_folder):
    """What `tiny` is read with, over a cache of its own."""
    conf = settings.model_copy(update={"cache_dir": tmp_path / "cache"})
    ws = load_workspace(workspace_folder)
    return Bench(ws, conf).recipe(tiny, ws.suites["small"].evidence)


def test_several_at_once_do_not_disturb_one_another(tiny, recipe, tmp_path, monkeypatch):
    found = []
    work = [threading.Thread(target=lambda: found.append(evidence_for(tiny, recipe, ["logit_lens"]))) for _ in range(3)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    told = [{name: reading.model_dump() for name, reading in one.items()} for one in found]
    assert len(told) == 3
    assert told[0] == told[1] == told[2]
    monkeypatch.setattr(compute, "_read", None)  # all of it is in the cache now
    assert not evidence_for(tiny, recipe, ["logit_lens"]).failed
    folder = tmp_path / "cache/evidence/logit_lens"
    assert len(list(folder.iterdir())) == 1


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tiny, recipe, tmp_path, caplog):
    (tmp_path / "cache").mkdir(exist_ok=True)
    (tmp_path / "cache/evidence").write_text("a file where a folder should be")
    assert list(evidence_for(tiny, recipe, ["plain_samples"])) == ["plain_samples"]
    assert "cannot be written" in caplog.text


@pytest.fixture
def scaled(checkpoints, tmp_path):
    """A function that makes a finetune whose adapter is `factor` times as large."""

    def make(factor):
        base, adapter = checkpoints("llama")
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
        for name, parameter in model.named_parameters():
            if "layers.1.mlp.down_proj.lora_B" in name:
                parameter.data.mul_(factor)
        model.save_pretrained(tmp_path / "scaled")
        return str(base), str(tmp_path / "scaled")

    return make


@pytest.mark.parametrize(
    ("factor", "dtype", "advice"),
    [
        (float("inf"), "float32", "its training went wrong"),
        (1e38, "float32", "weights are broken"),
        (1e6, "float16", "try AUDITOR_DTYPE=bfloat16 or float32"),
    ],
)
def test_numbers_that_are_none_are_told_and_leave_nothing_behind(
    scaled, recipe, tmp_path, workspace_folder, factor, dtype, advice
):
    conf = Settings(cache_dir=tmp_path / "cache", device="cpu", dtype=dtype)
    folders = scaled(factor)

    def read():
        pair = load_pair(*folders, conf)
        again = recipe_for(load_workspace(workspace_folder), pair, recipe.settings, recipe.grading)
        evidence_for(pair, again, ["steering"])

    with pytest.raises(BadModel, match=rf"NaN or Inf.*{advice}"):
        read()
    assert not (tmp_path / "cache/evidence").exists()


def test_no_record_holds_what_json_cannot():
    with pytest.raises(ValueError, match="finite"):
        ScoredToken(token="mill", prob=float("nan"))
