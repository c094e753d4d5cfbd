"""The store: runs that are made, continued, owned, listed and queried."""

from __future__ import annotations

import os
import resource
import signal
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from owned_runs import begin, child, run_folder
from synthetic import make_device, make_manifest, make_measurement, make_store, rate

from ridgeline.results.columns import VERSION_KEY
from ridgeline.results.fact import SCHEMA_VERSION
from ridgeline.results.store import DEFAULT_STORE, RunInfo, Store, StoreError, new_run_id


def test_a_path_is_resolved_and_nothing_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RIDGELINE_STORE", raising=False)
    assert Store().path == Path(DEFAULT_STORE)
    monkeypatch.setenv("RIDGELINE_STORE", str(tmp_path / "elsewhere"))
    assert Store().path == tmp_path / "elsewhere"
    assert Store("here").path == Path("here")
    store = Store()
    assert store.runs() == []
    assert store.records() == ([], [])
    assert store.resume("plan0") is None
    assert list(store.query("SELECT * FROM records").columns)[:2] == ["kind", "schema_version"]
    assert list(tmp_path.iterdir()) == []


def test_run_ids_sort_by_time() -> None:
    ids = [new_run_id(datetime(2026, 11, 22, 23, 15, second, us, UTC)) for second in (0, 1) for us in (0, 99, 999_999)]
    assert ids == sorted(ids)
    assert ids[0].startswith("20261122T231500Z-00000")
    assert len({len(i) for i in ids}) == 1


def test_a_run_from_beginning_to_end(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    manifest = make_manifest()
    with store.create(manifest, make_device()) as writer:
        records = [make_measurement(run_id=manifest.run_id, content_key="a", process=p) for p in range(2)]
        records.append(make_measurement(run_id=manifest.run_id, content_key="b", status="timeout"))
        for record in records:
            writer.append(record)
        assert writer.done == {("a", 0), ("a", 1), ("b", 0)}
        assert store.runs()[0].state == "running"
        assert store.records(manifest.run_id) == (records, [])
        hotter = make_device().with_ceilings([rate(3e11)])
        writer.set_device(hotter)
        writer.finish()
    assert sorted(p.name for p in run_folder(store, manifest.run_id).iterdir()) == [
        "device.json",
        "owner.lock",
        "records.parquet",
        "run.json",
    ]
    assert store.records(manifest.run_id) == (records, [])
    assert store.device(manifest.run_id) == hotter
    assert store.manifest(manifest.run_id) == manifest
    assert store.runs() == [
        RunInfo(
            manifest.run_id,
            "synthetic",
            manifest.created_at,
            "finished",
            planned=3,
            records=3,
            ok=2,
            device="synthetic-cpu",
            device_name="Synthetic CPU",
        )
    ]
    assert (
        pq.read_schema(run_folder(store, manifest.run_id) / "records.parquet").metadata[VERSION_KEY]
        == str(SCHEMA_VERSION).encode()
    )
    assert store.resume("plan0") is None, "a finished run is never continued"
    for late in (lambda: writer.append(records[0]), lambda: writer.set_device(hotter), writer.finish):
        with pytest.raises(StoreError, match="closed"):
            late()


def test_an_unfinished_run_is_continued(tmp_path: Path) -> None:
    store = Store(tmp_path)
    begin(store, 2).close()
    other = begin(store, 1, plan_digest="other")
    other.close()
    newest = begin(store, 1)
    with (run_folder(store, newest.run_id) / "journal.jsonl").open("ab") as f:
        f.write(b'{"kind":"meas')
    newest.close()
    assert [r.state for r in store.runs()] == ["unfinished"] * 3
    assert "cut off" in store.runs()[0].reason
    assert store.resume("no such plan") is None

    again = store.resume("plan0")
    assert again is not None
    assert (again.run_id, again.done) == (newest.run_id, {("c0", 0)})
    assert again.device == make_device()
    again.append(make_measurement(run_id=again.run_id, case_id="c1"))
    assert len(again.records) == 2
    # Owned now: the next one that asks gets the older run.
    older = store.resume("plan0")
    assert older is not None
    assert older.run_id < again.run_id
    assert store.resume("plan0") is None
    again.finish()
    older.close()
    assert [r.case_id for r in store.records(again.run_id)[0]] == ["c0", "c1"]
    assert [r.state for r in store.runs()] == ["finished", "unfinished", "unfinished"]


def test_a_bad_line_survives_the_end_of_the_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    writer = begin(store, 1)
    journal = run_folder(store, writer.run_id) / "journal.jsonl"
    writer.close()
    journal.write_bytes(b"{bad\n" + journal.read_bytes())
    again = store.resume("plan0")
    assert again is not None
    again.finish()
    records, set_aside = store.records(again.run_id)
    assert len(records) == 1
    assert set_aside[0].where.endswith("journal.set-aside.jsonl")
    assert journal.with_name("journal.set-aside.jsonl").read_bytes().startswith(b"{bad\n")
    assert store.runs()[0].reason


def test_killed_between_parquet_and_the_end_of_the_journal(tmp_path: Path) -> None:
    store = Store(tmp_path)
    writer = begin(store, 2)
    journal = run_folder(store, writer.run_id) / "journal.jsonl"
    lines = journal.read_bytes()
    writer.finish()
    journal.write_bytes(lines)
    assert store.runs()[0].state == "finished"
    assert len(store.records()[0]) == 2
    assert store.resume("plan0") is None


def test_a_disk_that_is_full_at_the_end_keeps_the_journal(tmp_path: Path) -> None:
    store = Store(tmp_path)
    writer = begin(store, 3)
    open_files = len(os.listdir("/proc/self/fd"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StoreError, match="disk full: free space and run the same command again"):
            writer.finish()
        with pytest.raises(StoreError, match="disk full"):
            store.create(make_manifest(environment={"x": "y" * 2000}), make_device())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(store.runs()) == 1, "a run that could not begin leaves nothing"
    assert len(list((tmp_path / "runs").iterdir())) == 1
    assert len(os.listdir("/proc/self/fd")) == open_files
    assert (store.runs()[0].state, store.runs()[0].records) == ("running", 3)
    writer.finish()
    assert store.runs()[0].state == "finished"


def test_records_of_another_run_and_bad_ids_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with begin(store, 0) as writer, pytest.raises(StoreError, match="does not belong here"):
        writer.append(make_measurement(run_id="other"))
    with pytest.raises(StoreError, match="this run is there already"):
        store.create(writer.manifest, make_device())
    for bad in ("../evil", "", ".hidden", "a/b"):
        with pytest.raises(StoreError, match="not a run id"):
            store.create(make_manifest(run_id=bad), make_device())


OWNER = """
import sys
from owned_runs import begin, child, run_folder
from synthetic import make_device, make_manifest, make_measurement
from ridgeline.results.store import Store
store = Store(sys.argv[1])
writer = store.resume("plan0") or store.create(make_manifest(), make_device())
for i in range(20):
    writer.append(make_measurement(run_id=writer.run_id, case_id=f"c{i}"))
print(writer.run_id, flush=True)
if sys.stdin.readline() == "finish\\n":
    writer.finish()
"""


def test_processes_at_once_never_share_a_run_and_kill_9_leaves_no_lock(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    begin(store, 0).close()  # one run to fight over
    processes = [child(OWNER, str(store.path)) for _ in range(4)]
    try:
        owned = []
        for process in processes:
            assert process.stdout is not None
            owned.append(process.stdout.readline().strip())
        assert len(set(owned)) == 4
        assert {r.run_id: r.state for r in store.runs()} == dict.fromkeys(owned, "running")
        assert store.resume("plan0") is None
        processes[0].communicate("finish\n", timeout=30)
        processes[1].send_signal(signal.SIGKILL)
        processes[1].wait()
        states = {r.run_id: (r.state, r.records) for r in store.runs()}
        assert [states[run] for run in owned] == [
            ("finished", 20),
            ("unfinished", 20),
            ("running", 20),
            ("running", 20),
        ]
        again = store.resume("plan0")
        assert again is not None
        assert again.run_id == owned[1]
        again.finish()
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert len(store.records(owned[1])[0]) == 20


def test_latest_prefix_and_unknown_runs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(StoreError, match="no runs yet"):
        store.run("latest")
    for name in ("20260101T000000Z-aa", "20260102T000000Z-ab", "20260102T000000Z-ac"):
        begin(store, 0, run_id=name).close()
    assert store.run("latest").run_id == "20260102T000000Z-ac"
    assert store.run("20260101").run_id == "20260101T000000Z-aa"
    assert store.run("20260102T000000Z-ab").run_id == "20260102T000000Z-ab"
    with pytest.raises(StoreError, match="2 runs start with '20260102': 20260102T000000Z-ac, 20260102T000000Z-ab"):
        store.run("20260102")
    for unknown in ("2027", "", "../runs"):
        with pytest.raises(StoreError, match="the newest are 20260102T000000Z-ac") as caught:
            store.records(unknown)
        assert "\n" not in str(caught.value)


def test_queries_read_the_files_in_place(tmp_path: Path) -> None:
    store = make_store(tmp_path / "it's [a] store*", runs=2)
    begin(store, 1).close()  # unfinished: not in the view
    answer = store.query(
        "SELECT implementation, count(*) AS n, min(samples_s[1][1]) AS first, any_value(placement.unit) AS unit, "
        "any_value(CAST(problem AS JSON)->>'m') AS m FROM records WHERE status = 'ok' GROUP BY 1 ORDER BY 1"
    )
    assert answer.implementation.tolist() == ["native-gemm", "torch-matmul"]
    assert answer.n.tolist() == [4, 4]
    assert answer.unit.tolist() == ["unit0"] * 2
    assert answer.m.tolist() == ["512"] * 2
    assert (answer["first"] > 0).all()
    with pytest.raises(StoreError) as caught:
        store.query("SELECT colour FROM records")
    assert "colour" in str(caught.value)
    assert "\n" not in str(caught.value)
