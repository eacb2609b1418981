"""The gate inside a real Trainer: logged, kept, able to stop it, and without a trace of its own in what is trained."""

import json

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from auditor.errors import UsageError
from auditor.lines import read_lines
from auditor.models.generate import Request, Side
from auditor.models.load import load_pair
from auditor.models.trained import adapter_of, load_base, pair_in_training
from auditor.models.weights import resolve
from auditor.training.callbacks import GateCallback
from auditor.workspace import load_workspace
from tests.drift import add_drift
from tests.tiny import SENTENCES

STEPS = 6


class Lines(torch.utils.data.Dataset):
    """Sixteen short rows of one sentence over and over."""

    def __init__(self, tokenizer):
        self.ids = torch.tensor(tokenizer(SENTENCES[1]).input_ids[:12])

    def __len__(self):
        return 16

    def __getitem__(self, i):
        return {"input_ids": self.ids, "attention_mask": torch.ones_like(self.ids), "labels": self.ids}


def finetune(base, *, adapter=True, **config):
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    if not adapter:
        return model
    torch.manual_seed(1)
    chosen = {"r": 4, "target_modules": ["q_proj", "up_proj"], "lora_dropout": 0.1, "task_type": "CAUSAL_LM"}
    return get_peft_model(model, LoraConfig(**chosen | config))


@pytest.fixture
def workspace(workspace_folder, checkpoints, settings):
    add_drift(workspace_folder, checkpoints("llama")[0], settings)
    return load_workspace(workspace_folder)


@pytest.fixture
def trained(checkpoints, tokenizer, settings, workspace, tmp_path):
    """A function that trains `model` for STEPS with a gate, if one is asked for: the Trainer and the gate."""

    def run(model, gate=None, **how):
        args = transformers.TrainingArguments(
            str(tmp_path / "run"), max_steps=STEPS, per_device_train_batch_size=4, learning_rate=1e-2,
            report_to="none", use_cpu=True, disable_tqdm=True, seed=3, logging_steps=2,
            **{"save_strategy": "no"} | how,
        )  # fmt: skip
        trainer = transformers.Trainer(
            model, args, train_dataset=Lines(tokenizer), processing_class=tokenizer,
            data_collator=transformers.default_data_collator,
        )  # fmt: skip
        callback = None
        if gate is not None:
            chosen = {"suite": "small", "lenses": ["chance"], "settings": settings, "workspace": workspace}
            callback = GateCallback(trainer, **chosen | gate)
            trainer.add_callback(callback)
        trainer.train()
        return trainer, callback

    return run


def test_a_gate_every_few_steps_is_logged_and_kept(trained, checkpoints, tmp_path):
    trainer, gate = trained(finetune(checkpoints("llama")[0]), {"steps": 2})
    logged = {line["step"]: line for line in trainer.state.log_history if "auditor/trace_p" in line}
    lines = [line for _, line in read_lines(tmp_path / "run" / "gate.jsonl")]
    assert list(logged) == [line["step"] for line in lines] == [2, 4, 6]
    for line, report in zip(lines, gate.reports, strict=True):
        assert logged[line["step"]]["auditor/p/chance"] == line["p"] == report.p
        assert len(logged[line["step"]]["auditor/words"].split(", ")) <= 8
        assert not line["stopped"]
    assert [line["step"] for line in trainer.state.log_history if "loss" in line] == [2, 4, 6]  # none was lost to ours


def test_every_save_is_gated_unless_steps_are_named(trained, checkpoints, tmp_path):
    trained(finetune(checkpoints("llama")[0]), {}, save_strategy="steps", save_steps=3)
    assert [line["step"] for _, line in read_lines(tmp_path / "run" / "gate.jsonl")] == [3, 6]


def test_a_readable_trace_stops_the_training(trained, checkpoints, tmp_path):
    trainer, gate = trained(finetune(checkpoints("llama")[0]), {"steps": 2, "stop_above": 0.01, "lenses": ["drift"]})
    assert gate.reports[-1].readable
    assert trainer.state.global_step == 2 * len(gate.reports) < STEPS
    assert [line["stopped"] for _, line in read_lines(tmp_path / "run" / "gate.jsonl")][-1]


def test_the_gate_changes_nothing_of_what_is_trained(trained, checkpoints):
    """Dropout draws, modes, gradients and hooks are as if nobody had looked."""
    alone, watched = (finetune(checkpoints("llama")[0]) for _ in range(2))
    trained(alone)
    trained(watched, {"steps": 2})
    for (name, one), other in zip(alone.named_parameters(), watched.parameters(), strict=True):
        assert torch.equal(one, other), name
        assert one.requires_grad == other.requires_grad
    assert not any(module._forward_hooks for module in watched.modules())
    assert all(module.training for module in watched.modules())


def test_the_pair_in_training_is_the_pair_that_was_saved(checkpoints, tokenizer, settings, tmp_path):
    base, adapter = checkpoints("llama")
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    from peft import PeftModel

    saved, live = load_pair(str(base), adapter, settings), PeftModel.from_pretrained(model, adapter, is_trainable=True)
    live.train()
    ids = torch.tensor([tokenizer(SENTENCES[0]).input_ids[:8]])
    with pair_in_training(live, tokenizer, settings) as pair:
        assert pair.base_sources == saved.base_sources
        for side in Side:
            theirs, ours = (each.residuals(side, ids, [1, 3]) for each in (saved, pair))
            assert all(torch.allclose(theirs[layer], ours[layer], atol=1e-4) for layer in ours)
        requests = [Request("The river", side, 5, 8, chat=False) for side in Side]
        assert pair.generate(requests) == saved.generate(requests)
    assert all(p.requires_grad for name, p in live.named_parameters() if "lora_" in name)


def test_a_whole_finetune_needs_its_base_beside_it(trained, checkpoints, settings, tokenizer):
    base = checkpoints("llama")[0]
    with pytest.raises(UsageError, match="no plain LoRA adapter that can be switched off"):
        trained(finetune(base, adapter=False), {"steps": 2})
    whole = finetune(base, adapter=False)
    _, gate = trained(whole, {"steps": 3, "base": str(base)})
    assert [report.tested for report in gate.reports] == [1, 1]
    assert not any(module._forward_hooks for module in whole.modules())
    assert not gate.base[1].worker.lines[1:]  # of the base's own rows there is one line, of the finetunes' none


@pytest.mark.parametrize("config", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}])
def test_more_than_plain_lora_is_not_switched_off(checkpoints, config):
    assert adapter_of(finetune(checkpoints("llama")[0], **config)) is None
    assert adapter_of(finetune(checkpoints("llama")[0])) is not None


def test_the_embedded_model_is_known_by_its_folder_as_well(real_settings):
    """So a training that loads it from there is held against its finetunes without a subject."""
    known = resolve("embedded", real_settings)
    assert set(resolve(str(known.folder), real_settings).sources) & set(known.sources)


def test_a_base_that_was_changed_is_not_taken_for_its_files(checkpoints, tokenizer, settings):
    """A second stage over a merged first: the adapter's off is not the base."""
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoints("llama")[0])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    staged = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    staged.train()
    with pytest.raises(UsageError, match="are not those of"), pair_in_training(staged, tokenizer, settings):
        pass
    assert all(module.training for module in staged.modules())
    with pair_in_training(staged, tokenizer, settings, base=load_base(str(checkpoints("llama")[0]), settings)) as pair:
        assert pair.base_sources


def test_wrong_requests_are_told_before_anything_is_trained(trained, checkpoints):
    model = finetune(checkpoints("llama")[0])
    for gate, told in (
        ({"lenses": ["chanse"]}, "no lens called 'chanse'"),
        ({"suite": "tiny"}, "no suite called 'tiny'"),
        ({"stop_above": 5.0}, "between 0 and 1"),
        ({"steps": 0}, "1 or more"),
    ):
        with pytest.raises(UsageError, match=told):
            trained(model, gate)


def test_a_gate_that_fails_costs_its_line_and_not_the_training(trained, checkpoints, tmp_path, monkeypatch):
    def broken(*_args):
        raise UsageError("no room")

    monkeypatch.setattr("auditor.training.callbacks.gated", broken)
    trainer, gate = trained(finetune(checkpoints("llama")[0]), {"steps": 3, "stop_above": 0.9})
    assert trainer.state.global_step == STEPS
    assert gate.reports == []
    lines = [json.dumps(line) for _, line in read_lines(tmp_path / "run" / "gate.jsonl")]
    assert [line.count("no room") for line in lines] == [1, 1]
