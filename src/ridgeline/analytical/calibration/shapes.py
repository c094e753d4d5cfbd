"""Rows of a table as a model sees them: bounds on a device, the site that is left out together, and what a tile sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical.device import Device
from ridgeline.analytical.limits import Limits, cache_bytes, limits
from ridgeline.analytical.operators.attention import attention_work
from ridgeline.analytical.operators.gemm import gemm_work
from ridgeline.analytical.work import Work, fma_key

_TILES = ((64, 64), (128, 128), (128, 256), (256, 128), (256, 256))
"""Tiles of the output that matrix kernels use; which one a library takes is not published, so each is a feature."""


WIDE = 32
"""Query heads on one KV head beyond which TensorRT-LLM's decode takes a kernel ten times as slow, on every device: it works on
each query head by itself and reaches 6 to 11 % of the vector units' float32 peak on all of eight devices, from L40S to GB300, where
its share of the memory's bandwidth is 12 % on the one and 1 % on the other."""
ON_VECTOR_UNITS = "on vector units"
"""In the kind of that kernel."""
ONE_BY_ONE = "one by one"
"""In the kind of a decode kernel that works on each query head by itself, though several share a KV head: FlashAttention 2 with a
window, 4.5 us for each on an L40S however short its cache is."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of one family of kernels on one device; columns of one length."""

    family: str
    seconds: Any
    """Measured."""
    compute_s: Any
    memory_s: Any
    """The bound's seconds on the execution units, and in main memory."""
    warm_bound_s: Any
    """The bound where the last-level cache holds all that it can of the working set before the call."""
    working_set_bytes: Any
    vector_s: Any
    """The arithmetic's seconds on the vector units in float32; NaN where the device states no rate."""
    items: Any
    """Items of attention's work (a sequence's KV head) for each multiprocessor; zero for a GEMM."""
    software: Any
    """Backend that ran the kernel; object column."""
    kernels: Any
    """Kind of kernel that a call falls to, where kinds have constants of their own; object column. One for GEMM; of attention
    one for each software, apart where a window masks, beyond :data:`WIDE` query heads on a KV head, and :data:`ONE_BY_ONE`."""
    site: Any
    """Base-2 logarithms of the sizes that a model fixes (n, k; the heads), float64 [rows, sizes]."""
    load: Any
    """Base-2 logarithms of those that vary with the load (m; batch and lengths), float64 [rows, sizes]."""
    features: Any
    """What boosting sees beside those, float64 [rows, features]."""

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def bound_s(self) -> Any:
        """The bound: arithmetic and memory overlap."""
        return np.maximum(self.compute_s, self.memory_s)

    def terms(self, kind: str) -> tuple[Any, Any, Any]:
        """:func:`kind_terms` of these rows."""
        group = 2.0 ** (self.site[:, 0] - self.site[:, 1]) if self.family != "gemm" else 1.0
        return kind_terms(kind, self.compute_s, self.vector_s, self.memory_s, self.items, group)

    def take(self, rows: Any) -> Rows:
        """The rows that a boolean or an index column selects."""
        return dataclasses.replace(
            self, **{f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self) if f.name != "family"}
        )


def work_of(family: str, columns: Mapping[str, Any], precision: str, stored: str | None = None) -> Work:
    """Work of every row of a table of ``family``, in columns.

    Raises:
        ValueError: for a family that is none of ours.
    """
    c = columns
    if family == "gemm":
        output = "bfloat16" if precision != "int8" else "int32"
        return gemm_work(c["m"], c["n"], c["k"], precision, weight=stored, output=output)
    if family not in ("attention prefill", "attention decode"):
        raise ValueError(f"no family {family!r}: one of gemm, attention prefill, attention decode")
    window = np.asarray(c["window"], dtype=np.float64)
    kv_length = np.asarray(c["kv_length"], dtype=np.float64)
    return attention_work(
        c["batch"], c["q_heads"], c["kv_heads"], c["q_length"], kv_length, c["head_dim"], True, precision,
        kv_precision=stored, window=np.where(window > 0.0, window, kv_length),
    )  # fmt: skip


def limits_of(family: str, columns: Mapping[str, Any], device: Device, precision: str) -> tuple[Limits, Limits, Any]:
    """(limits, limits with a warm cache, working set in bytes) of every row of a table in one precision.

    Special functions are left out of attention's limits: their rates are assumed, not from a data sheet.
    """
    work = work_of(family, columns, precision)
    work = dataclasses.replace(work, operations={k: v for k, v in work.operations.items() if k.unit == "matrix"})
    return limits(work, device), limits(work, device, cache="warm"), work.bytes


def rows_of(family: str, columns: Mapping[str, Any], device: Device, precision: str) -> Rows:
    """The rows of a table in one precision on ``device``.

    Args:
        family: of :data:`~ridgeline.analytical.calibration.public_tables.FILES`.
        columns: sizes by our names, ``seconds`` (zeros where they are to be predicted) and ``software``.
        device: with its ceilings.
        precision: of operands and stored values.

    Raises:
        LimitError: where the device lacks the precision.
    """
    terms, warm, working_set = limits_of(family, columns, device, precision)
    shape = np.shape(columns["seconds"])
    compute, memory = (
        np.broadcast_to(np.asarray(terms.of(kind), dtype=np.float64), shape) for kind in ("unit", "memory")
    )
    units = float(device.unit_count or 1)
    if family == "gemm":
        site: tuple[str, ...] = ("n", "k")
        load: tuple[str, ...] = ("m",)
        items = np.zeros(shape)
        features = _gemm_features(columns, units)
    else:
        site, load = (("q_heads", "kv_heads", "head_dim", "window"), ("batch", "q_length", "kv_length"))
        items = np.broadcast_to(np.asarray(columns["batch"] * columns["kv_heads"] / units, dtype=np.float64), shape)
        features = _attention_features(columns, units)
    balance = np.log2(np.maximum(compute, 1e-12) / np.maximum(memory, 1e-12))
    return Rows(
        family=family,
        seconds=np.asarray(columns["seconds"], dtype=np.float64),
        compute_s=compute,
        memory_s=memory,
        warm_bound_s=np.broadcast_to(np.asarray(warm.overlapped_s, dtype=np.float64), shape),
        working_set_bytes=np.broadcast_to(np.asarray(working_set, dtype=np.float64), shape),
        vector_s=compute * slower_on_vector_units(device, precision),
        items=items,
        kernels=kernel_kinds(family, columns, columns["software"], columns.get("kernel")),
        software=np.asarray(columns["software"], dtype=object),
        site=np.stack([log2_sizes(columns[name]) for name in site], axis=1),
        load=np.stack([log2_sizes(columns[name]) for name in load], axis=1),
        features=np.column_stack([balance, np.log2(working_set / max(cache_bytes(device), 1.0)), *features]),
    )


def kernel_kinds(family: str, columns: Mapping[str, Any], software: Any, kernels: Any = None) -> Any:
    """Kind of kernel of every row: an object column of ``software``'s length.

    Args:
        family: of kernels.
        columns: sizes of attention, columns of the same length.
        software: backend of each row; object column.
        kernels: what the table calls the kernel of each row, where it does.
    """
    software = np.asarray(software, dtype=object)
    if family == "gemm":
        return np.full(len(software), "gemm", dtype=object)
    groups = np.broadcast_to(np.asarray(columns["q_heads"]) / np.asarray(columns["kv_heads"]), software.shape)
    window = np.broadcast_to(np.asarray(columns["window"]), software.shape)
    named = np.full(len(software), "", dtype=object) if kernels is None else kernels

    decode = family == "attention decode"

    def kind(software: str, group: float, window: float, kernel: str) -> str:
        windowed = " windowed" if window > 0 else ""
        if decode and windowed and "fa2" in kernel:
            return f"{software} {ONE_BY_ONE}{windowed}"
        if decode and software == "trtllm" and group > WIDE:
            return f"{software} {ON_VECTOR_UNITS}{windowed}"
        return f"{software}{' wide' if group > WIDE else ''}{windowed}"

    return np.array([kind(*each) for each in zip(software, groups, window, named, strict=True)], dtype=object)


def slower_on_vector_units(device: Device, precision: str) -> float:
    """Rate of a product in ``precision`` over that of the vector units in float32; NaN where the device does not state both."""
    product, vector = device.rate(fma_key(precision)), device.rate(fma_key("float32", "vector"))
    return float("nan") if product is None or vector is None else product.value_per_s / vector.value_per_s


def one_by_one(kind: str) -> str:
    """The kind that stands for ``kind`` where the device's kernel works on query heads one by one."""
    software, *others = kind.split()
    return f"{software} {ONE_BY_ONE}{' windowed' if 'windowed' in others else ''}"


def kind_terms(kind: str, compute_s: Any, vector_s: Any, memory_s: Any, items: Any, group: Any) -> tuple[Any, Any, Any]:
    """(arithmetic seconds, memory seconds, items) that the constants of a kind of kernel are constants of.

    Args:
        kind: of :func:`kernel_kinds`; empty for all together.
        compute_s, vector_s, memory_s, items: as in :class:`Rows`.
        group: query heads on one KV head.
    """
    if ON_VECTOR_UNITS in kind:
        # Its bytes pass in a fraction of that time.
        return vector_s, 0.0 * memory_s, items * group
    return compute_s, memory_s, items * group if ONE_BY_ONE in kind else items


def log2_sizes(values: Any) -> Any:
    """Base-2 logarithms; a window of zero (none) lies beyond any length."""
    values = np.asarray(values, dtype=np.float64)
    return np.where(values > 0.0, np.log2(np.maximum(values, 1.0)), 20.0)


def _gemm_features(c: Mapping[str, Any], units: float) -> list[Any]:
    m, n, k = (np.asarray(c[name], dtype=np.float64) for name in ("m", "n", "k"))
    found = [np.log2(m * n), np.log2(m * n * k), np.remainder(m, 8.0), np.remainder(m, 128.0), np.remainder(n, 256.0)]
    for tile_m, tile_n in _TILES:
        waves = np.ceil(m / tile_m) * np.ceil(n / tile_n) / units
        found += [np.log2(waves), waves / np.ceil(waves)]
    return found


def _attention_features(c: Mapping[str, Any], units: float) -> list[Any]:
    batch, q_heads, kv_heads, q, kv, dim = (
        np.asarray(c[name], dtype=np.float64)
        for name in ("batch", "q_heads", "kv_heads", "q_length", "kv_length", "head_dim")
    )
    window = np.asarray(c["window"], dtype=np.float64)
    seen = np.where(window > 0.0, np.minimum(window, kv), kv)
    groups = q_heads / kv_heads
    blocks = batch * q_heads * np.ceil(q / 128.0) / units
    per_kv = batch * kv_heads / units
    packed = batch * kv_heads * np.ceil(q * groups / 64.0) / units
    found = [np.log2(seen), np.log2(groups), np.log2(batch * kv_heads * kv * dim), np.log2(batch * q_heads * q * dim)]
    found.append(np.mod(np.log2(groups), 1.0))  # kernels for groups of 2^n heads; others fall back to slower ones
    for waves in (blocks, per_kv, packed):
        found += [np.log2(waves), waves / np.ceil(waves)]
    return found
