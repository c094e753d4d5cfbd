"""Packed runs: nothing in them names the host, what was changed is refused, and half an add leaves nothing."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import platform
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic import blocks, make_device, make_manifest, make_measurement, make_store

from ridgeline.results import deposit as deposit_module
from ridgeline.results import pack as pack_module
from ridgeline.results.anonymous import Anonymiser, anonymous_environment, hashed
from ridgeline.results.measurement import Measurement
from ridgeline.results.pack import add, pack, read_packed
from ridgeline.results.store import Store, StoreError
from ridgeline.results.store_check import check_store

SECRETS = ("secrethost", "alice", "/home/alice", "10.11.12.13", "GPU-12345678-1234-1234-1234-123456789abc", "unit0")
REASON = (
    "RuntimeError: /home/alice/kernels/mine.py:3 on secrethost.corp (10.11.12.13, alice@example.org), "
    "GPU-12345678-1234-1234-1234-123456789abc: 12 GB/s, 3 of 4 rows"
)


def telling_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> str:
    """A finished run that names its host wherever text can stand."""
    monkeypatch.setattr(platform, "node", lambda: "secrethost.corp")
    monkeypatch.setattr(getpass, "getuser", lambda: "alice")
    environment = {
        "torch": "x",
        "version.torch": "2.13.0+cpu",
        "kernel": "6.8.0-alice-secrethost",
        "env.CUDA_VISIBLE_DEVICES": "GPU-12345678-1234-1234-1234-123456789abc",
        "env.OMP_NUM_THREADS": "2",
        "hostname": "secrethost",
        "version.evil": "/home/alice",
    }
    manifest = make_manifest(planned=3, environment=environment)
    with store.create(manifest, make_device(name="CPU of secrethost")) as writer:
        writer.append(make_measurement(run_id=manifest.run_id, energy_reason=f"no meter on secrethost: {REASON}"))
        writer.append(make_measurement(run_id=manifest.run_id, status="crashed", reason=REASON))
        writer.append(
            make_measurement(run_id=manifest.run_id, problem_label="in /home/alice/x", samples_s=blocks(0.02))
        )
        writer.finish()
    return manifest.run_id


def test_a_packed_run_names_neither_host_nor_user_nor_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    run_id = telling_run(store, monkeypatch)
    path = pack(store, run_id, tmp_path / "run.zip")
    with zipfile.ZipFile(path) as archive:
        text = "\n".join(archive.read(name).decode() for name in archive.namelist())
    assert [secret for secret in SECRETS if secret in text] == []
    packed = read_packed(path)
    assert packed.manifest.environment == {
        "version.torch": "2.13.0+cpu", "kernel": "6.8.0", "env.OMP_NUM_THREADS": "2",
    }  # fmt: skip
    crashed = packed.records[1]
    assert isinstance(crashed, Measurement)
    assert crashed.reason.endswith(": 12 GB/s, 3 of 4 rows")
    assert crashed.placement.unit == hashed("unit0")


def test_a_packed_run_keeps_every_number(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", 1)
    (run_id,) = [info.run_id for info in store.runs()]
    packed = read_packed(pack(store, run_id, tmp_path / "run.zip"))
    ours, _ = store.records(run_id)
    for record, sent in zip(ours, packed.records, strict=True):
        hidden = record.model_dump(mode="json")
        hidden["placement"]["unit"] = hashed("unit0")
        assert sent.model_dump(mode="json") == hidden
    assert packed.device == make_device()
    assert pack(store, run_id, tmp_path / "again.zip").read_bytes() == (tmp_path / "run.zip").read_bytes()


def test_an_added_run_is_marked_and_added_once(tmp_path: Path) -> None:
    theirs, ours = make_store(tmp_path / "theirs", 1), Store(tmp_path / "ours")
    path = pack(theirs, "latest", tmp_path / "run.zip")
    run_id, written = add(ours, path)
    assert written
    (info,) = ours.runs()
    assert (info.run_id, info.state, info.contributed, info.records, info.ok) == (run_id, "finished", True, 6, 4)
    assert not theirs.runs()[0].contributed
    before = snapshot(tmp_path / "ours")
    assert add(ours, path) == (run_id, False)
    assert add(theirs, path) == (run_id, False)  # it is their own
    assert snapshot(tmp_path / "ours") == before
    assert check_store(ours).findings == ()
    # Sent on, it is the same file.
    assert pack(ours, run_id, tmp_path / "sent-on.zip").read_bytes() == path.read_bytes()


def test_another_run_of_the_same_id_is_refused(tmp_path: Path) -> None:
    theirs = make_store(tmp_path / "theirs", 1)
    path = pack(theirs, "latest", tmp_path / "run.zip")
    run_id = theirs.runs()[0].run_id
    ours = Store(tmp_path / "ours")
    with ours.create(make_manifest(run_id=run_id), make_device()) as writer:
        writer.append(make_measurement(run_id=run_id))
        writer.finish()
    before = snapshot(tmp_path / "ours")
    with pytest.raises(StoreError, match="with other content"):
        add(ours, path)
    assert snapshot(tmp_path / "ours") == before


def repack(path: Path, changes: dict[str, bytes | None], relist: bool = False) -> None:
    """Rewrite the archive with parts replaced, left out (``None``) or added; ``relist`` forges the checksums too."""
    with zipfile.ZipFile(path) as archive:
        parts: dict[str, bytes | None] = {name: archive.read(name) for name in archive.namelist()}
    parts |= changes
    if relist:
        kept = {n: d for n, d in parts.items() if d is not None and n != "manifest.json"}
        listing = json.loads(parts["manifest.json"] or b"{}")
        listing["sha256"] = {name: hashlib.sha256(data).hexdigest() for name, data in kept.items()}
        parts["manifest.json"] = json.dumps(listing).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            if data is not None:
                archive.writestr(name, data)


def part(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def faster(path: Path) -> None:
    repack(path, {"records.jsonl": re.sub(rb"0\.0100\d*", b"0.0010", part(path, "records.jsonl"))})


def forged(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Edits the first record and forges the checksum."""

    def change(path: Path) -> None:
        first, rest = part(path, "records.jsonl").split(b"\n", 1)
        values = json.loads(first)
        edit(values)
        repack(path, {"records.jsonl": json.dumps(values).encode() + b"\n" + rest}, relist=True)

    return change


def bomb(path: Path) -> None:
    repack(path, {"records.jsonl": b"\0" * 50_000_000}, relist=True)


def edit_run(path: Path) -> None:
    run = {**json.loads(part(path, "run.json")), "run_id": "../../etc"}
    records = part(path, "records.jsonl").replace(json.loads(part(path, "run.json"))["run_id"].encode(), b"../../etc")
    repack(path, {"run.json": json.dumps(run).encode(), "records.jsonl": records}, relist=True)


FORGERIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut off": (cut, "not a packed run, or damaged"),
    "a flipped byte": (flip, "run.zip: "),
    "not an archive": (lambda p: p.write_text("hello"), "not a packed run, or damaged: File is not a zip file"),
    "faster samples": (faster, "tampered with or damaged: records.jsonl does not have the checksum"),
    "a part left out": (lambda p: repack(p, {"device.json": None}), "its parts are not those of its list"),
    "no list": (lambda p: repack(p, {"manifest.json": None}), "not a packed run: no manifest.json"),
    "a path out of the store": (lambda p: repack(p, {"../../evil": b"x"}), "it holds '../../evil'"),
    "a run id out of the store": (edit_run, "not a run id"),
    "a bomb": (bomb, "packed more tightly than records can be"),
    "ok without samples": (forged(lambda r: r.update(samples_s=[])), "records.jsonl:1: record: Value error, status ok"),
    "an unknown field": (forged(lambda r: r.update(colour="blue")), "records.jsonl:1: colour: Extra inputs"),
    "a newer schema": (forged(lambda r: r.update(schema_version=99)), "schema 99 is newer"),
    "a record of another run": (forged(lambda r: r.update(run_id="other")), "a record of run 'other'"),
    "not a number": (forged(lambda r: r.update(prepare_s=float("nan"))), "prepare_s: Input should be a finite number"),
    "another format": (
        lambda p: repack(p, {"manifest.json": b'{"format": "x"}'}),
        "not a packed run: its format is 'x'",
    ),
    "a newer format": (
        lambda p: repack(p, {"manifest.json": b'{"format": "ridgeline-run", "format_version": 2}'}),
        "upgrade ridgeline",
    ),
    "a damaged roof": (lambda p: repack(p, {"device.json": b"{}"}, relist=True), "device.json: "),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_changed_file_is_refused_in_one_line_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    change, message = FORGERIES[name]
    path = pack(make_store(tmp_path / "theirs", 1), "latest", tmp_path / "run.zip")
    change(path)
    ours = Store(tmp_path / "ours")
    with pytest.raises(StoreError) as refused:
        add(ours, path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "ours").exists()
    assert not (tmp_path / "etc").exists()


def test_a_file_that_unpacks_to_too_much_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(make_store(tmp_path / "theirs", 1), "latest", tmp_path / "run.zip")
    monkeypatch.setattr(pack_module, "MOST_BYTES", 1000)
    with pytest.raises(StoreError, match="unpacks to more than"):
        read_packed(path)


@pytest.mark.parametrize("at", ["records.parquet", "run.json", "rename"])
def test_half_an_add_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    path = pack(make_store(tmp_path / "theirs", 1), "latest", tmp_path / "run.zip")
    ours = make_store(tmp_path / "ours", 1)
    before = snapshot(tmp_path / "ours")
    write, rename = deposit_module.write_durably, os.rename

    def full(target: Path, data: bytes) -> None:
        if target.name == at:
            raise StoreError(f"{target}: disk full")
        write(target, data)

    def failing(source: Path, target: Path) -> None:
        if at == "rename":
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(deposit_module, "write_durably", full)
    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(StoreError, match="disk full"):
        add(ours, path)
    assert snapshot(tmp_path / "ours") == before


def test_what_a_killed_add_left_is_no_run_and_is_removed_by_the_next(tmp_path: Path) -> None:
    path = pack(make_store(tmp_path / "theirs", 1), "latest", tmp_path / "run.zip")
    ours = make_store(tmp_path / "ours", 1)
    left = tmp_path / "ours" / "runs" / ".incoming-0123"
    left.mkdir()
    (left / "records.parquet").write_bytes(b"half")
    assert len(ours.runs()) == 1
    (finding,) = check_store(ours).findings
    assert (finding.severity, finding.run_id) == ("note", ".incoming-0123")
    add(ours, path)
    assert not left.exists()
    assert len(ours.runs()) == 2


def test_an_unfinished_run_is_not_packed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    refused = pytest.raises(StoreError, match="is running: only a finished run can be packed")
    with store.create(make_manifest(), make_device()), refused:
        pack(store, "latest", tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_check_names_every_kind_of_damage(tmp_path: Path) -> None:
    store = make_store(tmp_path, 5)
    assert check_store(store).findings == ()
    newest = [info.run_id for info in store.runs()]
    runs = tmp_path / "runs"
    records = runs / newest[0] / "records.parquet"
    data = bytearray(records.read_bytes())
    data[len(data) // 3] ^= 0xFF
    records.write_bytes(bytes(data))
    (runs / newest[1] / "device.json").write_text("{")
    (runs / newest[2] / "run.json").unlink()
    (runs / newest[3] / "run.json").write_text((runs / newest[4] / "run.json").read_text())
    (runs / "a folder").mkdir()
    report = check_store(store)
    found = {(f.run_id, f.severity) for f in report.findings}
    assert found == {(run_id, "damaged") for run_id in newest[:4]} | {("a folder", "note")}
    assert report.damaged
    assert all("\n" not in f.what for f in report.findings)


def test_check_of_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such store"):
        check_store(Store(tmp_path / "none"))


def test_free_text_keeps_what_is_no_name() -> None:
    hide = Anonymiser(frozenset({"ada", "root"}))
    kept = "CUDA out of memory: 12.5 GB/s, 3/4 of FLOP/byte, 0.5 s is 1.02 times faster; root cause: adapt"
    assert hide.text(kept) == kept
    assert hide.text("see C:\\Users\\x\\y.py and src/a/b.py, ada's") == "see <path> and <path>, <name>'s"


def test_the_environment_is_packed_by_allow_list() -> None:
    assert anonymous_environment(
        {"LD_PRELOAD": "x", "python": "3.11.2", "env.PATH": "/home/x", "cpu": "EPYC 9B14"}
    ) == {
        "python": "3.11.2",
        "cpu": "EPYC 9B14",
    }


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in sorted(folder.rglob("*"))}
