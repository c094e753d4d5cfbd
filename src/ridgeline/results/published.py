"""Kernel times that somebody published. Nothing here measured them or checked how: they are shown in a table of their own
and never compared with ours without saying so."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ridgeline.results.fact import StoredRecord


class Published(StoredRecord):
    """One row of a published table."""

    kind: Literal["published"] = "published"
    source: str
    """What published it, with its version, such as ``aiconfigurator-core 0.12.0``."""
    source_file: str
    """The table inside the source, by its relative path."""
    source_row: int = Field(ge=0)
    """Row of the table, counted from zero."""
    licence: str = Field(min_length=1)
    """Licence that the source states, by its SPDX name."""
    tool: str
    """The software that ran the kernel, such as ``vllm``."""
    tool_version: str
    kernel: str = ""
    """The kernel, in the source's words; empty where it names none."""
    device_id: str
    """Id in our catalogue; empty where the catalogue has no such device."""
    device_text: str
    """The device in the source's words."""
    operator: str
    problem: dict[str, int | float | bool | str]
    """The problem's parameters, by the names that our operators give them."""
    problem_label: str
    seconds: float = Field(gt=0.0)
    """Time of one call, as published: one number, without samples or interval."""
    power_w: float | None = Field(default=None, gt=0.0)
    """Mean power during the kernel; ``None`` where the source has none."""
    quarantined: str = ""
    """Why the row is not fit to calibrate on (:mod:`ridgeline.analytical.calibration.gate`); empty where it is."""

    @field_validator("source", "source_file", "tool", "device_text", "operator")
    @classmethod
    def _named(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("a published figure needs its origin: source, file, tool, device and operator")
        return value
