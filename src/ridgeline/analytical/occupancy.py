"""Occupancy: how many programs of a compiled kernel are resident on one multiprocessor, and what keeps more away."""

from __future__ import annotations

from dataclasses import dataclass

from ridgeline.analytical.multiprocessor import Multiprocessor


@dataclass(frozen=True)
class Occupancy:
    """Resident programs and warps of one multiprocessor."""

    blocks: int
    """Zero where not even one fits: :attr:`limited_by` then says what it lacks."""
    warps: int
    fraction: float
    """Resident warps over those that the multiprocessor can hold."""
    limited_by: tuple[str, ...]
    """What allows no further program: registers, shared memory, warps, blocks; several where they tie."""


def occupancy(unit: Multiprocessor, *, registers: int, shared_bytes: int, warps: int) -> Occupancy:
    """Programs that fit at once.

    As NVIDIA's occupancy calculator and LLVM's AMDGPU target count: a warp lives in one partition of the
    multiprocessor, whose registers are handed out in units; blocks are whole.

    Args:
        unit: the multiprocessor.
        registers: of a thread.
        shared_bytes: shared memory (LDS) of a program.
        warps: of a program.

    Raises:
        ValueError: for a program without warps, or negative amounts.
    """
    if warps < 1 or registers < 0 or shared_bytes < 0:
        raise ValueError(f"no program: {warps} warps, {registers} registers, {shared_bytes} bytes of shared memory")
    limits = unit.limits
    of_a_warp = _rounded(registers * unit.warp_size, limits.register_unit)
    if registers > limits.registers_per_thread:
        by_registers = 0
    elif of_a_warp == 0:
        by_registers = limits.warps // warps
    else:
        by_registers = limits.registers // unit.partitions // of_a_warp * unit.partitions // warps
    of_a_block = _rounded(shared_bytes + limits.shared_reserved_bytes, limits.shared_unit_bytes)
    if shared_bytes > limits.shared_per_block_bytes:
        by_shared = 0
    elif of_a_block == 0:
        by_shared = limits.warps
    else:
        by_shared = limits.shared_bytes // of_a_block
    allowed = {
        "registers": by_registers,
        "shared memory": by_shared,
        "warps": limits.warps // warps,
        "blocks": (limits.blocks_of_one_warp or limits.blocks) if warps == 1 else limits.blocks,
    }
    blocks = min(allowed.values())
    limited_by = tuple(name for name, count in allowed.items() if count == blocks)
    return Occupancy(blocks, blocks * warps, blocks * warps / limits.warps, limited_by)


def _rounded(amount: int, unit: int) -> int:
    """The smallest multiple of ``unit`` that holds ``amount``."""
    return -(-amount // unit) * unit
