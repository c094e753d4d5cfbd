"""The store under damaged runs, folders that are no runs, and missing permissions: the rest loads, with one line each."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from owned_runs import begin, child, run_folder
from synthetic import make_device, make_manifest, make_run, make_store

from ridgeline.results.columns import VERSION_KEY
from ridgeline.results.fact import SCHEMA_VERSION
from ridgeline.results.store import Store, StoreError


def damage(folder: Path, how: str) -> str:
    """Damage a finished run; returns what its reason must say."""
    parquet = folder / "records.parquet"
    if how == "truncated":
        parquet.write_bytes(parquet.read_bytes()[:-200])
    elif how == "empty":
        parquet.write_bytes(b"")
    elif how == "not parquet":
        parquet.write_bytes(b"hello" * 100)
    elif how == "a folder":
        parquet.unlink()
        parquet.mkdir()
    elif how == "newer schema":
        table = pq.read_table(parquet)
        pq.write_table(table.replace_schema_metadata({VERSION_KEY: b"9"}), parquet)
        return f"schema 9 is newer than this Ridgeline reads ({SCHEMA_VERSION}): upgrade ridgeline"
    elif how == "foreign parquet":
        pq.write_table(pq.read_table(parquet).replace_schema_metadata({}), parquet)
        return "states no schema version"
    elif how == "no manifest":
        (folder / "run.json").unlink()
        return "run.json: No such file"
    elif how == "half a manifest":
        (folder / "run.json").write_bytes((folder / "run.json").read_bytes()[:50])
        return "run.json: damaged"
    elif how == "newer manifest":
        values = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps({**values, "schema_version": 9, "colour": "blue"}))
        return "run.json: schema 9 is newer"
    elif how == "other manifest":
        (folder / "run.json").write_text("[]")
        return "run.json: damaged: not a JSON object"
    return "records.parquet"


@pytest.mark.parametrize(
    "how",
    [
        "truncated",
        "empty",
        "not parquet",
        "a folder",
        "newer schema",
        "foreign parquet",
        "no manifest",
        "half a manifest",
        "newer manifest",
        "other manifest",
    ],
)
def test_a_damaged_run_is_named_and_the_rest_loads(tmp_path: Path, how: str) -> None:
    store = make_store(tmp_path, runs=3)
    bad = store.runs()[1].run_id
    reason = damage(run_folder(store, bad), how)
    listed = store.runs()
    assert [r.state for r in listed] == ["finished", "damaged", "finished"]
    assert reason in listed[1].reason
    assert "\n" not in listed[1].reason
    with pytest.raises(StoreError) as caught:
        store.records(bad)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    records, set_aside = store.records()
    assert {r.run_id for r in records} == {listed[0].run_id, listed[2].run_id}
    assert records[0].run_id == listed[2].run_id, "oldest first"
    assert [s.where for s in set_aside] == [bad]
    assert store.query("SELECT count(*) AS n FROM records").n[0] == 12


def test_flipped_bits_inside_a_page_are_found(tmp_path: Path) -> None:
    store = make_store(tmp_path, runs=1)
    path = run_folder(store, store.runs()[0].run_id) / "records.parquet"
    with pq.ParquetFile(path) as file:
        group = file.metadata.row_group(0)
        columns = [group.column(i) for i in range(group.num_columns)]
    column = next(c for c in columns if c.path_in_schema.startswith("samples_s"))
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start + column.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(StoreError, match=r"records.parquet: damaged"):
        store.records("latest")


def test_a_damaged_device_is_one_line(tmp_path: Path) -> None:
    store = make_store(tmp_path, runs=1)
    run_id = store.runs()[0].run_id
    (run_folder(store, run_id) / "device.json").write_text('{"id": "x"}')
    with pytest.raises(StoreError, match=r"device.json: name: Field required"):
        store.device(run_id)
    assert len(store.records(run_id)[0]) == 6, "the records do not depend on it"


def test_folders_that_never_became_a_run_are_not_listed(tmp_path: Path) -> None:
    store = make_store(tmp_path, runs=1)
    (tmp_path / "runs" / "20990101T000000Z-aa").mkdir()
    (tmp_path / "runs" / ".hidden").mkdir()
    (tmp_path / "runs" / "notes.txt").write_text("mine")
    started = tmp_path / "runs" / "20990101T000000Z-ab"
    started.mkdir()
    (started / "owner.lock").touch()
    (started / "journal.jsonl").touch()
    assert len(store.runs()) == 1


@pytest.mark.parametrize("where", ["store", "runs"])
def test_a_store_that_is_not_a_folder(tmp_path: Path, where: str) -> None:
    if where == "store":
        store = Store(tmp_path / "file")
        store.path.write_text("")
    else:
        store = Store(tmp_path)
        (tmp_path / "runs").write_text("")
    attempts = (store.runs, store.records, lambda: store.create(make_manifest(), make_device()))
    for attempt in (*attempts, lambda: store.query("SELECT 1"), lambda: store.resume("x"), lambda: store.run("latest")):
        with pytest.raises(StoreError, match=r"not a folder: choose another") as caught:
            attempt()
        assert "\n" not in str(caught.value)


FORBIDDEN = """
import os, sys
from pathlib import Path
import pyarrow.parquet  # while the interpreter's own folder can still be read
from synthetic import make_device, make_manifest
from ridgeline.results.store import Store, StoreError
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
store, path = Store(sys.argv[1]), Path(sys.argv[1])
print([(r.state, r.reason) for r in store.runs()] if sys.argv[2] == "readable" else "-")
for attempt in (store.runs, lambda: store.resume("plan0"), lambda: store.create(make_manifest(), make_device())):
    try:
        attempt()
        print("fine")
    except StoreError as error:
        print(error)
"""


def test_a_store_without_permissions(tmp_path: Path) -> None:
    """A real user without rights; root gives its own up in the child."""
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_mode & 0o005 != 0o005 and os.geteuid() == 0 and parent.stat().st_uid == 0:
            if not str(parent).startswith(str(tmp_path.parents[1])):
                pytest.skip(f"{parent} is closed to other users")
            parent.chmod(0o755)
    store = Store(tmp_path / "store")
    begin(store, 1).close()
    make_run(store)
    folder = run_folder(store, store.runs()[1].run_id)
    hint = "change its permissions, or choose another store with --store or RIDGELINE_STORE"
    made_read_only = [store.path / "runs", folder, *folder.iterdir()]
    try:
        for path in made_read_only:
            path.chmod(0o555 if path.is_dir() else 0o444)
        lines = child(FORBIDDEN, str(store.path), "readable").communicate(timeout=60)[0].splitlines()
        assert lines[0] == "[('finished', ''), ('unfinished', '')]", "a read-only store can be read"
        assert lines[1] == "fine"
        assert lines[2] == f"{folder}: Permission denied: {hint}"
        assert lines[3] == f"{store.path}: Permission denied: {hint}"
        store.path.chmod(0o000)
        lines = child(FORBIDDEN, str(store.path), "closed").communicate(timeout=60)[0].splitlines()
        assert lines[1:] == [f"{store.path}: Permission denied: {hint}"] * 3
    finally:
        store.path.chmod(0o755)
        for path in made_read_only:
            path.chmod(0o755)
