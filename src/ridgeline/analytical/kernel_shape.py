"""The sizes by which measured kernels are looked up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class KernelShape:
    """Sizes of an operation that is one kernel of a family whose public tables list such sizes."""

    family: Literal["gemm", "attention prefill", "attention decode"]
    sizes: Mapping[str, Any]
    """``m, n, k``; or ``batch, q_heads, kv_heads, q_length, kv_length, head_dim, window`` (0: none)."""
    precision: str
    """Of operands and of what is stored; empty where the two differ."""
