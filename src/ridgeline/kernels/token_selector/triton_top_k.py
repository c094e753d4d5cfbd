"""The k largest of each row in Triton, without waiting for the host: lists of tokens in order."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ridgeline.kernels.compiled import TARGETS, Compilation, local_architecture
from ridgeline.kernels.token_selector.lists import lists_of_top_k

AMPERE_TO_HOPPER = ("sm_80", "sm_89", "sm_90")


@triton.jit
def top_k_kernel(
    scores_ptr,  # float32 [rows, S]
    tokens_ptr,  # int32 [rows, K]
    S,
    K,
    BLOCK_S: tl.constexpr,
):
    """One row: the K-th largest score bit by bit, then the places of all that are above it, and of the first equal ones.

    Equal scores go by place, as in :func:`ridgeline.kernels.token_selector.lists.lists_of_top_k`; what is not a number
    counts as infinity.
    """
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK_S)
    there = place < S
    scores = tl.load(scores_ptr + row * S + place, mask=there, other=float("-inf"))
    scores = tl.where(scores != scores, float("inf"), scores) + 0.0  # -0 and 0 are equal
    bits = scores.to(tl.int32, bitcast=True)
    # In the order of the numbers, as signed integers; what lies beyond the row is below everything.
    keys = tl.where(there, tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits), -0x80000000)
    one = tl.full((), 1, dtype=tl.int32)
    least = tl.full((), -0x80000000, dtype=tl.int32)
    bit = 31
    at_least = S  # keys that are not below ``least``: when they are K, no lower bit changes who is chosen
    while (bit >= 0) & (at_least != K):
        # The sign bit is set in the smallest number: clearing it goes up, as setting each lower one does.
        candidate = least ^ (one << bit)
        count = tl.sum((keys >= candidate).to(tl.int32), axis=0)
        at_least = tl.where(count >= K, count, at_least)
        least = tl.where(count >= K, candidate, least)
        bit -= 1
    # Where the search ended early ``least`` is below the K-th largest, or it: all that are not below it are chosen.
    above = keys > least
    equal = (keys == least) & there
    wanted = (K - tl.sum(above.to(tl.int32), axis=0)).to(tl.uint32)
    # Both ranks from one scan, 16 bits each: two scans spilled registers.
    ranks = tl.cumsum(above.to(tl.uint32) + (equal.to(tl.uint32) << 16), axis=0)
    of_equal = ranks >> 16
    chosen = above | (equal & (of_equal <= wanted))
    at = (ranks & 0xFFFF) + tl.minimum(of_equal, wanted) - 1
    tl.store(tokens_ptr + row * K + at, place, mask=chosen)


def longest_row(architecture: str) -> int:
    """Scores that one program holds without spilling registers: 32 in each thread of 16 warps, elsewhere 16."""
    return 16384 if architecture in AMPERE_TO_HOPPER or not architecture else 8192


def block_of(length: int, architecture: str) -> tuple[int, int]:
    """Scores of a program, and its warps: half as many on AMD, whose warps are twice as wide."""
    block = max(32, triton.next_power_of_2(length))
    return block, (4 if block <= 2048 else 16) // (2 if architecture.startswith("gfx") else 1)


def top_k(scores: torch.Tensor, tokens: torch.Tensor) -> None:
    """Fill ``tokens``, int32 [..., k] contiguous, with the places of the k largest of each row of ``scores``.

    ``scores`` float32 [..., n], contiguous, with k <= n. Rows longer than :func:`longest_row` are torch's, which waits
    for the host.
    """
    s, k = scores.shape[-1], tokens.shape[-1]
    architecture = local_architecture() if scores.is_cuda else ""
    if s > longest_row(architecture):
        tokens.copy_(lists_of_top_k(scores, k))
        return
    block, warps = block_of(s, architecture)
    top_k_kernel[(scores.numel() // s,)](scores, tokens, s, k, BLOCK_S=block, num_warps=warps)


def warm_up(length: int, kept: int) -> None:
    """Compile for rows of ``length`` on this card."""
    architecture = local_architecture()
    if length <= longest_row(architecture):
        block, warps = block_of(length, architecture)
        top_k_kernel.warmup(torch.float32, torch.int32, length, kept, BLOCK_S=block, num_warps=warps, grid=(1,))


def compilations() -> tuple[Compilation, ...]:
    """The longest rows of each target."""
    pointers = ("scores_ptr", "tokens_ptr")
    kinds = {(longest_row(target), block_of(longest_row(target), target)[1]) for target in TARGETS}
    return tuple(
        Compilation(
            kernel=top_k_kernel,
            label=f"token_selector top-k {length}",
            signature={"scores_ptr": "*fp32", "tokens_ptr": "*i32", "S": "i32", "K": "i32"},
            constexprs={"BLOCK_S": length},
            num_warps=warps,
            aligned=(*pointers, "S", "K"),
            targets=tuple(t for t in TARGETS if (longest_row(t), block_of(length, t)[1]) == (length, warps)),
        )
        for length, warps in sorted(kinds)
    )
