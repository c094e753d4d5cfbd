"""Writing that survives a crash, and the one-line errors of the store."""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class StoreError(ValueError):
    """The store cannot do what was asked. One line: what, where, what to do."""


@dataclass(frozen=True)
class SetAside:
    """Data that did not validate; the rest was loaded."""

    where: str
    """Run, file and line."""
    reason: str


def one_line(error: BaseException) -> str:
    """The message of ``error`` on one line, for messages that quote a library."""
    return " ".join(str(error).split())


def storage_error(path: Path, error: OSError) -> StoreError:
    """The one-line error for a write to or a read from ``path`` that the operating system refused."""
    if error.errno in _FULL:
        return StoreError(
            f"{path}: disk full: free space and run the same command again; everything measured so far is kept"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreError(
            f"{path}: {error.strerror}: change its permissions, or choose another store with --store or RIDGELINE_STORE"
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return StoreError(f"{path}: not a folder: choose another store with --store or RIDGELINE_STORE")
    return StoreError(f"{path}: {error.strerror or one_line(error)}")


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable: without it a new file's name can be lost although its bytes were synced.

    Raises:
        OSError: where the folder cannot be opened or synced.
    """
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write every byte of ``data`` at ``offset``; one ``pwrite`` may take only a part of them.

    Raises:
        OSError: where the disk is full or fails; a part may have been written.
    """
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def write_durably(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` so that a reader, or a crash at any moment, sees all of it or what was there before.

    Raises:
        StoreError: where the disk is full or not writable; ``path`` is then as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            write_all(fd, data, 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise storage_error(path, error) from None
