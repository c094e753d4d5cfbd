"""The manifest of a run: what was asked for, where and with which software."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ridgeline.results.fact import SCHEMA_VERSION


class RunManifest(BaseModel):
    """Written once when a run starts; the same command on the same plan finds and continues it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    schema_version: int = SCHEMA_VERSION
    run_id: str
    suite: str
    """Name of the suite, or ``roofs``."""
    plan_digest: str
    """Digest of everything that was planned; equal digests mean the same command."""
    planned: int = Field(ge=0)
    """Measurements the plan holds."""
    created_at: str
    """UTC, ISO 8601."""
    device: str
    """Id of the device."""
    device_name: str
    environment: dict[str, str]
    """Versions of the software and facts of the host, by allow-list."""
    contributed: str = ""
    """Digest of the packed file's content, where somebody else measured this run and sent it; empty for our own."""
    imported: str = ""
    """The tool whose file this run was read from; empty for what Ridgeline measured."""
