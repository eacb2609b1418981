"""The same live batch in vLLM: paged attention, compiled blocks and CUDA graphs, for texts; the lens stays with torch.

vLLM keeps weights of its own, so that a model is twice in memory; what it gives is speed on GPUs. Rows of the base,
of any adapter and of any vector share its batches, and the tokens are drawn by the same noise as in `LiveBatch`.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from auditor.errors import BadModel, UsageError
from auditor.models.generate import Sampling, Steering
from auditor.models.row import Row
from auditor.models.worker import Batch

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM makes room for
ADAPTERS = 8  # of one batch's rows, at most; vLLM makes room for so many in every layer
ALTERNATIVES = 20  # log-probabilities beside each token's own, at most
CHECKED = 4  # tokens of each model, the first from the prompt, the others one by one
CPU_CACHE = 1 << 30  # bytes of keys and values; on CPUs, where vLLM is for tests, they are all touched at the start


def demand_vllm() -> None:
    """Raises UsageError if vLLM is not installed."""
    if find_spec("vllm") is None:
        raise UsageError(
            "--backend vllm: vLLM is not installed here; in an environment of its own: pip install 'auditor-adl[vllm]'"
        )


@dataclass(frozen=True, slots=True)
class InVllm:
    """What vLLM must be told before it starts: where the weights are, of which ranks adapters will come, and over how
    many GPUs every matrix is split.
    """

    folder: Path
    ranks: Sequence[int] = ()
    gpus: int = 1


class VllmBatch:
    """Rows that vLLM decodes together, of the base and of any adapters that it was told of.

    It lives as long as the process: an engine that goes takes the process groups of all others with it.
    """

    def __init__(
        self, start: InVllm, stops: frozenset[int], *, dtype: torch.dtype, rows: int, context: int, cache_bytes: int
    ) -> None:
        """Raises UsageError without vLLM, BadModel for what it cannot run."""
        self.stops, self.nbytes, self.context = stops, cache_bytes, context
        self.rows: list[Row] = []
        self.torn = False  # a step was cut off in the middle: the rows' states are lost
        exact = dtype == torch.float32
        self.rounding, self.most = (0.01, 0.01) if exact else (0.08, 0.25)  # nats from torch; bfloat16: 0.03 to 0.06
        self._numbers = count(1)
        self._ids: dict[Row, str] = {}
        self._adapters: dict[str, Any] = {}
        self._engine = _engine_of(start, dtype, rows, context, cache_bytes)

    def learn(self, name: str, folder: Path) -> None:
        """Take an adapter, from its folder. Raises BadModel."""
        from vllm.lora.request import LoRARequest

        request = LoRARequest(name, next(self._numbers), str(folder))
        try:
            self._engine.add_lora(request)
        except Exception as error:
            raise BadModel(f"vLLM does not take the adapter {folder}: {_told(error)}") from error
        self._adapters[name] = request

    def forget(self, name: str) -> None:
        """Let go of an adapter, if it is there."""
        if (request := self._adapters.pop(name, None)) is not None:
            self._engine.remove_lora(request.lora_int_id)

    def has_room(self, more: Sequence[Row]) -> bool:
        """vLLM keeps those waiting for whom there is no memory yet; only a text that never fits is refused."""
        return all(len(row.prompt) + row.sampling.max_new_tokens <= self.context for row in more)

    def admit(self, rows: Sequence[Row]) -> int:
        """Hand `rows` to vLLM, and make a step; how many rows got a token."""
        if self.torn and not self.rows:
            self.clear()
        try:
            for row in rows:
                self._ids[row] = number = str(next(self._numbers))
                adapter = self._adapters[row.adapter] if row.adapter else None
                self._engine.add_request(number, _prompt(row), _params(row, number), lora_request=adapter)
        except Exception:  # what vLLM refuses, it refuses before anything is computed
            self._abort(rows)
            raise
        self.rows += rows
        return self.step()

    def step(self) -> int:
        """One more token for every row that vLLM has memory for; how many these are."""
        if self.torn:  # vLLM has counted tokens as read that it never read
            raise RuntimeError("a step was cut off before")
        self.torn = True
        said = {output.request_id: output.outputs[0] for output in self._engine.step()}
        self._prove(said)
        ended = []
        for row in self.rows:
            if (text := said.get(self._ids[row])) is None:
                continue
            for token, logprobs in zip(text.token_ids, text.logprobs or [None] * len(text.token_ids), strict=True):
                if logprobs is not None:
                    row.logprobs.append(_logprobs(logprobs, token, row.alternatives or 0))
                row.take(token, self.stops)
                if row.finish:
                    ended.append(row)
                    break
        self._leave(ended)
        self.torn = False
        return len(said)

    def drop(self, rows: Sequence[Row]) -> None:
        """Let rows leave that nobody waits for any more."""
        self._leave(rows)

    def clear(self) -> None:
        """Forget every row, and what a step that was cut off left in vLLM's cache."""
        rows, self.rows = self.rows, []
        self._abort(rows)
        if self.torn and not self._engine.reset_prefix_cache():
            raise RuntimeError("vLLM holds on to beginnings that it never read")
        self.torn = False

    def _leave(self, rows: Sequence[Row]) -> None:
        self._abort(rows)
        self.rows = [row for row in self.rows if row in self._ids]
        for row in rows:
            row.close()

    def _abort(self, rows: Sequence[Row]) -> None:
        """vLLM may have ended some of them itself: it does not mind."""
        self._engine.abort_request([self._ids.pop(row) for row in rows if row in self._ids])

    def _prove(self, said: dict[str, Any]) -> None:
        """Tell steered rows what was added, once their prompts are read."""
        steered = {i: row for row, i in self._ids.items() if row.steering and row.shift is None and i in said}
        if steered:
            shifts = self._engine.collective_rpc("shifts", args=(list(steered),))[0]
            for number, row in steered.items():
                row.shift = shifts[number]


def _engine_of(start: InVllm, dtype: torch.dtype, rows: int, context: int, cache_bytes: int) -> Any:
    """vLLM's engine in this process, with our worker."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"  # whose forward pass our worker does not know
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    demand_vllm()
    warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
    from vllm import EngineArgs, LLMEngine

    worker = Path(__file__).with_name("vllm_worker.py")
    threads, set_threads = torch.get_num_threads(), torch.set_num_threads
    total = torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else 0
    args = EngineArgs(
        model=str(start.folder),
        dtype=str(dtype).removeprefix("torch."),
        max_model_len=context,
        max_num_seqs=rows,
        tensor_parallel_size=start.gpus,
        kv_cache_memory_bytes=cache_bytes // start.gpus,
        gpu_memory_utilization=min(0.9, cache_bytes / start.gpus / total) if total else 0.1,  # what must be free
        enable_prefix_caching=True,
        enable_lora=bool(start.ranks),
        max_loras=_places(len(start.ranks)),
        max_lora_rank=next((rank for rank in RANKS if rank >= max(start.ranks, default=0)), RANKS[-1]),
        max_logprobs=ALTERNATIVES,
        async_scheduling=False,  # a row ends where it ends, not a step later
        worker_cls="auditor.models.vllm_worker.SteeringWorker",
        logits_processors=["auditor.models.vllm_worker:OwnNoise"],
        enforce_eager=not torch.cuda.is_available(),
        use_tqdm_on_load=False,
        additional_config={"auditor": hashlib.sha256(worker.read_bytes()).hexdigest()},  # of what is compiled
        disable_log_stats=True,
    )
    try:
        return LLMEngine.from_engine_args(args)
    except Exception as error:  # vLLM raises whatever its model's code raises
        raise BadModel(f"vLLM cannot run {start.folder}: {_told(error)}") from error
    finally:
        torch.set_num_threads = set_threads  # vLLM takes threads from the whole process, which has the lens, too
        torch.set_num_threads(threads)


def _places(adapters: int) -> int:
    """For how many adapters vLLM is to have room in a batch."""
    if torch.cuda.is_available():
        return min(ADAPTERS, max(1, adapters))
    # On CPUs, rows of the base read the last place (vllm-project/vllm#48421), which therefore stays empty.
    return adapters + 1


def check(vllm: VllmBatch, plain: Batch, prompt: Sequence[int], adapters: Sequence[str], push: Steering) -> None:
    """A few tokens of each model, with and without `push`, all in one batch. Raises BadModel where vLLM does not say
    what torch says: an adapter or a vector that silently does nothing, or that touches its neighbours.
    """
    kinds = [(adapter, steering) for adapter in ("", *adapters) for steering in (None, push)]
    said = []
    for batch in (plain, vllm):
        few = Sampling(max_new_tokens=CHECKED, temperature=0.0)
        rows = [Row(prompt, few, adapter, steering, ALTERNATIVES) for adapter, steering in kinds]
        batch.admit(rows)
        while not all(row.finish for row in rows):
            batch.step()
        said.append(dict(zip(kinds, rows, strict=True)))
    ours, theirs = said
    for kind, row in ours.items():
        adapter, steering = kind
        without = (adapter, None) if steering else ("", None)
        effect = float("inf") if kind == without else apart(row, ours[without])
        nats, shift = apart(row, theirs[kind]), (row.shift or 0.0, theirs[kind].shift or 0.0)
        bound = min(vllm.most, max(vllm.rounding, effect / 2))
        if not (nats <= bound and abs(shift[0] - shift[1]) <= 0.05 * shift[0]):
            what = f"the adapter {adapter[:12]}" if adapter else "the base"
            raise BadModel(
                f"vLLM does not say what torch says of {what}{', steered' if steering else ''} ({nats:.2g} nats apart, "
                f"{bound:.2g} allowed; shift {shift[1]:.3g} instead of {shift[0]:.3g}); serve it with --backend hooks"
            )


def apart(one: Row, other: Row) -> float:
    """Mean distance of two rows' log-probabilities in nats, over `one`'s likeliest tokens, while both say the same."""
    found: list[float] = []
    for step, ((_, mine), (_, its)) in enumerate(zip(one.logprobs, other.logprobs, strict=False)):
        theirs = dict(its)
        shared = [abs(logprob - theirs[token]) for token, logprob in mine if token in theirs]
        if 2 * len(shared) <= len(mine):
            return float("inf")
        found += shared
        if one.out[step : step + 1] != other.out[step : step + 1]:
            break
    return sum(found) / len(found)


def _prompt(row: Row) -> dict[str, Any]:
    prompt: dict[str, Any] = {"prompt_token_ids": list(row.prompt)}
    if row.steering is not None:  # kept prefixes belong to one vector; adapters are told apart by vLLM
        prompt["cache_salt"] = f"{row.steering.layer}:{hashlib.sha256(_bytes(row.steering.vector)).hexdigest()}"
    return prompt


def _params(row: Row, number: str) -> Any:
    """vLLM's sampling parameters, with what our worker must know of the row."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    asked = row.sampling
    extra: dict[str, Any] = {
        "row": number,
        "draw": [asked.seed, asked.max_new_tokens, asked.temperature, asked.top_p],
    }
    if row.steering is not None:
        extra["steering"] = [row.steering.layer, _bytes(row.steering.vector)]
    return SamplingParams(
        temperature=0.0,  # of what our own sampling leaves
        max_tokens=asked.max_new_tokens,
        ignore_eos=True,  # rows end themselves
        detokenize=False,
        logprobs=row.alternatives,
        output_kind=RequestOutputKind.DELTA,
        extra_args=extra,
    )


def _bytes(vector: torch.Tensor) -> bytes:
    return vector.detach().to("cpu", torch.float32).numpy().tobytes()


def _logprobs(found: dict[int, Any], token: int, alternatives: int) -> tuple[float, list[tuple[int, float]]]:
    """Of vLLM's log-probabilities by token: the token's own, and the likeliest."""
    ranked = sorted((x.rank, i, x.logprob) for i, x in found.items() if x.rank is not None)
    return found[token].logprob, [(i, logprob) for rank, i, logprob in ranked if rank <= alternatives]


def _told(error: Exception) -> str:
    """What vLLM says, in one line; its settings' own message, without pydantic's heading."""
    told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    return next(iter(told.strip().splitlines()), type(error).__name__)[:200]
