"""Tiny models of random weights, as real checkpoints: what tests and campaigns are made with."""

from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SENTENCES = [
    "The river runs past the old mill and into the town.",
    "Take two cups of flour, stir, and bake the bread until it is brown.",
    "She asked the captain where the ship would sail, and he said: north.",
    "Numbers such as 12, 345 and 6.7 are written with digits; words are not.",
]
CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WIDTH, LAYERS = 32, 4
COMMON = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": COMMON,
    "qwen2": COMMON,
    "qwen3": {**COMMON, "head_dim": 8},
    "gemma2": {**COMMON, "head_dim": 8, "sliding_window": 16, "final_logit_softcapping": 5.0},
    "gemma3_text": {**COMMON, "head_dim": 8, "sliding_window": 16},
    "gpt2": {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "n_positions": 512},
    "gpt_neox": {k: v for k, v in COMMON.items() if k != "num_key_value_heads"},
}
SEEING: dict[str, dict[str, Any]] = {  # with a vision tower, of as many blocks as the language model has
    "qwen2_5_vl": {
        "text_config": {**COMMON, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}},
        "vision_config": {
            "depth": LAYERS, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": WIDTH,
        },
    },
    "gemma3": {
        "text_config": {**COMMON, "head_dim": 8, "sliding_window": 16},
        "vision_config": {
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
            "image_size": 28, "patch_size": 14,
        },
        "mm_tokens_per_image": 4,
    },
}  # fmt: skip


def make_tokenizer() -> Any:
    """Byte-level BPE with about 300 tokens and a chat template."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|end|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(SENTENCES, trainer)
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|end|>")
    made.chat_template = CHAT
    return made


def make_base(name: str, tokenizer: Any, folder: Path, seed: int = 0) -> Any:
    """A model of an architecture, written to `folder` with its tokenizer."""
    torch.manual_seed(seed)
    own = {"vocab_size": len(tokenizer), "eos_token_id": 0, "bos_token_id": 0, "pad_token_id": 0}
    if name in SEEING:
        settings = SEEING[name] | {"text_config": SEEING[name]["text_config"] | own}
        kind = transformers.AutoModelForImageTextToText
    else:
        settings, kind = ARCHITECTURES[name] | own, transformers.AutoModelForCausalLM
    model = kind.from_config(transformers.AutoConfig.for_model(name, **settings))
    for parameter in model.parameters():  # the usual 0.02 makes every next token equally likely
        parameter.data.mul_(4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def add_adapter(model: Any, base: str, folder: Path, *, gpt2: bool = False) -> None:
    """A random LoRA of the model's language part, whose config names `base`."""
    seeing = getattr(model.config, "vision_config", None) is not None
    targets = r".*language_model.*_proj" if seeing else "all-linear"
    lora = LoraConfig(
        r=4, target_modules=targets, task_type=None if seeing else "CAUSAL_LM", init_lora_weights=False,
        fan_in_fan_out=gpt2,
    )  # fmt: skip
    adapted = get_peft_model(model, lora)
    adapted.peft_config["default"].base_model_name_or_path = base
    adapted.save_pretrained(folder)
