"""Scenarios of a sweep: what a TOML file may say, and one line for what it may not."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.analytical.architectures import load_architecture
from ridgeline.analytical.calibration.public_tables import BACKENDS
from ridgeline.analytical.calibration.three_parameters import ThreeParameters
from ridgeline.analytical.catalogue import catalogue, find_device
from ridgeline.analytical.device import Device
from ridgeline.analytical.layout import Layout, Precisions
from ridgeline.analytical.memory import MEMORY_SHARE
from ridgeline.analytical.sweep import PHASES, Grid, HourlyPrice

KEYS = (
    "models", "devices", "phases", "batches", "lengths", "precisions", "layouts", "prices", "prediction",
    "memory_share", "step_within_ms", "software",
)  # fmt: skip


class SweepError(ValueError):
    """A scenario that cannot be swept. One line: file, key, what is wrong, what to do."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A grid, and what is asked of it."""

    grid: Grid
    step_within_s: float | None = None
    """Where set: the largest batch of the sweep whose predicted step takes no longer, for every length."""


def load_scenario(path: Path) -> Scenario:
    """Read a scenario.

    Keys: ``models`` (built-in names or config.json), ``devices`` (ids, files, or ``"all"``), ``phases`` (prefill,
    decode), ``batches`` and ``lengths`` (lists, or ``{from, to, step}``), ``[[precisions]]`` (weights, activations, kv,
    group), ``[[layouts]]`` (tp, pp, ep, dp), ``[[prices]]`` (device, usd_per_device_hour, date), ``[prediction]`` and
    ``[prediction.FAMILY]`` (overhead_us, compute_share, memory_share), ``software`` (vllm, sglang, trtllm: its measured
    kernels predict), ``memory_share``, ``step_within_ms``.

    Raises:
        SweepError: one line with file, key and remedy; errors of models and devices pass through, one line each.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SweepError(f"{path}: {error}") from None
    read = _Reader(path, values)
    read.only("", values, KEYS)
    models = {name: load_architecture(_near(path, name)) for name in read.names("models")}
    wanted = read.names("devices")
    devices = tuple(catalogue().values()) if wanted == ["all"] else tuple(find_device(_near(path, d)) for d in wanted)
    phases = tuple(read.names("phases"))
    for phase in phases:
        if phase not in PHASES:
            raise read.error("phases", f"no sweep of phase {phase!r}: one of {', '.join(PHASES)}")
    within = read.number("step_within_ms", values.get("step_within_ms")) if "step_within_ms" in values else None
    grid = Grid(
        models=models,
        devices=devices,
        phases=phases,
        precisions=tuple(read.table("precisions", Precisions, ("weights", "activations", "kv", "group"))),
        layouts=tuple(read.table("layouts", Layout, ("tp", "pp", "ep", "dp"))),
        batches=read.axis("batches"),
        lengths=read.axis("lengths"),
        prices=read.prices(devices),
        parameters=read.parameters(),
        software=read.software(),
        memory_share=read.share("memory_share", values.get("memory_share", MEMORY_SHARE)),
    )
    return Scenario(grid=grid, step_within_s=None if within is None else within * 1e-3)


def _near(path: Path, name: str) -> str:
    """A file beside the scenario, or the name as it is."""
    beside = path.parent / name
    return str(beside) if name.endswith((".json", ".toml")) and beside.exists() else name


@dataclass(frozen=True)
class _Reader:
    path: Path
    values: Mapping[str, Any]

    def error(self, key: str, what: str) -> SweepError:
        return SweepError(f"{self.path}: {key}: {what}")

    def only(self, where: str, table: Mapping[str, Any], keys: tuple[str, ...]) -> None:
        for key in table:
            if key not in keys:
                raise self.error(f"{where}{key}", f"unknown key: one of {', '.join(keys)}")

    def names(self, key: str) -> list[str]:
        found = self.values.get(key)
        if isinstance(found, str):
            found = [found]
        if not isinstance(found, list) or not found or not all(isinstance(name, str) and name for name in found):
            raise self.error(key, "needs a list of names")
        return found

    def number(self, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < float("inf"):
            raise self.error(key, f"must be a positive number, not {value!r}")
        return float(value)

    def share(self, key: str, value: Any) -> float:
        share = self.number(key, value)
        if share > 1.0:
            raise self.error(key, f"must lie in (0, 1], not {value:g}")
        return share

    def axis(self, key: str) -> Any:
        """A column of whole numbers from a list or from, to and step."""
        found = self.values.get(key)
        if isinstance(found, dict):
            self.only(f"{key}.", found, ("from", "to", "step"))
            missing = [name for name in ("from", "to") if name not in found]
            if missing:
                raise self.error(key, f"needs {missing[0]!r}, as in {{from = 1, to = 256, step = 1}}")
            first, last, step = (found["from"], found["to"], found.get("step", 1))
            for name, value in (("from", first), ("to", last), ("step", step)):
                self.number(f"{key}.{name}", value)
            if last < first:
                raise self.error(key, f"to ({last}) is less than from ({first})")
            found = list(range(int(first), int(last) + 1, int(step)))
        if not isinstance(found, list) or not found:
            raise self.error(key, "needs a list of whole numbers, or {from, to, step}")
        for value in found:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise self.error(key, f"must be whole numbers of at least 1, not {value!r}")
        return np.array(sorted(set(found)), dtype=np.float64)

    def table(self, key: str, kind: Any, keys: tuple[str, ...]) -> list[Any]:
        found = self.values.get(key, [{}])
        if not isinstance(found, list) or not found or not all(isinstance(row, dict) for row in found):
            raise self.error(key, f"must be tables [[{key}]]")
        rows = []
        for row in found:
            self.only(f"{key}.", row, keys)
            try:
                rows.append(kind(**row))
            except (ValueError, TypeError) as error:
                raise self.error(key, str(error)) from None
        return rows

    def prices(self, devices: tuple[Device, ...]) -> dict[str, tuple[HourlyPrice, ...]]:
        """The scenario's own; for a device without any, both ends of what its file says of rent."""
        found: dict[str, tuple[HourlyPrice, ...]] = {}
        for row in self.values.get("prices", []):
            if not isinstance(row, dict):
                raise self.error("prices", "must be tables [[prices]]")
            self.only("prices.", row, ("device", "usd_per_device_hour", "date"))
            if not isinstance(row.get("device"), str):
                raise self.error("prices.device", "missing: which device costs this")
            if not str(row.get("date", "")).strip():
                raise self.error("prices.date", f"the price of {row['device']} has no date: add when it held (YYYY-MM)")
            usd = self.number("prices.usd_per_device_hour", row.get("usd_per_device_hour"))
            named = find_device(_near(self.path, row["device"])).id
            price = HourlyPrice(usd_per_device_hour=usd, date=str(row["date"]))
            found[named] = (*found.get(named, ()), price)
        for device in devices:
            if device.id not in found:
                rents = [p for p in device.prices if p.basis == "rent_per_hour"]
                ends = {(usd, p.date) for p in rents[:1] for usd in (p.low_usd, p.high_usd)}
                if ends:
                    found[device.id] = tuple(HourlyPrice(usd_per_device_hour=u, date=d) for u, d in sorted(ends))
        return found

    def software(self) -> str | None:
        found = self.values.get("software")
        if found is not None and found not in BACKENDS:
            raise self.error("software", f"must be one of {', '.join(BACKENDS)}, not {found!r}")
        if found is not None and "prediction" in self.values:
            raise self.error("software", "give it or [prediction], not both: each says what predicts")
        return found

    def parameters(self) -> Mapping[str, ThreeParameters] | None:
        given = self.values.get("prediction")
        if given is None:
            return None
        if not isinstance(given, dict):
            raise self.error("prediction", "must be a table")
        families = {"": {k: v for k, v in given.items() if not isinstance(v, dict)}}
        families |= {name: v for name, v in given.items() if isinstance(v, dict)}
        found = {}
        for family, row in families.items():
            where = f"prediction.{family}." if family else "prediction."
            self.only(where, row, ("overhead_us", "compute_share", "memory_share"))
            missing = [k for k in ("overhead_us", "compute_share", "memory_share") if k not in row]
            if missing:
                raise self.error(f"{where}{missing[0]}", "missing: a prediction needs all three constants")
            overhead = 0.0 if row["overhead_us"] == 0 else self.number(f"{where}overhead_us", row["overhead_us"])
            found[family] = ThreeParameters(
                overhead_s=overhead * 1e-6,
                compute_share=self.number(f"{where}compute_share", row["compute_share"]),
                memory_share=self.number(f"{where}memory_share", row["memory_share"]),
            )
        return found
