"""Settings: what cannot hold on this machine is one clear line, before anything is loaded."""

import os

import pytest

from auditor.config import load_settings
from auditor.errors import UsageError


@pytest.fixture(autouse=True)
def plain(monkeypatch, tmp_path):
    monkeypatch.setenv("AUDITOR_CACHE", str(tmp_path / "cache"))
    for name in ("AUDITOR_DEVICE", "AUDITOR_DTYPE"):
        monkeypatch.delenv(name, raising=False)


def refused(**flags):
    with pytest.raises(UsageError) as caught:
        load_settings(**flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_judges_go_by_the_names_of_the_command_line():
    assert load_settings(llm_roles={"scale": "openai:x"}).lens_judge("patchscope_scale") == "openai:x"
    assert "no kind 'coherense'; there are coherence, scale, relevance" in refused(llm_roles={"coherense": "openai:x"})


@pytest.mark.parametrize("name", ["gpux", "cuda:x", "", "cpu cpu", "cuda:-1"])
def test_a_device_that_nobody_knows(name):
    assert f"device {name!r} is not known; use auto, cpu, cuda" in refused(device=name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7", "balanced", "xpu", "meta"])
def test_a_device_that_is_not_there(name, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert f"device {name!r}: torch finds none here" in refused(device=name)


def test_one_gpu_more_than_there_are(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert load_settings(device="cuda:1").device == "cuda:1"
    assert load_settings(device="balanced").device == "balanced"
    assert "device 'cuda:2': there are 2 of this kind" in refused(device="cuda:2")


def test_devices_that_are_there():
    assert load_settings(device="cpu").device == "cpu"
    assert load_settings().device in {"cpu", "cuda", "mps"}


@pytest.mark.parametrize("name", ["fp16", "int8", "Tensor", "", "float12"])
def test_a_precision_that_nobody_knows(name):
    assert f"dtype {name!r} is not known; use auto, float32, bfloat16, float16" in refused(dtype=name, device="cpu")


def test_a_cache_in_a_file(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/deep/er"):
        assert f"{tmp_path / 'file'} is a file; set AUDITOR_CACHE" in refused(cache_dir=folder)


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as root everything can
    assert f"{tmp_path} cannot be written; set AUDITOR_CACHE" in refused(cache_dir=tmp_path / "new")


def test_nothing_is_made_by_asking(tmp_path):
    load_settings(cache_dir=tmp_path / "new/er", device="cpu")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", ["cache_dir = 3", "device = 3", "dtype = []"])
def test_values_of_the_wrong_kind(tmp_path, line, monkeypatch):
    monkeypatch.delenv("AUDITOR_CACHE")
    (tmp_path / "auditor.toml").write_text(f"[settings]\n{line}\n")
    with pytest.raises(UsageError, match=rf"auditor\.toml:2: {line.split()[0]}: "):
        load_settings(tmp_path / "auditor.toml")
