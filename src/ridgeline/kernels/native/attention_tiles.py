"""How dense attention in C++ is cut up: two levels of tiles, and splits of the keys where there are too few rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ridgeline.kernels.native.build import NativeCallError

DIRECT_ROWS = 8
"""Rows of a KV head up to which keys and values are used where they lie instead of being packed."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a call. ``kv_length``: keys of a sequence, the most that any has where lengths are given."""

    batch: int
    q_heads: int
    kv_heads: int
    q_length: int
    kv_length: int
    head_dim: int

    @property
    def rows(self) -> int:
        """Rows of one KV head."""
        return self.q_heads // self.kv_heads * self.q_length


@dataclass(frozen=True)
class Tiles:
    """Two levels of tiles: ``outer`` keys are packed at once for ``rows`` rows, ``inner`` keys are scored at once."""

    rows: int
    outer: int
    inner: int

    def check(self, columns: int) -> None:
        """Raises NativeCallError where these are no tiles for panels of so many columns."""
        if self.rows < 1 or self.inner < 1 or self.inner % columns or self.outer < 1 or self.outer % self.inner:
            raise NativeCallError(
                f"tiles need rows of at least 1, inner a multiple of {columns} and outer a multiple of inner; "
                f"not rows {self.rows}, outer {self.outer}, inner {self.inner}"
            )


def resident_bytes(tiles: Tiles, head_dim: int) -> int:
    """What a thread comes back to for every outer block: its packed keys and values, and the rows' queries and sums.

    The cache model of the tiles: the second-level cache should hold it.
    """
    return 4 * 2 * head_dim * (tiles.outer + tiles.rows)


ITEMS_A_THREAD = 4
"""Work items for each thread, where there are as many: the last to end then leaves little of its time to the others."""

DECODE_TILES = Tiles(rows=DIRECT_ROWS, outer=32, inner=32)


def default_tiles(shape: Shape, threads: int) -> Tiles:
    """Tiles of a few work items a thread: the more rows an item has, the rarer keys and values are packed.

    Of 96, 192 and 384 rows the last was fastest on a Zen 3 core (5 to 15 % over the first); 768 were no faster.
    """
    if shape.rows <= DIRECT_ROWS:
        return DECODE_TILES
    heads = shape.batch * shape.kv_heads
    rows = next((r for r in (384, 192) if heads * -(-shape.rows // r) >= ITEMS_A_THREAD * threads), 96)
    return Tiles(rows=rows, outer=256, inner=128)


def default_splits(blocks: int, kv_length: int, inner: int, threads: int) -> int:
    """Parts of the keys that give every thread the same share, where there are too few blocks of rows for that.

    None is shorter than two inner tiles.
    """
    if blocks >= ITEMS_A_THREAD * threads or blocks % threads == 0:
        return 1
    even = threads // math.gcd(blocks, threads)
    return max(1, min(even, kv_length // (2 * inner)))


def tiles_from(config: Mapping[str, Any], default: Tiles) -> Tiles:
    """Tiles with what a tuned configuration names: ``rows``, ``outer``, ``inner``."""
    return Tiles(**{name: int(config.get(name, getattr(default, name))) for name in ("rows", "outer", "inner")})
