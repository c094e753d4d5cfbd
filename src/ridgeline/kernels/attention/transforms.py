"""Plug-ins of the Triton tile loop: what turns scores into weights, what ends a row, and which keys a row sees.

Softmax is the online softmax of FlashAttention-2 (Dao 2023, section 3.1: unscaled accumulator, one division at the
end); unified-max softmax is FlashDecoding++ (Hong et al. 2024: a fixed maximum, so that parts of a row are plain sums);
sigmoid is FlashSigmoid (Ramapuram et al. 2024, section 4), which needs neither row maximum nor row sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl

# Scores into weights: (weights, accumulator, maximum, total) of scores in units of log2, [BLOCK_M, BLOCK_N].


@triton.jit
def online_softmax(scores, accumulator, maximum, total, bias):
    """Weights 2^(scores - running maximum); what was accumulated under an older maximum is rescaled."""
    new_maximum = tl.maximum(maximum, tl.max(scores, axis=1))
    # A row that has seen no key yet has the maximum -inf, and -inf - -inf is not a number.
    reference = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
    weights = tl.exp2(scores - reference[:, None])
    rescale = tl.exp2(maximum - reference)
    return weights, accumulator * rescale[:, None], new_maximum, total * rescale + tl.sum(weights, axis=1)


@triton.jit
def unified_max(scores, accumulator, maximum, total, bias):
    """Weights 2^(scores + bias), the same bias for every row: nothing is rescaled, and there is no maximum to find."""
    weights = tl.exp2(scores + bias)
    return weights, accumulator, maximum, total + tl.sum(weights, axis=1)


@triton.jit
def sigmoid(scores, accumulator, maximum, total, bias):
    """Weights 256 / (1 + 2^-(scores + bias)); a masked score of -inf gives 256 / inf = 0.

    A weight is about 1 / kv_length, which float16 holds only as a subnormal beyond 16384 keys: hence the factor.
    """
    return 256.0 / (1.0 + tl.exp2(-(scores + bias))), accumulator, maximum, total


@triton.jit
def sigmoid_on_fma_pipe(scores, accumulator, maximum, total, bias):
    """The same weights to 1.3e-4, for 16-bit products, with one special function a score instead of two.

    A division takes a reciprocal of the special-function pipe and what guards its range: on an H200 the loop with it took
    1.22 times softmax's time at d = 64. Here the reciprocal of y = 2^-8 (1 + 2^-(scores + bias)) is a first guess from the
    bits of y, off by at most 5.1 %, and one step of third order (Householder) on the FMA pipe. Not for hidden scores: -inf
    gives 2^-120 instead of 0.
    """
    y = tl.exp2(-(scores + bias)) * 0.00390625 + 0.00390625
    y = tl.minimum(y, 1.329228e36, propagate_nan=tl.PropagateNan.ALL)  # 2^120
    guess = (0x7EF31200 - y.to(tl.int32, bitcast=True)).to(tl.float32, bitcast=True)
    error = 1.0 - y * guess
    return guess + guess * (error + error * error), accumulator, maximum, total


# The end of a row that one program has seen all keys of.


@triton.jit
def divided(accumulator, total):
    """Divide by the row sum; a row that saw no key gives zeros."""
    return accumulator / tl.where(total == 0.0, 1.0, total)[:, None]


@triton.jit
def without_factor(accumulator, total):
    """Take the sigmoid's factor out again."""
    return accumulator * (1.0 / 256.0)


# The end of a part of a row: what the combine kernel reads, [BLOCK_M, BLOCK_D] and [BLOCK_M].


@triton.jit
def log_sum_exp(accumulator, maximum, total):
    """Output of the part alone, and the log2 of its sum: -inf for a part without keys."""
    return divided(accumulator, total), maximum + tl.log2(total)


@triton.jit
def plain_sums(accumulator, maximum, total):
    """Numerator and denominator."""
    return accumulator, total


# Which keys a row sees: [BLOCK_M, BLOCK_N] of keys [BLOCK_N] and of what is known of the rows.


@triton.jit
def up_to_last(key, rows):
    """``rows``: last and first key of each."""
    return key[None, :] <= rows[0][:, None]


@triton.jit
def in_window(key, rows):
    """``rows``: last and first key of each."""
    return (key[None, :] <= rows[0][:, None]) & (key[None, :] >= rows[1][:, None])


@triton.jit
def ancestor_or_context(key, rows):
    """``rows``: pointers to each row's bits, 32 nodes in a word; keys of the context; nodes."""
    node = key - rows[1]
    in_tree = (node >= 0) & (node < rows[2])
    word = tl.load(rows[0][:, None] + (node // 32)[None, :], mask=in_tree[None, :], other=0)
    return (node < 0)[None, :] | (((word >> (node % 32)[None, :]) & 1) != 0)


@dataclass(frozen=True)
class Transform:
    """What the tile loop needs of one way to turn scores into weights."""

    update: Any
    """Takes a tile of scores in."""
    finish: Any
    """Ends a row."""
    part: Any
    """Ends a part of a row, for the combine kernel; ``None`` where parts are added into the output as they are."""
    whole: Any = None
    """A cheaper ``update`` for tiles of 16-bit operands of which every row sees every key; ``None`` for the same one."""


TRANSFORMS: Mapping[str, Transform] = {
    "softmax": Transform(online_softmax, divided, log_sum_exp),
    "unified_max": Transform(unified_max, divided, plain_sums),
    "sigmoid": Transform(sigmoid, without_factor, None, sigmoid_on_fma_pipe),
    "sigmoid_without_bias": Transform(sigmoid, without_factor, None, sigmoid_on_fma_pipe),
}
"""Plug-ins by the problem's ``transform``, and ``unified_max``, another way to the softmax."""
