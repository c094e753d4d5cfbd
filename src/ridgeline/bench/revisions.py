"""Kernels as they were at a commit: their folder taken out of git, for a process that runs them beside the present ones.

Only the kernels are old. The harness that measures them is the present one on both sides, so that a change of how
things are measured is never taken for a change of the kernel.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import ridgeline
from ridgeline.results.comparison import ComparisonError

PACKAGE = Path(ridgeline.__file__).resolve().parent


@dataclass(frozen=True)
class Source:
    """Where a side's process finds its code."""

    python_path: Path
    """Folder that holds the ``ridgeline`` package."""
    with_folders: tuple[str, ...]
    """Folders of the user's own kernels."""
    commit: str
    """Commit of the kernels; empty for the code as it lies there."""


def present(with_folders: tuple[str, ...]) -> Source:
    """The code as it lies there now."""
    return Source(PACKAGE.parent, with_folders, "")


def take_out(kernel: Path, revision: str, with_folders: tuple[str, ...], into: Path) -> Source:
    """Take the folder of kernels that holds ``kernel`` out of git as it was at ``revision``.

    Args:
        kernel: present file of the implementation, in this package or in one of ``with_folders``.
        revision: anything git takes for a commit.
        with_folders: the user's own folders, as absolute paths.
        into: an empty folder to put it in.

    Raises:
        ComparisonError: where the file is in no git repository, or the revision or the folder is not in it.
    """
    kernel = kernel.resolve()
    kernels = PACKAGE / "kernels"
    shipped = kernel.is_relative_to(kernels)
    folder = kernels if shipped else kernel.parent
    top = _git(
        folder, "rev-parse", "--show-toplevel", wrong=f"{folder}: not in a git repository, so it has no revisions"
    )
    commit = _git(
        folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}",
        wrong=f"{revision!r} is no commit of {top}: `git log --oneline` lists them",
    )  # fmt: skip
    inside = folder.relative_to(Path(top).resolve())
    archive = subprocess.run(["git", "-C", top, "archive", commit, "--", str(inside)], capture_output=True)
    if archive.returncode != 0:
        raise ComparisonError(f"{inside} is not in {revision} ({commit[:12]}) of {top}: take a later revision")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(into / "taken", filter="data")
    taken = into / "taken" / inside
    if not shipped:
        return Source(PACKAGE.parent, tuple(str(taken) if Path(f) == folder else f for f in with_folders), commit)
    shutil.copytree(PACKAGE, into / "ridgeline", ignore=shutil.ignore_patterns("__pycache__", "kernels"))
    shutil.move(str(taken), into / "ridgeline" / "kernels")
    return Source(into, with_folders, commit)


def _git(folder: Path, *arguments: str, wrong: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        raise ComparisonError("git is not installed: comparing revisions needs it") from None
    if done.returncode != 0:
        raise ComparisonError(wrong)
    return done.stdout.strip()
