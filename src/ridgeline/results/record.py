"""The record: one thing that was measured, with everything needed to judge it again later.

Only what was observed is stored. Medians, intervals, bounds and roof fractions are derived when a record is read
(:mod:`ridgeline.results.views`), so that a corrected data sheet or a better statistic corrects all history. A record
that contradicts itself cannot be built.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

SCHEMA_VERSION = 1

Status = Literal["ok", "unsupported", "incorrect", "impossible", "unstable", "out_of_memory", "timeout", "crashed"]
"""How a measurement ended. ``unstable``: right, but the interval missed its target within the time budget."""

TIMED: frozenset[str] = frozenset({"ok", "unstable", "impossible"})
"""Statuses of measurements that carry samples."""


class RecordError(ValueError):
    """Data that is not a record of this schema. One line: where, which key, what is wrong."""


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Protocol(_Fact):
    """How a number was taken. Numbers of different protocols are never compared."""

    timer: str
    """Clock that took the samples, such as ``perf_counter``."""
    cache: Literal["cold", "warm"]
    """cold: operands come from main memory, by rotating buffers; warm: from the smallest level that holds them."""
    threads: int = Field(ge=1)
    """Threads the kernel may use."""
    version: int = Field(ge=1)
    """Version of the measuring procedure; a change that can move numbers raises it."""


class Placement(_Fact):
    """Where a case runs."""

    device: str
    """Id of the SKU."""
    torch_device: str
    """torch device type: cpu or cuda."""
    unit: str
    """Hash that tells this physical card or host from others of the same SKU."""
    ranks: int = Field(default=1, ge=1)
    """Processes that take part."""


class RoofBeside(_Fact):
    """A ceiling as it was seen just before and just after a case."""

    limit: str
    """Name of the ceiling, such as ``DRAM`` or ``vector float32``."""
    values_per_s: tuple[float, ...] = Field(min_length=1)
    """Block medians of the rate, bytes or operations per second."""


class Interference(_Fact):
    """What else happened on the machine while the samples were taken."""

    steal_s: float | None = None
    """CPU time the hypervisor gave to others."""
    involuntary_switches: int | None = None
    """Context switches forced on the worker."""


class Measurement(_Fact):
    """One implementation, on one problem, in one process."""

    kind: Literal["measurement"] = "measurement"
    schema_version: int = SCHEMA_VERSION
    record_id: str
    run_id: str
    started_at: str
    """UTC, ISO 8601."""
    role: Literal["case", "roof"] = "case"
    """roof: a ``stream`` or ``fma`` case that was run to find a ceiling."""
    case_id: str
    """Hash of problem, implementation, placement and protocol."""
    content_key: str
    """Hash of all that decides the number: the case, the kernel's source and all it reaches, versions, flags."""
    operator: str
    implementation: str
    baseline: str = ""
    """Implementation that this one is compared with; empty where the operator names none for this precision."""
    problem: dict[str, int | float | bool | str]
    problem_label: str
    papers: tuple[str, ...] = ()
    structure_figures: dict[str, float] = {}
    structure_digest: str = ""
    placement: Placement
    protocol: Protocol
    process: int = Field(default=0, ge=0)
    """Index of the fresh process; processes are the outer statistical blocks."""
    status: Status
    reason: str = ""
    """Why the status is not ``ok``; one line."""
    samples_s: tuple[tuple[float, ...], ...] = ()
    """Seconds per launch, a sequence per block. Nothing is dropped."""
    launches_per_sample: int = Field(default=1, ge=1)
    """Launches timed together in one sample, where one alone is too short for the clock."""
    error_relative: float | None = None
    """||out - reference|| / ||reference||, the worst of all checks."""
    error_worst: float | None = None
    """Largest |out - reference| over the root mean square of the reference."""
    error_tolerance: float | None = None
    rows_checked: int = Field(default=0, ge=0)
    """Rows of the output compared with the reference, before, between and after the timed blocks."""
    prepare_s: float | None = None
    """Seconds to pack, quantise and compile."""
    working_set_bytes: float | None = None
    """Bytes that one launch touches."""
    peak_memory_bytes: float | None = None
    """Largest resident size of the worker while it ran the case."""
    roofs_beside: tuple[RoofBeside, ...] = ()
    interference: Interference = Interference()
    energy_j: float | None = None
    """Joules per launch, gross; ``None`` where no meter gave it."""
    energy_reason: str = ""
    """Why there is no energy figure."""

    @model_validator(mode="after")
    def _consistent(self) -> Measurement:
        if self.status != "ok" and not self.reason:
            raise ValueError(f"status {self.status} needs a reason")
        if self.status in TIMED:
            if not self.samples_s or not all(self.samples_s):
                raise ValueError(f"status {self.status} needs samples in every block")
            if not all(math.isfinite(s) and s > 0.0 for block in self.samples_s for s in block):
                raise ValueError("samples must be positive times")
            if self.error_relative is None or self.error_tolerance is None or self.rows_checked == 0:
                raise ValueError(f"status {self.status} needs an error against the reference")
            if self.error_relative > self.error_tolerance:
                raise ValueError("an error above the tolerance is `incorrect`, not timed")
        elif self.samples_s:
            raise ValueError(f"status {self.status} must not carry samples")
        if self.energy_j is None and not self.energy_reason and self.status in TIMED:
            raise ValueError("a missing energy figure needs its reason")
        return self


Record = Measurement
"""Every kind of record. A further kind is a further class here, told apart by ``kind``."""

KINDS: dict[str, type[Measurement]] = {"measurement": Measurement}
_RECORD: TypeAdapter[Record] = TypeAdapter(Record)


def record_from_dict(values: Any, origin: str) -> Record:
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
    if values.get("kind") not in KINDS:
        raise RecordError(f"{origin}: unknown kind {values.get('kind')!r}: one of {', '.join(KINDS)}")
    try:
        return _RECORD.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "record"
        raise RecordError(f"{origin}: {where}: {first['msg']}") from None


def record_schema() -> dict[str, Any]:
    """JSON schema of a record."""
    return _RECORD.json_schema()
