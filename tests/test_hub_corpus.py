"""Datasets by name: the real libraries against a hub of ours that speaks the protocol."""

import gzip
import io
import json
import os
import subprocess
import sys

import pytest

from auditor.records.public import Dataset
from tests.local_hub import serving

pytest.importorskip("datasets", reason="datasets of the hub need the extra `data`")
pyarrow = pytest.importorskip("pyarrow", reason="parquet files are written with pyarrow")

TEXTS = [f"Text {i}: the river runs past the mill." for i in range(6)]
CHAT = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
SUBSETS = b"""---
configs:
- config_name: small
  data_files: [{split: train, path: data/small/*.parquet}]
- config_name: other
  data_files: [{split: train, path: data/other/*.parquet}]
---
"""
SCRIPT = """
import json, sys
from pathlib import Path
from auditor.errors import UsageError
from auditor.methods.corpus import read_corpus
from auditor.methods.datasets import kept_rows
from auditor.records.public import Dataset

told = {}
for name, n in json.loads(sys.argv[1]):
    try:
        corpus = read_corpus(kept_rows(Dataset.parse(name), n, Path(sys.argv[2])))
        told[name] = [corpus.texts, corpus.chats]
    except UsageError as error:
        told[name] = str(error)
print(json.dumps(told))
"""
WANTED = [
    ("me/lines", 3), ("me/lines/data/train.jsonl", 3), ("me/packed", 3), ("me/subsets:small", 3),
    ("me/subsets:small#text", 3), ("me/chats", 1), ("me/odd", 9), ("me/odd#answer", 9), ("me/odd#question", 9),
    ("me/subsets", 9), ("me/nothing", 9), ("me/lines/no.jsonl", 9), ("me/large", 50),
]  # fmt: skip


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows, group=2):
    import pyarrow.parquet

    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=group)
    return file.getvalue()


@pytest.fixture(scope="module")
def hub():
    texts = [{"text": text, "url": "https://example.org"} for text in TEXTS]
    datasets = {
        "me/lines": {"README.md": b"hello", "data/train.jsonl": lines(texts)},
        "me/packed": {"en/train-00000-of-00001.json.gz": gzip.compress(lines(texts))},
        "me/subsets": {
            "README.md": SUBSETS, "data/small/0.parquet": parquet(texts), "data/other/0.parquet": parquet(texts[:1]),
        },
        "me/chats": {"train.jsonl": lines([{"images": "0.jpg", "conversations": CHAT}] * 3)},
        "me/odd": {"train.jsonl": lines([{"question": "Why?", "reply": "So."}, {"question": "", "reply": "Thus."}])},
        "me/large": {"train.parquet": parquet([{"text": os.urandom(500).hex(), "i": i} for i in range(20_000)], 100)},
    }  # fmt: skip
    with serving(datasets=datasets) as served:
        yield served


def read(cache, wanted, endpoint):
    """What a process whose hub is `endpoint` reads of datasets, or is told."""
    own = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(cache / "hf"), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", SCRIPT, json.dumps(wanted), str(cache)]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def found(hub, cache):
    return read(cache, WANTED, hub.url)


@pytest.mark.parametrize(
    "name", ["me/lines", "me/lines/data/train.jsonl", "me/packed", "me/subsets:small", "me/subsets:small#text"]
)
def test_rows_of_any_format_are_texts(found, name):
    assert found[name] == [TEXTS[:3], []]


def test_conversations_are_chats_under_any_names(found):
    texts, chats = found["me/chats"]
    assert texts == ["Hello"]
    assert [turn["role"] for turn in chats[0]] == ["system", "user", "assistant"]


def test_of_a_large_dataset_only_what_is_needed_is_fetched(found, hub):
    assert len(found["me/large"][0]) == 50
    assert hub.sent[0] < 0.1 * len(hub.datasets["me/large"]["train.parquet"])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("me/odd", "no column that is known to hold texts or chats; it has question, reply: name one, as me/odd#quest"),
        ("me/odd#answer", "no column answer; it has question, reply"),
        ("me/subsets", "name a subset of it, as me/subsets:SUBSET"),
        ("me/nothing", "no such dataset on the hub"),
        ("me/lines/no.jsonl", "cannot be read from the hub"),
    ],
)
def test_what_cannot_be_read_is_told_in_a_line(found, name, told):
    assert told in found[name]
    assert "\n" not in found[name]


def test_a_column_of_ones_own(found):
    assert found["me/odd#question"] == [["Why?"], []]


def test_without_a_hub_there_is_what_was_read_once(found, cache):
    again = read(cache, [("me/lines", 3), ("me/packed", 4)], "http://127.0.0.1:9")
    assert again["me/lines"] == found["me/lines"]
    assert again["me/packed"].startswith("me/packed: cannot be read from the hub")
    assert "\n" not in again["me/packed"]


def test_names_of_datasets():
    found = Dataset.parse("me/texts/a/b.jsonl@v1:en#body")
    assert found == Dataset(id="me/texts", file="a/b.jsonl", revision="v1", subset="en", column="body")
    assert str(found) == "me/texts/a/b.jsonl@v1:en#body"
    assert Dataset.parse("openings") is None
