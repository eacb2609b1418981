"""Models and adapters by name: what is found, and known by its content wherever it lies."""

import shutil

import pytest
import torch

from auditor.errors import BadFile, BadModel
from auditor.models.weights import Weights, is_adapter, resolve
from auditor.workspace import load_workspace
from tests.folders import edit, renamed


@pytest.fixture
def copy(checkpoints, tmp_path):
    """A llama of its own for each test."""
    return shutil.copytree(checkpoints("llama")[0], tmp_path / "copy")


@pytest.fixture
def conf(settings, tmp_path):
    return settings.model_copy(update={"cache_dir": tmp_path / "cache"})


class TestWhatMakesAModelTheSame:
    def test_a_copy_elsewhere_is_the_same(self, checkpoints, copy, conf):
        one, two = resolve(str(checkpoints("llama")[0]), conf), resolve(str(copy), conf)
        assert one.sha256 == two.sha256
        assert one.sources == two.sources

    @pytest.mark.parametrize(
        "change",
        [
            lambda folder: edit(folder / "config.json", lambda c: c.update(transformers_version="4.0.0")),
            lambda folder: edit(folder / "generation_config.json", lambda c: c.update(transformers_version="4.0.0")),
            lambda folder: edit(folder / "config.json", lambda c: c.update(unsloth_version="2026.1")),
            lambda folder: (folder / "README.md").write_text("# Mine"),
            lambda folder: (folder / "train.py").write_text("1"),  # no code of the model's: it is not trusted
        ],
    )
    def test_what_says_nothing_of_the_answers_does_not_count(self, copy, conf, change):
        before = resolve(str(copy), conf)
        change(copy)
        assert resolve(str(copy), conf) == before

    @pytest.mark.parametrize(
        "change",
        [
            lambda folder: edit(folder / "config.json", lambda c: c.update(rms_norm_eps=1e-3)),
            lambda folder: edit(folder / "generation_config.json", lambda c: c.update(eos_token_id=[0, 5])),
            lambda folder: edit(folder / "tokenizer.json", lambda c: c["added_tokens"][0].update(lstrip=True)),
            lambda folder: edit(folder / "tokenizer_config.json", lambda c: c.update(add_bos_token=True)),
            lambda folder: (folder / "added_tokens.json").write_text('{"<think>": 320}'),
            lambda folder: (folder / "special_tokens_map.json").write_text("{}"),
            lambda folder: (folder / "chat_template.jinja").write_text("{{ messages }}"),
            lambda folder: (folder / "merges.txt").write_text("a b"),
            lambda folder: (folder / "vocab.json").write_text("{}"),
            lambda folder: (folder / "tokenizer.model").write_bytes(b"1"),
            lambda folder: renamed(folder, str, {"model.extra": torch.ones(1)}),
        ],
    )
    def test_what_changes_the_answers_counts(self, copy, conf, change):
        before = resolve(str(copy), conf)
        change(copy)
        assert resolve(str(copy), conf).sha256 != before.sha256

    def test_an_adapter_is_known_by_its_tokenizer_too(self, checkpoints, conf, tmp_path):
        folder = shutil.copytree(checkpoints("llama")[1], tmp_path / "adapter")
        before = resolve(str(folder), conf)
        edit(folder / "adapter_config.json", lambda c: c.update(peft_version="0.1"))
        assert resolve(str(folder), conf) == before
        (folder / "chat_template.jinja").write_text("{{ messages }}")
        after = resolve(str(folder), conf)
        assert is_adapter(after)
        assert after.sha256 != before.sha256
        assert after.sources == before.sources

    @pytest.mark.parametrize("content", ["", "ab12", "g" * 64, "\0" * 64])
    def test_a_memo_that_was_cut_is_not_believed(self, copy, conf, content):
        before = resolve(str(copy), conf)
        (memo,) = (conf.cache_dir / "hashes").iterdir()
        memo.write_text(content)
        assert resolve(str(copy), conf) == before
        assert memo.read_text() == before.sources[0].removeprefix("tensors:")

    @pytest.mark.parametrize("name", ["", "abc", "G" * 64])
    def test_what_is_no_hash_cannot_name_a_finetune(self, tmp_path, name):
        with pytest.raises(ValueError, match="no SHA-256"):
            Weights("x", tmp_path, name)

    def test_a_cache_that_is_a_file(self, copy, settings, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(BadFile, match="cannot be written"):
            resolve(str(copy), settings.model_copy(update={"cache_dir": tmp_path / "file"}))


class TestPaths:
    """What can only be a path is never asked for on the hub."""

    @pytest.fixture(autouse=True)
    def no_hub(self, monkeypatch, tmp_path):
        def asked(*args, **named):
            raise AssertionError("the hub was asked")

        monkeypatch.setattr("auditor.models.weights.fetch", asked)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "runs").mkdir()

    @pytest.mark.parametrize(
        "model",
        ["", "adapter", "./org/name", "../org/name", "~/org/name", "/org/name", "runs/name", "runs/a/b", "org/name/",
         "org\\name", "org/name.safetensors", "org/na me", "org//name", "org/name@", "org/name@a b", "https://hf.co/a/b",
         "~nobody-here/x", "a\0b", "a" * 5000,
         "a/b?c"],
    )  # fmt: skip
    def test_that_lead_nowhere(self, settings, model):
        with pytest.raises(BadModel, match="no model at") as caught:
            resolve(model, settings)
        assert repr(model) in str(caught.value)

    def test_of_a_file(self, settings, copy):
        with pytest.raises(BadModel, match="give the folder"):
            resolve(str(copy / "model.safetensors"), settings)


class TestACardsFinetune:
    """`adapter:` or `model:` of an organism: a folder beside the card, a path, or a name on the hub."""

    @pytest.fixture
    def card(self, tmp_path):
        folder = tmp_path / "evals/organisms/x"
        (folder / "runs").mkdir(parents=True)
        (folder / "trained").mkdir()
        (tmp_path / "auditor.toml").touch()

        def read(line):
            text = f"name: x\nfamily: sdf\ndescription: Of mills.\n{line}\n"
            (folder / "organism.yaml").write_text(text)
            return load_workspace(tmp_path, packages=False).organisms["x"]

        return read

    @pytest.mark.parametrize(
        ("line", "beside"),
        [
            ("", "adapter"),
            ("adapter: trained", "trained"),
            ("adapter: not_trained", "not_trained"),
            ("adapter: ./org/name", "org/name"),
            ("adapter: ../shared/adapter", "../shared/adapter"),
            ("adapter: runs/best", "runs/best"),  # `runs` is there, `best` is not
            ("adapter: runs/a/b", "runs/a/b"),
            ("model: whole", "whole"),
            ("{model: trained, adapter: null}", "trained"),
        ],
    )
    def test_a_folder_is_meant_and_never_asked_for_on_the_hub(
        self, card, tmp_path, settings, monkeypatch, line, beside
    ):
        line = line.strip("{}").replace(", ", "\n")
        found = card(line).finetuned
        assert found == str(tmp_path / "evals/organisms/x" / beside)
        monkeypatch.setattr("auditor.models.weights.fetch", lambda *_: pytest.fail("the hub was asked"))
        with pytest.raises(BadModel, match=r"no model at|holds no"):
            resolve(found, settings)

    @pytest.mark.parametrize("name", ["org/name", "org/name@main", "org/name/sub", "org/name/sub@v1"])
    @pytest.mark.parametrize("field", ["adapter", "model"])
    def test_a_name_on_the_hub(self, card, field, name):
        assert card(f"{field}: {name}").finetuned == name

    def test_an_absolute_path(self, card, tmp_path):
        assert card(f"adapter: {tmp_path}/nothing").finetuned == f"{tmp_path}/nothing"

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("adapter: a\nmodel: b", "not both"),
            ("adapter: a\nmodel: org/b", "not both"),
            ("adapter: null", "give an `adapter`, a `model`, or public finetunes"),
            ("adapter: ''", "give an `adapter`, a `model`, or public finetunes"),
            ("adapter: ''\nmodel: ''", "give an `adapter`, a `model`, or public finetunes"),
        ],
    )
    def test_one_of_them(self, card, line, said):
        with pytest.raises(BadFile, match=said):
            card(line)
