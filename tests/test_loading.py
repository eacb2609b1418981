"""Folders of weights are loaded whole, or refused in one line."""

import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from auditor.models.build import load_model
from auditor.models.weights import resolve
from tests.folders import edit, refused, renamed


@pytest.fixture
def copy(checkpoints, tmp_path):
    """A llama of its own for each test."""
    return shutil.copytree(checkpoints("llama")[0], tmp_path / "copy")


@pytest.fixture
def conf(settings, tmp_path):
    return settings.model_copy(update={"cache_dir": tmp_path / "cache"})


def nested(name):
    """As torch.compile leaves it, once around the whole and once around a block."""
    return "_orig_mod." + name.replace("layers.1.", "layers.1._orig_mod.")


class TestNamesThatAWrapperLeft:
    @pytest.mark.parametrize(
        "wrap",
        [
            nested,
            lambda name: f"module.{name}",
            lambda name: f"base_model.model.{name}",
            lambda name: f"module._orig_mod.{name}",
            lambda name: f"student.model.{name}",
            lambda name: name.replace("layers.2.", "layers.2._fsdp_wrapped_module._checkpoint_wrapped_module."),
            lambda name: name.replace("q_proj.", "q_proj.base_layer."),
        ],
    )
    def test_are_taken_off(self, copy, conf, wrap, caplog):
        plain, _ = load_model(resolve(str(copy), conf), conf)
        renamed(copy, wrap)
        with caplog.at_level(logging.WARNING):
            found, _ = load_model(resolve(str(copy), conf), conf)
        assert "as a wrapper left them" in caplog.text
        for name, tensor in plain.state_dict().items():
            assert torch.equal(found.state_dict()[name], tensor), name
        assert found.generation_config.eos_token_id == plain.generation_config.eos_token_id

    def test_tied_embeddings_may_be_left_out(self, copy, conf):
        edit(copy / "config.json", lambda c: c.update(tie_word_embeddings=True))
        renamed(copy, lambda name: None if name.startswith("lm_head") else f"module.{name}")
        model, _ = load_model(resolve(str(copy), conf), conf)
        assert model.lm_head.weight is model.model.embed_tokens.weight


class TestTensors:
    """Nothing is filled in, and nothing of the language model is left out."""

    @pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.2.mlp.up_proj.weight", "model.norm.weight"])
    def test_missing_ones(self, copy, conf, name):
        renamed(copy, lambda key: None if key == name else key)
        assert f"lacks {name}" in refused(copy, conf)

    def test_another_models(self, copy, conf):
        renamed(copy, lambda key: f"{key}.of_something_else")
        said = refused(copy, conf)
        assert "and 36 more, which would be filled at random" in said
        assert "of_something_else" in said

    def test_of_another_shape(self, copy, conf):
        edit(copy / "config.json", lambda c: c.update(intermediate_size=128))
        assert "has shape (32, 64), but config.json asks for (32, 128), and so for 11 others" in refused(copy, conf)

    def test_of_more_layers_than_the_config_speaks_of(self, copy, conf):
        edit(copy / "config.json", lambda c: c.update(num_hidden_layers=3, layer_types=None))
        assert "holds model.layers.3." in refused(copy, conf)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("model.layers.0.self_attn.q_proj.bias", "no place"),
            ("model.layers.0.self_attn.q_proj.weight_scale", "no place"),
            ("model.layers.0.self_attn.q_proj.lora_A.default.weight", "adapter that is not merged"),
            ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "adapter that is not merged"),
        ],
    )
    def test_left_over_inside_the_model(self, copy, conf, name, said):
        renamed(copy, str, {name: torch.ones(32)})
        assert said in refused(copy, conf)

    def test_an_adapter_in_the_wrapping_of_its_base(self, copy, conf):
        lora = {"model.layers.0.self_attn.q_proj.lora_A.default.weight": torch.ones(4, 32)}
        renamed(copy, lambda name: name.replace("q_proj.", "q_proj.base_layer."), lora)
        assert "q_proj.weight" in refused(copy, conf)

    @pytest.mark.parametrize("name", ["v_head.summary.weight", "score.weight", "model.vision_tower.x.weight"])
    def test_beside_the_model_are_left_out_and_told(self, copy, conf, name, caplog):
        renamed(copy, str, {name: torch.ones(1, 32)})
        load_model(resolve(str(copy), conf), conf)
        assert f"{name} are no part of the language model" in caplog.text

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_that_are_not_finite(self, copy, conf, value):
        tensors = load_file(copy / "model.safetensors")
        tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = value
        save_file(tensors, copy / "model.safetensors", {"format": "pt"})
        assert "model.layers.1.mlp.up_proj.weight holds NaN or infinity in float32" in refused(copy, conf)

    def test_that_float16_cannot_hold(self, copy, conf):
        tensors = load_file(copy / "model.safetensors")
        tensors["model.norm.weight"][0] = 1e6
        save_file(tensors, copy / "model.safetensors", {"format": "pt"})
        load_model(resolve(str(copy), conf), conf)
        said = refused(copy, conf.model_copy(update={"dtype": "float16"}))
        assert said.endswith("in float16; try AUDITOR_DTYPE=bfloat16 or float32")


class TestFiles:
    """Each of these is one line that names the file."""

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n", "Git LFS pointer"),
            (b"", "cannot be read as safetensors"),
            (b"\x10", "cannot be read as safetensors"),
            (b"\x10\0\0\0\0\0\0\0{not json at all}", "cannot be read as safetensors"),
        ],
    )
    def test_that_are_no_safetensors(self, copy, conf, content, said):
        (copy / "model.safetensors").write_bytes(content)
        assert said in refused(copy, conf)

    @pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
    def test_that_were_cut(self, copy, conf, share):
        data = (copy / "model.safetensors").read_bytes()
        (copy / "model.safetensors").write_bytes(data[: int(share * len(data))])
        assert "cannot be read as safetensors" in refused(copy, conf)

    def test_that_lead_nowhere(self, copy, conf):
        (copy / "model.safetensors").unlink()
        (copy / "model.safetensors").symlink_to(copy / "gone")
        assert "leads to no file" in refused(copy, conf)

    def test_in_shards_that_no_index_names(self, sharded, conf):
        (sharded / "model.safetensors.index.json").unlink()
        refused(sharded, conf)

    @pytest.mark.parametrize("whole", [True, False])
    def test_of_an_adapter_where_a_model_is_asked_for(self, checkpoints, copy, conf, whole):
        for path in checkpoints("llama")[1].iterdir():
            shutil.copy(path, copy)
        if not whole:
            (copy / "config.json").unlink()
        assert "is an adapter, and a whole model is needed" in refused(copy, conf)

    def test_without_values_as_zero3_leaves_them(self, copy, conf):
        empty = {name: torch.zeros(0) for name in load_file(copy / "model.safetensors")}
        save_file(empty, copy / "model.safetensors", {"format": "pt"})
        assert "zero_to_fp32" in refused(copy, conf)

    def test_without_tensors(self, copy, conf):
        save_file({}, copy / "model.safetensors", {"format": "pt"})
        assert "no values for any tensor" in refused(copy, conf)

    @pytest.fixture
    def sharded(self, copy):
        model = AutoModelForCausalLM.from_pretrained(copy)
        (copy / "model.safetensors").unlink()
        model.save_pretrained(copy, max_shard_size="60KB")
        return copy

    def test_in_shards_of_which_one_is_missing(self, sharded, conf):
        load_model(resolve(str(sharded), conf), conf)
        (sharded / "model-00002-of-00005.safetensors").unlink()
        assert "lacks model-00002-of-00005.safetensors" in refused(sharded, conf)

    @pytest.mark.parametrize("content", ["{", "{}", "[1]", '{"weight_map": 3}'])
    def test_in_shards_with_a_broken_index(self, sharded, conf, content):
        (sharded / "model.safetensors.index.json").write_text(content)
        assert "is no index of safetensors" in refused(sharded, conf)

    @pytest.mark.parametrize("content", ["", "{", "[]", "3", '"llama"', "null"])
    def test_with_a_broken_config(self, copy, conf, content):
        (copy / "config.json").write_text(content)
        assert "config.json is broken" in refused(copy, conf)

    def test_without_a_config(self, copy, conf):
        (copy / "config.json").unlink()
        assert "no config.json" in refused(copy, conf)

    @pytest.mark.parametrize("content", ["", "{", "{}", "[]"])
    def test_with_a_broken_tokenizer(self, copy, conf, content):
        (copy / "tokenizer.json").write_text(content)
        assert "no tokenizer that can be loaded" in refused(copy, conf)

    def test_without_a_tokenizer(self, copy, conf):
        for path in copy.glob("token*"):
            path.unlink()
        assert "no tokenizer that can be loaded" in refused(copy, conf)

    def test_of_pickles_are_named(self, copy, conf):
        (copy / "model.safetensors").unlink()
        for number in range(5):
            torch.save({}, copy / f"pytorch_model-{number}.bin")
        said = refused(copy, conf)
        assert "pickle weights only (pytorch_model-0.bin, pytorch_model-1.bin, pytorch_model-2.bin and 2 more)" in said

    @pytest.mark.parametrize(
        "config",
        [
            {"quant_method": "bitsandbytes", "load_in_4bit": True},
            {"quant_method": "gptq", "bits": 4},
            {"quant_method": "awq", "bits": 4},
            {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}},
            {"bits": "four"},
        ],
    )
    def test_quantized_in_a_way_that_is_not_installed(self, copy, conf, config):
        edit(copy / "config.json", lambda c: c.update(quantization_config=config))
        refused(copy, conf)

    @pytest.mark.parametrize("change", [{"model_type": "brandnew9"}, {"hidden_size": "wide"}, {"hidden_size": 33}])
    def test_with_a_config_of_nothing_known(self, copy, conf, change):
        edit(copy / "config.json", lambda c: c.update(change))
        refused(copy, conf)

    def test_with_code_of_their_own(self, copy, conf):
        own = {"AutoConfig": "configuration_x.X", "AutoModelForCausalLM": "modeling_x.X"}
        edit(copy / "config.json", lambda c: c.update(model_type="mine", auto_map=own))
        assert "trust_remote_code = true" in refused(copy, conf)
