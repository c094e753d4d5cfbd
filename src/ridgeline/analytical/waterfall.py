"""The waterfall: from the ideal time to the measured one, one cause after the other.

Each step asks the bound again with one more thing that this run could not have done better; the difference to the step
before is that cause's part. So the parts add up to the gap by construction, and what no cause explains is the residual,
which may be negative: then some cause was counted too dearly, and that is shown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical.device import Device
from ridgeline.analytical.limits import Cache, End, Limits, limits
from ridgeline.analytical.work import Work

PARTS = ("overhead", "clock", "cache", "tile quantisation", "wave quantisation", "unfused traffic", "residual")
"""Causes in the order in which they are charged."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How a kernel cuts its output into tiles, and how many of them the device works on at a time.

    Counts are numbers or columns. A tile that hangs over the edge costs as much as a full one (tile quantisation), and
    the last wave takes as long as a full one (wave quantisation): NVIDIA, "Matrix Multiplication Background User's
    Guide", sections "Tile quantization" and "Wave quantization".
    """

    rows: Any
    columns: Any
    tile_rows: Any
    tile_columns: Any
    units: Any
    """Multiprocessors, compute units or cores."""
    per_unit: Any = 1
    """Tiles that one unit works on at the same time."""
    splits: Any = 1
    """Parts that the reduction of one tile is split into (split-K, stream-K): each is a piece of its own."""
    batch: Any = 1
    """Independent outputs of rows x columns each."""

    @property
    def pieces(self) -> Any:
        """Pieces of work that the units share out."""
        return (
            np.ceil(self.rows / np.asarray(self.tile_rows, dtype=np.float64))
            * np.ceil(self.columns / np.asarray(self.tile_columns, dtype=np.float64))
            * self.splits
            * self.batch
        )[()]

    @property
    def tile_factor(self) -> Any:
        """Operations that the tiles execute, over those asked for; at least 1."""
        asked = 1.0 * self.rows * self.columns * self.splits * self.batch
        return self.pieces * self.tile_rows * self.tile_columns / asked

    @property
    def wave_factor(self) -> Any:
        """Slots that the waves hold, over the pieces in them; at least 1."""
        slots = np.asarray(1.0 * self.units * self.per_unit)
        return (np.ceil(self.pieces / slots) * slots / self.pieces)[()]


@dataclass(frozen=True)
class Waterfall:
    """Seconds; numbers, or float64 columns of one length."""

    ideal_s: Any
    measured_s: Any
    parts: Mapping[str, Any]
    """Part of each cause, in the order of :data:`PARTS`; the residual is always there, and may be negative."""
    unknown: Mapping[str, str]
    """Cause to the reason why it was not charged: its part is in the residual."""

    @property
    def explained_s(self) -> Any:
        """Ideal time and all causes but the residual."""
        return self.measured_s - self.parts["residual"]


def waterfall(
    work: Work,
    device: Device,
    measured_s: Any,
    *,
    level: str | None = None,
    warm: bool = False,
    launch_s: Any = None,
    clock_mhz: Any = None,
    tiling: Tiling | None = None,
    moved_bytes: Any = None,
    substitute: bool = False,
    end: End = "value",
) -> Waterfall:
    """What stands between the ideal time of ``work`` and ``measured_s``.

    The ideal is the bound at the data sheet's clock of the whole problem in one fused kernel, with every byte that the
    last-level cache can hold already in it. Charged in turn:

    * overhead: ``work.launches`` times ``launch_s``.
    * clock: arithmetic at ``clock_mhz``, the core clock that was seen (lower or, for a part below zero, higher).
    * cache: every byte from ``level`` (default main memory); nothing where the protocol was ``warm``.
    * tile and wave quantisation: execution units work as long as ``tiling`` makes them.
    * unfused traffic: ``moved_bytes`` (as the implementation moves them) in place of the compulsory ones.
    * residual: the rest.

    Args:
        work: counts as numbers or columns; compulsory bytes.
        device: device with its ceilings selected.
        measured_s: seconds of one call.
        level, substitute, end: as in :func:`~ridgeline.analytical.limits.limits`.
        warm: the operands were in the cache as far as they fit.
        launch_s: seconds that one launch costs; ``None`` where it was not measured.
        clock_mhz: ``None`` where no clock was read.
        tiling: ``None`` where the tiles are not known.
        moved_bytes: ``None`` where the implementation does not state them.

    Raises:
        LimitError: as :func:`~ridgeline.analytical.limits.limits`.
        ValueError: where the implementation is said to move less than the compulsory bytes.
    """
    if moved_bytes is not None and np.any(np.asarray(moved_bytes) < np.asarray(work.bytes) * (1.0 - 1e-9)):
        raise ValueError("moved_bytes is less than the compulsory bytes of the work: one of the two is wrong")
    unknown: dict[str, str] = {}
    ideal_cache: Cache = "warm" if level is None else "cold"
    cache: Cache = ideal_cache if warm else "cold"
    clock = None

    def terms_of(asked: Work, cache: Cache) -> Limits:
        return limits(asked, device, level=level, cache=cache, substitute=substitute, clock_mhz=clock, end=end)

    ideal_s = terms_of(work, ideal_cache).overlapped_s
    overhead: Any = 0.0
    if launch_s is None:
        unknown["overhead"] = "the cost of a launch was not measured"
    else:
        overhead = work.launches * launch_s
    reached = [ideal_s, ideal_s + overhead]

    unclocked = sorted({rate.label for rate in device.rates if rate.clock_mhz is None})
    if clock_mhz is None:
        unknown["clock"] = "no clock was measured"
    elif unclocked:
        unknown["clock"] = f"{device.id} does not state the clock of {', '.join(unclocked)}"
    else:
        clock = clock_mhz
    reached.append(terms_of(work, ideal_cache).overlapped_s + overhead)

    terms = terms_of(work, cache)
    reached.append(terms.overlapped_s + overhead)

    for name, factor in (("tile quantisation", "tile_factor"), ("wave quantisation", "wave_factor")):
        if tiling is None:
            unknown[name] = "the tiles of the kernel are not known"
        else:
            terms = _units_scaled(terms, getattr(tiling, factor))
        reached.append(terms.overlapped_s + overhead)

    moving_s: Any = 0.0
    if moved_bytes is None:
        unknown["unfused traffic"] = "the implementation does not state the bytes it moves"
    else:
        moving_s = terms_of(Work(read_bytes={"scratch": moved_bytes}), cache).overlapped_s
    reached.append(np.maximum(terms.overlapped_s, moving_s) + overhead)

    reached.append(measured_s)
    steps = zip(PARTS, reached[:-1], reached[1:], strict=True)
    parts = {name: after - before for name, before, after in steps if name not in unknown}
    return Waterfall(ideal_s, measured_s, parts, unknown)


def _units_scaled(terms: Limits, factor: Any) -> Limits:
    """``terms`` whose execution units work ``factor`` times as long."""
    pairs = zip(terms.kinds, terms.seconds, strict=True)
    return dataclasses.replace(terms, seconds=tuple(s * factor if kind == "unit" else s for kind, s in pairs))
