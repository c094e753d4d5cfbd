"""Copies of keys that hold only the rows a cold decode step reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ridgeline.bench.paper_checks import token_decode
from ridgeline.kernels.registry import Unsupported


def test_a_copy_has_the_listed_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 50, 8, generator=generator)
    lists = torch.stack([torch.randperm(50, generator=generator)[:7] for _ in range(6)]).view(2, 3, 7).to(torch.int32)
    copy = token_decode.rows_alone(x, lists)
    assert copy.shape == x.shape
    assert copy.is_contiguous()
    for b in range(2):
        for h in range(3):
            rows = lists[b, h].long()
            assert torch.equal(copy[b, h, rows], x[b, h, rows])


def test_a_copy_takes_the_memory_that_is_counted() -> None:
    """Of 128 MiB, which the allocator gets from the kernel as pages that do not exist until they are written."""
    x = torch.ones(1, 4, 65536, 128)
    kept = 512
    lists = torch.stack([torch.randperm(65536)[:kept] for _ in range(4)])[None].to(torch.int32)
    before = _resident_bytes()
    copy = token_decode.rows_alone(x, lists)
    taken = _resident_bytes() - before
    counted = token_decode.resident_bytes(x, kept)
    assert counted < 0.1 * copy.nbytes
    assert taken < 2.0 * counted


def _resident_bytes() -> float:
    (line,) = (text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith("VmRSS"))
    return 1024.0 * int(line.split()[1])


def test_more_copies_than_memory_holds_are_refused() -> None:
    assert token_decode.copies(2.0**20, 2.0**20, 2.0**20) == 4
    with pytest.raises(Unsupported, match="a cold cache of 1024 MiB takes 3073 copies of"):
        token_decode.copies(2.0**30, 2.0**20, 2.0**40)
