"""A model in memory with the adapters on it, and the worker that runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil
import torch

from auditor.models.engine import Engine
from auditor.models.live import LiveBatch, Row
from auditor.models.lora import LoraBank
from auditor.models.worker import Worker

T = TypeVar("T")

CACHE_SHARE = 0.5  # of the memory that is free once the model is loaded: for keys and values of the first host


class Host:
    """One set of weights. `bank` holds the adapters that turn it into finetunes."""

    def __init__(self, engine: Engine, tokenizer: Any, worker: Worker) -> None:
        self.engine, self.tokenizer, self.worker = engine, tokenizer, worker
        weight = next(engine.decoder.model.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self.bank = LoraBank(engine.decoder.model)
        generation: Any = engine.decoder.model.generation_config
        ends = generation.eos_token_id if generation is not None else None
        listed = ends if isinstance(ends, list) else [ends]
        stops = frozenset(i for i in [*listed, tokenizer.eos_token_id] if i is not None)
        self.line = worker.open(LiveBatch(engine, stops, self.bank, self._cells()))

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together."""
        config = self.engine.decoder.text_config
        return min(int(getattr(config, "max_position_embeddings", 0) or 1 << 20), self.line.batch.cells // 2)

    def decode(self, rows: Sequence[Row], client: str) -> None:
        """Let `rows` join the others; each tells by its `ended` when it has come to its end."""
        self.worker.decode(self.line, rows, client)

    def _cells(self) -> int:
        """How many tokens' keys and values there is memory for."""
        config = self.engine.decoder.text_config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        each = 2 * config.num_hidden_layers * heads * width * self.dtype.itemsize
        if self.device.type == "cuda":
            free = sum(torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count()))
        else:
            free = psutil.virtual_memory().available
        return int(CACHE_SHARE / (1 + len(self.worker.lines)) * free / each)


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
