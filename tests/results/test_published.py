"""Published times: their record, the import from tables laid out as the wheel has them, and how they are shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ridgeline.analytical.calibration.public_tables import (
    PublicTableError,
    data_root,
    public_tables,
    read_table,
    require_data_root,
)
from ridgeline.results import views
from ridgeline.results.importers.aiconfigurator import import_aiconfigurator
from ridgeline.results.published import Published
from ridgeline.results.record import record_from_dict
from ridgeline.results.store import Store
from ridgeline.results.store_check import check_store

FIELDS: dict[str, Any] = {
    "record_id": "r", "run_id": "run", "started_at": "2026-01-01T00:00:00+00:00", "source": "tables 1", "source_file": "a",
    "source_row": 0, "licence": "Apache-2.0", "tool": "vllm", "tool_version": "1", "device_id": "nvidia-l40s",
    "device_text": "l40s", "operator": "gemm", "problem": {"m": 1}, "problem_label": "1", "seconds": 1e-3,
}  # fmt: skip


@pytest.mark.parametrize("change", [{"seconds": 0.0}, {"licence": ""}, {"source": " "}, {"power_w": -1.0}])
def test_a_published_time_needs_its_origin_and_a_time(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Published(**{**FIELDS, **change})


def test_it_is_a_kind_of_record() -> None:
    record = Published(**FIELDS)
    assert record_from_dict(record.model_dump(), "here") == record


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up wheel: one GEMM table with a zero size, and one decode table with power."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    package = tmp_path / "wheel" / "aiconfigurator_core"
    (tmp_path / "wheel" / "aiconfigurator_core-0.12.0.dist-info").mkdir(parents=True)
    common = {"framework": "VLLM", "version": "0.24.0", "device": "NVIDIA H100", "kernel_source": "k"}
    gemm = [
        {**common, "gemm_dtype": kind, "m": m, "n": 4096, "k": 4096, "latency": 0.02 + m * 4e-4}
        for kind in ("bfloat16", "fp8") for m in (0, 1, 64, 1024)
    ]  # fmt: skip
    decode = [
        {**common, "attn_dtype": "bfloat16", "kv_cache_dtype": "bfloat16", "batch_size": 8, "isl": 1, "num_heads": 32,
         "num_key_value_heads": 8, "head_dim": 128, "step": 4095, "window_size": w, "latency": 0.2, "power": 500.0}
        for w in (0, 128)
    ]  # fmt: skip
    for folder, file, rows in (("gemm", "gemm", gemm), ("attention", "generation_attention", decode)):
        place = package / "systems" / "data" / "h100_sxm" / folder / "vllm" / "0.24.0"
        place.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), place / f"{file}_perf.parquet")
    monkeypatch.setenv("RIDGELINE_PUBLIC_TABLES", str(tmp_path / "wheel"))
    return tmp_path


def test_tables_are_read_in_our_names_and_units(tables: Path) -> None:
    (table,) = public_tables(require_data_root(), family="attention decode")
    columns = read_table(table)
    assert table.device_id == "nvidia-h100-sxm5-80gb"
    assert table.is_clean
    assert columns["seconds"].tolist() == pytest.approx([2e-4, 2e-4])
    assert columns["kv_length"].tolist() == [4096.0, 4096.0]
    assert columns["power_w"].tolist() == [500.0, 500.0]


def test_an_import_is_a_run_of_its_own_kind(tables: Path) -> None:
    store = Store(tables / "store")
    (gemm, decode) = import_aiconfigurator(store, system="h100_sxm")
    assert (gemm[1], decode[1]) == (8, 2)
    records = [r for r in store.records(None)[0] if isinstance(r, Published)]
    assert {r.licence for r in records} == {"Apache-2.0"}
    assert {r.source for r in records} == {"aiconfigurator-core 0.12.0"}
    assert [r.power_w for r in records if r.operator == "attention"] == [500.0, 500.0]
    bad = [r for r in records if r.problem.get("m") == 0]
    assert len(bad) == 2
    assert all("size" in r.quarantined for r in bad)
    assert not [r for r in records if r.quarantined and r.problem.get("m") != 0]
    assert views.rows(store) == []  # never among our own measurements
    assert not check_store(store).findings


def test_the_same_import_again_changes_nothing(tables: Path) -> None:
    store = Store(tables / "store")
    first = import_aiconfigurator(store, system="h100_sxm", family="gemm")
    assert import_aiconfigurator(store, system="h100_sxm", family="gemm") == [(first[0][0], 0, False)]
    assert len(store.runs()) == 1


@pytest.mark.parametrize(
    ("asked", "said"), [({"system": "h900"}, "h100_sxm"), ({"family": "conv"}, "gemm"), ({"version": "9"}, "no table")]
)
def test_what_is_not_there_is_said(tables: Path, asked: dict[str, str], said: str) -> None:
    with pytest.raises(PublicTableError, match=said):
        import_aiconfigurator(Store(tables / "store"), **asked)


def test_without_the_tables_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIDGELINE_PUBLIC_TABLES", str(tmp_path))
    with pytest.raises(PublicTableError, match=r"ridgeline\[data\]"):
        require_data_root()


def test_a_table_that_is_no_table_is_named(tables: Path) -> None:
    (table,) = public_tables(require_data_root(), family="gemm")
    table.path.write_bytes(b"PAR1 and no more")
    with pytest.raises(PublicTableError, match=r"gemm_perf\.parquet"):
        read_table(table)


def test_the_command_imports_and_shows(tables: Path) -> None:
    def ridgeline(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = "from ridgeline.bench.cli import main; main()"
        command = [sys.executable, "-c", code, *arguments, "--store", str(tables / "store")]
        return subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), timeout=120, check=False)

    imported = ridgeline("store", "import", "aiconfigurator", "--family", "gemm")
    assert imported.returncode == 0, imported.stderr
    shown = ridgeline("show", "--json")
    rows = json.loads(shown.stdout)
    assert {row["kind"] for row in rows} == {"published"}
    refused = ridgeline("store", "import", "aiconfigurator", "--system", "h900")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1


def test_the_real_wheel_has_the_tables_that_calibration_names() -> None:
    root = data_root()
    if root is None:
        pytest.skip("extra `data` is not installed: pip install 'ridgeline[data]'")
    clean = public_tables(root, clean=True)
    assert {t.system for t in clean} >= {"a100_sxm", "h100_sxm", "b200_sxm", "l40s", "b60"}
    assert len(clean) > 60
