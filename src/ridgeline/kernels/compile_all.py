"""All Triton kernels compiled ahead of time, in parallel processes, with a cache of what was read of them.

Triton's own cache holds binaries; reading one takes two disassemblers and as long as a small compilation. This cache
holds what was read, keyed by everything that decides it: source of the kernel and of all it calls, types, constants,
target, Triton's version, and the source of the readers.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ridgeline.analytical.quantities import digest
from ridgeline.kernels.compiled import TARGETS, Compilation, CompiledKernel, CompileError, FailedKernel, compile_for

Result = CompiledKernel | FailedKernel


@dataclass(frozen=True)
class Task:
    """One compilation of one module for one target."""

    module: str
    """Name of a module, or the path of a Python file."""
    index: int
    """Of the module's ``compilations()``."""
    target: str


def kernel_modules() -> list[str]:
    """Modules of this package that hold Triton kernels: every ``kernels/<operator>/triton_*.py``."""
    root = Path(__file__).parent
    return [f"ridgeline.kernels.{path.parent.name}.{path.stem}" for path in sorted(root.glob("*/triton_*.py"))]


def compile_modules(
    modules: Iterable[str],
    targets: Sequence[str],
    *,
    processes: int = 2,
    wanted: Callable[[Compilation, str], bool] = lambda compilation, target: True,
    report: Callable[[int, int], None] = lambda done, planned: None,
) -> list[Result]:
    """Compile what ``modules`` offer for each target; one result each, in order.

    Args:
        modules: names of modules, or paths of Python files, that have ``compilations()``.
        targets: names of :data:`ridgeline.kernels.compiled.TARGETS`.
        processes: compilers at a time, each a fresh interpreter; none is started where the cache has everything.
        wanted: which compilations to keep for which target.
        report: called with how many are done of how many.
    """
    tasks, offered = [], []
    for module in modules:
        for index, compilation in enumerate(offered_by(module)):
            names = [t for t in targets if not compilation.targets or t in compilation.targets]
            kept = [name for name in names if wanted(compilation, name)]
            tasks += [Task(module, index, name) for name in kept]
            offered += [compilation] * len(kept)
    keys = [_key(compilation, task.target) for task, compilation in zip(tasks, offered, strict=True)]
    results: dict[int, Result] = {}
    for number, key in enumerate(keys):
        if key is not None and (found := _cached(key)) is not None:
            results[number] = found
    missing = [number for number in range(len(tasks)) if number not in results]
    report(len(results), len(tasks))
    if missing:
        with _pool(min(processes, len(missing))) as pool:
            futures = {number: pool.submit(_compile_task, tasks[number]) for number in missing}
            for number, future in futures.items():
                results[number] = result = _result(future, tasks[number])
                key = keys[number]
                if key is not None and isinstance(result, CompiledKernel):
                    _keep(key, result)
                report(len(results), len(tasks))
    return [results[number] for number in range(len(tasks))]


def compile_here(compilation: Compilation, target: str) -> CompiledKernel:
    """One compilation, from the cache or in this process.

    Raises:
        CompileError: where it does not compile.
    """
    key = _key(compilation, target)
    kernel = None if key is None else _cached(key)
    if kernel is None:
        kernel = compile_for(compilation, TARGETS[target])
        if key is not None:
            _keep(key, kernel)
    return kernel


def offered_by(module: str) -> Sequence[Compilation]:
    """What the ``compilations()`` of a module, or of a Python file, returns; nothing where it has none.

    Raises:
        CompileError: for a file that cannot be imported.
    """
    return getattr(_imported(module), "compilations", tuple)()


@cache
def _imported(module: str) -> Any:
    if not module.endswith(".py"):
        return importlib.import_module(module)
    path = Path(module)
    name = f"ridgeline_compiled_{path.parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CompileError(f"{path}: not a Python file")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # so that a kernel can import a file beside it
    try:
        spec.loader.exec_module(loaded)
    except Exception as error:
        raise CompileError(f"{path}: {type(error).__name__}: {error}".splitlines()[0]) from error
    return loaded


# --- the processes --------------------------------------------------------------------------------------------------


def _pool(processes: int) -> ProcessPoolExecutor:
    # Fresh interpreters: LLVM's threads and Triton's knobs do not survive a fork well.
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"), initializer=_be_quiet)


def _be_quiet() -> None:
    """LLVM writes the whole module to the error stream where a pass fails; CompileError says what is needed."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)


def _result(future: Future[Result], task: Task) -> Result:
    with contextlib.suppress(BrokenProcessPool):
        return future.result()
    # A compiler that dies takes the pool along: what was not done yet is tried again, each task alone.
    with _pool(1) as pool:
        try:
            return pool.submit(_compile_task, task).result()
        except BrokenProcessPool:
            compilation = offered_by(task.module)[task.index]
            return _failed(compilation, task, f"{compilation.label} for {task.target}: the compiler died")


def _compile_task(task: Task) -> Result:
    compilation = offered_by(task.module)[task.index]
    try:
        return compile_for(compilation, TARGETS[task.target])
    except CompileError as error:
        return _failed(compilation, task, str(error))


def _failed(compilation: Compilation, task: Task, error: str) -> FailedKernel:
    kernel = getattr(compilation.kernel, "__name__", "")
    return FailedKernel(task.target, compilation.label, kernel, compilation.num_warps, compilation.num_stages, error)


# --- the cache ------------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """``${RIDGELINE_CACHE:-~/.cache/ridgeline}/compiled``."""
    base = os.environ.get("RIDGELINE_CACHE")
    return (Path(base) if base else Path.home() / ".cache" / "ridgeline") / "compiled"


@cache
def _readers() -> str:
    """SHA-256 of the sources that decide what is read of a binary."""
    folder = Path(__file__).parent
    text = b"".join(
        (folder / name).read_bytes() for name in ("compiled.py", "control_flow.py", "issue_slots.py", "machine_code.py")
    )
    return hashlib.sha256(text).hexdigest()


def _key(compilation: Compilation, target: str) -> str | None:
    """Digest of all that decides the result; ``None`` where it cannot be told, as for a kernel that is interpreted."""
    if not hasattr(compilation.kernel, "cache_key"):
        return None
    return digest(
        {
            "source": compilation.kernel.cache_key,
            "label": compilation.label,
            "signature": dict(compilation.signature),
            "constants": {name: getattr(v, "cache_key", repr(v)) for name, v in compilation.constexprs.items()},
            "warps": compilation.num_warps,
            "stages": compilation.num_stages,
            "aligned": list(compilation.aligned),
            "target": target,
            "triton": version("triton"),
            "readers": _readers(),
        },
        40,
    )


def _cached(key: str) -> CompiledKernel | None:
    try:
        values = json.loads((cache_folder() / f"{key}.json").read_text(encoding="utf-8"))
        return CompiledKernel(**{**values, "matrix_instructions": tuple(values["matrix_instructions"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None  # absent, or not written by this version: it is compiled again


def _keep(key: str, kernel: CompiledKernel) -> None:
    """Store a result; a cache that cannot be written costs time, and nothing else."""
    folder = cache_folder()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(kernel.to_dict(), file)
        os.replace(temporary, folder / f"{key}.json")
