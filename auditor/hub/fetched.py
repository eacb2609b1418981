"""Runs that were pushed, read back: a dataset of the hub is as good as a folder."""

from __future__ import annotations

from pathlib import Path

from auditor.errors import UsageError
from auditor.ledger.export import AUDITS, RUN
from auditor.models.hub import HubName, causes
from auditor.models.identity import first_line

SCHEME = "hf://datasets/"


def pushed_name(run: Path) -> HubName | None:
    """The dataset that `hf://datasets/ORG/NAME[@REVISION]` names; None for anything else. Raises UsageError."""
    text = run.as_posix().replace("hf:/", "hf://", 1)  # a path holds no two slashes together
    if not text.startswith("hf://"):
        return None
    name = HubName.parse(text.removeprefix(SCHEME)) if text.startswith(SCHEME) else None
    if name is None or name.folder:
        raise UsageError(f"{text}: give a dataset of the hub, as {SCHEME}ORG/NAME or …@REVISION")
    return name


def fetched(name: HubName) -> Path:
    """Its folder in the hub's cache, with what a run's records are read from. Raises UsageError."""
    from huggingface_hub import errors, snapshot_download

    try:
        where = Path(
            snapshot_download(
                name.repo, repo_type="dataset", revision=name.revision, allow_patterns=[RUN, AUDITS, "report.*"]
            )
        )  # fmt: skip
    except Exception as error:
        missing = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError)
        if any(isinstance(cause, missing) for cause in causes(error)):
            why = "no such dataset or revision on the hub, or a private one (HF_TOKEN)"
        else:
            why = f"cannot be fetched ({first_line(list(causes(error))[-1])})"
        raise UsageError(f"{SCHEME}{name}: {why}") from error
    if not (where / AUDITS).is_file():
        raise UsageError(f"{SCHEME}{name}: it has no {AUDITS}, so `auditor push` did not make it")
    return where
