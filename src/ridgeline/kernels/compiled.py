"""Ahead-of-time compilation of the Triton kernels: what the compiler made of them, for devices that are not here.

``triton.compile`` needs no device: Triton's wheel carries ``ptxas``, ``cuobjdump`` and ``nvdisasm``, and LLVM for AMD.
Each Triton file offers ``compilations()``; ``python -m ridgeline.kernels.compiled --targets sm_90,gfx942 --json``
compiles them all. What the machine code holds is read by :mod:`ridgeline.kernels.machine_code`.

Interpreter and compiler cannot share a process: ``TRITON_INTERPRET`` is read when a kernel is decorated.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ridgeline.kernels.machine_code import CodeReadError, MachineCode, read_amd, read_nvidia

if TYPE_CHECKING:
    from triton.runtime.jit import JITFunction


class CompileError(RuntimeError):
    """A kernel that does not compile for a target. One line: kernel, target, and the compiler's first words."""


@dataclass(frozen=True)
class Target:
    """A device architecture, as Triton names it."""

    name: str
    """sm_90, gfx942, ..."""
    backend: str
    """cuda or hip."""
    arch: int | str
    """Compute capability times ten, or AMD's gfx name."""
    warp_size: int
    """Threads of a warp or wavefront."""


TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target("sm_80", "cuda", 80, 32),
        Target("sm_89", "cuda", 89, 32),
        Target("sm_90", "cuda", 90, 32),
        Target("sm_100", "cuda", 100, 32),
        Target("sm_120", "cuda", 120, 32),
        Target("gfx942", "hip", "gfx942", 64),
        Target("gfx950", "hip", "gfx950", 64),
    )
}
"""A100, L4 and Ada, H100 and H200, B200, consumer Blackwell; MI300X, MI350X."""


def local_architecture() -> str:
    """Name of this process's GPU as in ``TARGETS`` (sm_90, gfx942), also for one that is not in it (sm_86)."""
    import torch

    if torch.version.hip:
        properties: Any = torch.cuda.get_device_properties(torch.cuda.current_device())
        return str(properties.gcnArchName).split(":")[0]
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}"


def has_float8(architecture: str) -> bool:
    """Whether the matrix unit takes float8_e4m3fn: sm_89 and later, gfx950 (gfx942 has the fnuz formats only)."""
    return int(architecture[3:]) >= 89 if architecture.startswith("sm_") else architecture >= "gfx950"


def has_tf32(architecture: str) -> bool:
    """Whether the matrix unit rounds float32 to TF32: sm_80 and later, gfx942 (gfx950 dropped it)."""
    return architecture.startswith("sm_") or architecture == "gfx942"


@dataclass(frozen=True)
class Compilation:
    """One kernel with the types and constants it is compiled for."""

    kernel: JITFunction[Any]
    label: str
    """Operator, precision and tile, for tables."""
    signature: Mapping[str, str]
    """Triton type by run-time argument, such as ``*bf16`` or ``i32``."""
    constexprs: Mapping[str, Any]
    """Value by compile-time argument."""
    num_warps: int = 4
    num_stages: int = 3
    aligned: tuple[str, ...] = ()
    """Arguments that are multiples of 16 (pointers: of 16 bytes), which Triton's launcher would find out for itself."""
    targets: tuple[str, ...] = ()
    """Targets that have what the kernel needs; empty for all."""


@dataclass(frozen=True)
class CompiledKernel(MachineCode):
    """What the compiler made of one kernel for one target."""

    target: str = ""
    label: str = ""
    shared_bytes: int = 0
    """Shared memory (LDS) of one program."""
    num_warps: int = 0
    """Warps of one program, those included that the compiler adds when it specialises warps."""
    seconds: float = 0.0
    """Compile time; near zero where Triton's cache held the result."""
    cubin: bytes = field(default=b"", repr=False, compare=False)
    """The device binary, for a closer look."""

    def to_dict(self) -> dict[str, Any]:
        """Everything but the binary, as JSON takes it."""
        values = asdict(self)
        del values["cubin"]
        return values


def compile_for(compilation: Compilation, target: Target) -> CompiledKernel:
    """Compile one kernel for ``target`` and read the machine code. No device is needed.

    Raises:
        CompileError: in one line, where the process interprets Triton or the kernel does not compile.
    """
    from triton import knobs

    if knobs.runtime.interpret or not hasattr(compilation.kernel, "cache_key"):
        raise CompileError(
            f"{compilation.label} for {target.name}: this process interprets Triton; "
            "unset TRITON_INTERPRET and start it anew"
        )
    try:
        started = time.perf_counter()
        compiled = _compile(compilation, target)
        seconds = time.perf_counter() - started
        if target.backend == "cuda":
            binary = compiled.asm["cubin"]
            code = read_nvidia(binary, target.name)
        else:
            binary = compiled.asm["hsaco"]
            code = read_amd(compiled.asm["amdgcn"])
    except CodeReadError as error:
        raise CompileError(f"{compilation.label} for {target.name}: {error}") from error
    except Exception as error:
        raise CompileError(f"{compilation.label} for {target.name}: {_reason(error)}") from error
    return CompiledKernel(
        **vars(code),
        target=target.name,
        label=compilation.label,
        shared_bytes=compiled.metadata.shared,
        num_warps=compiled.metadata.num_warps,
        seconds=seconds,
        cubin=binary,
    )


def _compile(compilation: Compilation, target: Target) -> Any:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = compilation.kernel.arg_names
    constants = dict(compilation.constexprs)
    source = ASTSource(
        fn=compilation.kernel,
        # Triton wants every argument named, in order.
        signature={name: "constexpr" if name in constants else compilation.signature[name] for name in names},
        constexprs=constants,
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in compilation.aligned},
    )
    options = {"num_warps": compilation.num_warps, "num_stages": compilation.num_stages}
    # On failure Triton prints the whole PTX; standard output belongs to the caller.
    with contextlib.redirect_stdout(sys.stderr):
        return triton.compile(source, target=GPUTarget(target.backend, target.arch, target.warp_size), options=options)


def _reason(error: BaseException) -> str:
    """The innermost cause in one line; Triton wraps it in an excerpt of the source."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Triton's own errors begin with "at 12:4:" and the source; what went wrong comes last.
    if not lines:
        return type(error).__name__
    return f"{type(error).__name__}: {lines[-1] if lines[0].startswith('at ') else lines[0]}"


def kernel_modules() -> list[str]:
    """Modules of this package that hold Triton kernels: every ``kernels/<operator>/triton_*.py``."""
    root = Path(__file__).parent
    return [f"ridgeline.kernels.{path.parent.name}.{path.stem}" for path in sorted(root.glob("*/triton_*.py"))]


def compile_modules(modules: Iterable[str], targets: Sequence[Target], processes: int = 2) -> list[dict[str, Any]]:
    """Compile all that ``modules`` offer for each target, in parallel; one dictionary each, in order.

    A kernel that does not compile yields ``{"target", "label", "error"}`` and leaves the others alone.
    """
    tasks = []
    for module in modules:
        for index, compilation in enumerate(importlib.import_module(module).compilations()):
            wanted = [
                target.name for target in targets if not compilation.targets or target.name in compilation.targets
            ]
            tasks += [(module, index, name) for name in wanted]
    with _pool(processes) as pool:
        futures = [pool.submit(_compile_task, task) for task in tasks]
    return [_result(future, task) for future, task in zip(futures, tasks, strict=True)]


def _pool(processes: int) -> ProcessPoolExecutor:
    # Fresh interpreters: LLVM's threads and Triton's knobs do not survive a fork well.
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"), initializer=_be_quiet)


def _be_quiet() -> None:
    """LLVM writes the whole module to the error stream where a pass fails; CompileError says what is needed."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)


def _result(future: Future[dict[str, Any]], task: tuple[str, int, str]) -> dict[str, Any]:
    try:
        return future.result()
    except BrokenProcessPool:
        pass
    # A compiler that dies takes the pool along: what was not done yet is tried again, each task alone.
    with _pool(1) as pool:
        try:
            return pool.submit(_compile_task, task).result()
        except BrokenProcessPool:
            module, index, target = task
            label = importlib.import_module(module).compilations()[index].label
            return {"target": target, "label": label, "error": f"{label} for {target}: the compiler died"}


def _compile_task(task: tuple[str, int, str]) -> dict[str, Any]:
    module, index, target = task
    compilation = importlib.import_module(module).compilations()[index]
    try:
        return compile_for(compilation, TARGETS[target]).to_dict()
    except CompileError as error:
        return {"target": target, "label": compilation.label, "error": str(error)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile and print; exit code 0, 1 where a kernel did not compile, 2 for an unknown target."""
    parser = argparse.ArgumentParser(prog="python -m ridgeline.kernels.compiled", description=main.__doc__)
    parser.add_argument("modules", nargs="*", help="modules with compilations(); default: all of this package")
    parser.add_argument("--targets", default=",".join(TARGETS), help=f"comma-separated: {', '.join(TARGETS)}")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one JSON list on standard output")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.targets.split(",") if name not in TARGETS]
    if unknown:
        print(f"unknown target {unknown[0]!r}: one of {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    targets = [TARGETS[name] for name in options.targets.split(",")]
    kernels = compile_modules(options.modules or kernel_modules(), targets, options.processes)
    if options.json:
        print(json.dumps(kernels))
    else:
        for kernel in kernels:
            print(kernel.get("error") or _line(kernel))
    return 1 if any("error" in kernel for kernel in kernels) else 0


def _line(kernel: Mapping[str, Any]) -> str:
    instructions = " ".join(kernel["matrix_instructions"]) or "no matrix instructions"
    return (
        f"{kernel['target']:7} {kernel['label']:52} {kernel['registers']:4} registers "
        f"{kernel['spills_bytes']:5} B spilled {kernel['shared_bytes']:7} B shared {kernel['code_bytes']:6} B code "
        f"{kernel['seconds']:5.1f} s  {instructions}"
    )


if __name__ == "__main__":
    # The kernels import this module by its name; run that copy, so that there is one CompileError.
    sys.exit(importlib.import_module("ridgeline.kernels.compiled").main())
