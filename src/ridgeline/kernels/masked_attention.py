"""Softmax attention over an explicit mask in float64: the reference of operators whose mask is data."""

from __future__ import annotations

import math

import torch

from ridgeline.kernels.attention.operator import seen_values


def masked_attention(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """float64 [rows, d] of queries ``q`` [rows, d] over ``keys``, ``values`` [S, d]; ``hidden`` bool[rows, S].

    The scale is 1/sqrt(d). A query that sees no key gives zeros. What is hidden counts for nothing, were it NaN.
    """
    scores = q.double() @ keys.double().T / math.sqrt(q.shape[-1])
    weights = torch.softmax(scores.masked_fill_(hidden, -math.inf), dim=-1)
    return seen_values(weights.masked_fill_(hidden, 0.0), ~hidden, values.double())
