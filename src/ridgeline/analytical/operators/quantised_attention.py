"""``quantised_attention`` and ``attention_quantiser``: Q K^T in integers, P V in eight bits, and what makes the operands.

SageAttention2 (Zhang et al. 2024, "SageAttention2: Efficient Attention with Thorough Outlier Smoothing and Per-thread
INT4 Quantization"). Quantising is a pass of its own: it reads Q, K or V once and may be fused with what makes them, so
it is no part of the attention that reads quantised operands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical.operators.attention import attended_keys, attention_pairs
from ridgeline.analytical.operators.integer_gemm import SCALE_PRECISION, quantise_work
from ridgeline.analytical.problem import NO_STRUCTURE, Problem, ProblemError, Structure, problem
from ridgeline.analytical.quantities import bytes_of
from ridgeline.analytical.work import SPECIAL, RateKey, Work, fma_key


@dataclass(frozen=True)
class Grouping:
    """Which tokens of a head share a scale: within each ``rows`` of them, ``classes`` that take ``run`` tokens by turns."""

    rows: int
    classes: int = 1
    run: int = 1

    def group(self, token: Any) -> Any:
        """Number of the scale of a token: an int, or an array or tensor of them."""
        return token // self.rows * self.classes + token // self.run % self.classes

    def groups(self, length: Any) -> Any:
        """Scales of a head of ``length`` tokens. A tail may leave some of them without a token."""
        return np.ceil(np.asarray(length, dtype=np.float64) / self.rows)[()] * self.classes


QUERY_BLOCK = 128
"""Queries whose mean is subtracted where Q is smoothed, and which share a scale per block (section 3.1)."""

QUERY_GROUPING: Mapping[str, Grouping] = {
    "thread": Grouping(32, 8),
    "warp": Grouping(32),
    "block": Grouping(QUERY_BLOCK),
    "token": Grouping(1),
}
KEY_GROUPING: Mapping[str, Grouping] = {
    "thread": Grouping(64, 4, run=2),
    "warp": Grouping(64),
    "block": Grouping(64),
    "token": Grouping(1),
}
"""Groupings by granularity. Per thread (section 3.2): the elements that one GPU thread holds of the matrix
instruction's operands, 8 interleaved classes of the 32 queries of a warp and 4 of column pairs of 64 keys."""

SCORE_PRECISIONS = ("int8", "int4", "float8_e4m3fn")
VALUE_PRECISIONS = ("int8", "float8_e4m3fn", "float16", "bfloat16", "float32")
SCALED_VALUES = ("int8", "float8_e4m3fn")
"""Precisions of V that need a scale a channel."""


def correction_values(q_length: int, kv_length: int, causal: bool) -> int:
    """Values of q_mean K^T that one query head needs: for each block of queries, one for each key that it sees."""
    last = np.minimum(np.arange(0, q_length, QUERY_BLOCK) + QUERY_BLOCK, q_length) - 1
    seen = np.clip(last + kv_length - q_length + 1, 0, kv_length) if causal else np.full(len(last), kv_length)
    return int(seen.sum())


def quantised_attention_work(
    batch: Any,
    q_heads: Any,
    kv_heads: Any,
    q_length: Any,
    kv_length: Any,
    head_dim: Any,
    causal: bool,
    *,
    scores: str = "int8",
    values: str = "float8_e4m3fn",
    output: str = "bfloat16",
    granularity: str = "warp",
    corrections: Any = 0,
    value_mean: bool = False,
    accumulator: str = "float32",
) -> Work:
    """2 d operations in ``scores`` precision and 2 d in ``values`` precision for each unmasked pair; one exponential.

    Q and K are stored in ``scores``, V in ``values``, O in ``output``. A float32 scale for each group of queries and of
    keys of a head, and one for each channel of V (none if V is a float of 16 bits or more).

    Args:
        granularity: of the groups of queries and keys.
        corrections: float32 values that are added to the scores of a query head where Q was smoothed, as
            :func:`correction_values` counts them; each unmasked pair then has an addition.
        value_mean: a float32 mean a channel of V is added to O.
        accumulator: of P V, as in the rate keys; integer scores accumulate in int32.
    """
    pairs = 1.0 * batch * q_heads * attention_pairs(q_length, kv_length, causal)
    queries, keys = 1.0 * batch * q_heads * q_length, 1.0 * batch * kv_heads * attended_keys(q_length, kv_length)
    channels = 1.0 * batch * kv_heads * head_dim
    scales = (
        1.0 * batch * q_heads * QUERY_GROUPING[granularity].groups(q_length)
        + 1.0 * batch * kv_heads * KEY_GROUPING[granularity].groups(kv_length)
        + channels * ((values in SCALED_VALUES) + value_mean)
    )
    value_key = RateKey("matrix", values, values, "int32" if values.startswith("int") else accumulator)
    operations = {fma_key(scores): 2.0 * pairs * head_dim}
    operations[value_key] = operations.get(value_key, 0.0) + 2.0 * pairs * head_dim
    operations[SPECIAL] = pairs
    corrected = np.any(np.asarray(corrections) > 0)
    if corrected or value_mean:
        added = pairs * corrected + queries * head_dim * value_mean
        operations[fma_key("float32", "vector")] = added
    return Work(
        operations=operations,
        read_bytes={
            "activations": bytes_of(queries * head_dim, scores)
            + bytes_of(1.0 * batch * q_heads * corrections, "float32"),
            "kv": bytes_of(keys * head_dim, scores) + bytes_of(keys * head_dim, values),
            "scales": bytes_of(scales, SCALE_PRECISION),
        },
        written_bytes={"activations": bytes_of(queries * head_dim, output)},
    )


def _check_granularity(granularity: str) -> None:
    if granularity not in QUERY_GROUPING:
        raise ProblemError("granularity", f"must be one of {', '.join(QUERY_GROUPING)}, not {granularity!r}")


@problem("quantised_attention")
@dataclass(frozen=True, kw_only=True)
class QuantisedAttention(Problem):
    """O of quantised Q, K, V as in ``attention``. ``precision`` is that of O.

    ``smooth_k`` says that the mean over the tokens was subtracted from K, which softmax does not see. ``smooth_q`` that
    the mean of each block of 128 queries was subtracted from Q: its product with K is added to the scores. ``smooth_v``
    that the mean over the tokens was subtracted from V: it is added to O, as the weights of a query sum to one.
    """

    batch: int
    q_heads: int
    kv_heads: int
    q_length: int
    kv_length: int
    head_dim: int
    causal: bool = False
    scores: str = "int8"
    values: str = "float16"
    granularity: str = "thread"
    smooth_k: bool = True
    smooth_q: bool = False
    smooth_v: bool = False
    precision: str = "float32"

    def check(self) -> None:
        if self.q_heads % self.kv_heads:
            raise ProblemError("kv_heads", f"must divide q_heads: {self.q_heads} query heads, {self.kv_heads} KV heads")
        if self.scores not in SCORE_PRECISIONS:
            raise ProblemError("scores", f"must be int8, int4 or float8_e4m3fn, not {self.scores!r}")
        if self.values not in VALUE_PRECISIONS:
            raise ProblemError("values", f"must be int8 or a float of at most 32 bits, not {self.values!r}")
        if self.precision not in ("float32", "bfloat16", "float16"):
            raise ProblemError("precision", f"of O must be float32, bfloat16 or float16, not {self.precision!r}")
        _check_granularity(self.granularity)

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return quantised_attention_work(
            self.batch, self.q_heads, self.kv_heads, self.q_length, self.kv_length, self.head_dim, self.causal,
            scores=self.scores, values=self.values, output=self.precision, granularity=self.granularity,
            corrections=correction_values(self.q_length, self.kv_length, self.causal) if self.smooth_q else 0,
            value_mean=self.smooth_v,
        )  # fmt: skip

    @property
    def label(self) -> str:
        heads = f"H{self.q_heads}" + (f"/{self.kv_heads}" if self.kv_heads != self.q_heads else "")
        causal = " causal" if self.causal else ""
        shape = f"B{self.batch} {heads} T{self.q_length} S{self.kv_length} d{self.head_dim}"
        smooth = "".join(name for name in "qkv" if getattr(self, f"smooth_{name}"))
        smoothed = f" smooth-{smooth}" if smooth else ""
        return f"{shape}{causal} {self.scores}/{self.values} {self.granularity}{smoothed} {self.precision}"


ROLES = ("query", "key", "value")


@problem("attention_quantiser")
@dataclass(frozen=True, kw_only=True)
class AttentionQuantiser(Problem):
    """Q, K or V of ``quantised_attention`` from X[batch, heads, length, head_dim] in ``precision``: one scale a group.

    The ``role`` chooses the groups: of queries or of keys by ``granularity``, or the channels of values. ``smooth``
    subtracts a mean first: of each block of 128 queries, of all keys, of all values.
    """

    batch: int
    heads: int
    length: int
    head_dim: int
    role: str = "key"
    to: str = "int8"
    granularity: str = "thread"
    smooth: bool = True
    precision: str = "float32"

    def check(self) -> None:
        if self.role not in ROLES:
            raise ProblemError("role", f"must be one of {', '.join(ROLES)}, not {self.role!r}")
        if self.to not in SCORE_PRECISIONS:
            raise ProblemError("to", f"must be one of {', '.join(SCORE_PRECISIONS)}, not {self.to!r}")
        if self.precision not in ("float32", "bfloat16", "float16"):
            raise ProblemError("precision", f"of X must be float32, bfloat16 or float16, not {self.precision!r}")
        if self.role == "value":
            if self.granularity != "channel":
                raise ProblemError("granularity", f"of values must be channel, not {self.granularity!r}")
        else:
            _check_granularity(self.granularity)

    @property
    def groups(self) -> int:
        """Scales of a head."""
        if self.role == "value":
            return self.head_dim
        grouping = QUERY_GROUPING if self.role == "query" else KEY_GROUPING
        return int(grouping[self.granularity].groups(self.length))

    def work(self, structure: Structure = NO_STRUCTURE) -> Work:
        return quantise_work(
            self.batch * self.heads * self.length, self.head_dim, self.precision, self.to,
            group=self.length * self.head_dim / self.groups, centred=self.smooth,
        )  # fmt: skip

    @property
    def label(self) -> str:
        shape = f"B{self.batch} H{self.heads} S{self.length} d{self.head_dim}"
        return f"{shape} {self.role} {self.to} {self.granularity}{' smooth' if self.smooth else ''} {self.precision}"
