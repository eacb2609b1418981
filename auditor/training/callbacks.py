"""The gate at the checkpoints of a training: `trainer.add_callback(GateCallback(trainer, stop_above=0.05))`.

Works with transformers' Trainer and what derives from it (trl's SFTTrainer). What is logged goes through the Trainer's
own log, and so to whatever its `report_to` names; nothing here knows of those.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback

from auditor.audits.bench import Bench
from auditor.audits.gate import Ask, gated
from auditor.audits.gate_report import headline
from auditor.config import Settings, load_settings
from auditor.errors import AuditorError, UsageError
from auditor.evidence.recipe import recipe_for
from auditor.lines import add_line
from auditor.models.trained import NAME, Base, adapter_of, load_base, pair_in_training
from auditor.readings import LEVEL
from auditor.records.gate import GateReport
from auditor.workspace import Workspace, load_workspace

WORDS = 8  # that are logged
LOG = "gate.jsonl"

log = logging.getLogger("auditor.training")


class GateCallback(TrainerCallback):  # type: ignore[misc]
    """Gates the weights as they are at every save, or every `steps` steps, and logs `auditor/trace_p`.

    `stop_above`: a level (as `auditor gate --max-trace`); a trace that is readable at it ends the training. Without it
    nothing ends, and `readable` is said at 0.05. `base`: for models whose adapter cannot be switched off, loaded once
    beside them. `lenses`: none for all that have a null.
    """

    def __init__(
        self,
        trainer: Any,
        *,
        steps: int | None = None,
        lenses: Sequence[str] = (),
        suite: str = "quickstart",
        stop_above: float | None = None,
        base: str | None = None,
        settings: Settings | None = None,
        workspace: Workspace | None = None,
    ) -> None:
        """Raises UsageError for what is not there, before anything is trained."""
        if steps is not None and steps < 1:
            raise UsageError(f"steps={steps}: give 1 or more, or leave it out for every save")
        self.trainer, self.steps, self.stops = trainer, steps, stop_above is not None
        self.workspace = workspace or load_workspace()
        self.settings = settings or load_settings()
        names = tuple(self.workspace.lenses[name].name for name in lenses)
        self.evidence = self.workspace.suites[suite].evidence
        self.bench = Bench(self.workspace, self.settings)
        self.base: Base | None = load_base(base, self.settings) if base is not None else None
        self.ask = Ask(NAME, "", base or NAME, suite, LEVEL if stop_above is None else stop_above, names)
        self.reports: list[GateReport] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Raises UsageError for a training that cannot be gated."""
        sharded = any(getattr(self.trainer, f"is_{kind}_enabled", False) for kind in ("fsdp", "deepspeed"))
        if args.world_size > 1 or sharded:
            raise UsageError(
                "GateCallback gates a training of one process, whose weights are whole; with several, gate the "
                "checkpoints with `auditor gate`"
            )
        if self._tokenizer(kwargs) is None:
            raise UsageError("GateCallback needs the tokenizer: give the Trainer its `processing_class`")
        if self.base is None and adapter_of(kwargs["model"]) is None:
            raise UsageError("the model has no plain LoRA adapter that can be switched off: GateCallback(…, base=…)")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.steps is None:
            self._gate(args, state, control, kwargs)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.steps is not None and state.global_step % self.steps == 0:
            self._gate(args, state, control, kwargs)

    def _gate(self, args: Any, state: Any, control: Any, kwargs: dict[str, Any]) -> None:
        """A gate that fails costs its line, not the training."""
        begun, told = time.perf_counter(), {"step": state.global_step, "epoch": state.epoch}
        place = Path(args.output_dir) / LOG
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _same_draws():
                report = self.report(kwargs["model"], self._tokenizer(kwargs))
        except AuditorError as error:
            log.warning("step %s could not be gated: %s", state.global_step, error)
            add_line(place, json.dumps({**told, "error": str(error)}))
            return
        self.reports.append(report)
        stop = self.stops and report.readable
        seconds = round(time.perf_counter() - begun, 1)
        line = {**told, "seconds": seconds, "stopped": stop, "verdict": headline(report)}
        add_line(place, json.dumps({**line, **report.model_dump(mode="json")}, ensure_ascii=False))
        due = control.should_log  # our line is not the one that is due
        Trainer.log(self.trainer, logged(report))  # trl's own log would clear what it has gathered for its next line
        control.should_log = due
        if stop:
            log.warning("step %s: %s The training stops.", state.global_step, headline(report))
            control.should_training_stop = True

    def report(self, model: Any, tokenizer: Any) -> GateReport:
        """`model` at the gate, as it is now. Raises AuditorError."""
        with (
            pair_in_training(model, tokenizer, self.settings, base=self.base) as pair,
            TemporaryDirectory() as folder,
        ):
            passing = self.settings.model_copy(update={"cache_dir": Path(folder)})  # these weights never come back
            grading = replace(self.bench.grading(pair), settings=passing)
            return gated(self.ask, pair, recipe_for(self.workspace, pair, self.evidence, grading))[0]

    @staticmethod
    def _tokenizer(kwargs: dict[str, Any]) -> Any:
        """The Trainer's, of a processor its tokenizer."""
        processing = kwargs.get("processing_class")
        return getattr(processing, "tokenizer", processing)


def logged(report: GateReport) -> dict[str, float | str]:
    """What is logged of a gate: the p of all tests, each lens' own, and the words of the strongest."""
    found: dict[str, float | str] = {} if report.p is None else {"auditor/trace_p": report.p}
    found |= {f"auditor/p/{lens.lens}": lens.p for lens in report.lenses if lens.p is not None}
    carriers = report.strongest.carriers if report.strongest else ()
    return found | ({"auditor/words": ", ".join(carriers[0].words[:WORDS])} if carriers else {})


@contextmanager
def _same_draws() -> Iterator[None]:
    """Afterwards the training draws what it would have drawn without us."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
