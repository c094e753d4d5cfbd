"""Windowed rotary position embedding of A2ATS (He et al. 2025): one relative position for all tokens beyond a window.

Keys are cached as they are, before RoPE. A query at position p meets a key at position p - delta: inside the window at
its own delta, beyond it at the constant ``far``. So beyond the window only the query has to be rotated, and a codebook
of unrotated keys serves every position. (R_p q).(R_{p - delta} k) = (R_far q).(R_{far - delta} k): with the query at
``far``, the keys of the window are the only ones that are rotated, and attention over all of them is ordinary attention.
"""

from __future__ import annotations

import torch

BASE = 10000.0
FAR = 2048
WINDOW = 64


def rotate(x: torch.Tensor, positions: torch.Tensor, base: float = BASE) -> torch.Tensor:
    """RoPE of ``x`` [..., n, d] at ``positions`` [n]: pairs (i, i + d/2), as in Llama. In the dtype of ``x``."""
    half = x.shape[-1] // 2
    frequencies = base ** (-torch.arange(half, dtype=torch.float64, device=x.device) / half)
    angles = positions.to(torch.float64)[:, None] * frequencies
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def windowed_query(q: torch.Tensor, far: int = FAR, base: float = BASE) -> torch.Tensor:
    """The query [..., d] at the constant relative position."""
    return rotate(q[..., None, :], torch.tensor([far], device=q.device), base)[..., 0, :]


def windowed_keys(k: torch.Tensor, window: int = WINDOW, far: int = FAR, base: float = BASE) -> torch.Tensor:
    """Keys [..., S, d] as the query of ``windowed_query`` meets them: the last ``window`` rotated by far - delta.

    The query stands at the last key: its delta is 0.
    """
    near = min(window, k.shape[-2])
    delta = torch.arange(near - 1, -1, -1, device=k.device)
    return torch.cat([k[..., : k.shape[-2] - near, :], rotate(k[..., k.shape[-2] - near :, :], far - delta, base)], -2)
