"""The base of every record."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of the file formats: unknown fields are errors, values do not change, numbers are finite.

    JSON has no infinity, so that one would be read back as nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
