"""Issue slots: what one turn of a compiled kernel's main loop asks of each pipe of the multiprocessor.

Instructions are sorted into the kinds whose rates :mod:`ridgeline.analytical.multiprocessor` knows; results are counted
over all lanes and warps of a program. What an instruction does not say of itself is never guessed: ``reason`` then says
what is missing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ridgeline.analytical.quantities import bits
from ridgeline.kernels.control_flow import Instruction, branches
from ridgeline.kernels.machine_code import is_matrix

WARPGROUP = 4
"""Warps that execute one wgmma together."""


@dataclass(frozen=True)
class MatrixProduct:
    """One matrix instruction: D[m, n] += A[m, k] B[k, n]."""

    m: int
    n: int
    k: int
    precision: str
    """Of the operands."""
    shared_operands: int = 0
    """How many of A and B are read from shared memory: 0, 1 (B) or 2."""

    @property
    def flop(self) -> float:
        """Operations; a multiply-add is two."""
        return 2.0 * self.m * self.n * self.k

    @property
    def shared_words(self) -> float:
        """4-byte words that it reads from shared memory."""
        elements = (0, self.n * self.k, (self.m + self.n) * self.k)[self.shared_operands]
        return elements * bits(self.precision) / 32


@dataclass(frozen=True)
class LoopUsage:
    """One turn of the main loop of one program, all lanes and warps of it."""

    results: Mapping[str, float]
    """By kind of instruction; of loads and stores 4-byte words."""
    matrix_flop: Mapping[str, float]
    """Operations of the matrix unit by precision of the operands."""
    reason: str = ""
    """What could not be read, so that nothing may be derived from the rest; empty where all was."""


# --- NVIDIA ---------------------------------------------------------------------------------------------------------

_KINDS: Mapping[str, Iterable[str]] = {
    "float32": ("FADD", "FMUL", "FFMA", "FFMA2", "FADD2", "FMUL2"),
    "half2": ("HADD2", "HMUL2", "HFMA2"),
    "float64": ("DADD", "DMUL", "DFMA", "DSETP", "DMNMX"),
    "multiply_integer": ("IMAD", "IMUL", "IDP", "IDP4A"),
    "add_integer": ("IADD3", "IADD", "IADD32I", "VIADD", "LEA", "IABS"),
    "logic": ("LOP3", "LOP", "SHF", "SHL", "SHR", "PRMT", "SEL", "FSEL", "ISETP", "FSETP", "HSETP2", "BMSK", "SGXT"),
    "minimum": ("FMNMX", "FMNMX3", "IMNMX", "VIMNMX", "VIMNMX3", "VIADDMNMX", "HMNMX2", "VHMNMX"),
    "convert_packed": ("F2FP", "I2FP", "F2IP", "I2IP"),
    "convert": ("F2F", "F2I", "I2F", "FRND", "I2I"),
    "special": ("MUFU", "POPC", "FLO", "BREV"),
    "shuffle": ("SHFL",),
    "word": ("LDS", "STS", "LDSM", "STSM", "LDG", "STG", "LD", "ST", "LDL", "STL", "LDGSTS", "ATOMS", "ATOMG", "RED"),
    "tensor_memory": ("LDTM", "STTM"),
}
_KIND_OF = {opcode: kind for kind, opcodes in _KINDS.items() for opcode in opcodes}
_WARP_SHAPES = {
    "884": (8, 8, 4), "1684": (16, 8, 4), "1688": (16, 8, 8), "16816": (16, 8, 16), "16832": (16, 8, 32),
    "16864": (16, 8, 64), "8816": (8, 8, 16), "8832": (8, 8, 32), "168128": (16, 8, 128),
}  # fmt: skip
"""M x N x K of mma.sync by how the disassembler writes it."""
_TENSOR_K = {"f16": 16, "tf32": 8, "f8f6f4": 32, "i8": 32}
"""K of tcgen05.mma by its kind (PTX ISA, tcgen05 matrix shapes)."""
_TENSOR_PRECISION = {"f16": "bfloat16", "tf32": "tfloat32", "f8f6f4": "float8_e4m3fn", "i8": "int8"}
"""A precision of each kind; those of one kind have one rate."""
_TENSOR = re.compile(
    r"tcgen05\.mma\.cta_group::(\d)\.kind::(\w+)\S*\s+\[[^\]]*\],\s*(\[?)[^,]*,\s*[^,]*,\s*(%r\d+)", re.ASCII
)
_CONSTANT = re.compile(r"\bmov\.b32\s+(%r\d+),\s*(-?\d+);")


def warp_product(opcode: str, operands: str = "") -> MatrixProduct | None:
    """The product of one HMMA, IMMA, QMMA, DMMA (of a warp) or HGMMA, IGMMA, QGMMA (of four); ``None`` if unreadable."""
    base, *modifiers = opcode.split(".")
    precision = {
        "H": "bfloat16" if "BF16" in modifiers else "tfloat32" if "TF32" in modifiers else "float16",
        "I": "int8" if {"S8", "U8"} & set(modifiers) else "int4",
        "Q": "float8_e5m2" if "E5M2" in modifiers else "float8_e4m3fn",
        "D": "float64",
        "O": "float4_e2m1fn",
    }.get(base[0])
    if precision is None or not modifiers:
        return None
    if base[1:] == "GMMA":
        sizes = next((part for part in modifiers if re.fullmatch(r"\d+x\d+x\d+", part)), "")
        if not sizes:
            return None
        m, n, k = map(int, sizes.split("x"))
        # "R24, gdesc[UR8], R24" reads both operands by descriptor, "R24, R8, gdesc[UR4], R24" the second.
        listed = [part.strip() for part in operands.split(",")]
        return MatrixProduct(m, n, k, precision, 2 if len(listed) > 1 and listed[1].startswith("gdesc") else 1)
    shape = next((_WARP_SHAPES[part] for part in modifiers if part in _WARP_SHAPES), None)
    return None if shape is None else MatrixProduct(*shape, precision)


def tensor_products(ptx: str) -> list[tuple[int, MatrixProduct | None]]:
    """Line and product of every tcgen05.mma of a PTX text, whose shape only its instruction descriptor tells.

    The descriptor's bits 17 to 22 are N / 8, its bits 24 to 28 M / 16 (PTX ISA, tcgen05 instruction descriptor). A pair
    of multiprocessors (cta_group::2) shares an instruction: each does half of it.
    """
    found: list[tuple[int, MatrixProduct | None]] = []
    constants: dict[str, int] = {}
    for number, line in enumerate(ptx.splitlines()):
        if constant := _CONSTANT.search(line):
            constants[constant[1]] = int(constant[2])
        elif "tcgen05.mma." in line:
            said = _TENSOR.search(line)
            descriptor = constants.get(said[4]) if said else None
            if said is None or descriptor is None or said[2] not in _TENSOR_K:
                found.append((number, None))
                continue
            m = (descriptor >> 24 & 31) * 16 // int(said[1])
            n = (descriptor >> 17 & 63) * 8
            in_tensor_memory = said[3] == "["
            kind = said[2]
            found.append(
                (number, MatrixProduct(m, n, _TENSOR_K[kind], _TENSOR_PRECISION[kind], 1 if in_tensor_memory else 2))
            )
    return found


def tensor_products_of(ptx: str, count: int) -> list[MatrixProduct] | None:
    """The products of the loop of a PTX text that has ``count`` tcgen05.mma, as its machine code's main loop has.

    ``None`` where there is no such loop, or a shape in it is not known.
    """
    labels: dict[str, int] = {}
    loops: list[tuple[int, int]] = []
    for number, line in enumerate(ptx.splitlines()):
        if label := re.match(r"^(\$L__BB\w+):", line):
            labels[label[1]] = number
        elif (branch := re.search(r"\bbra(?:\.uni)?\s+(\$L__BB\w+);", line)) and branch[1] in labels:
            loops.append((labels[branch[1]], number))
    products = tensor_products(ptx)
    inside = [[product for line, product in products if begin <= line <= end] for begin, end in loops]
    fitting = sorted((some for some in inside if len(some) == count), key=len)
    known = [product for product in fitting[0] if product is not None] if fitting else []
    return known if len(known) == count else None


def _words(opcode: str) -> int:
    """4-byte words of one lane that a load or store moves."""
    base, *modifiers = opcode.split(".")
    if base in ("LDSM", "STSM"):
        return int(modifiers[-1]) if modifiers and modifiers[-1].isdigit() else 1
    if base in ("LDTM", "STTM"):
        return max((int(part[1:]) for part in modifiers if re.fullmatch(r"x\d+", part)), default=1)
    return 4 if "128" in modifiers else 2 if "64" in modifiers else 1


def nvidia_usage(loop: Sequence[Instruction], num_warps: int, ptx: str) -> LoopUsage:
    """Usage of a main loop of NVIDIA's machine code.

    Args:
        loop: its instructions, which every warp executes but for those of the tensor memory (UTC*) and bulk copies, and
            what stands in one branch with them: that one warp executes alone.
        num_warps: of a program.
        ptx: what the code was made from: only it shows the shapes of tcgen05.mma.
    """
    results: defaultdict[str, float] = defaultdict(float)
    flop: defaultdict[str, float] = defaultdict(float)
    reason = ""
    on_tensor_memory = 0
    alone = _of_one_warp(loop)
    for instruction in loop:
        base = instruction.opcode.split(".")[0]
        lanes = 32 if instruction.address in alone else 32 * num_warps
        results["instruction"] += lanes
        if base.startswith("UTC") and is_matrix(instruction.opcode):
            on_tensor_memory += 1
        elif is_matrix(instruction.opcode):
            product = warp_product(instruction.opcode, instruction.operands)
            if product is None:
                reason = f"the shape of {instruction.opcode} is not known"
                continue
            executed = num_warps / WARPGROUP if base.endswith("GMMA") else num_warps
            flop[product.precision] += product.flop * executed
            results["operand_word"] += product.shared_words * executed
        elif kind := _KIND_OF.get(base):
            per_lane = _words(instruction.opcode) if kind in ("word", "tensor_memory") else 2 if _is_pair(base) else 1
            results[kind] += per_lane * lanes
    if on_tensor_memory:
        products = tensor_products_of(ptx, on_tensor_memory)
        if products is None:
            reason = f"the PTX has no loop with the {on_tensor_memory} tcgen05.mma of the main loop"
        for product in products or ():
            flop[product.precision] += product.flop
            results["operand_word"] += product.shared_words
    return LoopUsage({kind: count for kind, count in results.items() if count}, dict(flop), reason)


def _is_of_one_warp(instruction: Instruction) -> bool:
    return instruction.opcode.startswith(("UTC", "UTMA", "UBLKCP"))


def _of_one_warp(loop: Sequence[Instruction]) -> set[int]:
    """Addresses of what one warp executes alone: work of the tensor memory and bulk copies, and the branches round it."""
    alone = {i.address for i in loop if _is_of_one_warp(i)}
    for body in branches(loop):
        if any(_is_of_one_warp(i) for i in body):
            alone.update(i.address for i in body)
    return alone


def _is_pair(base: str) -> bool:
    """Whether a lane computes two float32 results at once."""
    return base in ("FFMA2", "FADD2", "FMUL2")


# --- AMD ------------------------------------------------------------------------------------------------------------

_MFMA = re.compile(r"v_(?:mfma|smfmac|mfma_scale)_[a-z]+\d+_(\d+)x(\d+)x(\d+)_?(?:(\d+)b_)?(\w+)")
_MFMA_PRECISION = {
    "f64": "float64", "f32": "float32", "xf32": "tfloat32", "f16": "float16", "bf16": "bfloat16", "i8": "int8",
}  # fmt: skip
_SPECIAL = re.compile(r"v_(?:exp|log|rcp|rcp_iflag|rsq|sqrt|sin|cos)_(?:f16|f32|bf16)")


def amd_product(opcode: str, target: str, operands: str = "") -> MatrixProduct | None:
    """The product of one v_mfma_* of a wavefront, its blocks together; ``None`` if unreadable."""
    found = _MFMA.match(opcode)
    if found is None or opcode.startswith("v_smfmac"):
        return None
    m, n, k = (int(found[i]) for i in (1, 2, 3))
    kind = found[5].removesuffix("_e64").removesuffix("_1k")
    if kind.startswith(("fp8", "bf8")):
        precision: str | None = "float8_e4m3fnuz" if target == "gfx942" else "float8_e4m3fn"
    elif kind == "f8f6f4":
        # The formats of A and B are modifiers: 0 and 1 are float8, 2 and 3 float6, 4 float4 (CDNA4 ISA, VOP3P-MAI).
        formats = {name: int(value) for name, value in re.findall(r"\b(cbsz|blgp):(\d)", operands)}
        both = {formats.get("cbsz", 0), formats.get("blgp", 0)}
        precision = "float8_e4m3fn" if both <= {0, 1} else "float4_e2m1fn" if both == {4} else None
    else:
        precision = _MFMA_PRECISION.get(kind)
    return None if precision is None else MatrixProduct(m * int(found[4] or 1), n, k, precision)


def amd_usage(loop: Sequence[Instruction], num_warps: int, target: str) -> LoopUsage:
    """Usage of a main loop of AMD's assembly, which every wavefront executes."""
    results: defaultdict[str, float] = defaultdict(float)
    flop: defaultdict[str, float] = defaultdict(float)
    reason = ""
    lanes = 64 * num_warps
    for instruction in loop:
        opcode = instruction.opcode
        if is_matrix(opcode):
            product = amd_product(opcode, target, instruction.operands)
            if product is None:
                reason = f"the shape or the precision of {opcode} is not known"
                continue
            flop[product.precision] += product.flop * num_warps
            results["matrix_issue"] += lanes
        elif _SPECIAL.match(opcode):
            results["special"] += lanes
        elif opcode.startswith("v_") and opcode != "v_nop":
            results["vector"] += lanes
        elif opcode.startswith("ds_"):
            results["word"] += _amd_words(opcode) * lanes
        elif opcode.startswith(("buffer_", "global_", "flat_")):
            results["vector_memory"] += _amd_words(opcode) * lanes
    return LoopUsage(dict(results), dict(flop), reason)


def _amd_words(opcode: str) -> int:
    """4-byte words of one lane that an access moves."""
    if several := re.search(r"dwordx(\d)", opcode):
        return int(several[1])
    wide = re.search(r"_b(\d+)", opcode)
    words = max(int(wide[1]) // 32, 1) if wide else 1
    return words * 2 if opcode.startswith(("ds_read2", "ds_write2")) else words


def loop_usage(loop: Sequence[Instruction], target: str, num_warps: int, ptx: str = "") -> LoopUsage:
    """Usage of the main loop of a kernel compiled for ``target`` (``sm_90``, ``gfx942``)."""
    if not loop:
        return LoopUsage({}, {}, "there is no loop")
    if target.startswith("sm_"):
        return nvidia_usage(loop, num_warps, ptx)
    return amd_usage(loop, num_warps, target)
