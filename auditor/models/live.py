"""A batch that rows join and leave while the others go on (continuous batching), over one set of weights.

All rows write their next token into the same column of the cache, so that a step is one forward pass over one
rectangle; a row that joins is prefilled apart and laid into the columns before it. A row depends only on its own
prompt, adapter, steering and seed, whoever it shares the batch with. An amplified row has the base's row beside it: in
this batch, or in one over the base's own weights that makes the same steps.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from auditor.models.contrast import Contrast
from auditor.models.engine import Engine
from auditor.models.generate import add, steer_edits
from auditor.models.lora import LoraBank
from auditor.models.prefixes import Prefixes, common, side_by_side
from auditor.models.row import Row
from auditor.models.sampling import sample, windows
from auditor.models.shift import shift_measured
from auditor.models.slots import Frame, SlotLayer
from auditor.models.stream import not_finite

SPARE = 32  # columns beyond what is asked for, so that the next to join finds room
WORTH = 128  # tokens that reading a common beginning first must save
REUSED = 0.75  # a prefill that would read more than this share of its tokens anyway reads them all


@dataclass(frozen=True, slots=True)
class _Prompts:
    """What was read of the prompts of `rows`, in the row's `place` of each tensor."""

    rows: Sequence[Row]
    place: list[int]
    logits: Tensor  # (n, vocab) of the last tokens
    states: list[tuple[Tensor, Tensor]]  # of every layer, (n, heads, length, d_head)
    mask: Tensor  # (n, length)


class LiveBatch:
    """Rows that are decoded together, of the base and of any adapters in `bank`."""

    def __init__(self, engine: Engine, stops: frozenset[int], bank: LoraBank, cells: int = 1 << 40) -> None:
        self.engine, self.stops, self.bank = engine, stops, bank
        self.cells = cells  # rows × columns of the cache that memory has room for
        self.bases: LiveBatch | None = None  # where the rows beside amplified ones are, if that is not here
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
        following = [row.beside.row for row in rows if row.beside is not None]
        read = self._read([*rows, *following] if self.bases is None else rows)
        theirs = self.bases._read(following) if self.bases is not None and following else None
        self.torn = True
        logits = self._join(read)
        if self.bases is not None:
            base = self.bases._join(theirs) if theirs is not None else logits[:0]
        else:
            logits, base = logits[: len(rows)], logits[len(rows) :]
        self._take(rows, logits, base)
        self.torn = False
        return len(rows)

    @torch.inference_mode()
    def step(self) -> int:
        """One more token for every row; how many got one."""
        self.torn = True
        logits = self._next()
        bases = self if self.bases is None else self.bases
        speaking = [i for i, row in enumerate(self.rows) if not row.follows]
        rows, base = [self.rows[i] for i in speaking], logits[:0]
        if any(row.beside for row in rows):
            others = logits if bases is self else bases._next()
            place = {row: i for i, row in enumerate(bases.rows)}
            base = others[[place[row.beside.row] for row in rows if row.beside is not None]]
        self._take(rows, logits if len(speaking) == len(self.rows) else logits[speaking], base)
        self.torn = False
        return len(rows)

    @torch.inference_mode()
    def drop(self, rows: Sequence[Row]) -> None:
        """Let rows leave that nobody waits for any more."""
        self._leave(rows)

    def _read(self, rows: Sequence[Row]) -> _Prompts:
        """Prefill `rows`, each different prompt once."""
        number: dict[Any, int] = {}
        place = [number.setdefault((tuple(row.prompt), row.kind), len(number)) for row in rows]
        first = [rows[place.index(i)] for i in range(len(number))]
        logits, states, mask = self._prefill(first)
        for row, i in zip(rows, place, strict=True):
            row.shift = first[i].shift
        return _Prompts(rows, place, logits, states, mask)

    def _join(self, read: _Prompts) -> Tensor:
        """Lay what was read into the columns before the next one; logits (n, vocab) of the prompts' last tokens."""
        rows, mask, place = read.rows, read.mask, read.place
        longest = mask.shape[1]
        self._make_room(len(rows), longest, max(row.sampling.max_new_tokens for row in rows), read.states)
        at, slot = self._frame, len(self.rows)
        at.first = min(at.first, at.column - longest)
        for layer, prefilled in zip(self._cache.layers, read.states, strict=True):
            layer.lay(slot, [part[place] for part in prefilled])
        self._mask[slot : slot + len(rows)] = 0
        self._mask[slot : slot + len(rows), at.column - longest : at.column] = mask[place]
        vocab = read.logits.shape[-1]
        for row in rows:
            row.begins = windows(row.sampling.seed, row.sampling.max_new_tokens, vocab)
        self.rows += rows
        at.rows = len(self.rows)
        self._edits = self._edits_of(self.rows)
        return read.logits[place]

    def _next(self) -> Tensor:
        """Every row's last token read; logits (rows, vocab) of what follows."""
        at = self._frame
        self._mask[: at.rows, at.column] = 1
        mask = self._mask[: at.rows, at.first : at.column + 1]
        last = torch.tensor([[row.out[-1]] for row in self.rows], device=self._device)
        self.bank.choose([row.adapter for row in self.rows])
        logits = self._forward(last, mask, mask.sum(-1, keepdim=True) - 1, self._cache, self._edits)
        at.column += 1
        return logits

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
        own: int = sum(buffer.nbytes for layer in self._cache.layers for buffer in layer.buffers)
        return own + (self.bases.nbytes if self.bases is not None else 0)

    def has_room(self, more: Sequence[Row]) -> bool:
        """Whether memory has room for `more` rows, too."""
        following = [row.beside.row for row in more if row.beside is not None]
        if self.bases is None:
            more = [*more, *following]
        elif following and not self.bases.has_room(following):
            return False
        before = max([self._frame.column - self._frame.first, *(len(row.prompt) for row in more)])
        left = max(row.sampling.max_new_tokens - len(row.out) for row in [*self.rows, *more])
        return _rows_for(len(self.rows) + len(more)) * (before + left + SPARE) <= self.cells

    def clear(self) -> None:
        """Forget every row, and the buffers."""
        self.rows, self.prefixes, self.torn, self._edits = [], Prefixes(), False, {}
        self._free()
        if self.bases is not None:
            self.bases.clear()

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

    def _take(self, rows: Sequence[Row], logits: Tensor, base: Tensor) -> None:
        """Draw a token for each of `rows` from logits (n, vocab); rows that end leave.

        `base` (m, its vocab): logits of the rows beside those that are amplified, in their order.
        """
        begins = torch.tensor([row.begins[len(row.out)] for row in rows], device=self._device)
        temperature = self._floats([row.sampling.temperature for row in rows])
        top_p = self._floats([row.sampling.top_p for row in rows])
        places = [i for i, row in enumerate(rows) if row.beside is not None]
        scores, contrast = logits, None
        if places:
            contrast = Contrast([rows[i] for i in places], self.stops, logits[places], base)
            at = torch.tensor(places, device=self._device)
            scores = logits.float().index_put((at,), contrast.scores)
        tokens = sample(scores, begins, temperature, top_p).tolist()
        if contrast is not None:
            contrast.tell([tokens[i] for i in places])
        sound = logits.amax(-1).isfinite().tolist()  # NaN is a maximum, too
        for i, row in enumerate(rows):
            if not sound[i]:
                row.fail(not_finite("what the model says next is NaN or Inf", logits.dtype))
                continue
            if row.alternatives is not None:
                row.logprobs.append(_logprobs(logits[i], tokens[i], row.alternatives))
            row.take(tokens[i], self.stops)
        if ended := [row for row in rows if row.finish]:
            self._leave(ended)

    def _floats(self, numbers: Sequence[float]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float32, device=self._device)

    def _leave(self, rows: Collection[Row]) -> None:
        """Free the places of `rows`, and of those beside them: the last rows take them."""
        gone = {*rows, *(row.beside.row for row in rows if row.beside is not None)}
        if self.bases is not None:
            self.bases._leave(gone)
        for slot in [i for i, row in enumerate(self.rows) if row in gone][::-1]:
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
