"""Quantities as text: three significant figures, engineering prefixes, units always."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

_PREFIXES = {-12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
MISSING = "–"
"""Stands where there is no figure; a missing figure is never a zero."""


def is_number(value: Any) -> TypeGuard[float]:
    """Whether ``value`` is a finite number (not ``None``, NaN or pandas' NA)."""
    try:
        return value is not None and math.isfinite(value)
    except TypeError:
        return False


def prefix_of(value: float) -> tuple[float, str]:
    """Factor and prefix that bring ``value`` between 1 and 1000."""
    if value == 0 or not math.isfinite(value):
        return 1.0, ""
    exponent = 3 * math.floor(math.log10(abs(value)) / 3)
    # 999.6 would be written "1000": it belongs to the next prefix.
    if abs(value) / 10.0**exponent >= 999.5:
        exponent += 3
    exponent = max(-12, min(18, exponent))
    return 10.0**exponent, _PREFIXES[exponent]


def digits(value: float) -> str:
    """``value`` with three significant figures and no exponent."""
    if value == 0:
        return "0"
    value = float(f"{value:.2e}")  # first rounded, so that 0.9999 is 1.00 and not 1.000
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, 9)}f}"


def engineering(value: Any, unit: str) -> str:
    """``42.3 µs``, ``182 GFLOP/s``; a dash where there is no value."""
    if not is_number(value):
        return MISSING
    factor, prefix = prefix_of(float(value))
    return f"{digits(float(value) / factor)} {prefix}{unit}"


def plain(value: Any, unit: str) -> str:
    """Three significant figures without a prefix, for what people know in its base unit: ``0.500 FLOP/B``."""
    return f"{digits(float(value))} {unit}" if is_number(value) else MISSING


def with_interval(value: Any, low: Any, high: Any, unit: str) -> str:
    """``42.3 [41.9, 43.0] µs``; without an interval it says so."""
    if not is_number(value):
        return MISSING
    if not (is_number(low) and is_number(high)):
        return f"{engineering(value, unit)} (no interval)"
    factor, prefix = prefix_of(float(value))
    shown = [digits(float(v) / factor) for v in (value, low, high)]
    return f"{shown[0]} [{shown[1]}, {shown[2]}] {prefix}{unit}"


def percent(fraction: Any) -> str:
    """``73.1 %``; above 100 % too, never clamped."""
    return f"{digits(100.0 * float(fraction))} %" if is_number(fraction) else MISSING


def percent_interval(value: Any, low: Any, high: Any) -> str:
    """``73.1 % [71.0, 75.2]``."""
    if not (is_number(value) and is_number(low) and is_number(high)):
        return percent(value)
    return f"{percent(value)} [{digits(100.0 * float(low))}, {digits(100.0 * float(high))}]"
