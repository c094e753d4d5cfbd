"""A run as one file that can be sent: records, roofs and environment, with nothing that names its host.

The file is a ZIP archive of ``run.json``, ``device.json``, ``records.jsonl`` and ``manifest.json``, which holds the
SHA-256 of the other three. Equal runs give equal bytes. The checksums find damage and careless edits; they are no
signature: who sends a file vouches for it.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ridgeline.analytical.catalogue import DeviceError, device_from_dict
from ridgeline.analytical.device import Device
from ridgeline.analytical.quantities import canonical_json
from ridgeline.results.anonymous import Anonymiser, anonymous_environment
from ridgeline.results.deposit import deposit
from ridgeline.results.durable import StoreError, one_line, storage_error, write_durably
from ridgeline.results.record import Record, RecordError, record_from_dict
from ridgeline.results.run import RunManifest
from ridgeline.results.store import RUN_ID, Store

FORMAT = "ridgeline-run"
FORMAT_VERSION = 1
LIST = "manifest.json"
PARTS = ("run.json", "device.json", "records.jsonl")
SUFFIX = ".ridgeline.zip"
MOST_BYTES = 512 * 2**20
"""Unpacked size above which a file is refused: 10 000 records of 7 x 1000 samples are 1.4 GB of text, a suite of 500
such records 70 MB."""
MOST_COMPRESSION = 200
"""Times a part may be smaller packed than unpacked; records of real samples reach 3 to 12, 1032 is deflate's limit."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Packed:
    """What a packed file holds, validated."""

    manifest: RunManifest
    device: Device | None
    records: tuple[Record, ...]
    content: str
    """SHA-256 over the checksums of the parts: equal for equal content."""


def pack(store: Store, run_id: str, output: Path | None = None) -> Path:
    """Write a finished run as one file; without ``output`` it is ``<run id>.ridgeline.zip`` in the current folder.

    Raises:
        StoreError: where there is no such run, it has not finished, or some of it is damaged.
    """
    info = store.run(run_id)
    if info.state != "finished":
        raise StoreError(
            f"{store.path}: run {info.run_id} is {info.state}: only a finished run can be packed"
            + (f" ({info.reason})" if info.reason else "")
        )
    path = output or Path(f"{info.run_id}{SUFFIX}")
    write_durably(path, _archive(_parts(store, info.run_id)))
    return path


def add(store: Store, path: Path) -> tuple[str, bool]:
    """Put the run of a packed file into the store, marked as contributed.

    Returns:
        its run id, and whether it was written: ``False`` where the store held the same content already.

    Raises:
        StoreError: where the file is no packed run, was damaged or tampered with, or its run id belongs to another run
            of the store. Nothing is written then.
    """
    packed = read_packed(path)
    run_id = packed.manifest.run_id
    if (store.path / "runs" / run_id).exists():
        if _content_of(store, run_id) == packed.content:
            return run_id, False
        raise StoreError(f"{path}: run {run_id} is in {store.path} with other content: one of the two was changed")
    manifest = packed.manifest.model_copy(update={"contributed": packed.content})
    deposit(store, manifest, packed.records, packed.device)
    return run_id, True


def read_packed(path: Path) -> Packed:
    """Read and validate a packed file: its checksums, the schema, every record.

    Raises:
        StoreError: one line naming the file and what is wrong with it.
    """
    parts, said = _unpack(path)
    try:
        manifest = RunManifest.model_validate(_json(path, "run.json", parts["run.json"]))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StoreError(f"{path}: run.json: {where}: {first['msg']}") from None
    if not RUN_ID.fullmatch(manifest.run_id):
        raise StoreError(f"{path}: run.json: {manifest.run_id!r} is not a run id")
    device = None
    if "device.json" in parts:
        try:
            device = device_from_dict(_json(path, "device.json", parts["device.json"]), f"{path}: device.json")
        except DeviceError as error:
            raise StoreError(str(error)) from None
    records = []
    for number, line in enumerate(parts["records.jsonl"].splitlines(), start=1):
        where = f"{path}: records.jsonl:{number}"
        try:
            record = record_from_dict(_json(path, f"records.jsonl:{number}", line), where)
        except RecordError as error:
            raise StoreError(str(error)) from None
        if record.run_id != manifest.run_id:
            raise StoreError(f"{where}: a record of run {record.run_id!r}, not of {manifest.run_id!r}")
        records.append(record)
    if len({record.record_id for record in records}) != len(records):
        raise StoreError(f"{path}: records.jsonl: a record occurs twice")
    return Packed(manifest, device, tuple(records), said)


def _parts(store: Store, run_id: str) -> dict[str, bytes]:
    manifest = store.manifest(run_id)
    records, set_aside = store.records(run_id)
    if set_aside:
        raise StoreError(f"{set_aside[0].where}: {set_aside[0].reason}: a damaged run cannot be packed")
    # What was contributed was made anonymous before it was sent; doing it twice would give it another unit.
    hide = None if manifest.contributed else Anonymiser()
    run = manifest.model_dump(mode="json", exclude={"contributed"})
    run["environment"] = anonymous_environment(run["environment"]) if hide else run["environment"]
    parts = {"run.json": _bytes(hide(run) if hide else run)}
    if (store.path / "runs" / run_id / "device.json").exists():
        device = store.device(run_id).to_dict()
        parts["device.json"] = _bytes(hide(device) if hide else device)
    rows = [record.model_dump(mode="json") for record in records]
    parts["records.jsonl"] = b"".join(_bytes(hide(row) if hide else row) + b"\n" for row in rows)
    return parts


def _bytes(values: Any) -> bytes:
    return json.dumps(values, allow_nan=False, sort_keys=True, separators=(",", ":")).encode()


def _content_of(store: Store, run_id: str) -> str:
    """Digest of a run of the store as it would be packed; empty where it cannot be, as while it is measured."""
    try:
        return store.manifest(run_id).contributed or _content(_checksums(_parts(store, run_id)))
    except StoreError:
        return ""


def _checksums(parts: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}


def _content(checksums: dict[str, str]) -> str:
    return hashlib.sha256(canonical_json(checksums).encode()).hexdigest()


def _archive(parts: dict[str, bytes]) -> bytes:
    listing = {"format": FORMAT, "format_version": FORMAT_VERSION, "sha256": _checksums(parts)}
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {LIST: json.dumps(listing, indent=1).encode(), **parts}.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, compress_type=zipfile.ZIP_DEFLATED)
    return sink.getvalue()


def _unpack(path: Path) -> tuple[dict[str, bytes], str]:
    """The parts of a file with their checksums verified, and its content digest. Names in it never become paths."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            strange = sorted(set(names) - {LIST, *PARTS})
            if strange or len(set(names)) != len(names):
                raise StoreError(f"{path}: not a packed run: it holds {strange[0] if strange else 'a name twice'!r}")
            if LIST not in names:
                raise StoreError(f"{path}: not a packed run: no {LIST} in it: `ridgeline store pack` makes one")
            if sum(member.file_size for member in members) > MOST_BYTES:
                raise StoreError(f"{path}: unpacks to more than {MOST_BYTES // 2**20} MiB: not read")
            data = {member.filename: _read_member(archive, member, path) for member in members}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise StoreError(f"{path}: not a packed run, or damaged: {one_line(error)}") from None
    except OSError as error:
        raise storage_error(path, error) from None
    listing = _json(path, LIST, data.pop(LIST))
    if listing.get("format") != FORMAT:
        raise StoreError(f"{path}: not a packed run: its format is {listing.get('format')!r}")
    if listing.get("format_version") != FORMAT_VERSION:
        raise StoreError(
            f"{path}: packed in format {listing.get('format_version')!r}, this Ridgeline reads {FORMAT_VERSION}: "
            "upgrade ridgeline"
        )
    checksums = _checksums(data)
    stated = listing.get("sha256")
    if not isinstance(stated, dict) or not {"run.json", "records.jsonl"} <= set(stated) or set(stated) != set(data):
        raise StoreError(f"{path}: tampered with or damaged: its parts are not those of its list")
    for name, found in checksums.items():
        if stated[name] != found:
            raise StoreError(f"{path}: tampered with or damaged: {name} does not have the checksum of the list")
    return data, _content(checksums)


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> bytes:
    """The bytes of one part; sizes stated by an archive are claims, so no more than the limit is ever read."""
    if member.file_size > MOST_COMPRESSION * max(member.compress_size, 2**10):
        raise StoreError(f"{path}: {member.filename} is packed more tightly than records can be: not read")
    with archive.open(member) as file:
        data = file.read(min(member.file_size, MOST_BYTES) + 1)
    if len(data) != member.file_size:
        raise StoreError(f"{path}: damaged: {member.filename} is not as long as the archive states")
    return data


def _json(path: Path, part: str, data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: {part}: damaged: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise StoreError(f"{path}: {part}: damaged: not a JSON object")
    return values
