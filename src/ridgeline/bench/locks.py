"""Locks across processes: one measurement at a time on a unit, whichever store it is for; two would time each other."""

from __future__ import annotations

import contextlib
import random
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from ridgeline.kernels.native.build import cache_folder

TELL_S = 0.5
"""Longest silent wait."""
RETRY_S = (0.05, 0.15)
"""Between two tries, drawn by lot, so that two runs do not try in step."""


@contextlib.contextmanager
def held(units: Iterable[str]) -> Iterator[Path]:
    """Hold the locks of all ``units``; say so when another run has to end first.

    They are taken all or none: a run that waits holds nothing, so that no order of wishes ends with two runs waiting
    for each other.

    Args:
        units: hashes of cards and hosts; at least one.

    Yields:
        The path of a folder, not there yet, for what the processes of the run share. It is removed with the locks; what
        a run left in it that was killed is removed before.
    """
    places = [cache_folder() / f"placement-{unit}" for unit in sorted(set(units))]
    locks = [FileLock(f"{place}.lock") for place in places]
    tell_at = time.monotonic() + TELL_S
    while not _take_all(locks):
        if time.monotonic() >= tell_at:
            print("ridgeline: waiting for another run on this machine to end", file=sys.stderr)
            tell_at = float("inf")
        time.sleep(random.uniform(*RETRY_S))
    try:
        for place in places:
            shutil.rmtree(place, ignore_errors=True)
        yield places[0]
    finally:
        shutil.rmtree(places[0], ignore_errors=True)
        _release(locks)


def _take_all(locks: Sequence[FileLock]) -> bool:
    """Take every lock, or none."""
    try:
        for lock in locks:
            lock.acquire(timeout=0)
    except Timeout:
        _release(locks)
        return False
    except BaseException:
        _release(locks)
        raise
    return True


def _release(locks: Sequence[FileLock]) -> None:
    for lock in locks:
        lock.release()
