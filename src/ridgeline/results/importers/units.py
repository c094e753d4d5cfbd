"""Numbers and units as profilers print them, turned into seconds, bytes and percent. An unknown unit is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ridgeline.results.durable import StoreError

SECONDS: Mapping[str, float] = {
    "s": 1.0, "second": 1.0, "ms": 1e-3, "msecond": 1e-3, "us": 1e-6, "usecond": 1e-6, "µs": 1e-6,
    "ns": 1e-9, "nsecond": 1e-9,
}  # fmt: skip
BYTES: Mapping[str, float] = {
    "byte": 1.0, "B": 1.0, "Kbyte": 1e3, "KB": 1e3, "Mbyte": 1e6, "MB": 1e6, "Gbyte": 1e9, "GB": 1e9,
    "Tbyte": 1e12, "TB": 1e12,
}  # fmt: skip
"""Nsight Compute scales by powers of 1000 (its documentation, ``--print-units``)."""
BYTES_PER_S: Mapping[str, float] = {f"{unit}/{per}": size for unit, size in BYTES.items() for per in ("s", "second")}
PERCENT: Mapping[str, float] = {"%": 1.0}
SECTORS: Mapping[str, float] = {"sector": 32.0, "": 32.0}
"""Bytes of one sector of an NVIDIA L2: a quarter of its line of 128."""
REGISTERS: Mapping[str, float] = {"register/thread": 1.0, "": 1.0}

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?(?:[eE][-+]?\d+)?")
_MISSING = frozenset({"", "n/a", "nan", "-nan", "none", "inf", "-inf"})


def number(text: str, where: str) -> float | None:
    """A number with or without commas between thousands; ``None`` where the tool says that it has none.

    Raises:
        StoreError: for text that is no such number, as one with a decimal comma.
    """
    text = text.strip()
    if text.lower() in _MISSING:
        return None
    if not _NUMBER.fullmatch(text):
        raise StoreError(f"{where}: {text!r} is not a number: print numbers in the C locale (LC_ALL=C)")
    return float(text.replace(",", ""))


def scaled(text: str, unit: str, units: Mapping[str, float], where: str) -> float | None:
    """A number in the base unit of ``units``.

    Raises:
        StoreError: for a unit that is none of ``units``, or text that is no number.
    """
    value = number(text, where)
    if value is None:
        return None
    if unit not in units:
        raise StoreError(f"{where}: unknown unit {unit!r}: one of {', '.join(repr(known) for known in units)}")
    return value * units[unit]
