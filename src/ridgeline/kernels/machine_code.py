"""Reading compiled GPU code: registers, spills, instructions, and what the main loop is made of.

NVIDIA cubins are read with ``cuobjdump`` of Triton's wheel, AMD code from the assembly that LLVM wrote.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ridgeline.kernels.control_flow import Instruction, loops


class CodeReadError(RuntimeError):
    """Compiled code, or the output of a tool, that does not look as expected. One line."""


@dataclass(frozen=True)
class Listing:
    """One kernel as its disassembler lists it."""

    registers: int
    spills_bytes: int
    code_bytes: int
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True)
class MachineCode:
    """What one kernel's machine code holds."""

    registers: int
    """Vector registers of a thread; on AMD of a lane, accumulation registers included."""
    spills_bytes: int
    """Bytes of private memory of a thread. The kernels declare no arrays, so all of it is spilled registers."""
    code_bytes: int
    matrix_instructions: tuple[str, ...]
    """Distinct opcodes of the matrix unit, with their modifiers: HGMMA.64x128x16.F32.BF16, v_mfma_f32_32x32x8_bf16."""
    instructions: Mapping[str, int] = field(default_factory=dict)
    """Count by opcode (NVIDIA: without modifiers), over the whole kernel."""
    main_loop: Mapping[str, int] = field(default_factory=dict)
    """The same over the main loop: the loop with the matrix instructions, else with the multiply-adds, else any."""
    asynchronous_copies: Mapping[str, int] = field(default_factory=dict)
    """Count by opcode of what copies from global to shared memory past the registers: LDGSTS (cp.async), UTMALDG and
    UBLKCP (TMA), buffer_load ... lds."""


# "/*1db0*/  @!P5 HGMMA.64x128x16.F32.BF16 R24, gdesc[UR8].tnspB, R24 ;"; the guard may be a uniform predicate.
_SASS = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*(?:\.\w+)*)\s*(.*?);")
_RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)")
_AMD_INSTRUCTION = re.compile(r"^\t([a-z]\w+)(?:\s+(.*))?$")
_AMD_LABEL = re.compile(r"^(\.L\w+):")


def read_nvidia(cubin: bytes, target: str) -> Listing:
    """Read a cubin.

    Raises:
        CodeReadError: where ``cuobjdump`` fails or its output cannot be understood.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        resources = _RESOURCES.search(_cuobjdump("-res-usage", path))
        instructions = parse_sass(_cuobjdump("-sass", path))
    if resources is None or not instructions:
        raise CodeReadError(f"cuobjdump shows no kernel in the cubin for {target}")
    registers, stack, local = (int(value) for value in resources.groups())
    code_bytes = instructions[-1].address + 16  # every instruction since Volta takes 16 bytes
    return Listing(registers, stack + local, code_bytes, tuple(instructions))


def read_amd(assembly: str) -> Listing:
    """Read the assembly of one kernel as LLVM writes it, metadata at its end.

    Raises:
        CodeReadError: where the metadata is missing.
    """
    try:
        registers = int(_search(r"\.vgpr_count:\s+(\d+)", assembly))
        spills_bytes = int(_search(r"\.private_segment_fixed_size:\s+(\d+)", assembly))
        code_bytes = int(_search(r"codeLenInByte = (\d+)", assembly))
    except ValueError:
        raise CodeReadError("the AMD assembly has no metadata of registers and code length") from None
    return Listing(registers, spills_bytes, code_bytes, tuple(parse_amd(assembly)))


def parse_sass(text: str) -> list[Instruction]:
    """Instructions of a ``cuobjdump -sass`` listing."""
    instructions = []
    for line in text.splitlines():
        found = _SASS.match(line)
        if not found:
            continue
        address, guard, opcode, operands = found.groups()
        base = opcode.split(".")[0]
        goal = re.search(r"0x([0-9a-f]+)\s*$", operands) if base in ("BRA", "JMP") else None
        # "BRA.U UP0, 0x1a0" has its condition among the operands.
        sure = not guard and (base in ("EXIT", "RET", "BRX") or (goal is not None and "," not in operands))
        target = int(goal[1], 16) if goal else None
        instructions.append(Instruction(int(address, 16), opcode, target, operands, not sure))
    return instructions


def parse_amd(text: str) -> list[Instruction]:
    """Instructions of an AMD assembly listing; the address is the line number."""
    lines = text.splitlines()
    labels = {found[1]: number for number, line in enumerate(lines) if (found := _AMD_LABEL.match(line))}
    instructions = []
    for number, line in enumerate(lines):
        found = _AMD_INSTRUCTION.match(line.split(";")[0].rstrip())
        if found:
            branches = found[1].startswith(("s_cbranch", "s_branch"))
            operands = found[2] or ""
            target = labels.get(operands) if branches else None
            sure = found[1] in ("s_branch", "s_endpgm", "s_setpc_b64")
            instructions.append(Instruction(number, found[1], target, operands, not sure))
    return instructions


def is_matrix(opcode: str) -> bool:
    """Whether the matrix unit executes it: HMMA, IMMA, QMMA, HGMMA, UTCHMMA, ... or v_mfma_*, v_smfmac_*, v_wmma_*."""
    return opcode.split(".")[0].endswith("MMA") or opcode.startswith(("v_mfma_", "v_smfmac_", "v_wmma_"))


def is_asynchronous_copy(instruction: Instruction) -> bool:
    """Whether it copies from global to shared memory (LDS) past the registers, while the warp goes on."""
    opcode = instruction.opcode.split(".")[0]
    if opcode in ("LDGSTS", "UTMALDG", "UBLKCP"):
        return True
    loads = opcode.startswith(("buffer_load_", "global_load_"))
    return loads and (opcode.startswith("global_load_lds_") or instruction.operands.rsplit(" ", 1)[-1] == "lds")


def is_multiply_add(opcode: str) -> bool:
    """Whether it is a floating-point multiply-add of the vector lanes."""
    return opcode.split(".")[0] in ("FFMA", "FFMA2", "HFMA2", "DFMA") or opcode.startswith(
        ("v_fma_", "v_fmac_", "v_pk_fma_")
    )


def main_loop(instructions: Sequence[Instruction]) -> list[Instruction]:
    """The loop that does the work; empty where there is no loop.

    It has matrix instructions if any loop has, else multiply-adds if any has; it holds no smaller such loop, and it
    has the most of them. Loops inside it that only wait are left out: what they repeat is no work, and compilers place
    the second look at a barrier far away, for when the first one fails. What stands behind a condition is counted.
    """
    found = loops(instructions)
    for kind in (is_matrix, is_multiply_add, lambda opcode: True):
        counts = [sum(kind(i.opcode) for i in loop) for loop in found]
        working = [(count, loop) for count, loop in zip(counts, found, strict=True) if count]
        innermost = [
            (count, loop)
            for count, loop in working
            if not any(inner is not loop and _holds(loop, inner) for _, inner in working)
        ]
        if innermost:
            chosen = max(innermost, key=lambda pair: (pair[0], -len(pair[1])))[1]
            waits = {
                i.address
                for inner in found
                if inner is not chosen and _holds(chosen, inner) and all(_only_waits(i.opcode) for i in inner)
                for i in inner
            }
            # The way back from a wait that stands far away is no part of the work either.
            for wait, following in itertools.pairwise(chosen):
                if wait.address in waits and following.target is not None and not following.falls_through:
                    waits.add(following.address)
            return [i for i in chosen if i.address not in waits]
    return []


def _holds(outer: Sequence[Instruction], inner: Sequence[Instruction]) -> bool:
    return len(inner) < len(outer) and {i.address for i in inner} <= {i.address for i in outer}


def _only_waits(opcode: str) -> bool:
    return opcode.split(".")[0] in ("SYNCS", "BRA", "NOP", "NANOSLEEP", "YIELD", "WARPSYNC", "BSYNC", "BSSY")


def machine_code(listing: Listing) -> MachineCode:
    """What is worth knowing of a listing."""

    def count(some: Sequence[Instruction]) -> dict[str, int]:
        return dict(Counter(i.opcode.split(".")[0] for i in some).most_common())

    instructions = listing.instructions
    return MachineCode(
        listing.registers,
        listing.spills_bytes,
        listing.code_bytes,
        matrix_instructions=tuple(sorted({i.opcode for i in instructions if is_matrix(i.opcode)})),
        instructions=count(instructions),
        main_loop=count(main_loop(instructions)),
        asynchronous_copies=count([i for i in instructions if is_asynchronous_copy(i)]),
    )


def _search(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else ""


def _cuobjdump(option: str, path: Path) -> str:
    from triton import knobs

    done = subprocess.run([knobs.nvidia.cuobjdump.path, option, str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CodeReadError(f"cuobjdump {option} failed: {(done.stderr.strip().splitlines() or ['no message'])[0]}")
    return done.stdout
