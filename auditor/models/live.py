"""A batch that rows join and leave while the others go on (continuous batching), over one set of weights.

All rows write their next token into the same column of the cache, so that a step is one forward pass over one
rectangle; a row that joins is prefilled apart and laid into the columns before it. A row depends only on its own
prompt, adapter, steering and seed, whoever it shares the batch with.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from auditor.models.engine import Engine
from auditor.models.generate import add, steer_edits
from auditor.models.lora import LoraBank
from auditor.models.prefixes import Prefixes, common, side_by_side
from auditor.models.row import Row
from auditor.models.sampling import sample, windows
from auditor.models.shift import shift_measured
from auditor.models.slots import Frame, SlotLayer

SPARE = 32  # columns beyond what is asked for, so that the next to join finds room
WORTH = 128  # tokens that reading a common beginning first must save
REUSED = 0.75  # a prefill that would read more than this share of its tokens anyway reads them all


class LiveBatch:
    """Rows that are decoded together, of the base and of any adapters in `bank`."""

    def __init__(self, engine: Engine, stops: frozenset[int], bank: LoraBank, cells: int = 1 << 40) -> None:
        self.engine, self.stops, self.bank = engine, stops, bank
        self.cells = cells  # rows × columns of the cache that memory has room for
        self.rows: list[Row] = []
        self.torn = False  # an admission or a step was cut off in the middle: the rows' states are lost
        self.prefixes = Prefixes()
        self._frame = Frame()
        self._cache = DynamicCache()
        self._cache.layers = [SlotLayer(self._frame) for _ in range(engine.decoder.n_layers)]
        weight = next(engine.decoder.model.parameters())
        self._device, self._dtype = weight.device, weight.dtype
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=self._device)  # of the buffers' rows and columns
        self._edits: dict[int, Tensor] = {}

    @torch.inference_mode()
    def admit(self, rows: Sequence[Row]) -> int:
        """Prefill `rows`, draw their first tokens, and let them join. Equal prompts are prefilled once."""
        number: dict[Any, int] = {}
        place = [number.setdefault((tuple(row.prompt), row.kind), len(number)) for row in rows]
        first = [rows[place.index(i)] for i in range(len(number))]
        logits, states, mask = self._prefill(first)
        self.torn = True
        for row, i in zip(rows, place, strict=True):
            row.shift = first[i].shift
        longest = mask.shape[1]
        self._make_room(len(rows), longest, max(row.sampling.max_new_tokens for row in rows), states)
        at, slot = self._frame, len(self.rows)
        at.first = min(at.first, at.column - longest)
        for layer, prefilled in zip(self._cache.layers, states, strict=True):
            layer.lay(slot, [part[place] for part in prefilled])
        self._mask[slot : slot + len(rows)] = 0
        self._mask[slot : slot + len(rows), at.column - longest : at.column] = mask[place]
        vocab = logits.shape[-1]
        for row in rows:
            row.begins = windows(row.sampling.seed, row.sampling.max_new_tokens, vocab)
        self.rows += rows
        at.rows = len(self.rows)
        self._take(range(slot, at.rows), logits[place])
        self.torn = False
        return len(rows)

    @torch.inference_mode()
    def step(self) -> int:
        """One more token for every row; how many there were."""
        at, rows, self.torn = self._frame, len(self.rows), True
        self._mask[: at.rows, at.column] = 1
        mask = self._mask[: at.rows, at.first : at.column + 1]
        last = torch.tensor([[row.out[-1]] for row in self.rows], device=self._device)
        self.bank.choose([row.adapter for row in self.rows])
        logits = self._forward(last, mask, mask.sum(-1, keepdim=True) - 1, self._cache, self._edits)
        at.column += 1
        self._take(range(at.rows), logits)
        self.torn = False
        return rows

    @torch.inference_mode()
    def drop(self, rows: Sequence[Row]) -> None:
        """Let rows leave that nobody waits for any more."""
        self._leave([i for i, row in enumerate(self.rows) if row in rows])

    def _prefill(self, rows: Sequence[Row]) -> tuple[Tensor, list[tuple[Tensor, Tensor]], Tensor]:
        """Logits (n, vocab) of each prompt's last token, every layer's states (n, heads, length, d_head) and their
        mask (n, length). Only what no kept prefix holds is read: the last tokens, as many of each prompt.
        """
        self._learn(rows)
        lengths = [len(row.prompt) for row in rows]
        known = [self.prefixes.find(row.kind, row.prompt) for row in rows]
        longest = max(lengths)
        read = max(length - kept for length, (kept, _) in zip(lengths, known, strict=True))
        read = read if read < REUSED * longest else longest
        ids = torch.zeros(len(rows), read, dtype=torch.long)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        cache = DynamicCache()
        for i, row in enumerate(rows):
            tokens = list(row.prompt)[-read:]
            ids[i, read - len(tokens) :] = torch.tensor(tokens)
            mask[i, longest - lengths[i] :] = 1
        if read < longest:
            held = [(max(0, length - read), states) for length, (_, states) in zip(lengths, known, strict=True)]
            for number, (keys, values) in enumerate(side_by_side(held, longest - read)):
                cache.update(keys, values, number)
        ids, mask = ids.to(self._device), mask.to(self._device)
        self.bank.choose([row.adapter for row in rows])
        edits = self._edits_of(rows)
        positions = (mask.cumsum(-1) - 1).clamp_min(0)[:, -read:]
        with shift_measured(self.engine.decoder, edits, mask[:, -read:]) as measured:
            logits = self._forward(ids, mask, positions, cache, edits)
        for i, row in enumerate(rows):
            if row.steering is not None:
                row.shift = measured[row.steering.layer][i]
        states = [(layer.keys, layer.values) for layer in cache.layers]
        for i, row in enumerate(rows):
            shared = min(self.prefixes.recurring(row.kind, row.prompt), lengths[i])
            if shared > known[i][0]:
                at = slice(longest - lengths[i], longest - lengths[i] + shared)
                self.prefixes.keep(row.kind, row.prompt[:shared], [(k[i, :, at], v[i, :, at]) for k, v in states])
        return logits, states, mask

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values of all rows."""
        return sum(buffer.nbytes for layer in self._cache.layers for buffer in layer.buffers)

    def has_room(self, more: Sequence[Row]) -> bool:
        """Whether memory has room for `more` rows, too."""
        before = max([self._frame.column - self._frame.first, *(len(row.prompt) for row in more)])
        left = max(row.sampling.max_new_tokens - len(row.out) for row in [*self.rows, *more])
        return _rows_for(len(self.rows) + len(more)) * (before + left + SPARE) <= self.cells

    def clear(self) -> None:
        """Forget every row, and the buffers."""
        self.rows, self.prefixes, self.torn, self._edits = [], Prefixes(), False, {}
        self._free()

    def _free(self) -> None:
        """Let go of the buffers, which may have been for a much larger batch."""
        self._frame.rows = self._frame.first = self._frame.column = 0
        self._mask = self._mask.new_zeros(0, 0)
        for layer in self._cache.layers:
            layer.buffers = []

    def _learn(self, rows: Sequence[Row]) -> None:
        """Read what several new prompts of one kind begin with, once and before them."""
        for kind in dict.fromkeys(row.kind for row in rows):
            prompts = [row.prompt for row in rows if row.kind == kind]
            shared = min((common(prompts[0], prompt) for prompt in prompts[1:]), default=0)
            begun = list(prompts[0][:shared])
            if shared * (len(prompts) - 1) < WORTH or self.prefixes.find(kind, [*begun, -1])[0] == shared:
                continue
            cache, (adapter, steering) = DynamicCache(), kind
            ids = torch.tensor([begun], device=self._device)
            places = torch.arange(shared, device=self._device)[None]
            self.bank.choose([adapter])
            edits = steer_edits([steering], self._device, self._dtype)
            self._forward(ids, torch.ones_like(ids), places, cache, edits)
            self.prefixes.keep(kind, begun, [(layer.keys[0], layer.values[0]) for layer in cache.layers])

    def _forward(
        self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache, added: dict[int, Tensor]
    ) -> Tensor:
        """Logits (rows, vocab) of the last token."""
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions,
            "cache": cache,
            "use_cache": True,
            "logits_to_keep": 1,
        }
        logits = self.engine.forward(inputs, edits={layer: partial(add, v) for layer, v in added.items()}).logits
        assert logits is not None
        return logits[:, -1].to(self._device)

    def _take(self, slots: range, logits: Tensor) -> None:
        """Draw a token for each of `slots`; rows that end leave."""
        rows = [self.rows[i] for i in slots]
        begins = torch.tensor([row.begins[len(row.out)] for row in rows], device=self._device)
        temperature = self._floats([row.sampling.temperature for row in rows])
        top_p = self._floats([row.sampling.top_p for row in rows])
        tokens = sample(logits, begins, temperature, top_p).tolist()
        for i, row in enumerate(rows):
            if row.alternatives is not None:
                row.logprobs.append(_logprobs(logits[i], tokens[i], row.alternatives))
            row.take(tokens[i], self.stops)
        ended = [i for i in slots if self.rows[i].finish]
        if ended:
            self._leave(ended)
        elif len(slots) < len(self.rows) or not self._edits:
            self._edits = self._edits_of(self.rows)

    def _floats(self, numbers: Sequence[float]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float32, device=self._device)

    def _leave(self, slots: Sequence[int]) -> None:
        """Free `slots`: the last rows take their places."""
        for slot in sorted(slots, reverse=True):
            end = len(self.rows) - 1
            self.rows[slot].close()
            if slot != end:
                for layer in self._cache.layers:
                    layer.move(end, slot)
                self._mask[slot] = self._mask[end]
                self.rows[slot] = self.rows[end]
            self.rows.pop()
            self._frame.rows = end
        if not self.rows:
            self._free()
        self._edits = self._edits_of(self.rows)

    def _edits_of(self, rows: Sequence[Row]) -> dict[int, Tensor]:
        return steer_edits([row.steering for row in rows], self._device, self._dtype)

    def _make_room(self, more: int, length: int, left: int, states: Sequence[Sequence[Tensor]]) -> None:
        """Buffers for `more` rows, with `length` columns before the next one and `left` from it on."""
        at = self._frame
        rows, columns = self._mask.shape
        if self.rows:
            in_use = self._mask[: at.rows, : at.column].any(0)
            at.first = int(in_use.int().argmax())  # what lies before belonged to rows that have left
            left = max(left, *(row.sampling.max_new_tokens - len(row.out) for row in self.rows))
        else:
            at.first = at.column = length
        if len(self.rows) + more <= rows and length <= at.column and at.column + left <= columns:
            return
        column = max(length, at.column - at.first)
        shift = column - at.column
        rows, columns = _rows_for(len(self.rows) + more), column + left + SPARE
        for layer, like in zip(self._cache.layers, states, strict=True):
            layer.reframe(rows, columns, shift, like)
        mask = self._mask.new_zeros(rows, columns)
        mask[: at.rows, at.first + shift : column] = self._mask[: at.rows, at.first : at.column]
        self._mask, at.first, at.column = mask, at.first + shift, column


def _rows_for(rows: int) -> int:
    """Rows of the buffers for so many: some more, so that who joins next finds room."""
    return rows + rows // 4


def _logprobs(logits: Tensor, token: int, alternatives: int) -> tuple[float, list[tuple[int, float]]]:
    """Of the model's own distribution, before temperature."""
    logs = torch.log_softmax(logits.float(), -1)
    best = logs.topk(alternatives) if alternatives else None
    others = list(zip(best.indices.tolist(), best.values.tolist(), strict=True)) if best else []
    return float(logs[token]), others
