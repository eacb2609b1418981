"""The Python door: pairs, what is read of them, their answers, audits and runs, as values.

    pair = auditor.pair("cake_bake")                     # an organism, or auditor.pair(base, model)
    pair.evidence(lenses=["patchscope", "amplified"])
    pair.ask("How hot should the oven be?")
    pair.audit(llm="openai:gpt-5", budget=5)
    run = auditor.evaluate("quickstart", budget=[0, 5])
    auditor.load_run("runs/mine").frame()

Thin: it calls the bench and the ledger, as the command line does, reads the same settings (flag, environment,
auditor.toml), and keeps the same files. Nothing is loaded before it is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auditor.config import Settings, load_settings
from auditor.errors import UsageError
from auditor.workspace import MARKER, Workspace, find_user_root, load_workspace

if TYPE_CHECKING:
    from auditor.audits.bench import Bench
    from auditor.evidence.mapping import Evidence
    from auditor.models.pair import ModelPair
    from auditor.records.comparison import Comparison
    from auditor.records.results import AuditRecord, RunResult, Target, VetReport

RUNS = Path("runs")


@dataclass(frozen=True)
class Answers:
    """What both models said to some prompts: rows of prompt, the base's text (None without a base), the finetune's."""

    rows: tuple[tuple[str, str | None, str], ...]

    def __iter__(self) -> Any:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        return "\n\n".join(f"> {prompt}\nbase: {base}\nfinetuned: {tuned}" for prompt, base, tuned in self.rows)

    def _repr_html_(self) -> str:
        from auditor.views.notebook import table

        return table(("prompt", "base", "finetuned"), self.rows)


@dataclass(frozen=True)
class Pair:
    """A finetune and its base. Weights are loaded when they are first needed, once."""

    target: Target
    bench: Bench

    @cached_property
    def models(self) -> ModelPair:
        """Both models, as lenses have them. Raises BadModel."""
        return self.bench.pair(self.target)

    def evidence(
        self, lenses: str | Iterable[str] = (), *, suite: str = "quickstart", corpus: str | None = None, **settings: Any
    ) -> Evidence:
        """What lenses read, from the cache where they did before; shown as a page in a notebook.

        `lenses`: their names, default those of the suite's agents; `settings`: by lens, `differences={"positions": 8}`,
        over the suite's. Raises UsageError, BadModel.
        """
        from auditor.audits.asked import on_corpus
        from auditor.audits.bench import lens_calls
        from auditor.evidence.recipe import named_by

        ws = self.bench.workspace
        named = ws.suites[suite]
        for lens, given in settings.items():
            known = ws.lenses[lens].name
            if not isinstance(given, Mapping):
                raise UsageError(f"{known}={given!r}: give its settings, such as {{'positions': 8}}")
        asked = [ws.lenses[name].name for name in _names(lenses)]
        names = asked or named_by(ws, [ws.agents[name] for name in named.agents])
        with lens_calls(self.bench.settings) as journal:  # what judges say is paid for once
            bench = replace(self.bench, journal=journal, _callers={})
            return bench.evidence(self.models, on_corpus(named, corpus).evidence.over(settings), names)

    def ask(
        self, prompts: str | Sequence[str], *, temperature: float = 0.7, max_new_tokens: int = 200, seed: int = 0,
        system: str = "", chat: bool = True,
    ) -> Answers:  # fmt: skip
        """Both models' answers, of the same draws; at `temperature` 0 the likeliest. Raises BadModel."""
        from auditor.models.generate import Request, Side, derive_seed

        asked = [prompts] if isinstance(prompts, str) else list(prompts)
        sides = list(Side) if self.models.has_base else [Side.FINETUNED]
        said = iter(
            self.models.generate([
                Request(prompt, side, derive_seed(seed, i, prompt), max_new_tokens, temperature, chat=chat,
                        system=system)
                for i, prompt in enumerate(asked) for side in sides
            ])
        )  # fmt: skip
        rows = []
        for prompt in asked:
            texts = {side: next(said) for side in sides}
            rows.append((prompt, texts.get(Side.BASE), texts[Side.FINETUNED]))
        return Answers(tuple(rows))

    def audit(
        self, llm: str | None = None, budget: int = 5, *, agent: str = "adl", suite: str = "quickstart", seed: int = 0,
        out: Path | str = RUNS, name: str | None = None, resume: bool = False,
    ) -> VetReport:  # fmt: skip
        """What an agent finds out about it, with its claims; `auditor audit` makes the same report and files.

        `llm`: who plays the agent, default the settings'. The truth of an organism's card is not looked at. Models that
        this pair has loaded are let go of first: the audit loads its own. Raises UsageError, BadModel.
        """
        from auditor.audits.plan import Plan, judged_by
        from auditor.audits.run import Sitting
        from auditor.audits.vet import Vetting, vetted

        if budget < 0:
            raise UsageError(f"budget={budget}: a budget is 0 or more model interactions")
        ws, conf = self.bench.workspace, self.bench.settings
        conf = conf.model_copy(update={"llm": llm or conf.llm})
        target = self.target.model_copy(update={"name": self.target.name if conf.server else "audited"})
        job = Vetting(
            Plan(ws, judged_by(ws, ws.suites[suite], conf), conf, seed), target, ws.agents[agent].name, budget
        )
        self.__dict__.pop("models", None)
        return vetted(job, _folder(out, name, "audit"), Sitting(workers=1, resume=resume))


@dataclass(frozen=True)
class Run:
    """A run on the disk, and what it came to where it has just been made."""

    folder: Path
    result: RunResult | None = field(default=None, repr=False)

    @cached_property
    def audits(self) -> tuple[AuditRecord, ...]:
        """Every audit, however it ended. Raises BadFile."""
        from auditor.audits.runs import records_of

        return tuple(records_of(self.folder))

    def frame(self, table: str = "audits") -> Any:
        """A pandas DataFrame: a row for each audit, each of the `grades`, or each of the LLM's `calls`.

        `polars.from_pandas` makes one of the other kind. Raises UsageError for another table.
        """
        import pandas

        from auditor.audits.tables import audits_table, calls_table, grades_table

        rows = {"audits": lambda: audits_table(self.audits), "grades": lambda: grades_table(self.audits),
                "calls": lambda: calls_table(self.folder)}  # fmt: skip
        if table not in rows:
            raise UsageError(f"there is no table {table!r}; there are {', '.join(rows)}")
        return pandas.DataFrame(list(rows[table]()))

    def compare(self, *others: Run) -> Comparison:
        """The agents of this run and of others, side by side."""
        from auditor.audits.runs import compared
        from auditor.comparison.compare import compare

        return compare([compared(run.folder, run.folder.parent) for run in (self, *others)])

    def _repr_html_(self) -> str:
        from auditor.views.notebook import table

        told = self.compare().standings
        rows = [(each.contender, each.grader, each.n, each.mean, each.share_ge_2, each.share_ge_4) for each in told]
        return table(("contender", "grader", "audits", "mean", "share ≥ 2", "share ≥ 4"), rows)


def pair(
    base: str | Path, model: str | Path | None = None, *, adapter_base: str | None = None,
    workspace: Path | str | None = None, **settings: Any,
) -> Pair:  # fmt: skip
    """A base and its finetune (hub ids, folders; an adapter or a whole model), or one name alone: an organism
    (`cake_bake`, `cake_bake@qwen3_1_7B`), an adapter whose config names its base, or a pair of the model `server`.

    `settings`: `device`, `dtype`, `llm`, `lens_llm`, `server` … as in auditor.toml. Raises UsageError, BadModel.
    """
    from auditor.audits.bench import Bench
    from auditor.audits.named import pair_named

    ws, conf = _opened(workspace, settings)
    if model is None:
        if adapter_base is not None:
            raise UsageError(f"adapter_base={adapter_base!r} goes with pair(base, model)")
        return Pair(pair_named(ws, conf, str(base), otherwise="give pair(base, model)"), Bench(ws, conf))
    return Pair(pair_named(ws, conf, str(model), str(base), adapter_base=adapter_base), Bench(ws, conf))


def evaluate(
    suite: str = "quickstart", *, budget: int | Sequence[int] | None = None, agents: str | Sequence[str] | None = None,
    organisms: str | Sequence[str] | None = None, repeats: int | None = None, seed: int = 0, out: Path | str = RUNS,
    name: str | None = None, resume: bool = False, workers: int = 8, workspace: Path | str | None = None,
    **settings: Any,
) -> Run:  # fmt: skip
    """Every audit of a suite, graded, in a run on the disk: what `auditor evaluate` makes. Raises UsageError."""
    from auditor.audits.asked import adapted, planned
    from auditor.audits.run import Sitting
    from auditor.audits.run import evaluate as run_all
    from auditor.ledger.ledger import Ledger

    ws, conf = _opened(workspace, settings)
    budgets = None if budget is None else [budget] if isinstance(budget, int) else list(budget)
    if bad := [each for each in budgets or [] if not isinstance(each, int)]:
        raise UsageError(f"budget={bad[0]!r}: give a number of model interactions, or several")
    asked = adapted(ws.suites[suite], budgets, _names(agents or ()), _names(organisms or ()), repeats)
    plan, _ = planned(ws, asked, conf, seed)
    folder = _folder(out, name, suite)
    with Ledger.open(folder) as ledger:
        return Run(folder, run_all(plan, ledger, Sitting(workers, resume=resume)))


def load_run(path: Path | str) -> Run:
    """A run that was made before: its folder, its name in `runs/`, or `hf://datasets/ORG/NAME[@REVISION]` where it was
    pushed to. Raises UsageError if there is none.
    """
    from auditor.audits.runs import find_run

    return Run(find_run(Path(path), RUNS))


def _opened(workspace: Path | str | None, settings: dict[str, Any]) -> tuple[Workspace, Settings]:
    root = find_user_root(Path(workspace) if workspace is not None else None)
    return load_workspace(root), load_settings(root / MARKER if root else None, **settings)


def _names(given: str | Iterable[str]) -> list[str]:
    """One name is as good as a list of one."""
    return [given] if isinstance(given, str) else list(given)


def _folder(out: Path | str, name: str | None, kind: str) -> Path:
    return Path(out) / (name or f"{kind}-{datetime.now():%Y%m%d-%H%M%S}")
