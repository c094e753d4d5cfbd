"""B of a matrix product in panels of a few columns, which a kernel reads from front to back."""

from __future__ import annotations

import torch


def pack(b: torch.Tensor, width: int) -> torch.Tensor:
    """B[k, n] as [ceil(n / width), k, width], contiguous; columns beyond n are zero."""
    k, n = b.shape
    count = -(-n // width)
    padded = torch.nn.functional.pad(b, (0, count * width - n)) if n % width else b
    return padded.view(k, count, width).transpose(0, 1).contiguous()


def unpack(panels: torch.Tensor, n: int) -> torch.Tensor:
    """B[k, n] of the panels that :func:`pack` made."""
    return panels.transpose(0, 1).reshape(panels.shape[1], -1)[:, :n]
