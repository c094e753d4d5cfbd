"""Energy of a measurement as text; a column that is missing means that there is no figure."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ridgeline.dashboard.quantity_text import MISSING, engineering, is_number, with_interval


def reason_of(row: pd.Series) -> str:
    """Why there is no energy figure, one line."""
    reason = row.get("energy_reason")
    return reason if isinstance(reason, str) and reason else "not measured"


def energy_facts(row: pd.Series) -> list[tuple[str, str]]:
    """Tiles of the energy section, name and text; empty where no meter gave a figure."""
    energy_j: Any = row.get("energy_j")
    if not is_number(energy_j):
        return []
    flop: Any = row.get("flop")
    per_joule = flop / energy_j if is_number(flop) and flop > 0.0 and energy_j > 0.0 else None
    found = [
        ("Energy per launch", with_interval(energy_j, row.get("energy_low_j"), row.get("energy_high_j"), "J")),
        ("Above idle", engineering(row.get("energy_net_j"), "J")),
        ("Power", engineering(row.get("power_w"), "W")),
        ("Work per joule", engineering(per_joule, "FLOP/J")),
    ]
    return [(name, text) for name, text in found if text != MISSING]


def quality_of(row: pd.Series) -> str:
    """How good the figure is, in the words of the record; empty where it says nothing."""
    quality = row.get("energy_quality")
    return quality if isinstance(quality, str) and quality else ""
