"""Ahead-of-time compilation of the Triton kernels: what the compiler made of them, for devices that are not here.

``triton.compile`` needs no device: Triton's wheel carries ``ptxas``, ``cuobjdump`` and ``nvdisasm``, and LLVM for AMD.
Each Triton file offers ``compilations()``; ``ridgeline compile`` compiles them all
(:mod:`ridgeline.kernels.compile_all`). What the machine code holds is read by :mod:`ridgeline.kernels.machine_code`.

Interpreter and compiler cannot share a process: ``TRITON_INTERPRET`` is read when a kernel is decorated.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ridgeline.kernels.issue_slots import loop_usage
from ridgeline.kernels.machine_code import CodeReadError, MachineCode, machine_code, main_loop, read_amd, read_nvidia

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
    kernel: str = ""
    """Name of the Triton function."""
    shared_bytes: int = 0
    """Shared memory (LDS) of one program."""
    num_warps: int = 0
    """Warps of one program, those included that the compiler adds when it specialises warps."""
    asked_warps: int = 0
    """Warps that the configuration asks for."""
    num_stages: int = 0
    loop_results: Mapping[str, float] = field(default_factory=dict)
    """Results of one turn of the main loop by kind of instruction (:class:`ridgeline.kernels.issue_slots.LoopUsage`)."""
    loop_matrix_flop: Mapping[str, float] = field(default_factory=dict)
    loop_reason: str = ""
    """Why the two above do not say everything; empty where they do."""
    seconds: float = 0.0
    """Compile time; near zero where Triton's cache held the result."""
    cubin: bytes = field(default=b"", repr=False, compare=False)
    """The device binary, for a closer look."""

    def to_dict(self) -> dict[str, Any]:
        """Everything but the binary, as JSON takes it."""
        values = asdict(self)
        del values["cubin"]
        return values


@dataclass(frozen=True)
class FailedKernel:
    """A kernel that does not compile for a target."""

    target: str
    label: str
    kernel: str
    asked_warps: int
    num_stages: int
    error: str
    """One line: kernel, target, and the compiler's reason."""


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
            binary, ptx = compiled.asm["cubin"], compiled.asm["ptx"]
            listing = read_nvidia(binary, target.name)
        else:
            binary, ptx = compiled.asm["hsaco"], ""
            listing = read_amd(compiled.asm["amdgcn"])
    except CodeReadError as error:
        raise CompileError(f"{compilation.label} for {target.name}: {error}") from error
    except Exception as error:
        raise CompileError(f"{compilation.label} for {target.name}: {_reason(error)}") from error
    warps = compiled.metadata.num_warps
    usage = loop_usage(main_loop(listing.instructions), target.name, warps, ptx)
    specialised = (
        f"{warps} warps for {compilation.num_warps}: they are specialised, and each part has a loop of its own"
    )
    return CompiledKernel(
        **vars(machine_code(listing)),
        target=target.name,
        label=compilation.label,
        kernel=compilation.kernel.__name__,
        shared_bytes=compiled.metadata.shared,
        num_warps=warps,
        asked_warps=compilation.num_warps,
        num_stages=compilation.num_stages,
        loop_results=usage.results,
        loop_matrix_flop=usage.matrix_flop,
        loop_reason=usage.reason or ("" if warps == compilation.num_warps else specialised),
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
