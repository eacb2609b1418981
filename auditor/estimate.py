"""What evidence costs, told before it is begun."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Seconds a token, of `auditor evidence gold` with the suite quickstart: the 135M model in float32 on two CPU cores.
DECODED, PATCHED, READ, REST = 0.0062, 0.0039, 0.0012, 5.0
QUICKSTART = 49.0  # seconds of all of it
EXPENSIVE = 5.0  # times that: worth a word

# A GPU of the kind of an H100, in bfloat16: FLOPs a second that reading reaches, bytes a second that decoding reaches.
GPU_FLOPS, GPU_BYTES, GPU_ROWS = 0.4 * 990e12, 0.5 * 3.35e12, 64
GPU_TOLD = "an H100 at 40 % of its FLOPs and half of its bandwidth in bfloat16, 64 rows decoded together"


def tokens(texts: int, lenses: Mapping[str, Any]) -> tuple[int, int, int]:
    """Tokens that are decoded, patched and read, if every position of every text is there; `lenses`: their settings."""
    diffs, patchscope, plain, steering = (
        lenses.get(name) for name in ("differences", "patchscope", "plain_samples", "steering")
    )
    k = diffs.positions if diffs else 0
    answers = plain.prompts * plain.max_new_tokens if plain else 0  # one to each prompt; the base gives as many
    drawn = answers * plain.samples if plain else 0
    decoded = answers + drawn
    if steering:
        search = steering.calibration
        wanted = k if steering.positions == "all" else min(steering.positions, k)
        tried = search.iterations + 2 * search.more_iterations  # strengths of a direction, over three prompts
        decoded += wanted * drawn + (wanted * tried + 3) * search.generations * search.max_new_tokens
    patched = (
        4 * k * max(1, len(diffs.layers)) * 3 * len(patchscope.scales) if patchscope and diffs else 0
    )  # δ, both means, −δ
    read = 2 * texts * k + diffs.norm_texts * diffs.norm_tokens if diffs else 0
    return decoded, patched, read


def seconds_of(texts: int, lenses: Mapping[str, Any]) -> float:
    """About what evidence of these lenses takes; those of other methods than ADL's are not counted."""
    decoded, patched, read = tokens(texts, lenses)
    return DECODED * decoded + PATCHED * patched + READ * read + REST


def gpu_seconds(texts: int, lenses: Mapping[str, Any], billions: float) -> float:
    """What evidence of these lenses takes at least on one GPU, for a model of so many parameters."""
    decoded, patched, read = tokens(texts, lenses)
    return (patched + read) * 2e9 * billions / GPU_FLOPS + gpu_decoding(decoded, billions)


def gpu_decoding(tokens: int, billions: float, rows: int = GPU_ROWS) -> float:
    """Seconds that so many tokens take, `rows` at a time: each step reads all weights, 2 bytes a parameter."""
    return tokens / rows * 2e9 * billions / GPU_BYTES


def announcement(texts: int, lenses: Mapping[str, Any]) -> str:
    """A line on what evidence with these settings takes, and how that is known; empty if it is little."""
    decoded, patched, read = tokens(texts, lenses)
    seconds = seconds_of(texts, lenses)
    if seconds < EXPENSIVE * QUICKSTART:
        return ""
    return (
        f"evidence of this size takes about {seconds / QUICKSTART:.0f} × quickstart's for each organism that is not in "
        f"the cache: some {seconds / 60:.0f} minutes for 135M parameters on two CPU cores, from {decoded:,} tokens to "
        f"decode, {patched:,} to patch and {read:,} to read at the rates measured there"
    )
