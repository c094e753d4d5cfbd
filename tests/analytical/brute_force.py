"""Counting by doing: loops that tally every operation and every different element touched, and how to compare them.

A test walks the definition of an operator on a tiny shape with plain loops and tells a :class:`Tally` what it does;
``tally.work()`` is then what the closed form must equal.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from ridgeline.analytical.quantities import bits
from ridgeline.analytical.work import SPECIAL, RateKey, Work, fma_key


def grid(*lengths: int) -> itertools.product[tuple[int, ...]]:
    """Every tuple of indices below ``lengths``: nested loops in one."""
    return itertools.product(*map(range, lengths))


class Tally:
    """Operations by rate and different elements by stream, as a loop meets them."""

    def __init__(self) -> None:
        self.operations: dict[RateKey, int] = defaultdict(int)
        self._read: dict[str, dict[Any, int]] = defaultdict(dict)
        self._written: dict[str, dict[Any, int]] = defaultdict(dict)

    def vector(self, precision: str, count: int = 1) -> None:
        """Additions, products and comparisons of the vector unit."""
        self.operations[fma_key(precision, "vector")] += count

    def matrix(self, precision: str, count: int = 2) -> None:
        """Operations of the matrix unit; a multiply-add is two."""
        self.operations[fma_key(precision)] += count

    def special(self, count: int = 1) -> None:
        """Exponentials and their kin."""
        self.operations[SPECIAL] += count

    def read(self, stream: str, precision: str, *element: Any) -> None:
        """An element is read; again is free."""
        self._read[stream][(*element, precision)] = bits(precision)

    def write(self, stream: str, precision: str, *element: Any) -> None:
        """An element is written; again is free."""
        self._written[stream][(*element, precision)] = bits(precision)

    def work(self, launches: int = 1) -> Work:
        """What was tallied."""
        return Work(
            dict(self.operations),
            {stream: sum(elements.values()) / 8 for stream, elements in self._read.items()},
            {stream: sum(elements.values()) / 8 for stream, elements in self._written.items()},
            launches,
        )


def counts(work: Work) -> dict[str, Any]:
    """All figures of a Work under flat names."""
    return {
        **{f"operations {key.unit} {key.label}": value for key, value in work.operations.items()},
        **{f"read {stream}": value for stream, value in work.read_bytes.items()},
        **{f"written {stream}": value for stream, value in work.written_bytes.items()},
        "flop": work.flop,
        "bytes": work.bytes,
        "link": work.link_bytes,
    }


def assert_same(closed_form: Work, tally: Tally, launches: int = 1) -> None:
    """The closed form equals the count, figure by figure; figures of zero may be left out of either."""
    expected = {name: value for name, value in counts(tally.work(launches)).items() if value}
    found = {name: value for name, value in counts(closed_form).items() if value}
    assert found == pytest.approx(expected, rel=1e-12)
    assert closed_form.launches == launches


def counted_flop(function: Callable[[], Any]) -> int:
    """What torch's counter makes of ``function``."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        function()
    return int(counter.get_total_flops())


def shaped(*shape: int) -> Any:
    """A float32 tensor without memory: torch counts what is done to it, and does nothing."""
    import torch

    return torch.empty(shape, device="meta")


Formula = Callable[..., Work]


def assert_grows(formula: Formula, small: Mapping[str, int], data: st.DataObject, never: frozenset[str]) -> None:
    """No figure shrinks as any one size grows; ``never`` names sizes of which that is not true."""
    name = data.draw(st.sampled_from(sorted(set(small) - never)))
    large = {**small, name: small[name] + data.draw(st.integers(1, 64))}
    before, after = counts(formula(**small)), counts(formula(**large))
    assert before.keys() == after.keys()
    for key in before:
        assert before[key] >= 0
        assert after[key] >= before[key] * (1.0 - 1e-12), f"{key} shrinks as {name} grows"


def assert_columns_agree(formula: Formula, rows: list[Mapping[str, int]]) -> None:
    """Columns of float64 and of int64 give, row by row, what numbers give."""
    of_numbers = [counts(formula(**row)) for row in rows]
    for dtype in (np.float64, np.int64):
        of_columns = counts(formula(**{name: np.array([row[name] for row in rows], dtype) for name in rows[0]}))
        for i, numbers in enumerate(of_numbers):
            assert of_columns.keys() == numbers.keys()
            for name, value in numbers.items():
                assert isinstance(float(value), float)
                assert np.broadcast_to(of_columns[name], len(rows))[i] == pytest.approx(value, rel=1e-12), name
