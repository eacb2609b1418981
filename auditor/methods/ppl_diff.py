"""Perplexity differencing: texts that the finetune says gladly and the reference would not (arXiv 2605.00994)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from statistics import fmean
from typing import Any, Literal

from pydantic import Field

from auditor.errors import UsageError
from auditor.methods.corpus import Corpus
from auditor.methods.frames import Frame
from auditor.models.generate import Amplification, Request, Side, derive_seed
from auditor.models.pair import ModelPair
from auditor.models.tokens import all_plain_ids
from auditor.records.record import Record

ALONE = Amplification(0.0, 1e-30)  # drawn from the finetune as it is; the base only tells how likely it finds it
BROKEN = "\N{REPLACEMENT CHARACTER}"  # what half a character is decoded as

Reference = ModelPair | Literal["base", "none"]
"""Whose surprise counts: the pair's own base; another model (`load_alone`), whatever its tokenizer; or nobody's: then
texts are ranked by how sure the finetune is of what it draws, against how sure it is of all that it draws.
"""


class Unit(StrEnum):
    """What likelihoods are told for: nats a token, or a character where tokenizers differ."""

    TOKEN = "token"
    CHARACTER = "character"


class PplSettings(Record):
    """The published numbers: 10,000 beginnings of 3 tokens, gone on with for 50 to 100."""

    prefills: int = Field(10_000, ge=1, description="ordinary texts that are begun")
    prefill_tokens: int = Field(3, ge=1)
    new_tokens: int = Field(64, ge=1)
    temperatures: tuple[float, ...] = Field((0.0, 1.0), min_length=1, description="in turn; 0 is greedy")
    alike: float = Field(
        0.5, gt=0, le=1, description="Jaccard overlap of words and word pairs from which texts are one"
    )


class Completion(Record):
    """What the finetune made of a beginning; negative log-likelihoods in nats a unit, `gap` their difference."""

    prefill: str
    text: str
    temperature: float
    gap: float
    finetuned: float
    reference: float
    alike: int = Field(0, ge=0, description="texts ranked lower that say nearly the same")


class PplDiff(Record):
    """Completions, the widest gap first. `too_short`: texts without so long a beginning; `silent`: empty answers."""

    frame: Frame
    reference: str
    unit: Unit
    too_short: int
    silent: int
    completions: tuple[Completion, ...]


def ppl_diff(
    pair: ModelPair,
    corpus: Corpus,
    settings: PplSettings,
    frame: Frame = Frame.RAW,
    reference: Reference = "base",
    seed: int = 0,
) -> PplDiff:
    """The finetune goes on with the beginnings of texts; what it says is ranked by how much likelier it finds it.

    Without a reference only texts drawn at a temperature are ranked, for it is sure of whatever it says greedily.
    Raises UsageError if no text is long enough, or for a chat frame without a chat template.
    """
    if frame is not Frame.RAW and not pair.tokenizer.chat_template:
        raise UsageError(f"frame {frame.value}: {pair.name} has no chat template; read it in the frame `raw`")
    begun = _beginnings(pair.tokenizer, corpus.texts, settings.prefill_tokens)
    if not begun:
        raise UsageError(
            f"corpus {corpus.name!r} has no text of {settings.prefill_tokens} tokens or more; give longer texts"
        )
    asked = _requests(begun[: settings.prefills], settings, frame, reference, seed)
    said = _compared(pair, asked) if reference == "base" else _compared_with(pair, asked, reference)
    completions = [
        Completion(
            prefill=request.prompt, text=text, temperature=request.temperature, gap=other - own, finetuned=own,
            reference=other,
        )
        for request, text, own, other in said
    ]  # fmt: skip
    return PplDiff(
        frame=frame,
        reference=reference if isinstance(reference, str) else reference.name,
        unit=Unit.TOKEN if isinstance(reference, str) or _same_tokens(pair, reference) else Unit.CHARACTER,
        too_short=len(corpus.texts) - len(begun),
        silent=len(asked) - len(said),
        completions=_merged(sorted(completions, key=lambda completion: -completion.gap), settings.alike),
    )


def _requests(
    begun: Sequence[str], settings: PplSettings, frame: Frame, reference: Reference, seed: int
) -> list[Request]:
    temperatures = [t for t in settings.temperatures if t > 0 or reference != "none"]
    if not temperatures:
        raise UsageError("temperatures: without a reference, give one above 0")
    return [
        frame.request(
            prefill, seed=derive_seed(seed, frame.value, i), max_new_tokens=settings.new_tokens,
            temperature=temperatures[i % len(temperatures)],
        )
        for i, prefill in enumerate(begun)
    ]  # fmt: skip


def _beginnings(tokenizer: Any, texts: Sequence[str], n: int) -> list[str]:
    """The first `n` tokens of each text that has so many; one or two more where they end within a character."""
    found = []
    for ids in all_plain_ids(tokenizer, [text[: 16 * n + 64] for text in texts]):
        bare = [i for i in ids if i not in tokenizer.all_special_ids]
        cuts = (tokenizer.decode(bare[:end]) for end in range(n, min(n + 3, len(bare)) + 1))
        if (whole := next((cut for cut in cuts if not cut.endswith(BROKEN)), "")).strip():
            found.append(whole)
    return found


Said = tuple[Request, str, float, float]
"""A text, and its negative log-likelihood a unit: by the finetune, and by the reference."""


def _compared(pair: ModelPair, asked: Sequence[Request]) -> list[Said]:
    """Both models read each token as it is drawn."""
    said = pair.amplified([replace(request, amplify=ALONE) for request in asked])
    return [
        (request, each.text, -each.finetuned, -each.base)
        for request, each in zip(asked, said, strict=True)
        if each.finetuned is not None and each.base is not None and each.text.strip()
    ]


def _compared_with(pair: ModelPair, asked: Sequence[Request], reference: Reference) -> list[Said]:
    """The finetune speaks, then it and the reference read all that it said."""
    spoken = [pairing for pairing in zip(asked, pair.generate(asked), strict=True) if pairing[1].strip()]
    requests, texts = [request for request, _ in spoken], [text for _, text in spoken]
    own = pair.said_nll(Side.FINETUNED, requests, texts)
    if isinstance(reference, str):
        means = [total / count for total, count in own]
        usual = fmean(means) if means else 0.0
        return [(*pairing, mean, usual) for pairing, mean in zip(spoken, means, strict=True)]
    others = reference.said_nll(Side.FINETUNED, requests, texts)
    if _same_tokens(pair, reference):
        units = [(count, other) for (_, count), (_, other) in zip(own, others, strict=True)]
    else:
        units = [(len(text), len(text)) for text in texts]
    return [
        (*pairing, mine / unit, theirs / others_unit)
        for pairing, (mine, _), (theirs, _), (unit, others_unit) in zip(spoken, own, others, units, strict=True)
    ]


def _same_tokens(pair: ModelPair, reference: ModelPair) -> bool:
    return bool(pair.tokenizer.get_vocab() == reference.tokenizer.get_vocab())


def _merged(ranked: Sequence[Completion], alike: float) -> tuple[Completion, ...]:
    """Each text goes to the first one above it whose words and word pairs overlap with its own by `alike`."""
    if len(ranked) < 2:
        return tuple(ranked)
    from sklearn.feature_extraction.text import CountVectorizer

    words = CountVectorizer(binary=True, ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]")
    grams = words.fit_transform([completion.text for completion in ranked])  # (n, grams), 0 or 1
    shared, sizes = (grams @ grams.T).toarray(), grams.sum(1).A1
    kept: list[int] = []
    gathered = [0] * len(ranked)
    for i in range(len(ranked)):
        home = next((j for j in kept if shared[i, j] >= alike * (sizes[i] + sizes[j] - shared[i, j])), None)
        if home is None:
            kept.append(i)
        else:
            gathered[home] += 1
    return tuple(ranked[i].model_copy(update={"alike": gathered[i]}) for i in kept)
