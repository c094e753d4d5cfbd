"""The check of a paper: whether one part of what its row has to show holds, when it was last carried out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ridgeline.results.fact import StoredRecord
from ridgeline.results.measurement import Placement

SUITE = "papers"
"""Suite that runs of checks bear."""

CheckKind = Literal["correctness", "quality", "mechanism", "ratio"]
CheckStatus = Literal["passed", "failed", "unsupported", "crashed", "timeout"]
"""``failed`` of a ratio: measured, and below its threshold. ``crashed`` also: out of memory, or a ratio of wrong outputs."""


class PaperCheck(StoredRecord):
    """One check, carried out once. A check that contradicts itself cannot be built."""

    kind: Literal["check"] = "check"
    paper: str
    """Id of the paper's row."""
    check: str
    """Name of the check within it."""
    check_kind: CheckKind
    """``ratio``: a speed, which counts once it is measured, whatever it is."""
    states: str
    """What holds where it passes."""
    status: CheckStatus
    value: float | None = None
    """The figure that decided."""
    threshold: float | None = None
    """What it was held against."""
    unit: str = ""
    """Unit of both, such as ``x``."""
    text: str = ""
    """What was seen, in one line."""
    reason: str = ""
    """Why it did not pass; of a ratio, the roofline's reason."""
    seconds: float = Field(ge=0.0)
    """What carrying it out took."""
    placement: Placement
    threads: int = Field(ge=1)
    """Threads that kernels could use."""
    sources: tuple[str, ...] = Field(min_length=1)
    """Files of the package that it started from: its own, and those of the operators and implementations it used."""
    sources_hash: str
    """Hash over these and all they reach (:func:`ridgeline.results.sources.check_hash`)."""
    versions: dict[str, str]
    """Versions of the packages that can move a result."""

    @model_validator(mode="after")
    def _consistent(self) -> PaperCheck:
        if self.status not in ("passed", "failed"):
            if not self.reason:
                raise ValueError(f"status {self.status} needs a reason")
            if self.value is not None or self.threshold is not None:
                raise ValueError(f"status {self.status} must not carry a value")
            return self
        if self.threshold is not None and self.value is None:
            raise ValueError("a threshold needs the value that was held against it")
        if self.status == "failed" and not (self.text or self.reason):
            raise ValueError("status failed needs a text or a reason")
        if self.check_kind == "ratio":
            if self.value is None:
                raise ValueError("a ratio needs a value")
            if self.status == "failed" and (self.threshold is None or not self.reason):
                raise ValueError("a ratio that misses needs its threshold and the roofline's reason")
        return self
