"""The table of a search for the best configuration: what was tried, and what was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from ridgeline.results.tuning import Choice


def tuning_table(rows: Sequence[Mapping[str, Any]], found: Sequence[Choice]) -> Table:
    """A row for each candidate, fastest first; the chosen one says how much faster than the default it is.

    Args:
        rows: the measurements with the role ``tuning``, from :func:`ridgeline.results.views.rows`.
        found: the choices of the same run.
    """
    chosen = {choice.content_key: choice for choice in found}
    table = Table(title="Search for the best configuration", title_justify="left")
    for name in ("operator", "implementation", "shape", "configuration", "median", "± %", "chosen"):
        table.add_column(name, justify="right" if name in ("median", "± %") else "left", overflow="fold")
    table.add_column("status", overflow="fold")
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["run_id"], row["case_id"]), []).append(row)
    for group in groups.values():
        default = next((row for row in group if not row["config"]), None)
        choice = chosen.get(default["content_key"]) if default is not None else None
        for row in sorted(group, key=lambda r: (r["median_s"] is None, r["median_s"] or 0.0)):
            best = choice is not None and row["config"] == dict(choice.config)
            table.add_row(
                row["operator"], row["implementation"], row["problem_label"], _text(row["config"]),
                "" if row["median_s"] is None else f"{row['median_s'] * 1e6:.4g} µs", _half_width(row),
                _said(choice) if best and choice else "",
                row["status"] + (f": {row['reason']}".replace("[", r"\[") if row["median_s"] is None else ""),
            )  # fmt: skip
        table.add_section()
    return table


def _text(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in config.items()) or "default"


def _said(choice: Choice) -> str:
    if not choice.config:
        return "default: none surely faster"
    return "yes" if choice.ratio is None else f"yes, {choice.ratio:.2f}x the default's speed"


def _half_width(row: Mapping[str, Any]) -> str:
    if row["interval_low_s"] is None:
        return ""
    return f"{(row['interval_high_s'] - row['interval_low_s']) / 2 / row['median_s'] * 100:.1f}"
