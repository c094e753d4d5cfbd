"""Violations and their causes; tables of others."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical import audit
from ridgeline.analytical.audit_table import OTHER_UNITS, UNREADABLE, audit_table
from ridgeline.analytical.benchmark_table import AuditError
from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.device import Device
from ridgeline.analytical.limits import cache_bytes
from ridgeline.analytical.operators import attention_work, gemm_work

H100 = catalogue()["nvidia-h100-sxm5-80gb"]
A100 = catalogue()["nvidia-a100-sxm4-80gb"]
PHYSICAL = audit.physical(H100)


DENSE = dataclasses.replace(PHYSICAL, rates=tuple(r for r in PHYSICAL.rates if r.sparsity == "dense"))


def verdict(m: float, n: float, k: float, share: float, precision: str = "bfloat16", device: Device = PHYSICAL) -> str:
    """The cause for a time of ``share`` of the bound."""

    def work_of(other: str) -> Any:
        return gemm_work(np.array([m]), n, k, other)

    bound = audit.bound_s(work_of(precision), device)
    found = audit.judge(share * bound, bound, explanations=audit.explanations(work_of, precision, device))
    return found.cause(0)


@given(st.lists(st.tuples(st.floats(1e-9, 1.0), st.floats(1e-9, 1.0)), min_size=1, max_size=20).map(np.array))
def test_a_time_is_a_violation_exactly_under_its_bound(rows: Any) -> None:
    measured, bound = rows.T
    found = audit.judge(measured, bound)
    assert found.violations.tolist() == (measured * 1.05 < bound).tolist()
    assert sum(found.counts.values()) == len(rows)
    assert np.array_equal(found.impossible, found.violations)


@given(st.floats(1.0, 1e9), st.floats(1.0, 1e9))
def test_the_first_explanation_that_the_time_respects_is_the_cause(first: float, second: float) -> None:
    found = audit.judge([1.0], [1e10], explanations={"a": first, "b": second, "c": 0.5})
    expected = "a" if first <= 1.05 else "b" if second <= 1.05 else "c"
    assert found.cause(0) == expected


def test_causes() -> None:
    assert verdict(8192, 8192, 8192, 1.2) == audit.FINE
    assert verdict(16, 2048, 2048, 0.5) == audit.IN_CACHE
    assert verdict(8192, 8192, 8192, 0.6) == audit.SPARSE
    assert verdict(8192, 8192, 8192, 0.6, device=DENSE) == "wrong precision: possible in float8_e4m3fn"
    assert verdict(8192, 8192, 8192, 0.6, "float32") == "wrong precision: possible in tfloat32"
    assert verdict(8192, 8192, 8192, 0.1) == audit.UNEXPLAINED
    # Cold weights of 1 GB cannot come from a cache of 50 MB.
    assert verdict(1, 16384, 32768, 0.2) == audit.UNEXPLAINED


def test_only_a_cache_makes_a_violation_possible() -> None:
    work = gemm_work(np.array([16.0]), 2048.0, 2048.0, "bfloat16")
    assert work.bytes[0] < cache_bytes(PHYSICAL)
    bound = audit.bound_s(work, PHYSICAL)
    explained = audit.explanations(lambda p: gemm_work(np.array([16.0]), 2048.0, 2048.0, p), "bfloat16", PHYSICAL)
    found = audit.judge(0.5 * bound, bound, explanations=explained)
    assert found.violations.tolist() == [True]
    assert found.impossible.tolist() == [False]


@pytest.mark.parametrize(
    ("measured", "size", "cause"),
    [
        (1.0, 0.0, audit.BAD_SIZE),
        (1.0, float("nan"), audit.BAD_SIZE),
        (1.0, -4.0, audit.BAD_SIZE),
        (0.0, 4.0, audit.BAD_TIME),
        (float("nan"), 4.0, audit.BAD_TIME),
        (float("inf"), 4.0, audit.BAD_TIME),
        (1.0, 4.0, audit.FINE),
    ],
)
def test_bad_rows(measured: float, size: float, cause: str) -> None:
    assert audit.judge([measured], [0.5], sizes=[np.array([size])]).cause(0) == cause


def test_the_clock_of_physics_is_the_highest() -> None:
    rate = PHYSICAL.rate(next(r.key for r in H100.rates if r.a == "bfloat16"))
    assert rate is not None
    stated = H100.rate(rate.key)
    assert stated is not None
    if H100.boost_clock_mhz is not None:
        assert rate.clock_mhz == max(H100.boost_clock_mhz, stated.clock_mhz or 0.0)
    assert rate.value_per_s >= stated.value_per_s


@given(st.sampled_from([1e3, 1e6, 1e-3, 1e-6]), st.integers(0, 100))
@settings(max_examples=20)
def test_a_table_in_another_unit_is_recognised(factor: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bound = 10.0 ** rng.uniform(-4.5, -2.0, 200)
    measured = bound / rng.uniform(0.3, 0.95, 200)
    assert audit.unit_factor(measured, bound) is None
    assert audit.unit_factor(measured / factor, bound) == factor


def test_small_kernels_are_no_evidence_of_a_unit() -> None:
    bound = np.full(100, 1e-8)
    assert audit.unit_factor(np.full(100, 2e-5), bound) is None


SHAPES = [(m, n, 4096) for m in (1, 64, 1024, 8192) for n in (4096, 28672)]


def gemm_csv(path: Path, *, per_s: float = 1e6, name: str = "latency_us", extra: tuple[str, ...] = ()) -> Path:
    """Times at 70 % of the bound."""
    lines = [f"M,N,K,dtype,{name}"]
    for m, n, k in SHAPES:
        bound = float(audit.bound_s(gemm_work(float(m), float(n), float(k), "bfloat16"), PHYSICAL))
        lines.append(f"{m},{n},{k},bf16,{bound / 0.7 * per_s:.9g}")
    path.write_text("\n".join([*lines, *extra]) + "\n", encoding="utf-8")
    return path


def test_a_good_table(tmp_path: Path) -> None:
    found = audit_table(gemm_csv(tmp_path / "t.csv"), "gemm", H100)
    assert (found.rows, found.impossible, found.unit_factor) == (len(SHAPES), 0, None)
    assert found.median_of_bound == pytest.approx(0.7)
    assert found.columns == {"m": "M", "n": "N", "k": "K", "time": "latency_us", "precision": "dtype"}


def test_bad_rows_of_a_table_are_named_by_line(tmp_path: Path) -> None:
    extra = (
        "0,4096,4096,bf16,5.0",
        "8192,8192,8192,bf16,600",
        "8192,8192,8192,bf16,1",
        "64,many,4096,bf16,9",
        "8,8,8,bf16,-1",
    )
    found = audit_table(gemm_csv(tmp_path / "t.csv", extra=extra), "gemm", H100)
    first = len(SHAPES) + 2
    assert {f.line: f.cause for f in found.findings} == {
        first: audit.BAD_SIZE,
        first + 1: audit.SPARSE,
        first + 2: audit.UNEXPLAINED,
        first + 3: UNREADABLE,
        first + 4: audit.BAD_TIME,
    }
    assert found.impossible == 5
    assert all(f.impossible for f in found.findings)
    unreadable = found.findings[3]
    assert (unreadable.bound_s, unreadable.times_faster) == (None, None)


@pytest.mark.parametrize(("per_s", "factor"), [(1e3, 1e3), (1.0, 1e6), (1e9, 1e-3)])
def test_a_table_in_another_unit_says_so(tmp_path: Path, per_s: float, factor: float) -> None:
    found = audit_table(gemm_csv(tmp_path / "t.csv", per_s=per_s), "gemm", H100)
    assert found.unit_factor == factor
    assert set(found.counts) == ({OTHER_UNITS} if factor > 1.0 else set())
    right = {1e3: "ms", 1.0: "s", 1e9: "ns"}[per_s]
    assert audit_table(gemm_csv(tmp_path / "t.csv", per_s=per_s), "gemm", H100, time_unit=right).impossible == 0


def test_a_precision_that_the_device_lacks_is_not_judged(tmp_path: Path) -> None:
    table = gemm_csv(tmp_path / "t.csv", extra=("64,4096,4096,fp8,9",))
    found = audit_table(table, "gemm", A100)
    assert list(found.not_judged.values()) == [1]
    assert "has no matrix float8_e4m3fn rate" in next(iter(found.not_judged))
    table.write_text("m,n,k,time_us\n64,4096,4096,9\n", encoding="utf-8")
    with pytest.raises(AuditError, match="has no matrix float8_e4m3fn rate"):
        audit_table(table, "gemm", A100, values={"precision": "fp8"})


def test_attention_tables(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    full, causal = (
        1e3 * audit.bound_s(attention_work(4, 32, 8, 4096, 4096, 128, masked, "bfloat16"), PHYSICAL)
        for masked in (False, True)
    )
    rows = [(0, full), (0, causal * 1.1), (1, causal * 1.1)]
    lines = [f"4,32,8,4096,128,{masked},{time:.6g}" for masked, time in rows]
    table.write_text("\n".join(["b,heads,kv_heads,seqlen,d,causal,time (ms)", *lines]), encoding="utf-8")
    with pytest.raises(AuditError, match="how many queries there are: --set q_length=1 for decode"):
        audit_table(table, "attention", H100, values={"precision": "bf16"})
    found = audit_table(table, "attention", H100, values={"precision": "bf16", "q_length": "kv_length"})
    assert [(f.line, f.cause) for f in found.findings] == [(3, "wrong label: possible with a causal mask")]
    decode = audit_table(table, "attention", H100, values={"precision": "bf16", "q_length": "1"})
    assert decode.impossible == 0


def test_windows_and_the_caches_precision_are_read(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    work = attention_work(
        256.0, 8.0, 8.0, 1.0, 65536.0, 128.0, True, "bfloat16", kv_precision="float8_e4m3fn", window=32768
    )
    time_us = 1.2e6 * audit.bound_s(work, PHYSICAL)
    header = "batch,heads,kv_len,d,window_size,kv_cache_dtype,dtype,time_us"
    rows = [
        f"256,8,65536,128,{window},{kv},bf16,{time_us:.6g}"
        for window, kv in ((32768, "fp8"), (0, "fp8"), (32768, "bf16"))
    ]
    table.write_text("\n".join([header, *rows]), encoding="utf-8")
    found = audit_table(table, "attention", H100, values={"q_length": "1"})
    assert [f.line for f in found.findings] == [3, 4]


def test_stream_tables(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    moved = 8.0 * 2**27
    table.write_text(
        "function,n_elements,sizeof,min_runtime\n"
        f"Copy,{2**27},8,{2 * moved / 3.0e12}\nTriad,{2**27},8,{2 * moved / 3.0e12}\nDot,{2**27},8,1\n",
        encoding="utf-8",
    )
    found = audit_table(table, "stream", H100, time_unit="s")
    assert [(f.line, f.cause) for f in found.findings] == [(3, audit.UNEXPLAINED), (4, UNREADABLE)]


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("", {}, "no rows: a CSV file with a header is needed"),
        ("m,n,k,dtype,time_us\n", {}, "no rows"),
        ("m,m,k,dtype,time_us\n1,1,1,bf16,1\n", {}, "two columns are named 'm'"),
        ("m,n,dtype,time_us\n1,1,bf16,1\n", {}, "no column for k among m, n, dtype, time_us: --map COLUMN=k or --set"),
        ("m,n,k,dtype\n1,1,1,bf16\n", {}, "no column for time"),
        ("m,n,k,time_us\n1,1,1,1\n", {}, "no column for precision"),
        ("m,n,k,dtype,time\n1,1,1,bf16,1\n", {}, "column 'time' does not say its unit: --time-unit"),
        ("m,n,k,dtype,time\n1,1,1,bf16,1\n", {"time_unit": "h"}, "unknown unit of time 'h': one of s, ms, us, ns"),
        ("m,n,k,dtype,time_us\n1,1,1,bf17,1\n", {}, "unknown precision 'bf17'"),
        ("m,n,k,dtype,time_us\n1,1,1,bf16,1\n", {"mapping": {"q": "m"}}, "no column 'q': it has m, n, k"),
        ("m,n,k,dtype,time_us\n1,1,1,bf16,1\n", {"mapping": {"m": "rows"}}, "gemm has no parameter 'rows'"),
        ("m,n,k,dtype,time_us\n1,1,1,bf16,1\n", {"values": {"time": "1"}}, "no parameter 'time' to set"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path: Path, text: str, options: dict[str, Any], says: str) -> None:
    table = tmp_path / "t.csv"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(AuditError) as caught:
        audit_table(table, "gemm", H100, **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_files_and_operators_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"no\.csv"):
        audit_table(tmp_path / "no.csv", "gemm", H100)
    with pytest.raises(AuditError, match="no audit of operator 'sort': one of gemm, attention, stream"):
        audit_table(tmp_path / "no.csv", "sort", H100)
