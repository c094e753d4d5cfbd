"""Files of other tools, in the formats that their documentation shows: what is read, what is joined, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic import make_device, make_manifest, make_measurement

from ridgeline.results import views
from ridgeline.results.durable import StoreError
from ridgeline.results.imported import Imported
from ridgeline.results.importers.profile import Target, import_profile
from ridgeline.results.importers.pytest_benchmark import import_pytest_benchmark
from ridgeline.results.store import Store

PROBLEM = {"m": 64, "n": 64, "k": 64, "precision": "float32"}
TARGET = Target(operator="gemm", implementation="triton", problem=PROBLEM)

LAUNCHED = '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size","Grid Size","Device","CC"'
ROW = '"{id}","12","python","h","gemm","1","7","(1, 1, 1)","(1, 1, 1)","0","9.0"'
NCU_RAW = (
    "==PROF== Connected to process 12\n"
    f'{LAUNCHED},"gpu__time_duration.sum","dram__bytes_read.sum","dram__bytes_write.sum",'
    '"sm__warps_active.avg.pct_of_peak_sustained_active"\n'
    '"","","","","","","","","","","","us","Mbyte","Mbyte","%"\n'
    f'{ROW.format(id=0)},"1,010.5","2.5","1.0","40.1"\n'
    f'{ROW.format(id=1)},"1,009.5","2.5","1.0","39.9"\n'
)
NCU_DETAILS = (
    f'{LAUNCHED},"Section Name","Metric Name","Metric Unit","Metric Value"\n'
    f'{ROW.format(id=0)},"GPU Speed Of Light Throughput","Duration","us","1,000.0"\n'
    f'{ROW.format(id=0)},"Memory Workload Analysis","Memory Throughput","Gbyte/s","3.5"\n'
)
ROCPROF_V1 = (
    '"Index","KernelName","gpu-id","queue-id","grd","wgr","arch_vgpr","sig","obj","FETCH_SIZE","WRITE_SIZE",'
    '"BeginNs","EndNs"\n0,"gemm [clone .kd]",0,0,1,1,64,"0x0","0x7f",1000,500,1000,2000\n'
)
V3_ROW = '1,1,"Agent 1",1,1,1,1,1,"gemm",256,0,0,12,4,32,"{name}",{value},1000,2000\n'
ROCPROF_V3 = (
    '"Correlation_Id","Dispatch_Id","Agent_Id","Queue_Id","Process_Id","Thread_Id","Grid_Size","Kernel_Id",'
    '"Kernel_Name","Workgroup_Size","LDS_Block_Size","Scratch_Size","VGPR_Count","Accum_VGPR_Count","SGPR_Count",'
    '"Counter_Name","Counter_Value","Start_Timestamp","End_Timestamp"\n'
    + V3_ROW.format(name="FETCH_SIZE", value="1000.000")
    + V3_ROW.format(name="WRITE_SIZE", value="5.0e+02")
)
PROTON = json.dumps(
    [
        {
            "children": [
                {
                    "children": [],
                    "frame": {"name": "gemm", "type": "function"},
                    "metrics": {"count": 2, "device_id": "0", "device_type": "CUDA", "time (ns)": 2048},
                }
            ],
            "frame": {"name": "ROOT", "type": "function"},
            "metrics": {"count": 0, "time (ns)": 0},
        },
        {"CUDA": {}},
    ]
)
TORCH = json.dumps(
    {
        "traceEvents": [
            {"ph": "X", "cat": "kernel", "name": "gemm", "ts": 1, "dur": 164, "args": {"est. achieved occupancy %": 50}}
        ]
    }
)
FILES = {
    "ncu raw": ("ncu", NCU_RAW),
    "ncu details": ("ncu", NCU_DETAILS),
    "rocprof": ("rocprof", ROCPROF_V1),
    "rocprofv3": ("rocprof", ROCPROF_V3),
    "proton": ("proton", PROTON),
    "torch-profiler": ("torch-profiler", TORCH),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A run of one kernel on a GPU."""
    made = Store(tmp_path / "store")
    with made.create(make_manifest(), make_device()) as writer:
        writer.append(
            make_measurement(
                run_id=writer.run_id,
                operator="gemm",
                implementation="triton",
                problem=PROBLEM,
                placement={"device": "synthetic-cpu", "torch_device": "cuda", "unit": "u"},
            )
        )
        writer.finish()
    return made


def file_of(tmp_path: Path, text: str, name: str = "file") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def row_of(store: Store) -> dict[str, Any]:
    (row,) = views.rows(store)
    return row


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("ncu raw", {"dram_bytes_measured": 3.5e6, "profiled_kernel_s": 1.01e-3, "occupancy_percent": 40.0}),
        ("ncu details", {"dram_bytes_measured": 3.5e6, "profiled_kernel_s": 1e-3}),
        ("rocprof", {"dram_bytes_measured": 1500.0 * 1024, "profiled_kernel_s": 1e-6}),
        ("rocprofv3", {"dram_bytes_measured": 1500.0 * 1024, "profiled_kernel_s": 1e-6}),
        ("proton", {"profiled_kernel_s": 1024e-9, "dram_bytes_measured": None}),
        ("torch-profiler", {"profiled_kernel_s": 164e-6, "occupancy_percent": 50.0}),
    ],
)
def test_counters_stand_beside_the_work_of_their_kernel(
    store: Store, tmp_path: Path, which: str, expected: dict[str, float | None]
) -> None:
    tool, text = FILES[which]
    before = row_of(store)
    assert before["counter_tools"] is None
    _, written = import_profile(store, file_of(tmp_path, text), tool, TARGET)
    assert written
    row = row_of(store)
    for name, value in expected.items():
        assert row[name] == (None if value is None else pytest.approx(value, rel=1e-5)), name
    if expected.get("dram_bytes_measured"):
        assert row["dram_bytes_ratio"] == pytest.approx(expected["dram_bytes_measured"] / row["bytes"])
    assert row["median_s"] == before["median_s"]
    assert import_profile(store, file_of(tmp_path, text), tool, TARGET)[1] is False  # known by its content
    assert len(store.runs()) == 2


@pytest.mark.parametrize("which", FILES)
def test_a_file_of_another_tool_or_cut_off_is_one_line_and_writes_nothing(
    store: Store, tmp_path: Path, which: str
) -> None:
    tool, text = FILES[which]
    others = [t for t in ("ncu", "rocprof", "proton", "torch-profiler") if t != tool]
    for wrong in others:
        with pytest.raises(StoreError) as refused:
            import_profile(store, file_of(tmp_path, text), wrong, TARGET)
        assert "\n" not in str(refused.value)
    for cut in (text[: len(text) // 2], text[:40], ""):
        with pytest.raises(StoreError) as refused:
            import_profile(store, file_of(tmp_path, cut), tool, TARGET)
        assert "\n" not in str(refused.value)
    assert len(store.runs()) == 1


def test_an_unknown_unit_and_an_unknown_kernel_are_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="furlong"):
        import_profile(store, file_of(tmp_path, NCU_RAW.replace('"Mbyte","Mbyte"', '"furlong","Mbyte"')), "ncu", TARGET)
    with pytest.raises(StoreError, match="nothing"):
        import_profile(store, file_of(tmp_path, NCU_RAW), "ncu", TARGET, kernel="nothing")
    with pytest.raises(StoreError):
        import_profile(
            store, file_of(tmp_path, NCU_RAW), "ncu", Target(operator="gemm", implementation="absent", problem=PROBLEM)
        )
    with pytest.raises(StoreError):
        import_profile(store, tmp_path / "missing.csv", "ncu", TARGET)
    assert len(store.runs()) == 1


def test_a_case_is_named_by_its_id_and_calls_divide(store: Store, tmp_path: Path) -> None:
    case = row_of(store)["case_id"]
    import_profile(store, file_of(tmp_path, NCU_RAW), "ncu", Target(case_id=case[:6]), calls=1)
    assert row_of(store)["dram_bytes_measured"] == pytest.approx(7.0e6)


def benchmark_json(**stats: Any) -> str:
    values = {"median": 0.002, "mean": 0.002, "min": 0.001, "max": 0.003, "stddev": 1e-4, "iqr": 1e-4, "rounds": 3}
    values |= {"q1": 0.001, "q3": 0.003, "ops": 500.0, "iterations": 2, "total": 0.006, "data": [0.001, 0.002, 0.003]}
    benchmark = {"group": None, "name": "test_a", "fullname": "t.py::test_a", "params": None, "extra_info": {}}
    benchmark |= {"options": {"timer": "perf_counter"}, "stats": {**values, **stats}}
    machine = {"node": "h", "machine": "x86_64", "cpu": {"brand_raw": "A CPU"}, "python_version": "3.11"}
    return json.dumps(
        {"machine_info": machine, "commit_info": {}, "benchmarks": [benchmark], "datetime": "2026-11-24T00:00:00+00:00",
         "version": "5.1.0"}
    )  # fmt: skip


def test_pytest_benchmark_is_imported_and_never_mixed_with_ours(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    path = file_of(tmp_path, benchmark_json(), "b.json")
    run_id, count, written = import_pytest_benchmark(store, path)
    assert (count, written) == (1, True)
    (record,) = store.records(run_id)[0]
    assert isinstance(record, Imported)
    assert views.rows(store) == []
    assert import_pytest_benchmark(store, path) == (run_id, 1, False)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[1]",
        "not json",
        benchmark_json(ops=0.5),  # its times are in milliseconds
        benchmark_json(median="fast"),
        benchmark_json()[:200],
    ],
)
def test_what_is_no_pytest_benchmark_file_is_refused(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(StoreError) as refused:
        import_pytest_benchmark(store, file_of(tmp_path, text))
    assert "\n" not in str(refused.value)
    assert store.runs() == []
