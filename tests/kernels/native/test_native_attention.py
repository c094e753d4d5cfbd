"""The native attention's paths, splits, masks, fallback and refusals; odd shapes are in test_implementations.py."""

from __future__ import annotations

import math
import os
import shutil

import pytest
import torch

from ridgeline.analytical.operators import Attention
from ridgeline.kernels.attention.operator import AttentionOperator
from ridgeline.kernels.native import attention
from ridgeline.kernels.native.attention import NativeAttention, Pages, calibrate, mask_slice, master_mask
from ridgeline.kernels.native.attention_tiles import DIRECT_ROWS, Shape, Tiles, default_splits
from ridgeline.kernels.native.build import NativeCallError

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="needs a C++ compiler")

CPUS = len(os.sched_getaffinity(0))
SMALL = Tiles(rows=48, outer=64, inner=32)
"""Tiles of which small problems have several."""


def problem(shape: Shape, *, causal: bool = True, window: int | None = None, transform: str = "softmax") -> Attention:
    return Attention(
        batch=shape.batch, q_heads=shape.q_heads, kv_heads=shape.kv_heads, q_length=shape.q_length,
        kv_length=shape.kv_length, head_dim=shape.head_dim, causal=causal, window=window, transform=transform,
    )  # fmt: skip


def inputs(shape: Shape, seed: int = 1) -> dict[str, torch.Tensor]:
    return AttentionOperator().make_inputs(problem(shape), torch.Generator().manual_seed(seed))


def reference(asked: Attention, given: dict[str, torch.Tensor]) -> torch.Tensor:
    return AttentionOperator().reference(asked, {}, given, None)


def computed(kernel: NativeAttention, given: dict[str, torch.Tensor], **tables: torch.Tensor) -> torch.Tensor:
    out = torch.full_like(given["q"], math.nan)
    kernel(given["q"], given["k"], given["v"], out, **tables)
    return out


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("path", ["avx512", "avx2", "portable"])
@pytest.mark.parametrize("transform", attention.TRANSFORMS)
@pytest.mark.parametrize("shape", [Shape(2, 4, 2, 61, 150, 40), Shape(1, 6, 2, 1, 131, 72)], ids=["prefill", "decode"])
def test_every_path_gives_the_reference(path: str, transform: str, shape: Shape) -> None:
    if path not in attention.attention_paths():
        pytest.skip(f"this CPU has no {path}")
    given = inputs(shape)
    asked = problem(shape, transform="sigmoid" if transform == "sigmoid" else "softmax")
    tiles = SMALL if shape.rows > DIRECT_ROWS else None
    kernel = NativeAttention(
        shape, transform=transform, causal=True, bias=asked.score_bias, tiles=tiles, path=path, threads=1
    )
    assert error(computed(kernel, given), reference(asked, given)) < 2e-6
    assert kernel.recomputed_rows == 0


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7, 8, 9, 23])
def test_any_number_of_rows(rows: int) -> None:
    shape = Shape(1, rows, 1, 1, 70, 24)
    given = inputs(shape)
    for direct_rows in (0, 64):
        kernel = NativeAttention(shape, tiles=Tiles(64, 64, 32), direct_rows=direct_rows)
        assert error(computed(kernel, given), reference(problem(shape), given)) < 1e-6


@pytest.mark.parametrize("transform", attention.TRANSFORMS)
@pytest.mark.parametrize("shape", [Shape(1, 2, 1, 33, 300, 32), Shape(2, 2, 1, 1, 500, 32)], ids=["prefill", "decode"])
def test_splits_of_the_keys_change_nothing(transform: str, shape: Shape) -> None:
    given = inputs(shape)
    outs = [
        computed(
            NativeAttention(
                shape, transform=transform, causal=True, tiles=Tiles(48, 32, 32), splits=splits, threads=min(2, CPUS)
            ),
            given,
        )
        for splits in (1, 4, 8, 8, 64)
    ]
    assert all(error(out, outs[0].double()) < 1e-6 for out in outs[1:])
    # Whoever arrives last, the parts are added up in their order.
    assert torch.equal(outs[2], outs[3])


def test_scratch_is_left_as_it_was_found() -> None:
    shape = Shape(1, 2, 2, 1, 400, 32)
    kernel = NativeAttention(shape, splits=3, threads=min(2, CPUS))
    for seed in range(4):
        given = inputs(shape, seed)
        assert error(computed(kernel, given), reference(problem(shape), given)) < 1e-6


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [1, 7, 64])
@pytest.mark.parametrize("lengths", [(90, 90), (50, 120), (120, 50)])
def test_windows(causal: bool, window: int, lengths: tuple[int, int]) -> None:
    shape = Shape(1, 2, 1, *lengths, 16)
    given = inputs(shape)
    asked = problem(shape, causal=causal, window=window)
    found = computed(NativeAttention(shape, causal=causal, window=window, tiles=SMALL), given)
    expected = reference(asked, given)
    assert error(found, expected) < 1e-6
    blind = expected.abs().sum(-1) == 0
    assert bool((found[blind] == 0).all())


@pytest.mark.parametrize("lengths", [(96, 96), (40, 130), (130, 40)])
def test_master_mask_is_the_comparison(lengths: tuple[int, int]) -> None:
    shape = Shape(1, 3, 1, *lengths, 16)  # blocks of rows cross heads
    given = inputs(shape)
    compared, sliced = (
        computed(NativeAttention(shape, causal=True, mask=mask, tiles=SMALL), given) for mask in attention.MASKS
    )
    assert torch.equal(compared, sliced)


def test_every_block_is_a_slice_of_the_master_mask() -> None:
    m, size = 8, 40
    master, whole = master_mask(m), torch.ones(size, size, dtype=torch.bool).tril()
    assert master.shape == (2 * m, 2 * m)
    for row in range(0, size, m):
        for key in range(size - m + 1):
            block = whole[row : row + m, key : key + m]
            if abs(row - key) < m:
                assert torch.equal(mask_slice(master, row, key, m, m), block)
            else:
                assert bool(block.all()) or not bool(block.any())
                with pytest.raises(NativeCallError, match="no slice"):
                    mask_slice(master, row, key, m, m)


@pytest.mark.parametrize("nodes", [1, 31, 64, 100])
def test_tree_mask(nodes: int) -> None:
    shape = Shape(1, 4, 2, 20, 45 + nodes, 24)
    given = inputs(shape)
    tree = torch.rand(20, nodes, generator=torch.Generator().manual_seed(3)) < 0.4
    found = computed(NativeAttention(shape, tree=tree, tiles=SMALL), given)
    seen = torch.cat([torch.ones(20, 45, dtype=torch.bool), tree], dim=1)
    k, v = (given[name].double().repeat_interleave(2, dim=1) for name in ("k", "v"))
    scores = (given["q"].double() @ k.transpose(-1, -2) / math.sqrt(24)).masked_fill(~seen, -math.inf)
    assert error(found, scores.softmax(-1) @ v) < 1e-6


def test_pages_and_lengths() -> None:
    shape, page = Shape(3, 4, 2, 2, 70, 32), 8
    lengths = torch.tensor([70, 1, 33], dtype=torch.int32)
    generator = torch.Generator().manual_seed(5)
    q = torch.randn(3, 4, 2, 32, generator=generator)
    table = torch.randperm(27, generator=generator).int().view(3, 9)
    for heads_inside in (False, True):
        pages = torch.randn(2, 27, *((page, 2) if heads_inside else (2, page)), 32, generator=generator)
        kernel = NativeAttention(shape, causal=True, pages=Pages(page, heads_inside))
        out = torch.full_like(q, math.nan)
        kernel(q, pages[0], pages[1], out, kv_lengths=lengths, block_table=table)
        for sequence, length in enumerate(lengths.tolist()):
            k, v = (x[table[sequence].long()] for x in pages)
            if not heads_inside:
                k, v = k.transpose(1, 2), v.transpose(1, 2)
            k, v = (x.reshape(-1, 2, 32)[:length].transpose(0, 1)[None].contiguous() for x in (k, v))
            alone = Shape(1, 4, 2, 2, length, 32)
            expected = reference(problem(alone), {"q": q[sequence, None], "k": k, "v": v})
            assert error(out[sequence, None], expected) < 1e-6
    table[2, 4] = 27
    with pytest.raises(NativeCallError, match="bad argument"):
        kernel(q, pages[0], pages[1], out, kv_lengths=lengths, block_table=table)
    table[2, 4] = 0
    lengths[0] = 71
    with pytest.raises(NativeCallError, match="bad argument"):
        kernel(q, pages[0], pages[1], out, kv_lengths=lengths, block_table=table)


@pytest.mark.parametrize("splits", [1, 3])
def test_rows_beyond_the_unified_maximum_are_computed_again(splits: int) -> None:
    shape = Shape(1, 2, 2, 1, 200, 64)
    given = inputs(shape)
    phi, least, most = calibrate(given["q"][0, 0], given["k"][0, 0])
    assert least <= phi <= most
    kernel = NativeAttention(shape, transform="unified_softmax", phi=phi, splits=splits)
    assert error(computed(kernel, given), reference(problem(shape), given)) < 1e-6
    assert kernel.recomputed_rows == 0
    # One key of head 1 in line with its query: a score of 90, where float32 holds e^88.
    q = given["q"][0, 1, 0]
    given["k"][0, 1, 77] = q * (90.0 * 8.0 / q.dot(q))
    assert error(computed(kernel, given), reference(problem(shape), given)) < 1e-6
    assert kernel.recomputed_rows == 1
    # All scores far below phi: every weight would be lost.
    low = NativeAttention(shape, transform="unified_softmax", phi=200.0, splits=splits)
    assert error(computed(low, given), reference(problem(shape), given)) < 1e-6
    assert low.recomputed_rows == 2


@pytest.mark.parametrize("transform", attention.TRANSFORMS)
@pytest.mark.parametrize("lengths", [(40, 60), (1, 60)], ids=["prefill", "decode"])
@pytest.mark.parametrize("name", ["q", "k", "v"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_goes_where_the_reference_puts_it(
    transform: str, lengths: tuple[int, int], name: str, value: float
) -> None:
    shape = Shape(1, 2, 1, *lengths, 24)
    given = inputs(shape)
    # A key that some queries of the prefill see and others do not, in a block that is masked for some.
    given[name][0, -1, min(45, given[name].shape[2] - 1), 5] = value
    asked = problem(shape, transform="sigmoid" if transform == "sigmoid" else "softmax")
    found = computed(
        NativeAttention(shape, transform=transform, causal=True, bias=asked.score_bias, tiles=SMALL), given
    ).double()
    expected = reference(asked, given)
    assert bool((~expected.isfinite()).any()) or name != "v"
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_a_row_of_which_all_scores_are_minus_infinity_is_not_a_number() -> None:
    shape = Shape(1, 1, 1, 1, 20, 8)
    given = {"q": torch.ones(1, 1, 1, 8), "k": torch.full((1, 1, 20, 8), -math.inf), "v": torch.ones(1, 1, 20, 8)}
    assert bool(computed(NativeAttention(shape), given).isnan().all())
    assert bool(reference(problem(shape), given).isnan().all())


def test_what_is_refused() -> None:
    shape = Shape(1, 2, 1, 4, 40, 16)
    given = inputs(shape)
    kernel, out = NativeAttention(shape), torch.empty(1, 2, 4, 16)
    q, k, v = given["q"], given["k"], given["v"]
    for bad, message in (
        ((q.double(), k, v, out), "q must be a contiguous CPU tensor float32"),
        ((q, k.transpose(-1, -2).contiguous().transpose(-1, -2), v, out), "k must be .* strides"),
        ((q, k, v[:, :, :39].contiguous(), out), r"v must be .*\[1, 1, 40, 16\]"),
        ((q, k, v, out[:, :1]), "out must be"),
    ):
        with pytest.raises(NativeCallError, match=message):
            kernel(*bad)
    with pytest.raises(NativeCallError, match="block_table"):
        kernel(q, k, v, out, block_table=torch.zeros(1, 5, dtype=torch.int32))
    for choice, message in (
        ({"tiles": Tiles(8, 64, 24)}, "inner a multiple"),
        ({"tiles": Tiles(8, 48, 32)}, "outer a multiple"),
        ({"transform": "relu"}, "transform must be"),
        ({"mask": "none"}, "mask must be"),
        ({"path": "neon"}, "no path"),
        ({"splits": 5000}, "splits must be"),
        ({"tree": torch.ones(4, 41, dtype=torch.bool)}, "at most 40 nodes"),
        ({"threads": 0}, "no attention"),
    ):
        with pytest.raises(NativeCallError, match=message):
            NativeAttention(shape, **choice)
    with pytest.raises(NativeCallError, match="more threads"):
        NativeAttention(shape, threads=CPUS + 1)(q, k, v, out)


@pytest.mark.parametrize(
    ("blocks", "threads", "splits"), [(8, 2, 1), (1, 2, 2), (3, 2, 2), (9, 2, 1), (2, 4, 2), (1, 64, 32)]
)
def test_splits_give_every_thread_the_same_share(blocks: int, threads: int, splits: int) -> None:
    assert default_splits(blocks, 4096, 64, threads) == splits
