"""What every work formula has to satisfy: it grows with each size, splits along the batch, and takes columns."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from brute_force import assert_columns_agree, assert_grows, counts
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical import operators as ops
from ridgeline.analytical.work import Work

sizes = st.integers(1, 40)


@dataclass(frozen=True)
class Formula:
    """A work formula of named sizes."""

    work: Callable[..., Work]
    names: str
    split: str = ""
    """The size along which two halves are as much work as the whole."""
    shared: str = "weights scales index"
    """Streams that both halves read: what does not belong to the split size."""
    never: str = ""
    """Sizes of which more can be less work."""


FORMULAS: dict[str, Formula] = {
    "weight-only": Formula(
        lambda m, n, k, group: ops.weight_only_gemm_work(m, n, k, "int4", group, "float16", zero="int4"),
        "m n k group",
        split="m",
        never="group",
    ),
    "dequantisation": Formula(lambda n, k, times: ops.dequantisation_work(n, k, times=times), "n k times", split="n"),
    "lut": Formula(
        lambda m, n, k, bits, outliers: ops.lut_gemm_work(m, n, k, bits / 8.0, "float16", outliers=outliers),
        "m n k bits outliers",
        split="m",
    ),
    "int8": Formula(
        lambda m, n, k, more: ops.int8_gemm_work(m, n, k + more, outlier_columns=more), "m n k more", split="m"
    ),
    "dual-grain": Formula(ops.dual_grain_gemm_work, "m n k group", split="m", never="group"),
    "ternary": Formula(ops.ternary_gemm_work, "m n k", split="m"),
    "bit-planes": Formula(ops.bit_plane_gemm_work, "m n k activation_bits weight_bits", split="m"),
    "shift": Formula(ops.shift_gemm_work, "m n k", split="m"),
    "quantise": Formula(lambda rows, width: ops.quantise_work(rows, width, "float16"), "rows width", "rows", ""),
    "block-sparse": Formula(
        lambda m, n, k, blocks, columns: ops.block_sparse_gemm_work(m, n, k, blocks, columns, "float32"),
        "m n k blocks columns",
        split="m",
    ),
    "2:4": Formula(lambda m, n, k: ops.structured_sparse_gemm_work(m, n, k, "float16"), "m n k", split="m"),
    "gather": Formula(lambda m, k, pairs, rows: ops.gather_gemm_work(m, k, pairs, rows, "float32"), "m k pairs rows"),
    "gather-mlp": Formula(
        lambda tokens, hidden, more, pairs, neurons: ops.gather_mlp_work(
            tokens, hidden, neurons + more, pairs, neurons, "float32"
        ),
        "tokens hidden more pairs neurons",
    ),
    "fused-mlp": Formula(
        lambda tokens, hidden, intermediate: ops.fused_mlp_work(
            tokens, hidden, intermediate, "silu_and_mul", "bfloat16"
        ),
        "tokens hidden intermediate",
        split="tokens",
    ),
    "low-rank": Formula(
        lambda m, n, k, rank: ops.low_rank_gemm_work(m, n, k, rank, "float32"), "m n k rank", split="m"
    ),
    "bag": Formula(
        lambda bags, per_bag, vocabulary, width: ops.embedding_bag_work(bags, per_bag, vocabulary, width, "float32"),
        "bags per_bag vocabulary width",
    ),
    "dispatch": Formula(
        lambda tokens, top_k, hidden: ops.moe_dispatch_work(tokens, top_k, hidden, "float16"),
        "tokens top_k hidden",
        split="tokens",
        shared="",
    ),
    "combine": Formula(
        lambda tokens, top_k, hidden: ops.moe_combine_work(tokens, top_k, hidden, "float16"),
        "tokens top_k hidden",
        split="tokens",
        shared="",
    ),
    "einsum-dispatch": Formula(
        lambda tokens, experts, capacity, hidden: ops.moe_einsum_dispatch_work(
            tokens, experts, capacity, hidden, "float16"
        ),
        "tokens experts capacity hidden",
    ),
    "quantised-attention": Formula(
        lambda batch, q_heads, kv_heads, q_length, kv_length, head_dim: ops.quantised_attention_work(
            batch, q_heads, kv_heads, q_length, kv_length, head_dim, True
        ),
        "batch q_heads kv_heads q_length kv_length head_dim",
        split="batch",
        shared="",
    ),
    "paged-attention": Formula(
        lambda batch, q_heads, kv_heads, keys, pages, head_dim: ops.paged_attention_work(
            batch, q_heads, kv_heads, keys, pages, head_dim, "float16"
        ),
        "batch q_heads kv_heads keys pages head_dim",
    ),
    "sparse-attention": Formula(
        lambda queries, pairs, keys, entries, head_dim: ops.sparse_attention_work(
            queries, pairs, keys, entries, head_dim, "float16"
        ),
        "queries pairs keys entries head_dim",
    ),
    "label-channels": Formula(
        lambda batch, q_heads, kv_heads, kv_length, channels, kept: ops.label_channel_selector_work(
            batch, q_heads, kv_heads, kv_length, channels, kept, "float16", "int8"
        ),
        "batch q_heads kv_heads kv_length channels kept",
        split="batch",
        shared="",
    ),
    "centroids": Formula(
        lambda batch, q_heads, kv_heads, kv_length, centroids, head_dim: ops.centroid_selector_work(
            batch, q_heads, kv_heads, kv_length, centroids, head_dim, "float16"
        ),
        "batch q_heads kv_heads kv_length centroids head_dim",
        split="batch",
        shared="",
    ),
    "codebook": Formula(
        lambda batch, q_heads, kv_heads, kv_length, codes, head_dim, kept: ops.codebook_selector_work(
            batch, q_heads, kv_heads, kv_length, codes, head_dim, kept, "float16"
        ),
        "batch q_heads kv_heads kv_length codes head_dim kept",
        split="batch",
        shared="kv",
    ),
    "accumulated-scores": Formula(ops.accumulated_score_selector_work, "batch heads kept", "batch", ""),
    "lines": Formula(
        lambda batch, q_heads, kv_heads, kv_length, last_queries, head_dim: ops.line_selector_work(
            batch, q_heads, kv_heads, kv_length, last_queries, head_dim, "float16"
        ),
        "batch q_heads kv_heads kv_length last_queries head_dim",
        split="batch",
        shared="",
    ),
    "tree": Formula(
        lambda batch, q_heads, kv_heads, context, nodes, more, head_dim: ops.tree_attention_work(
            batch, q_heads, kv_heads, context, nodes, nodes + more, head_dim, "float16"
        ),
        "batch q_heads kv_heads context nodes more head_dim",
        split="batch",
    ),
    "splits": Formula(ops.split_kv_combine_work, "batch q_heads q_length value_dim splits", "batch", ""),
    "continual": Formula(
        lambda streams, heads, window, head_dim: ops.continual_attention_work(
            streams, heads, window, head_dim, "float32"
        ),
        "streams heads window head_dim",
        split="streams",
        shared="",
    ),
    "top-k": Formula(lambda rows, width, k: ops.top_k_work(rows, width, k, "float32"), "rows width k", "rows", ""),
    "sampling": Formula(
        lambda rows, vocabulary: ops.sampling_work(rows, vocabulary, "float32"), "rows vocabulary", "rows", ""
    ),
    "verify": Formula(
        lambda batch, drafted, vocabulary: ops.speculative_verify_work(batch, drafted, vocabulary, "float32"),
        "batch drafted vocabulary",
        split="batch",
        shared="",
    ),
    "conv2d": Formula(
        lambda batch, in_channels, out_channels, height, width, kernel: ops.conv2d_work(
            batch, in_channels, out_channels, height + 40, width + 40, kernel, kernel, "float32", stride=2, padding=1
        ),
        "batch in_channels out_channels height width kernel",
        split="batch",
        never="kernel",  # a larger kernel has fewer outputs
    ),
    "depthwise": Formula(
        lambda batch, channels, height, width: ops.depthwise_conv_work(
            batch, channels, height, width, 3, 3, "float32", padding=1
        ),
        "batch channels height width",
        split="batch",
    ),
    "gated-scan": Formula(
        lambda batch, length, channels: ops.gated_scan_work(batch, length, channels, "float16"),
        "batch length channels",
        split="batch",
    ),
    "selective-scan": Formula(
        lambda batch, length, channels, state: ops.selective_scan_work(
            batch, length, channels, state, "float16", gated=True, softplus=True
        ),
        "batch length channels state",
        split="batch",
    ),
    "chunked-scan": Formula(
        lambda batch, length, heads, head_dim, state: ops.chunked_scan_work(
            batch, length * 4, heads, head_dim, state, "float16", chunk=4
        ),
        "batch length heads head_dim state",
        split="batch",
    ),
    "cell": Formula(
        lambda batch, length, heads, head_dim: ops.recurrent_cell_work(
            "slstm", batch, length, heads, head_dim, "float16"
        ),
        "batch length heads head_dim",
        split="batch",
    ),
    "long-conv": Formula(
        lambda batch, channels, length, kernel: ops.long_conv_work(batch, channels, length, kernel, "float32"),
        "batch channels length kernel",
        split="batch",
    ),
    "long-conv-fft": Formula(
        lambda batch, channels, length, kernel: ops.long_conv_work(batch, channels, length, kernel, "float32", "fft"),
        "batch channels length kernel",
        split="batch",
    ),
    "long-conv-monarch": Formula(
        lambda batch, channels, length, kernel: ops.long_conv_work(
            batch, channels, length, kernel, "float32", "monarch"
        ),
        "batch channels length kernel",
        split="batch",
    ),
    "dilated-conv1d": Formula(
        lambda batch, length, kernels, kernel, dilation: ops.dilated_conv1d_work(
            batch, length, kernels, 2 * kernel + 1, dilation, "float32"
        ),
        "batch length kernels kernel dilation",
        split="batch",
        never="dilation",  # taps further out meet less of the series
    ),
    "kernel-matrix": Formula(
        lambda m, n, features, batch: ops.kernel_matrix_work(m, n, features, "float64", batch=batch),
        "m n features batch",
        split="batch",
        shared="",
    ),
    "gram-kernel": Formula(
        lambda m, n, batch: ops.gram_kernel_work(m, n, "float64", batch=batch), "m n batch", split="batch", shared=""
    ),
    "cholesky": Formula(lambda n, batch: ops.cholesky_work(n, "float64", batch=batch), "n batch", "batch", ""),
    "triangular-solve": Formula(
        lambda n, columns, batch: ops.triangular_solve_work(n, columns, "float64", batch=batch),
        "n columns batch",
        split="batch",
        shared="",
    ),
    "reduce-scatter": Formula(
        lambda message, ranks: ops.reduce_scatter_work(1.0 * message, ranks),
        "message ranks",
        split="message",
        never="ranks",
    ),
    "send": Formula(ops.send_work, "message_bytes", split="message_bytes"),
}
SPLIT = [name for name, formula in FORMULAS.items() if formula.split]


def shapes(formula: Formula) -> st.SearchStrategy[dict[str, int]]:
    return st.fixed_dictionaries(dict.fromkeys(formula.names.split(), sizes))


@pytest.mark.parametrize("name", FORMULAS)
@settings(max_examples=10)
@given(data=st.data())
def test_work_grows_with_every_size(name: str, data: st.DataObject) -> None:
    formula = FORMULAS[name]
    assert_grows(formula.work, data.draw(shapes(formula)), data, frozenset(formula.never.split()))


@pytest.mark.parametrize("name", FORMULAS)
@settings(max_examples=5)
@given(data=st.data())
def test_numbers_and_columns_agree(name: str, data: st.DataObject) -> None:
    rows: list[Any] = data.draw(st.lists(shapes(FORMULAS[name]), min_size=1, max_size=4))
    assert_columns_agree(FORMULAS[name].work, rows)


@pytest.mark.parametrize("name", SPLIT)
@settings(max_examples=6)
@given(data=st.data())
def test_a_batch_is_as_much_work_as_its_parts(name: str, data: st.DataObject) -> None:
    formula = FORMULAS[name]
    shape, more = data.draw(shapes(formula)), data.draw(sizes)
    first, second = formula.work(**shape), formula.work(**{**shape, formula.split: more})
    whole = counts(formula.work(**{**shape, formula.split: shape[formula.split] + more}))
    shared = {f"{way} {stream}" for way in ("read", "written") for stream in formula.shared.split()} | {"bytes"}
    for figure, value in counts(first + second).items():
        if figure in shared:
            assert value >= whole[figure] * (1.0 - 1e-12)  # parts are rounded
        else:
            assert value == pytest.approx(whole[figure], rel=1e-12), figure


def test_big_products_do_not_overflow() -> None:
    import numpy as np

    big = np.array([2**31], dtype=np.int64)
    assert float(ops.ternary_gemm_work(big, big, 2**20).flop[0]) > 2.0**82
    assert float(ops.fused_mlp_work(big, 2**20, big, "gelu", "float16").flop[0]) > 2.0**82
    assert float(ops.moe_gemm_work(big, 2**20, 8, big, 2**20, "float16").flop[0]) > 2.0**82
    assert float(ops.cholesky_work(big, "float64").flop[0]) > 2.0**90
    assert float(ops.conv2d_work(big, 2**20, 2**20, big, 9, 3, 3, "float16").flop[0]) > 2.0**100
    assert float(ops.block_sparse_gemm_work(big, big, big, big, big, "int8", block_rows=64).flop[0]) > 2.0**68
    assert float(ops.recurrent_cell_work("gru", big, big, 2**20, 2**20, "float16").flop[0]) > 2.0**100
    assert float(ops.selective_scan_work(big, big, big, 16, "float16").flop[0]) > 2.0**96
    assert float(ops.elementwise_work(big, big, "float16", big).flop[0]) == 2.0**62
    assert float(ops.moe_dispatch_work(big, big, 2**10, "float16").bytes[0]) > 2.0**72


def test_the_page_of_formulas_names_every_one() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "operators.md").read_text(encoding="utf-8")
    assert {name for name in ops.__all__ if name.endswith("_work")} == set(re.findall(r"`(\w+_work)`", page))
