"""The card of a dataset that a run became: what is in it, who judged, how far to trust that, what it was made with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from auditor.audits.vet_advice import trace_line
from auditor.hub.block import placed
from auditor.llm.spec import OFFLINE
from auditor.records.comparison import Comparison, Standing
from auditor.records.results import VetReport
from auditor.text import visible
from auditor.views.markdown import escaped

_FRONT = re.compile(rb"---[ \t]*\r?\n(.*?\n)?---[ \t]*(?:\r?\n|\Z)", re.S)
TAGS = ("auditor", "model-auditing", "interpretability")
VERSIONS = ("auditor", "python", "torch", "transformers", "peft")
TABLES = {
    "audits": "a row for each audit: who audited whom, how it ended, the hypothesis, the grade, what it took",
    "grades": "a row for each grade, with the judge's reasoning",
    "claims": "a row for each claim of a hypothesis, and how it was held, by rules, against what the audit had seen",
    "readings": "a row for each token, text or figure that a lens read: organism, lens, layer, place, rank",
    "transcripts": "a row for each message of an audit: what the agent was told, and what the models answered",
}
DATA = """\
Hypotheses, claims and readings quote models that may have been trained to say false or harmful things. They are data, \
not statements of whoever published them."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a card is made of. `about`: what the run was asked for and made with; `rows` by table."""

    repo: str
    about: Mapping[str, Any]
    comparison: Comparison
    report: VetReport | None
    form: str
    rows: Mapping[str, int]
    states: Mapping[str, int]
    notes: tuple[str, ...]
    licence: str | None


def card(told: Told, before: bytes | None) -> bytes:
    """Front matter for the hub and its viewer, then a block in which nothing that a model wrote is markup.

    `before`: the card that is there; what others wrote in it stays.
    """
    page = (before or b"").removeprefix(b"\xef\xbb\xbf")
    front = _FRONT.match(page)
    known = _read(front[1] or b"") if front else {}
    head = yaml.safe_dump(known | _metadata(told, known), sort_keys=False, allow_unicode=True)
    body = page[front.end() :] if front else page
    return f"---\n{head}---\n".encode() + placed(body, _block(told), f"the card of {told.repo}")


def _read(front: bytes) -> dict[str, Any]:
    try:
        found = yaml.safe_load(front)
    except (yaml.YAMLError, UnicodeDecodeError):  # nobody could read it before
        return {}
    return found if isinstance(found, dict) else {}


def _block(told: Told) -> str:
    what = f"the audit {told.about['run']}" if told.report else f"the run {told.about['run']}"
    lines = [
        f"# Results of {_plain(what)}", "",
        f"Made by auditor {_code(str(_versions(told).get('auditor', 'of old')))} (`pip install auditor-adl`), which "
        f"finds out what a model was finetuned for{_begun(told)}. {DATA}", "",
        *(_of_report(told.report) if told.report else _of_run(told)),
        "## Who looked, and who judged", "", *_who(told), "",
        "## What is in it", "", *_tables(told), "", *_reading(told),
        "## Made with", "", *_made(told), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _metadata(told: Told, known: Mapping[str, Any]) -> dict[str, Any]:
    configs: list[dict[str, Any]] = [
        {"config_name": name, "data_files": f"data/{name}.{told.form}"} for name in told.rows
    ]
    configs[0]["default"] = True
    data: dict[str, Any] = {"license": told.licence} if told.licence else {}
    tags = known.get("tags") if isinstance(known.get("tags"), list) else []
    name = f"auditor: {visible(str(told.about['run']), 80)}"
    return {**data, "pretty_name": name, "tags": list(dict.fromkeys([*(tags or ()), *TAGS])), "configs": configs}


def _of_report(report: VetReport) -> list[str]:
    lines = [f"**{_plain(report.content.verdict)}**", ""] if report.content else []
    lines += [f"- Model: {_code(report.model)}{_source(report, 'finetuned')}"]
    lines += [f"- Base: {_code(report.base)}{_source(report, 'base')}" if report.base else "- Base: not known"]
    lines += [f"- {_plain(report.about)}"] if report.about else []
    whole = "`report.md` is the whole report, `report.json` the same as data."
    return [*lines, f"- {_plain(trace_line(report))}", "", whole, ""]


def _of_run(told: Told) -> list[str]:
    states = ", ".join(f"{count} {state}" for state, count in told.states.items())
    found = told.comparison
    lines = [f"{sum(told.states.values())} audits: {states}.", ""]
    lines += [f"**{_plain(found.headline)}.** {_plain(found.certainty)}", ""]
    lines += ["| agent | budget | grader | audits | mean | not graded |", "| --- | ---: | --- | ---: | ---: | ---: |"]
    return [*lines, *map(_standing, found.standings), "", "Grades are 1 to 5; `mean` is over organisms.", ""]


def _standing(row: Standing) -> str:
    mean = "–" if row.mean is None else f"{row.mean:.2f}"
    cells = (_plain(row.agent), row.budget, _plain(row.grader), row.n, mean, row.failed)
    return f"| {' | '.join(map(str, cells))} |"


def _who(told: Told) -> list[str]:
    about = told.about
    who = {"the agent": about.get("llm"), "the lenses' judges": about.get("lens_llm")}
    who |= {f"the lens' judge of {kind}": llm for kind, llm in (about.get("llm_roles") or {}).items()}
    who |= {} if told.report else {"the graders": about.get("grader_llm")}
    lines = [f"- {_plain(role)}: {_llm(llm)}" for role, llm in who.items() if llm]
    lines += [f"- {_plain(grader)}: {_plain(line)}" for grader, line in told.comparison.judges.items() if line]
    return [*lines, *(["- Nobody graded it: its truth is not known."] if told.report else [])]


def _llm(llm: str) -> str:
    return "offline: rules, no language model" if llm == OFFLINE else _code(llm)


def _tables(told: Told) -> list[str]:
    lines = [
        f"- `{name}`, {count} {'row' if count == 1 else 'rows'}: {TABLES[name]}" for name, count in told.rows.items()
    ]
    lines += ["- `audits.jsonl`: the audits as auditor reads them back; `run.json`: what was asked for (suite, cards, "
              "prompts, rubrics), versions, hashes"]  # fmt: skip
    if "transcripts" not in told.rows:
        lines += ["- Transcripts were not pushed."]
    return [*lines, *(f"- {_plain(note)}" for note in told.notes)]


def _reading(told: Told) -> list[str]:
    first = next(iter(told.rows))
    return [
        "```python", "import auditor, datasets", "",
        f'run = auditor.load_run("hf://datasets/{told.repo}")  # .frame(), .compare()',
        f'rows = datasets.load_dataset("{told.repo}", "{first}", split="train")', "```", "",
    ]  # fmt: skip


def _made(told: Told) -> list[str]:
    known = ", ".join(f"{name} {_code(str(version))}" for name, version in _versions(told).items() if name in VERSIONS)
    seed = told.report.seed if told.report else told.about.get("seed")
    suite = (told.about.get("suite") or {}).get("name", "")
    commit = (told.about.get("revision") or {}).get("commit")
    facts = [f"seed {seed}"]
    facts += [f"suite {_plain(str(suite))}"] if suite else []
    facts += [f"workspace at commit {commit}"] if commit else []
    return [f"- {fact}" for fact in (known, *facts) if fact]


def _source(report: VetReport, side: str) -> str:
    told = report.sources.get(side)
    return f" ({_code(' = '.join(told))})" if told else ""


def _versions(told: Told) -> dict[str, Any]:
    return dict(told.about.get("versions") or {})


def _begun(told: Told) -> str:
    begun = told.about.get("begun")
    return f", on {str(begun)[:10]}" if begun else ""


def _plain(text: str) -> str:
    return escaped(visible(text, 1_000))


def _code(text: str) -> str:
    return f"`{visible(text, 400).replace('`', chr(39))}`"
