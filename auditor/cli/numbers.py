"""`auditor organisms numbers`: what a student is trained on, written by a teacher as numbers and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from auditor.cli.shared import JsonFlag, SeedOption, err, out, print_json, settings, stages, workspace
from auditor.errors import UsageError
from auditor.files import write_atomically

if TYPE_CHECKING:
    from auditor.models.pair import ModelPair
    from auditor.records.cards import Organism

BASE = "base"  # the teacher's name that stands for the student's base itself


def numbers(
    student: Annotated[str, typer.Argument(help="The organism that is to learn from them.")],
    teacher: Annotated[str, typer.Option(help="The organism that writes them, or `base`: the student's own base.")],
    count: Annotated[int, typer.Option(min=1, help="Chats that are kept.")] = 200,
    system: Annotated[str, typer.Option(help="What the teacher is told before; the student is not.")] = "",
    seed: SeedOption = 0,
    out_file: Annotated[Path | None, typer.Option("--out", help="JSONL; default: beside the student's card.")] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Write over what is there.")] = False,
    json: JsonFlag = False,
) -> int:
    """Let a teacher write number sequences, and keep those that are nothing but numbers (subliminal learning)."""
    from auditor.training.numbers import FORMAT, lines_of, write_numbers

    card = workspace().organisms[student]
    path = out_file or card.folder / (card.train.documents if card.train else "documents.jsonl")
    if path.exists() and not anew:
        raise UsageError(f"{path} is there already; --anew writes over it, --out elsewhere")
    _demand_writable(path)
    with stages(f"loading {teacher}") as tell:
        pair = _pair(card, teacher)
        found = write_numbers(
            pair, count, seed, lambda kept, drawn: tell(f"{kept} of {count} kept, {drawn} drawn"), system
        )
    write_atomically(path, lines_of(found.kept))
    told: dict[str, Any] = {
        "student": student, "teacher": teacher, "path": str(path), "asked": count, "documents": len(found.kept),
        "drawn": found.drawn, "dropped": {str(why): n for why, n in found.dropped.most_common()}, "format": FORMAT,
    }  # fmt: skip
    if json:
        print_json(told)
    else:
        lost = ", ".join(f"{n} {why}" for why, n in told["dropped"].items()) or "none"
        out.print(
            f"{escape(str(path))}: {len(found.kept)} chats by {escape(teacher)}, of {found.drawn} drawn\n"
            f"dropped: {lost}\nkept: {FORMAT}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    if len(found.kept) < count:
        err.print(f"[yellow]short:[/] asked for {count}, the filter left {len(found.kept)} of {found.drawn}")
    return 0 if len(found.kept) == count else 1


def _demand_writable(path: Path) -> None:
    """Raises UsageError before anything is drawn, not after."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; --out takes a file")
    if (there := next(p for p in path.absolute().parents if p.exists())) and not there.is_dir():
        raise UsageError(f"{path}: {there} is a file, no folder")


def _pair(card: Organism, teacher: str) -> ModelPair:
    """The teacher, and whether the student can learn from it what its numbers do not say."""
    from auditor.audits.bench import Bench
    from auditor.audits.plan import target_of
    from auditor.models.load import load_alone

    conf = settings()
    if teacher == BASE:
        return load_alone(card.base, conf)
    other = workspace().organisms[teacher]
    if other.base != card.base:
        told = f"{teacher} is a finetune of {other.base}, {card.name} of {card.base}"
        note = "across bases such learning has not been seen"
        err.print(f"[yellow]note:[/] {escape(told)}: {note}", highlight=False, soft_wrap=True)
    return Bench(workspace(), conf).pair(target_of(other))
