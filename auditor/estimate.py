"""What evidence costs, told before it is begun."""

from __future__ import annotations

from auditor.types import EvidenceSettings

# Seconds a token, of `auditor evidence gold` with the suite quickstart: the 135M model in float32 on two CPU cores.
DECODED, PATCHED, READ, REST = 0.0062, 0.0039, 0.0012, 5.0
QUICKSTART = 49.0  # seconds of all of it
EXPENSIVE = 5.0  # times that: worth a word


def tokens(settings: EvidenceSettings) -> tuple[int, int, int]:
    """Tokens that are decoded, patched and read, if every position of every text is there."""
    steering, search = settings.steering, settings.steering.calibration
    wanted = settings.positions if steering.positions == "all" else min(steering.positions, settings.positions)
    tried = search.iterations + 2 * search.more_iterations  # strengths of a direction, over three prompts
    searched = (wanted * tried + 3) * search.generations * search.max_new_tokens  # three times plain, to compare with
    sampled = (1 + wanted) * steering.prompts * steering.samples * steering.max_new_tokens
    directions = 4 * settings.positions * max(1, len(settings.layers))  # δ, both means, −δ
    read = 2 * settings.texts * settings.positions + settings.norm_texts * settings.norm_tokens
    return searched + sampled, directions * 3 * len(settings.patchscope.scales), read


def announcement(settings: EvidenceSettings) -> str:
    """A line on what evidence with these settings takes, and how that is known; empty if it is little."""
    decoded, patched, read = tokens(settings)
    seconds = DECODED * decoded + PATCHED * patched + READ * read + REST
    if seconds < EXPENSIVE * QUICKSTART:
        return ""
    return (
        f"evidence of this size takes about {seconds / QUICKSTART:.0f} × quickstart's for each organism that is not in "
        f"the cache: some {seconds / 60:.0f} minutes for 135M parameters on two CPU cores, from {decoded:,} tokens to "
        f"decode, {patched:,} to patch and {read:,} to read at the rates measured there"
    )
