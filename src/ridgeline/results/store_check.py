"""Reading every byte of a store and naming what is damaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ridgeline.results.deposit import left_behind
from ridgeline.results.durable import StoreError, storage_error
from ridgeline.results.store import Store


@dataclass(frozen=True)
class Finding:
    """Something in a store that is not as it should be."""

    run_id: str
    severity: Literal["damaged", "note"]
    """damaged: results cannot be read, or contradict themselves. note: worth knowing, nothing is lost."""
    what: str
    """One line."""


@dataclass(frozen=True)
class StoreReport:
    """What reading a whole store found."""

    runs: int
    records: int
    findings: tuple[Finding, ...]

    @property
    def damaged(self) -> bool:
        """Whether anything is damaged."""
        return any(finding.severity == "damaged" for finding in self.findings)


def check_store(store: Store) -> StoreReport:
    """Read every run, with its checksums, and every record.

    Raises:
        StoreError: where there is no store, or it cannot be read at all.
    """
    if not store.path.exists():
        raise StoreError(f"{store.path}: no such store: choose another with --store or RIDGELINE_STORE")
    findings: list[Finding] = []
    seen: dict[str, str] = {}
    infos = store.runs()
    for info in infos:
        try:
            manifest = store.manifest(info.run_id)
            records, set_aside = store.records(info.run_id)
        except StoreError as error:
            findings.append(Finding(info.run_id, "damaged", str(error)))
            continue
        findings += [Finding(info.run_id, "damaged", f"{item.where}: {item.reason}") for item in set_aside]
        findings += _device_findings(store, info.run_id, imported=bool(manifest.imported))
        if manifest.run_id != info.run_id:
            findings.append(Finding(info.run_id, "damaged", f"run.json names another run, {manifest.run_id}"))
        strangers = sum(record.run_id != info.run_id for record in records)
        if strangers:
            findings.append(Finding(info.run_id, "damaged", f"{strangers} records of another run"))
        for record in records:
            if seen.setdefault(record.record_id, info.run_id) != info.run_id:
                first = seen[record.record_id]
                findings.append(Finding(info.run_id, "damaged", f"record {record.record_id} is in run {first} too"))
        if len({record.record_id for record in records}) != len(records):
            findings.append(Finding(info.run_id, "damaged", "a record occurs twice"))
        if info.state == "unfinished":
            have = f"{len(records)} of {manifest.planned}"
            findings.append(
                Finding(info.run_id, "note", f"unfinished, {have} measurements: the same command continues it")
            )
        if not records and info.state == "finished":
            findings.append(Finding(info.run_id, "note", "holds no record"))
    return StoreReport(len(infos), len(seen), (*findings, *_other_folders(store, {i.run_id for i in infos})))


def _device_findings(store: Store, run_id: str, imported: bool) -> list[Finding]:
    if imported and not (store.path / "runs" / run_id / "device.json").exists():
        return []  # the timings of other tools describe no device
    try:
        store.device(run_id)
    except StoreError as error:
        return [Finding(run_id, "damaged", str(error))]
    return []


def _other_folders(store: Store, known: set[str]) -> list[Finding]:
    runs = store.path / "runs"
    try:
        names = sorted(entry.name for entry in runs.iterdir()) if runs.exists() else []
    except OSError as error:
        raise storage_error(runs, error) from None
    dead = {folder.name for folder in left_behind(runs)}
    findings = [Finding(name, "note", "left by an import that was cut off: the next one removes it") for name in dead]
    return findings + [
        Finding(name, "note", "no run: nothing reads it") for name in names if name not in known and name[0] != "."
    ]
