"""Compiled code as it is stored, what follows from it, and what counts as worse from night to night."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from synthetic import make_manifest

from ridgeline.results.compile import CompiledCode, derived, newest_by_identity, regressions
from ridgeline.results.deposit import deposit
from ridgeline.results.pack import add, pack
from ridgeline.results.store import Store

# An attention loop of a 128 x 128 tile with d = 128 on Hopper: matrix 2048 cycles, exponentials 1024, multiply-adds 512.
LOOP = {"special": 16384.0, "float32": 65536.0, "instruction": 65536.0}


def code(**overrides: Any) -> CompiledCode:
    values: dict[str, Any] = {
        "record_id": "r0",
        "run_id": "20261127T000000Z-00000000",
        "started_at": "2026-11-27T00:00:00+00:00",
        "target": "sm_90",
        "label": "attention prefill softmax bf16 d128 128x128",
        "kernel": "flash_kernel",
        "asked_warps": 8,
        "num_stages": 2,
        "compiler": "triton 3.8.0",
        "status": "ok",
        "num_warps": 8,
        "registers": 168,
        "spills_bytes": 0,
        "shared_bytes": 98304,
        "code_bytes": 20000,
        "matrix_instructions": ("HGMMA.64x128x16.F32.BF16",),
        "asynchronous_copies": {"LDGSTS": 32},
        "instructions": {"HGMMA": 32, "MUFU": 80},
        "main_loop": {"HGMMA": 16, "MUFU": 40},
        "loop_results": LOOP,
        "loop_matrix_flop": {"bfloat16": 4.0 * 128**3},
    }
    return CompiledCode(**{**values, **overrides})


FAILURE = {
    "status": "failed", "reason": "the compiler died", "num_warps": None, "registers": None, "spills_bytes": None,
    "shared_bytes": None, "code_bytes": None, "matrix_instructions": (), "asynchronous_copies": {}, "instructions": {},
    "main_loop": {}, "loop_results": {}, "loop_matrix_flop": {},
}  # fmt: skip


def test_what_follows_from_a_record() -> None:
    row = derived(code())
    assert row["loop_cycles"] == {"matrix": 2048, "fma": 512, "alu": 0, "special": 1024, "load_store": 0, "issue": 512}
    assert (row["overlapped_share"], row["issue_bound_by"]) == (1.0, "matrix")
    assert row["serial_share"] == pytest.approx(2048 / 3584)
    assert (row["blocks_per_multiprocessor"], row["occupancy"]) == (1, 0.125)
    assert row["occupancy_limited_by"] == ["registers"]
    assert row["bound_reason"] == ""


def test_a_bound_that_cannot_be_had_says_why() -> None:
    for more, reason in (
        ({"loop_reason": "warps are specialised"}, "warps are specialised"),
        ({"target": "sm_75"}, "no rates of sm_75 are known"),
        ({"loop_matrix_flop": {"int4": 1.0}}, "no rate of the matrix unit on int4"),
        (FAILURE, "it does not compile"),
    ):
        row = derived(code(**more))
        assert reason in row["bound_reason"]
        assert row["overlapped_share"] is row["serial_share"] is row["overlapped_cycles"] is None
    assert derived(code(target="sm_75"))["occupancy"] is None


def test_a_failure_is_no_number() -> None:
    assert code(**FAILURE).occupancy is None
    for more in ({"reason": ""}, {"registers": 1}, {"instructions": {"MOV": 1}}):
        with pytest.raises(ValidationError):
            code(**{**FAILURE, **more})
    with pytest.raises(ValidationError):
        code(registers=None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"spills_bytes": 24}, "spills 24 bytes per thread, was 0"),
        ({"matrix_instructions": ("HMMA.16816.F32.BF16",)}, "matrix instruction HGMMA.64x128x16.F32.BF16 is gone, now HMMA"),
        ({"asynchronous_copies": {}}, "asynchronous copy LDGSTS is gone"),
        ({"registers": 176}, "176 registers, was 168"),
        ({"shared_bytes": 240_000}, "occupancy 0% by shared memory, was 12%"),
        ({"loop_results": {**LOOP, "special": 36000.0}}, "overlapped issue bound 91.0% of the matrix roof, was 100.0%"),
        ({"loop_results": {**LOOP, "float32": 131072.0}}, "serial issue bound 50.0% of the matrix roof, was 57.1%"),
        ({"loop_reason": "there is no loop"}, "no issue bound any more: there is no loop"),
        (FAILURE, "does not compile any more: the compiler died"),
    ],
)  # fmt: skip
def test_what_is_worse_is_said_in_a_line(change: dict[str, Any], said: str) -> None:
    before, after = code(), code(**change)
    found = regressions(before, after)
    assert [line for line in found if line.startswith(said)], found
    assert all("\n" not in line for line in found)
    assert regressions(before, before) == []


def test_what_is_better_or_no_different_is_no_regression() -> None:
    better = {
        "registers": 128,
        "shared_bytes": 1024,
        "loop_results": {"special": 1.0},
        "asynchronous_copies": {"LDGSTS": 1},
    }
    assert regressions(code(), code(**better)) == []
    assert regressions(code(spills_bytes=8), code()) == []
    assert regressions(code(registers=169), code(registers=176)) == [], "both take 176 of the register file"
    assert regressions(code(**FAILURE), code()) == []
    assert regressions(code(**FAILURE), code(**FAILURE)) == []
    slightly = {**LOOP, "float32": LOOP["float32"] * 1.02}
    assert regressions(code(), code(loop_results=slightly)) == []


def test_a_kernel_without_a_matrix_product_is_held_by_its_cycles() -> None:
    before = code(matrix_instructions=(), loop_matrix_flop={})
    after = code(matrix_instructions=(), loop_matrix_flop={}, loop_results={**LOOP, "special": 20000.0})
    assert regressions(before, after) == [
        "overlapped issue bound 1250 cycles a turn, was 1024", "serial issue bound 1762 cycles a turn, was 1536",
    ]  # fmt: skip


def test_records_come_back_from_the_store_and_from_a_packed_file(tmp_path: Path) -> None:
    run_id = "20261127T000000Z-00000000"
    records = [code(), code(record_id="r1", target="gfx942"), code(record_id="r2", label="narrow", **FAILURE)]
    store = Store(tmp_path / "a")
    deposit(store, make_manifest(run_id=run_id, suite="compile", device=""), records, None)
    assert store.records(run_id)[0] == records
    assert store.runs()[0].ok == 2
    other = Store(tmp_path / "b")
    add(other, pack(store, run_id, tmp_path / "packed.zip"))
    assert other.records(run_id)[0] == records, "nothing of it names a host"


def test_the_last_record_of_a_kernel_stands() -> None:
    old, new, other = code(record_id="a"), code(record_id="b"), code(record_id="c", num_stages=3)
    assert {r.record_id for r in newest_by_identity([old, other, new]).values()} == {"b", "c"}
