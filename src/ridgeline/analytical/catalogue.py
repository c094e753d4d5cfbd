"""Descriptions of devices from outside: the catalogue that ships, and files of the user's own."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ridgeline.analytical.device import Device


class DeviceError(ValueError):
    """A device description that does not validate. One line: file, key, what is wrong."""


_DEVICE = TypeAdapter(Device)


def device_from_dict(values: Mapping[str, Any], origin: str) -> Device:
    """Validate a device description.

    Raises:
        DeviceError: one line naming ``origin``, the key and what is wrong.
    """
    try:
        return _DEVICE.validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "device"
        raise DeviceError(f"{origin}: {where}: {first['msg']}") from None


def load_device(path: Path) -> Device:
    """Read a device from a TOML file.

    Raises:
        DeviceError: for a file that cannot be read, is not TOML, or does not validate.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DeviceError(f"{path}: {error}") from None
    return device_from_dict(values, str(path))


def catalogue() -> dict[str, Device]:
    """Devices that ship with Ridgeline, by id."""
    folder = resources.files("ridgeline.analytical") / "hardware"
    devices = [
        device_from_dict(tomllib.loads(entry.read_text(encoding="utf-8")), entry.name)
        for entry in sorted(folder.iterdir(), key=lambda e: e.name)
        if entry.name.endswith(".toml")
    ]
    return {d.id: d for d in devices}
