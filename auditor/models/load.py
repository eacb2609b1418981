"""From names to a pair: hub ids, local folders, PEFT adapters, the embedded default."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from auditor.config import Settings
from auditor.errors import BadModel
from auditor.models.arch import decoder_of
from auditor.models.embedded import EMBEDDED_ID, embedded_model_dir, is_embedded
from auditor.models.engine import Engine, HookEngine, NnsightEngine
from auditor.models.generate import Side
from auditor.models.host import Host, Variant
from auditor.models.lora import rank_of, read_adapter
from auditor.models.pair import LocalPair
from auditor.models.vllm_batch import InVllm
from auditor.models.worker import Worker
from auditor.runtime import quiet_libraries

EngineName = Literal["hooks", "nnsight", "vllm"]  # the last: vLLM decodes, hooks read the activations


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's files: the folder they are in, what to call them, and their content hash."""

    id: str
    folder: Path
    sha256: str


def load_pair(
    base: str,
    finetuned: str | Path,
    settings: Settings,
    *,
    name: str = "",
    engine: EngineName = "hooks",
    adapter_base: str | None = None,
) -> LocalPair:
    """The pair of `base` and `finetuned`, which is a LoRA adapter's folder or a whole model.

    `adapter_base`: the model that the adapter belongs to, if that is not `base`: a chat model, say, when `base` is
    what was pretrained. Raises BadModel with what is missing, unsafe or does not fit.
    """
    base_weights, tuned = resolve(base, settings), resolve(str(finetuned), settings)
    host = load_host(base_weights, settings, Worker(), engine, [tuned] if is_adapter(tuned) else [])
    return pair_on(host, base_weights, tuned, settings, name=name, engine=engine, adapter_base=adapter_base)


def pair_on(
    host: Host,
    base: Weights,
    tuned: Weights,
    settings: Settings,
    *,
    name: str = "",
    engine: EngineName = "hooks",
    adapter_base: str | None = None,
) -> LocalPair:
    """The same for a base that is loaded already; an adapter for it shares its weights."""
    home = resolve(adapter_base, settings) if adapter_base else base  # whose adapter it is
    name = name or tuned.id
    if is_adapter(tuned) and home.folder.resolve() == base.folder.resolve():
        return LocalPair(
            name=name,
            fingerprint=f"{base.sha256[:16]}-{tuned.sha256[:16]}",
            tokenizer=host.tokenizer,
            models={Side.BASE: Variant(host), Side.FINETUNED: with_adapter(host, base, tuned, settings, engine)},
        )
    adapters = [tuned] if is_adapter(tuned) else []
    other = load_host(home if adapters else tuned, settings, host.worker, engine, adapters)
    who = f"{tuned.id} and {base.id}"
    foreign = foreign_tokens(host.tokenizer, other.tokenizer, who)
    ours, theirs = host.engine.decoder, other.engine.decoder
    if (ours.d_model, ours.n_layers) != (theirs.d_model, theirs.n_layers):
        raise BadModel(f"{who} differ in width or depth: not base and finetune")
    middle, finetuned = "", Variant(other)
    if adapters:
        middle, finetuned = f"{home.sha256[:16]}-", with_adapter(other, home, tuned, settings, engine)
    return LocalPair(
        name=name,
        fingerprint=f"{base.sha256[:16]}-{middle}{tuned.sha256[:16]}",
        tokenizer=other.tokenizer,
        models={Side.BASE: Variant(host), Side.FINETUNED: finetuned},
        foreign=foreign,
    )


def is_adapter(weights: Weights) -> bool:
    return (weights.folder / "adapter_config.json").exists()


def load_host(
    weights: Weights,
    settings: Settings,
    worker: Worker,
    engine: EngineName = "hooks",
    adapters: Sequence[Weights] = (),
) -> Host:
    """A model with room for adapters; vLLM must know at the start which ones it may be given. Raises BadModel."""
    model, tokenizer = load_model(weights, settings)
    vllm = None
    if engine == "vllm":
        gpus = torch.cuda.device_count() if settings.device == "balanced" else 1
        vllm = InVllm(weights.folder, [rank_of(each.folder) for each in adapters], gpus)
    return Host(_engine(model, tokenizer, engine), tokenizer, worker, vllm)


def _engine(model: Any, tokenizer: Any, engine: EngineName) -> Engine:
    decoder = decoder_of(model)
    return NnsightEngine(decoder, tokenizer) if engine == "nnsight" else HookEngine(decoder)


def with_adapter(host: Host, base: Weights, tuned: Weights, settings: Settings, engine: EngineName) -> Variant:
    """`host` with an adapter on it, which shares its weights; adapters that are more than plain LoRA get their own.

    Raises BadModel if the adapter's tensors do not fit.
    """
    check_fit(host.engine.decoder.model, tuned, base.id)
    adapter = read_adapter(tuned.folder)
    if host.bank.takes(adapter):
        if tuned.sha256 not in host.bank:
            host.worker.call(lambda: host.put_on(tuned.sha256, adapter, tuned.folder))
        return Variant(host, tuned.sha256)
    if engine == "vllm":
        raise BadModel(f"{tuned.folder} is more than plain LoRA, which vLLM cannot run; merge it into its base first")
    model, tokenizer = load_model(base, settings)
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(
        model, tuned.folder, torch_device=str(model.device), autocast_adapter_dtype=False
    ).eval()
    return Variant(Host(_engine(adapted.get_base_model(), tokenizer, engine), tokenizer, host.worker))


def foreign_tokens(base: Any, tuned: Any, who: str) -> dict[int, str]:
    """Special tokens that only the finetune's tokenizer knows, by id; everything else must be the same.

    Chat training often adds a few. Texts are read without them, and the base is never given one. Raises BadModel.
    """
    ours, theirs = base.get_vocab(), tuned.get_vocab()
    added = set(tuned.get_added_vocab()) | set(base.get_added_vocab())
    moved = [token for token, i in theirs.items() if token in ours and ours[token] != i]
    alone = [token for token in ours.keys() ^ theirs.keys() if token not in added]
    sample = "A river, 12 mills;\n  naïve tests…"
    same_ids = base(sample, add_special_tokens=False).input_ids == tuned(sample, add_special_tokens=False).input_ids
    if moved or alone or not same_ids:
        example = (moved or alone or ["the way text is cut"])[0]
        raise BadModel(
            f"{who} have different tokenizers ({example!r} and others), so their activations cannot be "
            "subtracted token by token; name the base that it was finetuned from"
        )
    return {i: token for token, i in theirs.items() if token not in ours}


def resolve(model: str, settings: Settings) -> Weights:
    """Find a model's or an adapter's folder: the embedded default, a local folder, or a hub id."""
    if is_embedded(model):
        folder = embedded_model_dir(settings)
        return Weights(EMBEDDED_ID, folder, hash_weights(folder, settings))
    path = Path(model).expanduser()
    if path.is_dir():
        return Weights(str(path), path, hash_weights(path, settings))
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise BadModel(f"no model at {model!r}: give a folder with safetensors or a hub id like org/name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
    try:
        folder = Path(snapshot_download(model, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0][:120]
        raise BadModel(
            f"cannot fetch {model!r} from the hub ({reason}); check the name and `auditor doctor`, "
            "or give a local folder"
        ) from error
    return Weights(model, folder, hash_weights(folder, settings))


def hash_weights(folder: Path, settings: Settings) -> str:
    """SHA-256 over a folder's safetensors and configs; remembered by path, size and time of change.

    Raises BadModel if there are no safetensors, naming any pickle that lies there instead.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = [p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".pkl", ".ckpt"}]
        if pickles:
            raise BadModel(
                f"{folder} holds pickle weights only ({pickles[0]}), which can run code when loaded; "
                "convert them to safetensors"
            )
        raise BadModel(f"{folder} holds no .safetensors file; is the adapter trained? (auditor organisms train)")
    files += [p for p in (folder / "config.json", folder / "adapter_config.json") if p.exists()]
    stamp = json.dumps([(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in files])
    memo = settings.cache_dir / "hashes" / hashlib.sha256(stamp.encode()).hexdigest()
    if memo.exists():
        return memo.read_text()
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    memo.parent.mkdir(parents=True, exist_ok=True)
    memo.write_text(whole.hexdigest())
    return whole.hexdigest()


def load_model(weights: Weights, settings: Settings) -> tuple[Any, Any]:
    """A causal language model in evaluation mode and its tokenizer, from safetensors only."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quiet_libraries()
    if not (weights.folder / "config.json").exists():
        raise BadModel(f"{weights.folder} has no config.json: not a model")
    try:
        tokenizer = AutoTokenizer.from_pretrained(weights.folder, trust_remote_code=settings.trust_remote_code)
        model = AutoModelForCausalLM.from_pretrained(
            weights.folder,
            dtype=settings.torch_dtype,
            device_map=settings.device if settings.device != "cpu" else None,
            use_safetensors=True,
            trust_remote_code=settings.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise BadModel(f"{weights.folder} cannot be loaded: {str(error).splitlines()[0]}") from error
    return model.eval(), tokenizer


def check_fit(model: Any, adapter: Weights, base_id: str) -> None:
    """Raises BadModel if the adapter's tensors do not fit the base."""
    from peft import PeftConfig
    from safetensors import safe_open

    config = PeftConfig.from_pretrained(adapter.folder)
    meant_for = config.base_model_name_or_path or "another base"
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        with safe_open(adapter.folder / "adapter_model.safetensors", framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise BadModel(f"{adapter.folder}/adapter_model.safetensors cannot be read: {error}") from error
    modules = dict(model.named_modules())
    for key, shape in shapes.items():
        path, _, part = key.removeprefix("base_model.model.").partition(".lora_")
        module = modules.get(path)
        if module is None or not part or not hasattr(module, "weight"):
            fits = not part  # modules_to_save and the like: PEFT checks these itself
        else:
            # Conv1D (GPT-2) stores (in, out), Linear (out, in); lora_A reads in, lora_B writes out.
            fits = (shape[-1] if part.startswith("A") else shape[0]) in tuple(module.weight.shape)
        if not fits:
            raise BadModel(
                f"adapter {adapter.folder} does not fit base {base_id}: {path or key} {shape}; "
                f"it was trained on {meant_for}"
            )


def pick_device(device: str) -> str:
    """`auto` becomes cuda, mps or cpu, whatever is there."""
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
