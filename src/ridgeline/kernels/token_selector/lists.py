"""Lists of tokens in torch: the largest scores with a rule for equal ones, and masks into lists."""

from __future__ import annotations

import math

import torch


def lists_of_top_k(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Token ids of the ``k`` largest of each row, in order, int32 [..., k].

    Of equal scores the earlier token is chosen, which ``torch.topk`` leaves open; what is not a number counts as
    infinity. ``scores`` [..., n] of any floating dtype.
    """
    if k == 0:
        return torch.empty(*scores.shape[:-1], 0, dtype=torch.int32, device=scores.device)
    scores = scores.nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
    least = scores.topk(k, dim=-1, sorted=True).values[..., -1:]
    above, equal = scores > least, scores == least
    wanted = k - above.sum(-1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(-1) <= wanted))
    return chosen.nonzero()[:, -1].to(torch.int32).view(*scores.shape[:-1], k)


def lists_of_mask(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Row starts, int32 [rows + 1], and token ids of a mask [..., n] with rows over its leading dimensions."""
    flat = mask.reshape(-1, mask.shape[-1]) != 0
    starts = torch.zeros(len(flat) + 1, dtype=torch.int32, device=mask.device)
    starts[1:] = flat.sum(-1).cumsum(0)
    return starts, flat.nonzero()[:, 1].to(torch.int32)


def lists_of_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Row starts and token ids, as the executor takes them, of lists of one length: int32 [..., k]."""
    k = rows.shape[-1]
    count = rows.numel() // k
    return torch.arange(count + 1, dtype=torch.int32, device=rows.device) * k, rows.reshape(-1)
