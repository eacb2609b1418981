"""The evidence cache: an entry is whole and of what was asked, or it is made anew and that is said."""

import json
import threading

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from auditor import evidence
from auditor.config import Settings
from auditor.errors import BadModel
from auditor.evidence import DELTAS, SHEET, cache_key, evidence_for, grading_for, make_lens
from auditor.files import SEAL, seal
from auditor.models.load import load_pair
from auditor.types import ScoredToken
from auditor.workspace import load_workspace


@pytest.fixture
def asked(tiny, settings, tmp_path, workspace_folder):
    """A pair, its lens with a cache of its own, and the folder of its entry."""
    conf = settings.model_copy(update={"cache_dir": tmp_path / "cache"})
    ws = load_workspace(workspace_folder)
    lens = make_lens(ws, tiny, ws.suites["small"].evidence, grading_for(ws, conf, tiny))
    return tiny, lens, tmp_path / "cache/evidence" / cache_key(tiny, lens)


@pytest.fixture
def computed(monkeypatch):
    """One item for each time that evidence was computed; in truth it is once."""
    times, made, compute = [], [], evidence.compute_evidence

    def counted(*args):
        times.append(1)
        return made[0] if made else (made.append(compute(*args)) or made[0])

    monkeypatch.setattr(evidence, "compute_evidence", counted)
    return times


def same(one, other):
    assert one.evidence.model_copy(update={"seconds": {}}) == other.evidence.model_copy(update={"seconds": {}})
    assert all(torch.equal(one.deltas[layer], other.deltas[layer]) for layer in one.deltas)
    return True


def test_what_is_kept_is_what_was_computed(asked, computed):
    pair, lens, folder = asked
    assert same(evidence_for(pair, lens), evidence_for(pair, lens))
    assert len(computed) == 1
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]


@pytest.mark.parametrize("name", [SHEET, DELTAS, SEAL])
def test_a_broken_entry_is_made_anew_and_said(asked, computed, caplog, name):
    pair, lens, folder = asked
    whole = evidence_for(pair, lens)
    content = (folder / name).read_bytes()
    for broken in (b"", content[: len(content) // 2], content[:9] + content[10:]):
        (folder / name).write_bytes(broken)
        caplog.clear()
        assert same(whole, evidence_for(pair, lens))
        assert str(folder) in caplog.text
        assert "made anew" in caplog.text
    (folder / name).unlink()
    assert same(whole, evidence_for(pair, lens))
    assert len(computed) == 5


def test_an_entry_of_something_else_is_not_taken(asked, computed, caplog):
    pair, lens, folder = asked
    evidence_for(pair, lens)
    sheet = json.loads((folder / SHEET).read_text())
    (folder / SHEET).write_text(json.dumps(sheet | {"fingerprint": "another"}))
    seal(folder)
    evidence_for(pair, lens)
    assert "of another pair" in caplog.text
    deltas = load_file(folder / DELTAS)
    save_file({layer: delta[:, :-1].contiguous() for layer, delta in deltas.items()}, folder / DELTAS)
    seal(folder)
    evidence_for(pair, lens)
    assert "finite tensors of shape" in caplog.text
    assert len(computed) == 3


def test_several_at_once_do_not_disturb_one_another(asked, computed):
    pair, lens, _folder = asked
    found = []
    threads = [threading.Thread(target=lambda: found.append(evidence_for(pair, lens))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert same(found[0], evidence_for(pair, lens))
    made = len(computed)
    evidence_for(pair, lens)
    assert len(computed) == made


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(asked, caplog):
    pair, lens, folder = asked
    folder.parent.parent.mkdir(exist_ok=True)
    folder.parent.write_text("a file where a folder should be")
    assert evidence_for(pair, lens).evidence.fingerprint == pair.fingerprint
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
    scaled, asked, tmp_path, workspace_folder, factor, dtype, advice
):
    conf = Settings(cache_dir=tmp_path / "cache", device="cpu", dtype=dtype)
    folders = scaled(factor)

    def read():
        pair = load_pair(*folders, conf)
        evidence_for(pair, make_lens(load_workspace(workspace_folder), pair, asked[1].settings, asked[1].grading))

    with pytest.raises(BadModel, match=rf"NaN or Inf.*{advice}"):
        read()
    assert not (tmp_path / "cache/evidence").exists()


def test_no_record_holds_what_json_cannot():
    with pytest.raises(ValueError, match="finite"):
        ScoredToken(token="mill", prob=float("nan"))
