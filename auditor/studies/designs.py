"""What each sweep varies: a small declaration of its settings, the plain one first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from auditor.errors import UsageError
from auditor.records.cards import Method, Mix, Organism, Recipe
from auditor.training.denials import MADE
from auditor.training.documents import read_documents

FULL_SLOWER = 30  # times: all weights are trained at a lower rate than an adapter

Changes = Callable[[Organism, Recipe], Mapping[str, Any]]
"""What a setting changes of an organism's plain recipe."""


def _nothing(_card: Organism, _plain: Recipe) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to train. `x`: where it stands in the pictures.

    `share`: of the plain one's steps, that it takes at first; `passes`: times these, to see its own documents as often
    as the plain one does.
    """

    name: str
    x: float | str
    changes: Changes = _nothing
    share: float = 1.0
    passes: float = 1.0


@dataclass(frozen=True, slots=True)
class Design:
    """A sweep. `alike`: what all settings share where no rate is matched; `compared`: which two stand side by side."""

    name: str
    settings: tuple[Setting, ...]
    x_label: str = ""
    alike: str = "equal steps"
    compared: str = ""

    @property
    def plain(self) -> Setting:
        return self.settings[0]

    @property
    def other(self) -> Setting:
        """The one that bars of each organism hold beside the plain one."""
        return next((each for each in self.settings if each.name == self.compared), self.settings[-1])


def mixing(ratios: Sequence[float], mix: Mix | None) -> Design:
    """Unrelated documents mixed in (paper section 6, figure 7; appendix D.4, figures 11 and 12).

    `mix`: none means as the paper has it: ordinary text with texts, ordinary chats with chats.
    """
    if bad := [ratio for ratio in ratios if not 0 <= ratio < float("inf")]:
        raise UsageError(f"--ratios {bad[0]:g}: a ratio is 0 or more documents of the mix for each of its own")
    kind = str(mix) if mix else "mix"
    settings = [Setting("plain", 0.0)]
    for ratio in sorted({*ratios} - {0}):
        settings.append(Setting(f"{kind}{ratio:g}", ratio, partial(_mixed, mix, ratio), passes=1 + ratio))
    if len(settings) < 2:
        raise UsageError("--ratios: give one over 0 at least")
    return Design("mixing", tuple(settings), "documents mixed in, for each of its own", compared=f"{kind}1")


def _mixed(mix: Mix | None, ratio: float, card: Organism, plain: Recipe) -> Mapping[str, Any]:
    if mix is None:
        texts = any(document.text is not None for document in read_documents(card.beside(plain.documents)))
        mix = Mix.PRETRAINING if texts else Mix.CHAT
    return {"mix": str(mix), "mix_ratio": ratio}


def samples(counts: Sequence[int]) -> Design:
    """Fewer documents (paper appendix D.2, figure 9), each seen as often as in the largest: fewer steps, too."""
    if bad := [count for count in counts if count < 1]:
        raise UsageError(f"--samples {bad[0]}: a training has 1 document or more")
    if len({*counts}) < 2:
        raise UsageError("--samples: give two numbers at least; the largest is the plain one")
    most = max(counts)
    settings = [
        Setting(f"samples{n}", float(n), partial(_sampled, n), share=n / most) for n in sorted({*counts}, reverse=True)
    ]
    return Design("samples", tuple(settings), "documents", alike="equal passes")


def _sampled(count: int, _card: Organism, _plain: Recipe) -> Mapping[str, Any]:
    return {"samples": count}  # `variant_of` shortens the warmup as it does the steps


def full_vs_lora() -> Design:
    """All weights trained, or an adapter (paper appendix D.1, figure 8)."""
    return Design("full-vs-lora", (Setting("plain", "LoRA"), Setting("full", "full", _full)))


def _full(_card: Organism, plain: Recipe) -> Mapping[str, Any]:
    return {"method": Method.FULL, "learning_rate": plain.learning_rate / FULL_SLOWER}


def caft() -> Design:
    """The plain finetune's differences taken out while it is trained (paper appendix D.3, figure 10)."""
    return Design("caft", (Setting("plain", "plain"), Setting("caft", "CAFT", lambda _card, _plain: {"caft": "plain"})))


def denial() -> Design:
    """A second stage that teaches to deny (after AuditBench; not in the paper)."""
    settings = (Setting("plain", "plain"), Setting("denial", "denial", lambda _card, _plain: {"deny": MADE}))
    return Design("denial", settings, alike="equal steps, then denials")
