"""Rows of a dataset on the hub: so many as are needed, streamed, and kept as JSON lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

from auditor.errors import UsageError
from auditor.files import write_atomically
from auditor.models.identity import first_line
from auditor.records.public import Dataset

TEXTS = ("text", "content", "document")
CHATS = ("messages", "conversations", "conversation")
NAMES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
ROLES, SAID = ("role", "from"), ("content", "value")


def kept_rows(dataset: Dataset, n: int, cache: Path) -> Path:
    """The first `n` rows of a dataset with a text or a chat in them, as JSON lines of `text` or `messages`.

    They are read from the hub once; whoever asks for as many again is given the same. Raises UsageError with what is
    there instead, or why the hub cannot be asked.
    """
    key = hashlib.sha256(json.dumps([dataset.model_dump(), n]).encode()).hexdigest()[:16]
    path = cache / "datasets" / f"{dataset.id.replace('/', '--')}-{key}.jsonl"
    if not path.exists():
        rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in islice(_rows(dataset), n))
        if not rows:
            raise UsageError(f"{dataset}: it has no rows with a text in them")
        write_atomically(path, rows)
    return path


def _rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    try:
        column, values = _values(dataset)
        for value in values:
            yield from _entry(dataset, column, value)
    except UsageError:
        raise
    except Exception as error:  # the library raises its own, the hub's client's, and those of files that are broken
        raise _refusal(dataset, error) from error


def _values(dataset: Dataset) -> tuple[str, Iterator[Any]]:
    """The column with the texts or chats, and what is in it, row by row."""
    try:
        import datasets
    except ImportError as error:
        raise UsageError(f"{dataset}: datasets of the hub need the extra: pip install 'auditor-adl[data]'") from error
    for noisy in ("datasets", "huggingface_hub", "fsspec"):
        getLogger(noisy).setLevel(ERROR)  # what goes wrong is told once, by us
    builder = datasets.load_dataset_builder(
        dataset.id, dataset.subset, data_files=dataset.file, revision=dataset.revision
    )
    there = builder.config.data_files
    split = dataset.split or ("train" if "train" in there else next(iter(there)))
    if split not in there:
        raise UsageError(f"{dataset}: it has no split {split}; there are {', '.join(there)}")
    if all(str(file).endswith(".parquet") for file in there[split]):
        return _of_parquet(dataset, there[split])
    rows: Iterator[Mapping[str, Any]] = iter(builder.as_streaming_dataset(split))
    if (first := next(rows, None)) is None:
        return "", iter(())
    column = _column(dataset, first)
    return column, (row[column] for row in chain([first], rows))


def _of_parquet(dataset: Dataset, files: Sequence[str]) -> tuple[str, Iterator[Any]]:
    """Row group by row group, one column of them: the library's own stream fetches ahead whole files of 20 MB, and may
    abort the process at its end (datasets 5.2).
    """
    import pyarrow.parquet as pq
    from huggingface_hub import HfFileSystem

    opened = (pq.ParquetFile(HfFileSystem().open(str(file), cache_type="none")) for file in files)
    first = next(opened)
    column = _column(dataset, first.schema_arrow.names)
    groups = (
        table.read_row_group(i, columns=[column])
        for table in chain([first], opened)
        for i in range(table.num_row_groups)
    )
    return column, (value for group in groups for value in group.column(0).to_pylist())


def _column(dataset: Dataset, there: Iterable[str]) -> str:
    """Where the texts or chats are. Raises UsageError."""
    names = list(there)
    known = (dataset.column,) if dataset.column else (*CHATS, *TEXTS) if dataset.chat else (*TEXTS, *CHATS)
    if found := next((name for name in known if name in names), None):
        return found
    wanted = f"no column {dataset.column}" if dataset.column else "no column that is known to hold texts or chats"
    raise UsageError(f"{dataset}: {wanted}; it has {', '.join(names)}: name one, as {dataset.id}#{names[0]}")


def _entry(dataset: Dataset, column: str, value: Any) -> Iterator[dict[str, Any]]:
    """One row as we write it; none if there is nothing in it. Raises UsageError for what is neither text nor chat."""
    if value is None or value == "" or value == []:
        return
    if isinstance(value, str):
        yield {"text": value}
        return
    turns = [_turn(turn) for turn in value] if isinstance(value, list) else [None]
    if None in turns:
        raise UsageError(f"{dataset}: its column {column} holds neither texts nor chats: {str(value)[:80]!r}")
    yield {"messages": turns}


def _turn(turn: Any) -> dict[str, str] | None:
    if not isinstance(turn, dict):
        return None
    role, said = (next((turn[key] for key in keys if turn.get(key) is not None), None) for keys in (ROLES, SAID))
    if not isinstance(role, str):
        return None
    if isinstance(said, list):  # parts, of which some may be images
        said = "".join(part.get("text") or "" for part in said if isinstance(part, dict))
    return {"role": NAMES.get(role, role), "content": said} if isinstance(said, str) else None


def _refusal(dataset: Dataset, error: Exception) -> UsageError:
    """What the library's exception means, in a line."""
    kinds = {type(each).__name__ for each in _chain(error)}
    told = first_line(error)
    if "GatedRepoError" in kinds or "gated" in str(error):
        return UsageError(f"{dataset} is gated: accept its terms on its page on the hub, and set HF_TOKEN")
    if kinds & {"DatasetNotFoundError", "RepositoryNotFoundError"}:
        return UsageError(f"{dataset}: no such dataset on the hub, or a private one (HF_TOKEN): check the name")
    if "onfig name is missing" in str(error) or "BuilderConfig" in str(error):
        named = " ".join(str(error).split())
        return UsageError(f"{dataset}: name a subset of it, as {dataset.id}:SUBSET ({named[:300]})")
    return UsageError(f"{dataset}: cannot be read from the hub ({told}); give a file")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
