"""Compiles the C++ sources of this folder at first use into a private cache, and loads them with ctypes.

The cache is ``${RIDGELINE_CACHE:-~/.cache/ridgeline}/native``, mode 0700, because a library from it is executed: a
folder that another user owns or may write to is refused. Sources choose instruction sets at run time, so flags never
name the CPU; it is part of the key all the same, so that results of one CPU are never from a library built on another.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy.typing as npt
from filelock import FileLock

FOLDER = Path(__file__).resolve().parent

NO_COMPILER = "no C++ compiler found: install g++ (Debian: apt-get install g++) or set CXX"

SANITIZE = "RIDGELINE_NATIVE_SANITIZE"
"""Environment variable: where it is 1, everything is compiled with AddressSanitizer and UndefinedBehaviorSanitizer."""

COMPILE_LIMIT_S = 600.0
"""Longest compilation, and so the longest wait for another process's; the sources here take 2 to 4 s."""

STATUS = {
    -1: "more threads than CPUs that this process may use",
    -2: "the system refused to start a thread",
    -3: "this CPU lacks the instructions of that path",
    -4: "bad argument",
}
"""What the exported functions return (``Status`` in isa.h), apart from 0."""

_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


class NativeBuildError(RuntimeError):
    """No compiler, a failed compilation or an unsafe cache. One line: what happened and what to do."""


class NativeCallError(ValueError):
    """A native function refused its arguments; the text says why."""


def sanitized() -> bool:
    """Whether what is built and loaded checks itself; ``make test-sanitizers`` sets that."""
    return os.environ.get(SANITIZE, "") not in ("", "0")


def flags() -> tuple[str, ...]:
    """Compiler flags of every source. No -march: the sources choose instruction sets when they run.

    ``-fno-tree-loop-distribute-patterns`` keeps GCC from replacing a measured copy loop by a call of memcpy, which
    stores past the caches above a size of its own.
    """
    checks = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g")
    return (
        *(("-O1", *checks) if sanitized() else ("-O3",)),
        "-std=c++20",
        "-fPIC",
        "-shared",
        "-pthread",
        "-fno-tree-loop-distribute-patterns",
        f"-I{FOLDER}",
    )


def sources(name: str, folder: Path = FOLDER) -> tuple[Path, ...]:
    """``folder/name.cpp`` and every file it includes with quotes, directly or not, from beside it or from here.

    Raises NativeBuildError where the source or an included file does not exist.
    """
    found: list[Path] = []
    waiting = [folder / f"{name}.cpp"]
    while waiting:
        path = waiting.pop(0)
        if path in found:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise NativeBuildError(f"{path}: no such C++ source") from None
        found.append(path)
        for included in _INCLUDE.findall(text):
            beside = path.parent / included
            waiting.append(beside if beside.exists() else FOLDER / included)
    return tuple(found)


def cache_folder(part: str = "native") -> Path:
    """The private cache of ``part``, created with mode 0700. Raises NativeBuildError where others could place files in it."""
    base = os.environ.get("RIDGELINE_CACHE")
    folder = (Path(base) if base else Path.home() / ".cache" / "ridgeline") / part
    advice = "set RIDGELINE_CACHE to a private folder"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
    except OSError as error:
        raise NativeBuildError(f"{folder}: {error.strerror or error}; {advice}") from None
    if not stat.S_ISDIR(facts.st_mode):
        raise NativeBuildError(f"{folder} is a link or a file, not a folder; {advice}")
    if facts.st_uid != os.geteuid():
        raise NativeBuildError(f"{folder} belongs to user {facts.st_uid}, not to you; {advice}")
    if facts.st_mode & 0o022:
        raise NativeBuildError(f"others may write to {folder}: chmod 700 it, or {advice}")
    return folder


@functools.cache
def _compiler_version(command: tuple[str, ...]) -> str:
    try:
        answer = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise NativeBuildError(f"the C++ compiler {shlex.join(command)} does not run: {error}") from None
    return answer.stdout.partition("\n")[0]


def compiler() -> tuple[str, ...]:
    """The compiler's command: ``CXX`` (may hold options), else g++, c++ or clang++. Raises NativeBuildError."""
    chosen = tuple(shlex.split(os.environ.get("CXX", "")))
    if chosen:
        if shutil.which(chosen[0]) is None:
            raise NativeBuildError(f"{NO_COMPILER} (CXX is {chosen[0]!r}, which is not there)")
        return chosen
    for name in ("g++", "c++", "clang++"):
        if path := shutil.which(name):
            return (path,)
    raise NativeBuildError(NO_COMPILER)


@functools.cache
def cpu_identity() -> str:
    """Architecture, CPU model and its instruction flags, from /proc/cpuinfo where there is one."""
    wanted = ("vendor_id", "model name", "flags", "CPU implementer", "CPU part", "Features")
    lines: list[str] = []
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if not line.strip():
                    break  # the first CPU speaks for all
                if line.partition(":")[0].strip() in wanted:
                    lines.append(line.strip())
    except OSError:
        lines.append(platform.processor())
    return "\n".join([platform.machine(), *lines])


def content_key(name: str, folder: Path = FOLDER) -> str:
    """sha256 over the text of all sources, flags, compiler with its version, and CPU. Hexadecimal."""
    digest = hashlib.sha256()
    command = compiler()
    paths = sources(name, folder)
    for part in (*flags(), *command, _compiler_version(command), cpu_identity()):
        digest.update(part.encode() + b"\0")
    for path in paths:
        text = path.read_bytes()
        digest.update(f"{path.name}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()


def _compile(source: Path, target: Path) -> None:
    command = compiler()
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f"{target.stem}.", suffix=".tmp")
    os.close(handle)
    try:
        arguments = [*command, *flags(), str(source), "-o", temporary]
        try:
            answer = subprocess.run(arguments, capture_output=True, text=True, timeout=COMPILE_LIMIT_S)
        except (OSError, subprocess.SubprocessError) as error:
            raise NativeBuildError(f"{source.name}: the compiler {shlex.join(command)} failed: {error}") from None
        if answer.returncode != 0:
            lines = [line for line in answer.stderr.splitlines() if line.strip()]
            first = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "no message")
            raise NativeBuildError(f"{source.name} does not compile with {shlex.join(command)}: {first.strip()}")
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)


def library(name: str, folder: Path = FOLDER) -> Path:
    """The compiled library of ``folder/name.cpp``, compiled now unless the cache has it. Raises NativeBuildError.

    Safe from several processes at once: one compiles, the others wait for it, and none sees half a file.
    """
    key = content_key(name, folder)
    target = cache_folder() / f"{name}-{key[:32]}.so"
    if not target.exists():
        with FileLock(target.with_suffix(".lock"), timeout=COMPILE_LIMIT_S):
            if not target.exists():
                _compile(sources(name, folder)[0], target)
    return target


@functools.cache
def load(name: str, folder: Path = FOLDER) -> ctypes.CDLL:
    """The library of ``folder/name.cpp``, loaded once per process. Calls release the GIL. Raises NativeBuildError."""
    path = library(name, folder)
    if sanitized() and "libasan" not in os.environ.get("LD_PRELOAD", ""):
        raise NativeBuildError(f"{SANITIZE} is set, but the sanitizers are not loaded: use make test-sanitizers")
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeBuildError(f"{path} does not load: {error}") from None


def pointer(memory: int | npt.NDArray[Any]) -> ctypes.c_void_p:
    """A pointer to an address, which the caller keeps alive, or to an array's data, which the pointer keeps alive."""
    return ctypes.c_void_p(memory) if isinstance(memory, int) else memory.ctypes.data_as(ctypes.c_void_p)


def check_status(status: int) -> None:
    """For ``restype``: turns a non-zero status of a native function into NativeCallError."""
    if status:
        raise NativeCallError(STATUS.get(status, f"native status {status}"))


def permitted_paths(available: tuple[str, ...]) -> tuple[str, ...]:
    """The instruction paths to choose from, best first, after ``RIDGELINE_NATIVE_ISA``.

    ``portable`` leaves the portable path only, ``avx2`` leaves out every AVX-512 path; unset leaves all.
    Raises NativeCallError for another value.
    """
    limit = os.environ.get("RIDGELINE_NATIVE_ISA", "")
    if limit in ("", "avx512"):
        return available
    if limit == "avx2":
        return tuple(path for path in available if not path.startswith("avx512"))
    if limit == "portable":
        return ("portable",)
    raise NativeCallError(f"RIDGELINE_NATIVE_ISA must be portable, avx2 or avx512, not {limit!r}")
