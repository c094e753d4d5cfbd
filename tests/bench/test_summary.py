"""The summary of a run that was measured in several processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import make_device, make_manifest, make_measurement, make_store

from ridgeline.bench.summary import print_summary
from ridgeline.results.store import Store


def test_cases_of_several_processes_are_pooled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "store", runs=1)
    print_summary(store, store.runs()[0].run_id)
    table = capsys.readouterr().out.partition("Over fresh processes")[2]
    (torch,) = (line for line in table.splitlines() if "torch-matmul" in line)
    assert "t of processes" in torch
    assert "10.01 ms" in torch  # of 10 ms and 10.02 ms
    assert "triton-gemm" not in table  # it crashed in both


def test_one_process_is_not_pooled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "store")
    with store.create(make_manifest(), make_device()) as writer:
        writer.append(make_measurement(run_id=writer.run_id))
        writer.finish()
    print_summary(store, "latest")
    assert "Over fresh processes" not in capsys.readouterr().out
