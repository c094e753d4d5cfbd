"""Limits: a time per unit, memory level and link; overlapped and serial; overhead, power and clock."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.catalogue import catalogue, device_from_dict
from ridgeline.analytical.ceilings import Link, Source
from ridgeline.analytical.device import Device
from ridgeline.analytical.limits import (
    LimitError,
    PowerRoof,
    cache_bytes,
    limits,
    native_rate,
    overhead_s,
    with_power_roof,
)
from ridgeline.analytical.operators import attention_work, gemm_work
from ridgeline.analytical.roofline import bound
from ridgeline.analytical.work import RateKey, Work, fma_key

SOURCE = {"title": "a data sheet", "detail": "table 1"}
H100 = catalogue()["nvidia-h100-sxm5-80gb"]
A100 = catalogue()["nvidia-a100-sxm4-80gb"]


def rate(unit: str, precision: str, value: float, **options: Any) -> dict[str, Any]:
    key = fma_key(precision, unit)
    facts = {"unit": unit, "a": key.a, "b": key.b, "accumulator": key.accumulator, "kind": "datasheet"}
    return {**facts, "low_per_s": value, "value_per_s": value, "high_per_s": value, "source": SOURCE, **options}


def bandwidth(level: str, value: float) -> dict[str, Any]:
    interval = {"low_per_s": value * 0.9, "value_per_s": value, "high_per_s": value * 1.1}
    return {"level": level, **interval, "kind": "measured", "source": SOURCE}


def toy(**changes: Any) -> Device:
    """100 float32, 400 bfloat16 operations and 10 bytes a second from DRAM; 50 from a cache of 1000 bytes."""
    facts = {
        "id": "toy",
        "name": "Toy",
        "vendor": "none",
        "kind": "gpu",
        "memory": [{"name": "L2", "capacity_bytes": 1e3}, {"name": "DRAM", "capacity_bytes": 1e9}],
        "rates": [
            rate("vector", "float32", 100.0, clock_mhz=1000.0),
            rate("matrix", "bfloat16", 400.0, clock_mhz=1000.0),
            rate("matrix", "bfloat16", 800.0, sparsity="2:4", clock_mhz=1000.0),
        ],
        "bandwidths": [bandwidth("DRAM", 10.0), bandwidth("L2", 50.0)],
        **changes,
    }
    return device_from_dict(facts, "toy.toml")


def scaled(device: Device, factor: float) -> Device:
    """``device`` with every ceiling ``factor`` times as high."""

    def up(ceiling: Any) -> Any:
        names = ("low_per_s", "value_per_s", "high_per_s")
        return dataclasses.replace(ceiling, **{name: getattr(ceiling, name) * factor for name in names})

    return dataclasses.replace(device, rates=tuple(map(up, device.rates)), bandwidths=tuple(map(up, device.bandwidths)))


def work(matrix: Any = 0.0, vector: Any = 0.0, moved: Any = 0.0, **options: Any) -> Work:
    return Work(
        operations={fma_key("bfloat16"): matrix, fma_key("float32", "vector"): vector},
        read_bytes={"weights": moved},
        **options,
    )


counts = st.floats(1.0, 1e15)
columns = st.lists(st.tuples(counts, counts, counts), min_size=1, max_size=8).map(np.array)


@given(columns)
def test_a_column_equals_its_numbers(rows: Any) -> None:
    together = limits(work(rows[:, 0], rows[:, 1], rows[:, 2]), toy(), cache="warm")
    for i, row in enumerate(rows.tolist()):
        alone = limits(work(*row), toy(), cache="warm")
        assert alone.names == together.names
        assert [float(term[i]) for term in together.seconds] == [float(term) for term in alone.seconds]
        assert together.overlapped_s[i] == alone.overlapped_s
        assert together.serial_s[i] == alone.serial_s
        assert together.bound_by[i] == alone.bound_by


@given(counts, counts, counts, st.floats(1.0, 100.0))
def test_overlapped_is_the_least_and_serial_the_most(matrix: float, vector: float, moved: float, factor: float) -> None:
    found = limits(work(matrix, vector, moved), toy())
    assert found.overlapped_s <= found.serial_s <= len(found.seconds) * found.overlapped_s * (1 + 1e-12)
    faster = limits(work(matrix, vector, moved), scaled(toy(), factor))
    assert faster.overlapped_s <= found.overlapped_s * (1 + 1e-12)
    assert faster.serial_s <= found.serial_s * (1 + 1e-12)
    more = limits(work(matrix * factor, vector, moved * factor), toy())
    assert more.overlapped_s >= found.overlapped_s


@given(counts, counts, counts)
def test_a_cache_only_ever_lowers_the_bound(matrix: float, vector: float, moved: float) -> None:
    cold, warm = (limits(work(matrix, vector, moved), toy(), cache=c) for c in ("cold", "warm"))  # type: ignore[arg-type]
    assert warm.overlapped_s <= cold.overlapped_s
    assert limits(work(matrix, vector, moved), toy(), end="high").overlapped_s <= cold.overlapped_s
    assert limits(work(matrix, vector, moved), toy(), end="low").overlapped_s >= cold.overlapped_s


@given(st.floats(1.0, 1e5), st.floats(1.0, 1e5), st.floats(1.0, 1e5))
@settings(max_examples=50)
def test_it_is_the_bound_of_a_measured_record(m: float, n: float, k: float) -> None:
    asked = gemm_work(m, n, k, "bfloat16")
    one = bound(asked, H100, "HBM")
    assert one is not None
    found = limits(asked, H100, level="HBM")
    assert found.overlapped_s == pytest.approx(one.seconds, rel=1e-12)
    assert found.bound_by == one.bound_by


def test_by_hand() -> None:
    found = limits(work(8000.0, 1000.0, 500.0), toy())
    assert dict(zip(found.names, found.seconds, strict=True)) == {
        "matrix bfloat16": 20.0,
        "vector float32": 10.0,
        "L2": 10.0,
        "DRAM": 50.0,
    }
    assert (found.overlapped_s, found.serial_s, found.bound_by) == (50.0, 90.0, "DRAM")
    assert (found.of("unit"), found.of("memory"), found.of("link")) == (20.0, 50.0, 0.0)


def test_bytes_that_fit_the_cache_may_come_from_it() -> None:
    found = limits(work(0.0, 0.0, np.array([500.0, 1000.0, 3000.0])), toy(), cache="warm")
    assert "DRAM or L2" in found.names
    assert found.overlapped_s.tolist() == [10.0, 20.0, 200.0]
    assert found.bound_by.tolist() == ["L2", "L2", "DRAM or L2"]


def test_a_level_is_where_the_bytes_come_from() -> None:
    assert limits(work(0.0, 0.0, 500.0), toy(), level="L2").overlapped_s == 10.0
    with pytest.raises(LimitError, match=r"no memory level 'L9': one of L2, DRAM"):
        limits(work(0.0, 0.0, 500.0), toy(), level="L9")


def test_precisions_of_one_unit_add_up() -> None:
    device = toy(rates=[rate("matrix", "bfloat16", 400.0), rate("matrix", "int8", 800.0)])
    found = limits(Work(operations={fma_key("bfloat16"): 400.0, fma_key("int8"): 1600.0}), device)
    assert found.names == ("matrix bfloat16 + int8",)
    assert found.overlapped_s == 3.0


def test_a_precision_that_the_device_lacks_is_refused_and_served_only_when_asked() -> None:
    asked = Work(operations={fma_key("float8_e4m3fn"): 800.0})
    says = r"toy has no matrix float8_e4m3fn rate \(it states matrix bfloat16, .*\); matrix bfloat16 holds"
    with pytest.raises(LimitError, match=says):
        limits(asked, toy())
    served = limits(asked, toy(), substitute=True)
    assert served.overlapped_s == 2.0
    assert served.served_by == {"matrix float8_e4m3fn": "matrix bfloat16"}
    with pytest.raises(LimitError, match="no matrix float64 rate"):
        limits(Work(operations={fma_key("float64"): 1.0}), toy())
    with pytest.raises(LimitError, match="states no ceiling for matrix float64"):
        limits(Work(operations={fma_key("float64"): 1.0}), toy(), substitute=True)


def test_a_vector_unit_does_the_products_of_a_device_without_a_matrix_unit() -> None:
    """A matrix product in float32 on float32 lanes is the precision asked for: no substitute."""
    assert limits(Work(operations={fma_key("float32"): 800.0}), toy()).bound_by == "vector float32"


def test_sparse_serves_only_who_asks() -> None:
    dense = native_rate(toy(), fma_key("bfloat16"))
    sparse = native_rate(toy(), dataclasses.replace(fma_key("bfloat16"), sparsity="2:4"))
    assert dense is not None and dense.value_per_s == 400.0
    assert sparse is not None and sparse.value_per_s == 800.0
    with pytest.raises(LimitError, match="no matrix int8 2:4 rate"):
        native_rate(toy(), dataclasses.replace(fma_key("int8"), sparsity="2:4"))


def test_what_no_ceiling_speaks_of_is_named() -> None:
    special = RateKey("special", "float32", "float32", "float32")
    found = limits(Work(operations={special: 5.0}, read_bytes={"kv": 500.0}), toy())
    assert found.overlapped_s == 50.0
    assert found.left_out == ("special float32",)
    bare = toy(bandwidths=[bandwidth("L2", 50.0)])
    assert limits(work(0.0, 0.0, 500.0), bare).left_out == ("bytes of DRAM",)


def test_links() -> None:
    passing = work(400.0, 0.0, 10.0, link_bytes=np.array([0.0, 600.0]))
    with pytest.raises(LimitError, match="toy states no link"):
        limits(passing, toy())
    link = Link(name="nvlink", per_direction_bytes_per_s=20.0, kind="datasheet", source=Source(title="a data sheet"))
    found = limits(passing, dataclasses.replace(toy(), links=(link,)))
    assert found.overlapped_s.tolist() == [1.0, 30.0]
    assert found.bound_by.tolist() == ["matrix bfloat16", "nvlink"]


def test_overhead_is_a_time_per_launch_and_per_layer() -> None:
    assert overhead_s(10, 2e-6) == pytest.approx(20e-6)
    assert overhead_s(np.array([1.0, 10.0]), 2e-6, 4, 1e-6) == pytest.approx([6e-6, 24e-6])


@given(st.floats(1e-13, 1e-9), st.floats(0.0, 1e-9), st.floats(1e12, 1e15), st.floats(1e6, 1e11))
def test_power_roof(j_per_flop: float, j_per_byte: float, flop: float, moved: float) -> None:
    asked = work(flop, 0.0, moved)
    roof = PowerRoof(limit_w=700.0, static_w=100.0, j_per_flop=j_per_flop, j_per_byte=j_per_byte)
    plain = limits(asked, H100)
    roofed = with_power_roof(plain, asked, roof)
    needed_s = (j_per_flop * flop + j_per_byte * moved) / 600.0
    assert roofed.overlapped_s == pytest.approx(max(plain.overlapped_s, needed_s))
    assert roofed.overlapped_s <= roofed.serial_s
    assert roofed.serial_s == pytest.approx(max(plain.serial_s, needed_s))
    assert (roofed.bound_by == "power") == (needed_s > plain.overlapped_s)


def test_a_power_roof_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"limit_w > static_w >= 0, not 100 W and 100 W"):
        PowerRoof(limit_w=100.0, static_w=100.0, j_per_flop=1e-12, j_per_byte=0.0)
    with pytest.raises(ValueError, match="must not be negative"):
        PowerRoof(limit_w=100.0, static_w=10.0, j_per_flop=-1e-12, j_per_byte=0.0)


def test_a_slower_clock_makes_arithmetic_slower_and_memory_not() -> None:
    found = limits(work(8000.0, 1000.0, 500.0), toy(), clock_mhz=np.array([1000.0, 500.0]))
    terms = dict(zip(found.names, found.seconds, strict=True))
    assert terms["matrix bfloat16"].tolist() == [20.0, 40.0]
    assert terms["vector float32"].tolist() == [10.0, 20.0]
    assert terms["DRAM"] == 50.0
    unknown = toy(rates=[rate("matrix", "bfloat16", 400.0)])
    assert limits(work(8000.0, 0.0, 500.0), unknown, clock_mhz=500.0).left_out[0] == "matrix bfloat16"
    with pytest.raises(ValueError, match="positive number of MHz, not 0"):
        limits(work(8000.0), toy(), clock_mhz=np.array([1000.0, 0.0]))


def test_cache_bytes_counts_every_unit_of_a_cache_per_core() -> None:
    memory = [{"name": "L2", "capacity_bytes": 1e3, "per_core": True}, {"name": "DRAM", "capacity_bytes": 1e9}]
    assert cache_bytes(toy(memory=memory, unit_count=4)) == 4e3
    assert cache_bytes(toy(memory=[{"name": "DRAM", "capacity_bytes": 1e9}], bandwidths=[])) == 0.0


def llama_3_8b(batch: Any, queries: float, keys: float) -> Work:
    """Llama-3-8B in bfloat16 with its norms, rope and activations left out; the head sees one token per sequence."""
    tokens = batch * queries
    layer = (
        gemm_work(tokens, 6144.0, 4096.0, "bfloat16")
        + gemm_work(tokens, 4096.0, 4096.0, "bfloat16")
        + gemm_work(tokens, 28672.0, 4096.0, "bfloat16")
        + gemm_work(tokens, 4096.0, 14336.0, "bfloat16")
        + attention_work(batch, 32.0, 8.0, queries, keys, 128.0, True, "bfloat16")
    )
    return layer * 32.0 + gemm_work(batch, 128256.0, 4096.0, "bfloat16")


def test_llama_3_8b_by_hand() -> None:
    """peers-analytical.md, section 2: 29.7 TFLOP and 15.28, 23.6 GB of weights and KV on H100 and A100."""
    prefill = llama_3_8b(1.0, 2048.0, 2048.0)
    assert prefill.flop == pytest.approx(29.7e12, rel=0.002)
    decode = llama_3_8b(np.array([1.0, 32.0]), 1.0, 2048.0)
    weights_and_kv = decode.read_bytes["weights"] + decode.read_bytes["kv"]
    assert weights_and_kv == pytest.approx([15.28e9, 23.6e9], rel=0.001)
    for device, prefill_ms, decode_ms in ((H100, 30.0, [4.56, 7.04]), (A100, 95.1, [7.49, 11.6])):
        assert 1e3 * limits(prefill, device).overlapped_s == pytest.approx(prefill_ms, rel=0.003)
        # The hand count leaves the activations out: 0.4 % of the bytes at batch 32.
        only = dataclasses.replace(decode, read_bytes={"weights": weights_and_kv}, written_bytes={})
        assert 1e3 * limits(only, device).overlapped_s == pytest.approx(decode_ms, rel=0.003)
        assert limits(decode, device).bound_by.tolist() == ["HBM", "HBM"]


def test_the_roofline_imports_nothing_heavy() -> None:
    heavy = ("torch", "pydantic", "pandas", "scipy", "pyarrow", "numba", "sklearn")
    code = (
        "import sys, ridgeline.analytical.roofline, ridgeline.analytical.limits\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
