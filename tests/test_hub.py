"""Models from the hub: the real client against a server of ours that speaks the hub's protocol."""

import os
import shutil
import subprocess
import sys

import pytest
from huggingface_hub import constants

from auditor.errors import BadModel, UsageError
from auditor.models.hub import HubName
from auditor.models.weights import base_of, resolve
from tests.local_hub import MAIN, OLD, asked_by_this_process, serving


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("org/name", HubName("org/name")),
        ("org/Name-3.1_8B.x", HubName("org/Name-3.1_8B.x")),
        ("org/name@v1", HubName("org/name", "", "v1")),
        ("org/name/sub/folder", HubName("org/name", "sub/folder")),
        ("org/name/sub@feature/x", HubName("org/name", "sub", "feature/x")),
        ("name", None),
        ("org/name@", None),
        ("org/../name", None),
        ("org/name/../../x", None),
        ("org /name", None),
    ],
)
def test_names(text, name):
    assert HubName.parse(text) == name
    if name is not None:
        assert str(name) == text


@pytest.fixture
def hub(monkeypatch, tmp_path, checkpoints):
    """A hub with `me/llama`, which the client in this process asks."""
    files = {path.name: path.read_bytes() for path in checkpoints("llama")[0].iterdir()}
    with serving({"me/llama": files}) as hub:
        asked_by_this_process(monkeypatch, hub, tmp_path / "hub")
        monkeypatch.chdir(tmp_path)
        yield hub


def refused(model, settings):
    with pytest.raises(BadModel) as caught:
        resolve(model, settings)
    said = str(caught.value)
    assert "\n" not in said
    return said


def fetched(hub):
    """Files of which more than the listing was asked for."""
    return {path.split("/", 5)[-1] for path in hub.asked if "/resolve/" in path}


class TestAModelOfTheHub:
    def test_is_the_same_as_a_copy_of_its_files(self, hub, settings, checkpoints):
        found, local = resolve("me/llama", settings), resolve(str(checkpoints("llama")[0]), settings)
        assert found.id == "me/llama"
        assert found.sha256 == local.sha256
        assert found.sources == (f"hub:me/llama@{MAIN}", *local.sources)

    @pytest.mark.parametrize("revision", ["v1", "feature/x", OLD])
    def test_at_a_revision(self, hub, settings, revision):
        assert resolve(f"me/llama@{revision}", settings).sources[0] == f"hub:me/llama@{OLD}"

    def test_in_a_folder_of_it(self, hub, settings, checkpoints):
        local = checkpoints("llama")[1]
        hub.repos["me/many"] = {f"runs/two/{path.name}": path.read_bytes() for path in local.iterdir()}
        hub.repos["me/many"]["runs/one/adapter_model.safetensors"] = b"another"
        found = resolve("me/many/runs/two@v1", settings)
        assert found.sha256 == resolve(str(local), settings).sha256
        assert found.sources[0] == f"hub:me/many/runs/two@{OLD}"
        assert not any("runs/one" in path for path in fetched(hub))

    def test_nothing_is_fetched_that_is_not_needed(self, hub, settings):
        more = ["pytorch_model.bin", "consolidated.safetensors", "onnx/model.onnx", "checkpoint-1/model.safetensors",
                "modeling_mine.py", "README.md"]  # fmt: skip
        hub.repos["me/llama"] |= dict.fromkeys(more, b"large")
        resolve("me/llama", settings)
        assert fetched(hub) == {
            "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
            "chat_template.jinja",
        }  # fmt: skip

    def test_its_code_is_fetched_where_it_is_trusted(self, hub, settings):
        hub.repos["me/llama"]["modeling_mine.py"] = b"1"
        plain = resolve("me/llama", settings)
        trusted = resolve("me/llama", settings.model_copy(update={"trust_remote_code": True}))
        assert (trusted.folder / "modeling_mine.py").read_bytes() == b"1"
        assert plain.sha256 != trusted.sha256

    @pytest.mark.parametrize("model", ["me/llama", "me/llama/sub", "me/llama@v1"])
    def test_is_taken_from_the_cache_when_the_hub_is_gone(self, hub, settings, monkeypatch, model):
        inner = {f"sub/{path}": content for path, content in hub.repos["me/llama"].items()}
        more = ["README.md", "onnx/model.onnx", "sub/deep/model.safetensors", "consolidated.safetensors"]
        hub.repos["me/llama"] |= inner | dict.fromkeys(more, b"large")
        before = resolve(model, settings)
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        assert resolve(model, settings) == before
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert resolve(model, settings) == before

    def test_a_folder_that_is_here_goes_first(self, hub, settings, checkpoints, tmp_path):
        shutil.copytree(checkpoints("llama")[0], tmp_path / "me/llama")
        assert resolve("me/llama", settings).folder.resolve() == tmp_path / "me/llama"
        assert hub.asked == []


class TestTheBaseOfAnAdapter:
    def test_is_what_its_config_names(self, hub, checkpoints):
        base, local = checkpoints("llama")
        hub.repos["me/many"] = {f"runs/two/{path.name}": path.read_bytes() for path in local.iterdir()}
        assert base_of(str(local)) == base_of("me/many/runs/two@v1") == str(base)
        assert fetched(hub) == {"runs/two/adapter_config.json"}

    def test_is_not_asked_of_a_whole_model(self, hub, tmp_path):
        with pytest.raises(UsageError, match=r"me/llama names no base of its own.*give --base"):
            base_of("me/llama")
        assert fetched(hub) <= {"adapter_config.json", "README.md"}
        (tmp_path / "adapter_config.json").write_text("[1]")
        with pytest.raises(UsageError, match=r"adapter_config\.json cannot be read"):
            base_of(str(tmp_path))
        with pytest.raises(UsageError, match="nowhere/at/all names no base of its own"):
            base_of("./nowhere/at/all")

    def test_behind_a_closed_door_is_told_so(self, hub):
        hub.doors["me/llama"] = (403, "GatedRepo")
        with pytest.raises(BadModel, match="me/llama is gated: accept its licence"):
            base_of("me/llama")


class TestWhatTheHubDoesNotGive:
    @pytest.mark.parametrize("status", [401, 403])
    def test_a_gated_model(self, hub, settings, status):
        hub.doors["me/llama"] = (status, "GatedRepo")
        said = refused("me/llama", settings)
        assert (
            said == f"me/llama is gated: accept its licence at {hub.url}/me/llama, and set HF_TOKEN to a token of yours"
        )

    def test_no_such_model(self, hub, settings):
        assert "no model me/nothing on the hub: check the name" in refused("me/nothing", settings)
        assert "no folder me/nothing/sub here" in refused("me/nothing/sub", settings)

    def test_no_such_revision(self, hub, settings):
        assert "has no revision 'v9'" in refused("me/llama@v9", settings)

    def test_no_such_folder(self, hub, settings):
        assert refused("me/llama/sub", settings) == "me/llama has no folder sub"

    @pytest.mark.parametrize(
        ("files", "said"),
        [
            (["config.json", "pytorch_model.bin"], "holds pickle weights only (pytorch_model.bin), which can run code"),
            (["adapter_config.json", "adapter_model.bin"], "holds pickle weights only (adapter_model.bin)"),
            (["config.json", "model.Q4_K_M.gguf"], "holds GGUF files only (model.Q4_K_M.gguf)"),
            (["README.md", "a/model.safetensors"], "no .safetensors file; they are in me/odd/a"),
            (["README.md"], "holds no .safetensors file"),
        ],
    )
    def test_nothing_is_fetched_of_a_model_without_safetensors(self, hub, settings, files, said):
        hub.repos["me/odd"] = dict.fromkeys(files, b"1")
        assert said in refused("me/odd", settings)
        assert fetched(hub) == set()

    @pytest.mark.parametrize(
        ("door", "said"),
        [((401, ""), "401"), ((403, ""), "check HF_TOKEN"), ((403, "DisabledRepo"), "me/llama"), ((404, ""), "404")],
    )
    def test_other_refusals(self, hub, settings, door, said):
        hub.doors["me/llama"] = door
        assert said in refused("me/llama", settings)

    def test_no_hub(self, hub, settings, monkeypatch):
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        said = refused("me/llama", settings)
        assert said.startswith("no folder me/llama here, and http://127.0.0.1:9 does not give it (")
        assert said.endswith("see `auditor doctor`")

    def test_offline(self, hub, settings, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert "none in the hub's cache, and HF_HUB_OFFLINE is set" in refused("me/llama", settings)

    def test_a_cache_that_cannot_be_written(self, hub, settings, monkeypatch, tmp_path):
        (tmp_path / "file").touch()
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
        assert "set HF_HUB_CACHE" in refused("me/llama", settings)

    def test_a_cached_copy_that_is_incomplete(self, hub, settings, monkeypatch):
        found = resolve("me/llama", settings)
        (found.folder / "model.safetensors").unlink()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert "the hub's cache holds me/llama in part" in refused("me/llama", settings)


def test_a_command_says_it_in_one_line(hub, tmp_path):
    hub.doors["me/llama"] = (403, "GatedRepo")
    own = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), "AUDITOR_CACHE": str(tmp_path)}
    command = [
        sys.executable,
        "-c",
        "from auditor.cli import main; main()",
        "evidence",
        "--base",
        "me/llama",
        "--model",
        "me/llama",
    ]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "is gated: accept its licence" in done.stderr
    assert "Traceback" not in done.stderr
