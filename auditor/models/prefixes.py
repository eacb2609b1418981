"""Keys and values of prompts' beginnings that come again: system prompts, templates, conversations that go on."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence

from torch import Tensor

TOKENS = 2048  # kept in all
SHORTEST = 16  # tokens; reading fewer again costs nothing
REMEMBERED = 16  # prompts with which a new one is compared, for each model and steering
KINDS = 64  # models and steerings whose prompts are remembered

States = list[tuple[Tensor, Tensor]]
"""Keys and values of one row for each layer, (heads, tokens, d_head)."""


class Prefixes:
    """A beginning is kept once a second prompt of its kind (the same model, the same steering) begins with it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Hashable, tuple[int, ...]], States] = OrderedDict()
        self._seen: OrderedDict[Hashable, deque[tuple[int, ...]]] = OrderedDict()

    def find(self, kind: Hashable, prompt: Sequence[int]) -> tuple[int, States]:
        """The longest kept beginning of `prompt` that leaves a token to read: how long it is, and its states."""
        best, found = 0, None
        for (its_kind, tokens), _states in self._kept.items():
            if its_kind == kind and (length := min(common(tokens, prompt), len(prompt) - 1)) > best:
                best, found = length, (its_kind, tokens)
        if found is None or best < SHORTEST:
            return 0, []
        self._kept.move_to_end(found)
        return best, self._kept[found]

    def recurring(self, kind: Hashable, prompt: Sequence[int]) -> int:
        """How many first tokens `prompt` shares with one that came before; from now on it came before too."""
        seen = self._seen.setdefault(kind, deque(maxlen=REMEMBERED))
        self._seen.move_to_end(kind)
        if len(self._seen) > KINDS:
            self._seen.popitem(last=False)
        tokens = tuple(prompt)
        if tokens in seen:
            return len(tokens)
        best = max((common(other, tokens) for other in seen), default=0)
        seen.append(tokens)
        return best

    def keep(self, kind: Hashable, tokens: Sequence[int], states: States) -> None:
        """Keep copies of the states of `tokens`; what was not used for longest goes."""
        if not SHORTEST <= len(tokens) <= TOKENS:
            return
        self._kept[kind, tuple(tokens)] = [(keys.clone(), values.clone()) for keys, values in states]
        while sum(len(tokens) for _, tokens in self._kept) > TOKENS:
            self._kept.popitem(last=False)


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many first tokens two prompts share."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def side_by_side(held: Sequence[tuple[int, States]], width: int) -> list[tuple[Tensor, Tensor]]:
    """For each layer the first tokens of each row's states, as many as it says, at the right end of `width` columns."""
    like = next(states for _, states in held if states)
    out = []
    for layer, parts in enumerate(like):
        padded = []
        for which, some in enumerate(parts):
            whole = some.new_zeros(len(held), some.shape[0], width, some.shape[2])
            for i, (length, states) in enumerate(held):
                if length:
                    whole[i, :, width - length :] = states[layer][which][:, :length]
            padded.append(whole)
        out.append((padded[0], padded[1]))
    return out
