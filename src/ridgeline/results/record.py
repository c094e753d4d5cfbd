"""Records of every kind, validated at the door."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from ridgeline.results.check import PaperCheck
from ridgeline.results.comparison import Comparison
from ridgeline.results.counters import Counters
from ridgeline.results.fact import SCHEMA_VERSION, StoredRecord
from ridgeline.results.imported import Imported
from ridgeline.results.measurement import Measurement
from ridgeline.results.model_step import ModelStep
from ridgeline.results.published import Published
from ridgeline.results.serving import Serving

Record = StoredRecord
"""A record of any kind of :data:`KINDS`."""

KINDS: dict[str, type[StoredRecord]] = {
    "measurement": Measurement,
    "comparison": Comparison,
    "imported": Imported,
    "counters": Counters,
    "model_step": ModelStep,
    "published": Published,
    "serving": Serving,
    "check": PaperCheck,
}
"""A further kind is a further class here, told apart by ``kind``."""


class RecordError(ValueError):
    """Data that is not a record of this schema. One line: where, which key, what is wrong."""


def record_from_dict(values: Any, origin: str) -> StoredRecord:
    """Validate one record.

    Raises:
        RecordError: one line naming ``origin``, the key and what is wrong; a newer schema or an unknown kind says that
            a newer Ridgeline wrote it.
    """
    if not isinstance(values, dict):
        raise RecordError(f"{origin}: not a record")
    version = values.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise RecordError(
            f"{origin}: schema {version} is newer than this Ridgeline reads ({SCHEMA_VERSION}): upgrade ridgeline"
        )
    model = KINDS.get(str(values.get("kind")))
    if model is None:
        raise RecordError(f"{origin}: unknown kind {values.get('kind')!r}: one of {', '.join(KINDS)}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "record"
        raise RecordError(f"{origin}: {where}: {first['msg']}") from None


def record_schema() -> dict[str, Any]:
    """JSON schema of a record, of any kind."""
    adapters = [(model, "validation", TypeAdapter(model)) for model in KINDS.values()]
    schemas, definitions = TypeAdapter.json_schemas(adapters)  # type: ignore[arg-type]
    return {"oneOf": [schemas[model, "validation"] for model, _, _ in adapters], **definitions}
