"""Facts as they are stored: frozen, of known keys, without NaN."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 4
"""2: conditions of every block, blocks left out by cause, further kinds of records. 3: what of a measurement was done in
TF32; kinds `model_step`, `published`, `serving`. 4: kind `check`. Records of older versions are read."""


class Fact(BaseModel):
    """What every stored fact has in common; attribute docstrings become the JSON schema's descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class StoredRecord(Fact):
    """What every kind of record has."""

    kind: str
    schema_version: int = SCHEMA_VERSION
    record_id: str
    run_id: str
    started_at: str
    """UTC, ISO 8601."""
