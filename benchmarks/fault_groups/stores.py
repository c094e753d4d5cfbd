"""Damage to a store: a journal cut anywhere, broken lines, damaged files, a disk that is full, killed and crowding runs."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from synthetic import make_run
from test_resume import Command

from fault_groups.command import Ridgeline
from fault_groups.outcome import Outcome, judge
from ridgeline.results.store import Store, StoreError

GROUP = "store"
FLIPS = (0.1, 0.2, 0.3, 0.5, 0.7)
"""Where in the file of records a byte is damaged."""
CUTS = (0.05, 0.3, 0.5, 0.9, 0.999)


def outcomes(ridgeline: Ridgeline, folder: Path) -> Iterator[Outcome]:
    """Faults of files first, then of processes."""
    yield from _cut_journals(folder / "cut")
    yield from _damaged_files(folder / "damaged")
    yield from _processes(ridgeline, folder)


def _cut_journals(folder: Path) -> Iterator[Outcome]:
    for share in CUTS:
        store = Store(folder / f"{share}")
        run = make_run(store, finish=False)
        journal = store.path / "runs" / run / "journal.jsonl"
        whole = journal.read_bytes()
        cut = whole[: int(len(whole) * share)]
        journal.write_bytes(cut)
        records, aside = store.records(run)
        yield judge(
            GROUP,
            f"journal cut at {share:.1%} of its bytes",
            f"{len(records)} records kept; {aside[0].reason if aside else 'nothing set aside'}",
            every_whole_line_kept=len(records) == cut.count(b"\n"),
            the_rest_named=bool(aside) == (not cut.endswith(b"\n") and bool(cut)),
        )


def _damaged_files(folder: Path) -> Iterator[Outcome]:
    def flip(share: float) -> Callable[[Path], None]:
        def damage(path: Path) -> None:
            data = bytearray(path.read_bytes())
            data[int(share * len(data))] ^= 0xFF
            path.write_bytes(bytes(data))

        return damage

    damages: dict[str, tuple[str, Callable[[Path], None]]] = {
        "records truncated": ("records.parquet", lambda p: p.write_bytes(p.read_bytes()[:-100])),
        **{f"records flipped at {share:.0%}": ("records.parquet", flip(share)) for share in FLIPS},
        "records empty": ("records.parquet", lambda p: p.write_bytes(b"")),
        "manifest truncated": ("run.json", lambda p: p.write_bytes(p.read_bytes()[:50])),
        "device file not JSON": ("device.json", lambda p: p.write_text("{")),
    }
    for name, (file, damage) in damages.items():
        store = Store(folder / name.replace(" ", "-"))
        bad, good = make_run(store), make_run(store, 1)
        written = store.records(bad)[0]
        damage(store.path / "runs" / bad / file)
        records, aside = store.records()
        kept = [r for r in records if r.run_id == good]
        try:
            store.device(bad)
            # A byte that nothing reads (of a statistic in the footer) may be damaged: no number is.
            said = "read as it was" if store.records(bad)[0] == written else "read, and not as it was"
        except StoreError as error:
            said = str(error).replace(str(store.path), "STORE")
        yield judge(
            GROUP, name, said, other_runs_kept=len(kept) == 6,
            refused_by_name_or_as_it_was=said.startswith("STORE") or ("flipped" in name and said == "read as it was"),
            named=bool(aside) or file == "device.json" or said == "read as it was",
        )  # fmt: skip


def _processes(ridgeline: Ridgeline, folder: Path) -> Iterator[Outcome]:
    for number in range(4):
        command = Command(_fresh(folder / f"kill{number}"), ridgeline.environment, ridgeline.run, list(range(1, 7)))
        process = command.start()
        command.wait_for(number, process)
        workers = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        process.communicate()
        _, alive = psutil.wait_procs(workers, timeout=5.0)
        before = {r.record_id for r in command.records()}
        code, _ = command.finish()
        after = [r.record_id for r in command.records()]
        yield judge(
            GROUP,
            f"kill -9 after {number} records",
            f"{len(before)} kept, continued to {len(after)}, exit {code}",
            no_process_left=not alive,
            nothing_lost=before <= set(after),
            nothing_twice=len(after) == len(set(after)) == 6,
            continued=code == 0,
        )
    command = Command(_fresh(folder / "interrupt"), ridgeline.environment, ridgeline.run, list(range(1, 7)))
    process = command.start()
    command.wait_for(2, process)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    _, alive = psutil.wait_procs(workers, timeout=5.0)
    yield judge(
        GROUP, "Ctrl-C", said.splitlines()[-1], exit_4=process.returncode == 4, no_process_left=not alive,
        records_kept=len(command.records()) >= 2,
    )  # fmt: skip
    command = Command(_fresh(folder / "two"), ridgeline.environment, ridgeline.run, list(range(1, 4)))
    both = [command.start(), command.start()]
    codes = [(process.communicate(timeout=300), process.returncode)[1] for process in both]
    yield judge(
        GROUP, "two runs at once", f"exits {codes}, {len(command.records())} records", both_end=codes == [0, 0],
        all_records=len(command.records()) == 6,
    )  # fmt: skip
    command = Command(_fresh(folder / "full"), ridgeline.environment, ridgeline.run, list(range(1, 13)))
    process = command.start(most_bytes=12_000)
    _, said = process.communicate(timeout=300)
    kept = {r.record_id for r in command.records()}
    time.sleep(0.1)
    again, _ = command.finish()
    yield judge(
        GROUP, "disk full", said.strip().splitlines()[-1].replace(str(folder), ""), exit_2=process.returncode == 2,
        something_kept=len(kept) > 0, nothing_lost=kept <= {r.record_id for r in command.records()}, continued=again == 0,
    )  # fmt: skip


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
