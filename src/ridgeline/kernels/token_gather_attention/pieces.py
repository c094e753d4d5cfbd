"""How the executors cut ragged lists: equal pieces of each list (Triton), equal shares of all lists (native)."""

from __future__ import annotations

import torch

PIECE = 64
"""Tokens of a piece at most, by default."""


def equal_pieces(row_starts: torch.Tensor, piece: int = PIECE) -> torch.Tensor:
    """Tokens of each program's piece, int64: as many equal ones of each list as it takes for none to exceed ``piece``.

    ``row_starts`` int32 [rows + 1]. As ``gather_kernel`` cuts them: pieces of a list are of one length, but the last.
    """
    pieces = []
    for length in row_starts.diff().tolist():
        count = -(-length // piece)
        if count:
            each = -(-length // count)
            pieces += [max(0, min(each, length - number * each)) for number in range(count)]
    return torch.tensor(pieces)


def equal_shares(row_starts: torch.Tensor, threads: int) -> torch.Tensor:
    """Tokens of each thread, int64 [threads]: all lists end to end, cut evenly, as token_gather.cpp does."""
    ends = torch.arange(threads + 1) * int(row_starts[-1]) // threads
    return ends.diff()
