"""What runs inside vLLM: vectors added to single rows' residual streams, and tokens drawn with our own noise.

Both travel as data in a request's `extra_args`. A vector lies in a table that every block adds from, token by token;
the tables and the tokens' places in them are tensors that stay where they are, so that compiled code and captured
CUDA graphs read them too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from vllm.platforms import current_platform
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from auditor.models.arch import blocks_of
from auditor.models.sampling import sample, windows

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as Worker
else:
    from vllm.v1.worker.gpu_worker import Worker


class SteeringWorker(Worker):  # type: ignore[misc]
    """vLLM's worker, whose model steers."""

    def load_model(self, *args: Any, **named: Any) -> None:
        super().load_model(*args, **named)
        self.vectors = Vectors(self.model_runner)

    def shifts(self, rows: list[str]) -> dict[str, float]:
        """By our row's number: what steering added to the prompt's tokens, mean L2 norm."""
        return self.vectors.shifts(rows)


class Vectors:
    """The vectors of the rows in the batch, and what they added."""

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        config = runner.model_config.hf_text_config
        _, blocks = blocks_of(runner.model, config.num_hidden_layers)
        places = runner.max_num_reqs + 1  # the first holds zeros: for tokens that are not steered
        self._tables = torch.zeros(len(blocks), places, config.hidden_size, dtype=runner.dtype, device=runner.device)
        self._place = torch.zeros(runner.max_num_tokens, dtype=torch.long, device=runner.device)  # of each token
        self._added = torch.zeros(runner.max_num_tokens, device=runner.device)  # to each token, L2 norm
        self._held: dict[tuple[int, bytes], int] = {}  # (layer, vector): its place
        self._seen: dict[str, tuple[Tensor, int]] = {}  # by row: sum of norms, tokens
        for layer, block in enumerate(blocks):
            block.register_forward_hook(self._steer(self._tables[layer]))
        self._forward, runner._model_forward = runner._model_forward, self._around

    def shifts(self, rows: list[str]) -> dict[str, float]:
        found = {row: float(norms) / tokens for row, (norms, tokens) in self._seen.items() if row in rows}
        here = {request.sampling_params.extra_args["row"] for request in self.runner.requests.values()} - set(rows)
        self._seen = {row: seen for row, seen in self._seen.items() if row in here}
        return found

    def _steer(self, table: Tensor) -> Callable[..., Any]:
        def hook(_block: nn.Module, _inputs: Any, output: Any) -> Any:
            # Blocks that hand on two tensors mean their sum: what is added to one is added to the stream.
            said = output[0] if isinstance(output, tuple) else output
            tokens = said.shape[-2]
            steered = said + table[self._place[:tokens]]
            self._added[:tokens] += (steered.float() - said.float()).norm(dim=-1).reshape(-1)
            return (steered, *output[1:]) if isinstance(output, tuple) else steered

        return hook

    def _around(self, *args: Any, **named: Any) -> Any:
        """A forward pass, for which every token knows its vector."""
        runner = self.runner
        rows = [runner.requests[i] for i in runner.input_batch.req_ids]
        asked = [row.sampling_params.extra_args.get("steering") for row in rows]
        keys = {(layer, vector) for layer, vector in filter(None, asked)}
        self._hold(keys)
        begins = runner.query_start_loc.np[: len(rows) + 1].tolist()
        place = torch.zeros(len(self._place), dtype=torch.long)
        for number, steering in enumerate(asked):
            if steering is not None:
                place[begins[number] : begins[number + 1]] = self._held[tuple(steering)]
        if keys:
            self._added.zero_()
        self._place.copy_(place)
        output = self._forward(*args, **named)
        for number, (row, steering) in enumerate(zip(rows, asked, strict=True)):
            left = row.num_prompt_tokens - row.num_computed_tokens  # of the prompt, before this pass
            if steering is not None and left > 0:
                tokens = min(left, begins[number + 1] - begins[number])
                norms, before = self._seen.get(row.sampling_params.extra_args["row"], (0.0, 0))
                added = self._added[begins[number] : begins[number] + tokens].sum()
                self._seen[row.sampling_params.extra_args["row"]] = (norms + added, before + tokens)
        return output

    def _hold(self, keys: set[tuple[int, bytes]]) -> None:
        """Put vectors into the tables that are not there yet, in place of some that no row asks for."""
        for key in keys - self._held.keys():
            free = set(range(1, self._tables.shape[1])) - set(self._held.values())
            if not free:
                unused = next(other for other in self._held if other not in keys)
                free.add(self._held.pop(unused))
                self._tables[unused[0], min(free)] = 0
            (layer, vector), place = key, min(free)
            numbers = torch.frombuffer(bytearray(vector), dtype=torch.float32)
            self._tables[layer, place] = numbers.to(self._tables)
            self._held[key] = place  # last: it is there now


@dataclass(slots=True)
class Draw:
    """How one row's tokens are drawn; `out` is vLLM's own list of those it has said."""

    out: list[int]
    seed: int
    steps: int
    temperature: float
    top_p: float
    begins: list[int] | None = None

    def window(self, vocab: int) -> int:
        self.begins = self.begins or windows(self.seed, self.steps, vocab)
        return self.begins[min(len(self.out), self.steps - 1)]


class OwnNoise(LogitsProcessor):  # type: ignore[misc]
    """Leaves of each row's logits the token that our own sampling draws: the same text as from our own engine."""

    def __init__(self, _config: Any, _device: torch.device, _is_pin_memory: bool) -> None:
        self._draws: dict[int, Draw] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        process_dict_updates(
            self._draws, batch_update, lambda params, _prompt, out: Draw(out, *params.extra_args["draw"])
        )

    def apply(self, logits: Tensor) -> Tensor:
        draws = [self._draws[i] for i in range(len(logits))]
        begins = torch.tensor([draw.window(logits.shape[-1]) for draw in draws], device=logits.device)
        temperature, top_p = (
            torch.tensor(numbers, dtype=torch.float32, device=logits.device)
            for numbers in ([draw.temperature for draw in draws], [draw.top_p for draw in draws])
        )
        tokens = sample(logits, begins, temperature, top_p)
        return torch.full_like(logits, -torch.inf).scatter_(-1, tokens[:, None], 0.0)
