"""``ridgeline compile``: compiles, stores, compares with last time, refuses in one line. In process, on one small kernel."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from synthetic import make_manifest
from typer.testing import CliRunner

from ridgeline.bench import cli
from ridgeline.kernels import compile_all
from ridgeline.kernels.compiled import CompiledKernel, FailedKernel
from ridgeline.results.compile import CompiledCode
from ridgeline.results.deposit import deposit
from ridgeline.results.store import Store, new_run_id

PRODUCT = CompiledKernel(
    168, 0, 4000, ("HGMMA.64x128x16.F32.BF16",), {"HGMMA": 8}, {"HGMMA": 4, "MUFU": 8}, {"LDGSTS": 8},
    target="sm_90", label="gemm bfloat16 128x128x64", kernel="gemm_kernel", shared_bytes=65536, num_warps=8, asked_warps=8,
    num_stages=3, loop_results={"special": 1024.0, "instruction": 2048.0}, loop_matrix_flop={"bfloat16": 2.0 * 128**3},
)  # fmt: skip
NARROW = FailedKernel(
    "sm_80", "gemm int8 4x4", "gemm_kernel", 4, 1, "gemm int8 4x4 for sm_80: CompilationError: K >= 16"
)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What compiling gives, in place of the compiler (whose results tests/kernels/test_compiled.py looks at)."""
    results: list[Any] = [PRODUCT]
    monkeypatch.setattr(compile_all, "compile_modules", lambda modules, targets, **how: list(results))
    return results


def compiled(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON document."""
    done = CliRunner().invoke(cli.app, ["compile", *map(str, arguments), "--json"])
    return done.exit_code, json.loads(done.stdout)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "argv", ["ridgeline", "compile", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1), err
    return err


def plant(store: Store, **changes: Any) -> str:
    """A run with the code of PRODUCT as it would have been, and its id."""
    run_id = new_run_id()
    record = next(r for r in store.records()[0] if isinstance(r, CompiledCode))
    planted = record.model_copy(update={"run_id": run_id, "record_id": run_id, **changes})
    deposit(store, make_manifest(run_id=run_id, suite="compile", device=""), [planted], None)
    return run_id


def test_code_is_stored_with_what_follows_from_it(tmp_path: Path, compiler: list[Any]) -> None:
    code, document = compiled("--store", tmp_path)
    assert (code, document["compared"], document["regressions"]) == (0, 0, [])
    (kernel,) = document["kernels"]
    assert (kernel["kind"], kernel["target"], kernel["occupancy"]) == ("compile", "sm_90", 0.125)
    assert kernel["loop_cycles"]["matrix"] == 1024
    assert kernel["overlapped_share"] == 1.0
    (stored,) = Store(tmp_path).records(document["run_id"])[0]
    assert isinstance(stored, CompiledCode)
    assert stored.matrix_instructions == PRODUCT.matrix_instructions
    shown = CliRunner().invoke(cli.app, ["show", document["run_id"], "--store", str(tmp_path)])
    assert "Compiled, not run" in shown.stdout
    assert "HGMMA.64x128x16.F32.BF16" in shown.stdout
    rows = json.loads(CliRunner().invoke(cli.app, ["show", "--json", "--store", str(tmp_path)]).stdout)
    assert rows == document["kernels"]


def test_a_planted_regression_is_found_from_night_to_night(tmp_path: Path, compiler: list[Any]) -> None:
    first = compiled("--store", tmp_path)[1]["run_id"]
    assert compiled("--store", tmp_path)[0] == 0, "nothing changed"
    better = plant(Store(tmp_path), registers=128, matrix_instructions=("HGMMA.64x256x16.F32.BF16",))
    compiler[0] = CompiledKernel(**{**vars(PRODUCT), "spills_bytes": 16})
    code, document = compiled("--store", tmp_path)
    assert (code, document["compared"]) == (1, 1)
    changes = [change["change"] for change in document["regressions"]]
    assert [line.split(",")[0] for line in changes] == [
        "spills 16 bytes per thread",
        "matrix instruction HGMMA.64x256x16.F32.BF16 is gone",
        "168 registers",
        "occupancy 12% by registers",
    ]
    assert {change["since_run"] for change in document["regressions"]} == {better}
    code, document = compiled("--store", tmp_path, "--compare", first)
    assert [change["change"] for change in document["regressions"]] == ["spills 16 bytes per thread, was 0"]
    done = CliRunner().invoke(cli.app, ["compile", "--store", str(tmp_path), "--compare", first])
    assert done.exit_code == 1
    lines = [line for line in done.stdout.splitlines() if line.startswith("worse: ")]
    assert lines == [f"worse: sm_90 {PRODUCT.label}: spills 16 bytes per thread, was 0 (run {first})"]


def test_what_cannot_run_is_named_and_the_rest_is_stored(tmp_path: Path, compiler: list[Any]) -> None:
    compiler += [NARROW, CompiledKernel(**{**vars(PRODUCT), "target": "sm_89", "shared_bytes": 110_000})]
    done = CliRunner().invoke(cli.app, ["compile", "--store", str(tmp_path)])
    assert done.exit_code == 1
    assert f"sm_80 {NARROW.label}: {NARROW.error}" in done.stdout
    assert f"sm_89 {PRODUCT.label}: does not fit: too much of shared memory (110000 bytes shared)" in done.stdout
    assert len(Store(tmp_path).records()[0]) == 3


def test_bad_requests_are_one_line(
    tmp_path: Path, compiler: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ["--store", str(tmp_path / "store")]
    assert "--arch sm_70: one of sm_80, sm_89" in refused(["--arch", "sm_90,sm_70", *store], capsys, monkeypatch)
    assert "no runs yet" in refused(["--compare", "latest", *store], capsys, monkeypatch)
    assert "not a folder" in refused(["--with", str(tmp_path / "none"), *store], capsys, monkeypatch)
    deposit(Store(tmp_path / "store"), make_manifest(run_id="empty", device=""), [], None)
    assert "holds no compiled code" in refused(["--compare", "empty", *store], capsys, monkeypatch)
    compiler.clear()
    assert "no kernel nothing for sm_90" in refused(
        ["--only", "nothing", "--arch", "sm_90", *store], capsys, monkeypatch
    )
    assert len(Store(tmp_path / "store").runs()) == 1, "a refused command stores nothing"
