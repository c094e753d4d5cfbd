"""Timings that another tool took. They are shown in a table of their own: nothing here checked what was timed, or how."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from ridgeline.results.fact import Fact, StoredRecord


class ImportedStatistics(Fact):
    """The summary that the tool itself computed; seconds per call."""

    rounds: int = Field(ge=1)
    """Samples it was computed from."""
    min_s: float = Field(gt=0.0)
    max_s: float = Field(gt=0.0)
    mean_s: float = Field(gt=0.0)
    median_s: float = Field(gt=0.0)
    stddev_s: float = Field(ge=0.0)
    iqr_s: float = Field(ge=0.0)
    """Distance of the quartiles."""


class Imported(StoredRecord):
    """One benchmark of another tool's file."""

    kind: Literal["imported"] = "imported"
    tool: str
    """The tool that measured, such as ``pytest-benchmark``."""
    tool_version: str = ""
    source_file: str
    """Name of the file, without its folder."""
    source_digest: str
    """SHA-256 of the file."""
    benchmark: str
    """The tool's full name of the benchmark."""
    group: str = ""
    parameters: dict[str, int | float | bool | str] = {}
    extra_info: dict[str, int | float | bool | str] = {}
    """What the benchmark's author attached; nested values as JSON text."""
    device_text: str
    """The machine in the tool's words: no device of ours, so no roof applies."""
    statistics: ImportedStatistics
    samples_s: tuple[tuple[float, ...], ...] = ()
    """Seconds per call; the tool states no blocks, so all are in one."""
    samples_reason: str = ""
    """Why there are no samples."""
    launches_per_sample: int = Field(default=1, ge=1)
    """Calls that the tool timed together in one sample."""

    @model_validator(mode="after")
    def _consistent(self) -> Imported:
        s = self.statistics
        if not s.min_s <= s.median_s <= s.max_s or not s.min_s * (1 - 1e-9) <= s.mean_s <= s.max_s * (1 + 1e-9):
            raise ValueError("the statistics need min <= median, mean <= max")
        if not self.samples_s:
            if not self.samples_reason:
                raise ValueError("missing samples need their reason")
            return self
        samples = [sample for block in self.samples_s for sample in block]
        if not samples or not all(math.isfinite(sample) and sample > 0.0 for sample in samples):
            raise ValueError("samples must be positive times")
        if len(samples) != s.rounds:
            raise ValueError(f"{len(samples)} samples, but the statistics are of {s.rounds}")
        for name, said, found in (("min", s.min_s, min(samples)), ("max", s.max_s, max(samples))):
            if not math.isclose(said, found, rel_tol=1e-6):
                raise ValueError(f"the {name} of the samples is {found:g} s, the statistics say {said:g} s")
        return self
