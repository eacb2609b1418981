"""A model in memory with the adapters on it, and the worker that runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from auditor.errors import BadModel, TooLong
from auditor.memory import available_memory
from auditor.models.adapters import Adapter
from auditor.models.engine import Engine
from auditor.models.generate import Steering
from auditor.models.live import LiveBatch
from auditor.models.lora import LoraBank
from auditor.models.row import Row
from auditor.models.stream import check_stream
from auditor.models.tokens import plain_ids
from auditor.models.vllm_batch import CPU_CACHE, InVllm, VllmBatch, check
from auditor.models.worker import ROWS, Worker

T = TypeVar("T")

PROBE = "The old mill stands by the river, and the"
SHORTEST = 256  # tokens of prompt and answer that must fit into vLLM's memory
CACHE_SHARE = 0.5  # of the memory that is free once the model is loaded: for keys and values of the first host


class Host:
    """One set of weights. `bank` holds the adapters that turn it into finetunes."""

    def __init__(self, engine: Engine, tokenizer: Any, worker: Worker, vllm: InVllm | None = None) -> None:
        """`vllm`: if it is to decode the texts, from the same weights. Raises UsageError, BadModel."""
        self.engine, self.tokenizer, self.worker = engine, tokenizer, worker
        weight = next(engine.decoder.model.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        causal: Any = engine.decoder.model
        self.embeddings = int(causal.get_input_embeddings().weight.shape[0])  # ids from there on cannot be read
        ids = plain_ids(tokenizer, PROBE)
        worker.call(lambda: check_stream(engine, ids))
        probe = torch.tensor([ids, ids[::-1]], device=self.device)
        self.bank = worker.call(lambda: LoraBank(engine.decoder.model, probe))
        generation: Any = engine.decoder.model.generation_config
        ends = generation.eos_token_id if generation is not None else None
        listed = ends if isinstance(ends, list) else [ends]
        self._stops = frozenset(i for i in [*listed, tokenizer.eos_token_id] if i is not None)  # that end an answer
        cells = self._cells(vllm)
        positions = getattr(engine.decoder.text_config, "max_position_embeddings", None) or cells
        self.context = min(int(positions), cells // 2)  # tokens of prompt and answer together
        self._vllm = worker.call(lambda: self._started(vllm, cells)) if vllm is not None else None
        self._live = LiveBatch(engine, self._stops, self.bank, cells)
        self.line = worker.open(self._vllm or self._live)

    @property
    def compares(self) -> bool:
        """Whether rows may have the base's beside them."""
        return self._vllm is None

    def compare(self, base: Host) -> None:
        """From now on what is beside this host's rows is decoded by `base`, which may be this host itself."""
        if self._live.bases is None and base is not self:
            self._live.bases = LiveBatch(base.engine, base._stops, base.bank, self._live.cells // 2)
        elif (self if self._live.bases is None else self._live.bases).engine is not base.engine:
            raise RuntimeError("a finetune's weights belong to one base")

    def demand_room(self, read: int, new: int = 0) -> None:
        """Raises TooLong unless there is room for `read` tokens and `new` ones after them."""
        if read + new > self.context:
            if new:
                raise TooLong(
                    f"the prompt has {read} tokens and asks for {new}, "
                    f"but prompt and answer may have {self.context} together"
                )
            raise TooLong(f"a text has {read} tokens, but the model reads {self.context} at most")

    def put_on(self, name: str, adapter: Adapter, folder: Path) -> None:
        """An adapter, with its folder. Raises BadModel if vLLM does not take it."""
        self.bank.add(name, adapter)
        if self._vllm is not None:
            try:
                self._vllm.learn(name, folder)
                self._check(self._vllm, name)
            except BaseException:  # nobody may be served what was not checked
                self.take_off(name)
                raise

    def take_off(self, name: str) -> None:
        """Free an adapter's memory."""
        if self._vllm is not None:
            self._vllm.forget(name)
        self.bank.remove(name)

    def close(self) -> None:
        """Leave the model as it was found: no adapter, no hook, and nobody waits for rows of it."""
        self.worker.call(self.bank.close)
        self.worker.lines.remove(self.line)

    def decode(self, rows: Sequence[Row], client: str) -> None:
        """Let `rows` join the others; each tells by its `ended` when it has come to its end."""
        self.worker.decode(self.line, rows, client)

    def _started(self, vllm: InVllm, cells: int) -> VllmBatch:
        each = self._bytes_of_a_token()
        if self.context < SHORTEST:
            raise BadModel(f"there is no memory for {vllm.folder} twice, for vLLM, too; serve it with --backend hooks")
        cache = min(cells, ROWS * self.context) * each
        if self.device.type == "cpu":
            cache = min(cache, max(CPU_CACHE, 2 * self.context * each))
        batch = VllmBatch(vllm, self._stops, dtype=self.dtype, rows=ROWS, context=self.context, cache_bytes=cache)
        self._check(batch)
        return batch

    def _check(self, vllm: VllmBatch, *adapters: str) -> None:
        """Raises BadModel if vLLM runs them otherwise than torch."""
        decoder = self.engine.decoder
        vector = torch.randn(decoder.d_model, generator=torch.Generator().manual_seed(0))
        prompt = plain_ids(self.tokenizer, PROBE)
        plain = LiveBatch(self.engine, self._stops, self.bank)
        check(vllm, plain, prompt, adapters, Steering(decoder.n_layers // 2, vector))

    def _cells(self, vllm: InVllm | None) -> int:
        """How many tokens' keys and values there is memory for; vLLM has weights of its own, split over its GPUs."""
        weights = list(self.engine.decoder.model.parameters())
        parts = vllm.gpus if vllm is not None else 1
        if self.device.type != "cuda":
            free = available_memory()
        elif vllm is None:
            free = sum(torch.cuda.mem_get_info(device)[0] for device in {w.device for w in weights})
        else:
            free = parts * min(torch.cuda.mem_get_info(i)[0] for i in range(parts))
        if vllm is not None:
            free = max(0, free - sum(w.nbytes for w in weights))
        share = CACHE_SHARE / (1 + len(self.worker.lines))
        return int(share * free / self._bytes_of_a_token())

    def _bytes_of_a_token(self) -> int:
        """Of its keys and values in all layers."""
        config = self.engine.decoder.text_config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return int(2 * config.num_hidden_layers * heads * width * self.dtype.itemsize)


@dataclass(frozen=True, slots=True)
class Variant:
    """A model that can be asked: a host, with one of its adapters on or none."""

    host: Host
    adapter: str = ""

    def run(self, job: Callable[[Engine], T]) -> T:
        """`job` with the adapter on, in the worker's thread."""

        def chosen() -> T:
            self.host.bank.choose([self.adapter])
            return job(self.host.engine)

        return self.host.worker.call(chosen)
