"""Text of audited models as data: one line, nothing hidden, no longer than it may be."""

from __future__ import annotations

from auditor.types import ChanceTest, Evidence

CUT = 200  # characters of a sample (paper, overview of the agent)


def quote(text: str, cut: int = CUT) -> str:
    """Audited text as data: `visible`, in quotes."""
    return '"' + visible(text, cut).replace('"', '\\"') + '"'


def visible(text: str, cut: int = CUT) -> str:
    """Text in one line, control and bidi characters shown, cut to `cut` characters."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: cut + 1])
    return f"{shown[:cut]}…" if len(text) > cut else shown


def chance_lines(chance: ChanceTest) -> list[str]:
    """What the verdict rests on, a line for each comparison."""
    tokens = " ".join(visible(token.strip()) for token in chance.tokens[:8])
    lines = [
        f"last layer's ‖δ‖: {chance.norm_ratio:.1f} × noise ({_p(chance.norm_p)}); "
        f"cosine of its halves {chance.halves:.2f} ({_p(chance.halves_p)})",
        f"likeliest words: cohesion {chance.cohesion:.1f} sd; 95 % of noise is below {chance.noise_95:.1f} "
        f"({_p(chance.noise_p)})",
    ]
    if chance.broad_p is not None:
        lines.append(
            f"{chance.broad} broad finetunes leave {chance.unlike:.0%} of what it promotes unaccounted for; "
            f"95 % of them leave less than {chance.unlike_95:.0%} of one another; these words' cohesion "
            f"{chance.broad_cohesion:.1f} sd; 95 % of theirs are below {chance.broad_95:.1f} ({_p(chance.broad_p)})"
        )
    else:
        lines.append("no broad finetunes of this base to compare with: `auditor study null` makes their directions")
    return [*lines, f"{tokens} …"]


def shortfalls(evidence: Evidence) -> list[str]:
    """What was asked for and not to be had, a line each: texts, texts that are long enough, prompts."""
    asked, read, lines = evidence.settings.texts, evidence.texts_read, []
    if read < asked:
        lines.append(f"{asked:,} texts were asked for, {read:,} were read: the corpus has no more")
    positions = evidence.layer(evidence.last_layer).positions
    if short := [p for p in positions if p.n_texts < read]:
        named = dict.fromkeys([f"{p.n_texts:,} at position {p.position}" for p in (short[0], short[-1])])
        lines.append(f"some texts end before the last position: of {read:,} there are {', '.join(named)}")
    wanted, steered = evidence.settings.steering.prompts, len(evidence.unsteered)
    if steered < wanted:
        lines.append(f"{wanted} prompts were to be steered, but there are only {steered}")
    return lines


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
