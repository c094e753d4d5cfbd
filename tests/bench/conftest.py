"""The ``ridgeline`` command as a real process, with a cache of its own: it waits for no other run on this host."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
import unhurried_examples  # noqa: F401
from ridgeline_process import COMMAND, LIMIT_S, SOURCE, Run
from warm_commands import WarmCommands


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of the commands under test: this source, no store of the user's, a private cache."""
    cache = tmp_path_factory.mktemp("cache") / "native"
    cache.mkdir(mode=0o700)
    built = Path(os.environ.get("RIDGELINE_CACHE") or Path.home() / ".cache" / "ridgeline") / "native"
    for library in built.glob("*.so"):  # compiled once for all test sessions: that takes longer than the tests
        shutil.copy2(library, cache)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RIDGELINE")}
    return {**kept, "PYTHONPATH": str(SOURCE), "RIDGELINE_CACHE": str(cache.parent)}


@pytest.fixture(scope="session")
def started_command(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs ``ridgeline`` with arguments as a shell does, in a folder where nothing may be left behind."""
    empty = tmp_path_factory.mktemp("cwd")

    def run(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            env={**environment, **more},
            cwd=empty,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        return left_nothing(done, empty)

    return run


@pytest.fixture(scope="session")
def ridgeline_command(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The same, forked from a process that has imported torch: 4 s less for each."""
    empty = tmp_path_factory.mktemp("cwd")
    warm = WarmCommands(environment, tmp_path_factory.mktemp("streams"), LIMIT_S)

    def run(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        return left_nothing(warm.run([*map(str, arguments)], {**environment, **more}, empty), empty)

    yield run
    warm.stop()


def left_nothing(done: subprocess.CompletedProcess[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """What a command did, if it showed no traceback and left nothing in its folder."""
    assert "Traceback" not in done.stderr, done.stderr
    assert list(folder.iterdir()) == []
    return done


@pytest.fixture(scope="session")
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs ``ridgeline`` as where only the base is installed: on the packages of this environment less the extra."""
    folder = tmp_path_factory.mktemp("base")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        name = entry.name.lower().replace("-", "_")
        if not name.startswith(("torch", "triton", "numba", "llvmlite", "functorch", "_", "ridgeline")):
            (folder / entry.name).symlink_to(entry)

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-S", *COMMAND[1:], *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{folder}"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )

    return run
