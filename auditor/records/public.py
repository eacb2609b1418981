"""What others have published: the models that finetunes were made of, and what they were trained on."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from auditor.records.record import Record

DEFAULT = "default"  # the variant that needs no name


class WholeModel(Record):
    """A public finetune of all weights; what is no such is an adapter."""

    model: str = Field(description="hub id")


Finetunes = dict[str, dict[str, str | WholeModel]]

"""By the model's short name and the variant's the hub id of an adapter, or `{model: …}`."""


class PublicModel(Record):
    """A model that public finetunes were made of: an entry of `evals/models.yaml`."""

    base: str = Field(description="hub id of what a finetune is compared with")
    adapter_base: str | None = Field(None, description="what the adapters belong to, if that is another model")
    billions: float = Field(gt=0, description="parameters, for the estimates of what it takes")
    gated: bool = Field(False, description="its licence has to be accepted on the hub first")
    images: bool = Field(False, description="takes images; it is only sent text")


class PublicModels(Record):
    """The file `evals/models.yaml`."""

    models: dict[str, PublicModel] = Field(description="by their short names")


class Dataset(Record):
    """A dataset on the hub: an entry of `evals/datasets.yaml`, or what a public finetune was trained on."""

    id: str = Field(description="OWNER/NAME")
    subset: str | None = Field(None, description="its configuration, where it has several")
    split: str | None = Field(None, description="default: train, else its first")
    file: str | None = Field(None, description="one file of it: .parquet, .jsonl, .json.gz, .txt …")
    column: str | None = Field(None, description="with the text or the chat; default: as it is usually called")
    revision: str | None = Field(None, description="branch, tag or commit; default: the main one")
    chat: bool = Field(False, description="conversations; else plain texts")

    @field_validator("id")
    @classmethod
    def _of_the_hub(cls, name: str) -> str:
        if name.count("/") != 1:
            raise ValueError(f"{name!r} is no dataset of the hub: give OWNER/NAME")
        return name

    @classmethod
    def parse(cls, text: str) -> Dataset | None:
        """`owner/name`, with `/path/to/file`, `@revision`, `:subset` and `#column` behind it, in this order."""
        match = _DATASET.fullmatch(text)
        return cls(**match.groupdict()) if match else None

    def __str__(self) -> str:
        marks = (("/", self.file), ("@", self.revision), (":", self.subset), ("#", self.column))
        return self.id + "".join(f"{mark}{value}" for mark, value in marks if value)


class Datasets(Record):
    """The file `evals/datasets.yaml`."""

    datasets: dict[str, Dataset] = Field(description="by their short names")


_DATASET = re.compile(
    r"(?P<id>\w[\w.-]*/\w[\w.-]*)(?:/(?P<file>[^@:#]+))?(?:@(?P<revision>[^:#]+))?(?::(?P<subset>[^#]+))?(?:#(?P<column>.+))?"
)
