"""The costs that the papers' rows state, against the closed forms: where they agree, and where a row says something else."""

from __future__ import annotations

import math

import pytest

from ridgeline.analytical.operators import (
    attention_work,
    bit_plane_gemm_work,
    block_sparse_gemm_work,
    cholesky_work,
    depthwise_conv_work,
    dual_grain_gemm_work,
    embedding_bag_work,
    fused_mlp_work,
    gather_mlp_work,
    gemm_work,
    int8_gemm_work,
    label_channel_selector_work,
    line_selector_work,
    long_conv_work,
    low_rank_gemm_work,
    lut_gemm_work,
    moe_dispatch_work,
    moe_einsum_dispatch_work,
    recurrent_cell_work,
    shift_gemm_work,
    sparse_attention_work,
    ternary_gemm_work,
    triangular_solve_work,
    weight_only_gemm_work,
)
from ridgeline.analytical.work import SPECIAL, fma_key

M, N, K = 128, 768, 3072


def test_flashsigmoid() -> None:
    b, h, kv, t, s, d, e = 2, 8, 4, 64, 256, 64, 2
    work = attention_work(b, h, kv, t, s, d, False, "bfloat16")
    assert work.flop == 4 * b * h * t * s * d
    assert work.operations[SPECIAL] == b * h * t * s
    assert work.bytes == (2 * b * t * h * d + 2 * b * s * kv * d) * e
    square = attention_work(b, h, kv, s, s, d, True, "bfloat16").flop
    assert square == pytest.approx(4 * b * h * s * s * d / 2, rel=1 / s)


def test_unireplknet_large_kernels_are_compute_bound() -> None:
    """13 x 13 in float32: about 42 operations a byte."""
    work = depthwise_conv_work(1, 80, 56, 56, 13, 13, "float32", padding=6, padding_counts=True)
    assert work.flop == 2 * 80 * 56 * 56 * 13 * 13
    assert work.bytes == (2 * 80 * 56 * 56 + 80 * 169) * 4
    assert work.intensity_flop_per_byte == pytest.approx(42, rel=0.05)


def test_intel_sparse_spmm() -> None:
    """Rows M of the paper are output channels: ours are N, its columns N our M."""
    nnz = 0.2 * N * K
    work = block_sparse_gemm_work(M, N, K, nnz / 4, K, "int8", block_rows=4)
    starts = 4 * (N / 4 + 1)  # which the row leaves out
    assert work.flop == pytest.approx(2 * M * N * K * 0.2)
    assert work.bytes - starts == pytest.approx(nnz + 4 * nnz / 4 + K * M + 4 * N * M)


def test_fast_sparse_convnets_and_sparsebytenn() -> None:
    nnz = 0.1 * N * K
    work = block_sparse_gemm_work(M, N, K, nnz, K, "float32")
    assert work.bytes - 4 * (N + 1) == pytest.approx(nnz * 8 + M * (K + N) * 4)


def test_arbitrary_precision() -> None:
    p, q = 3, 2
    work = bit_plane_gemm_work(M, N, K, p, q)
    assert work.flop == p * q * 2 * M * N * K
    assert work.bytes == M * K * p / 8 + K * N * q / 8 + M * N * 4


def test_matmulfree_lm_weights_take_two_bits() -> None:
    work = ternary_gemm_work(1, N, K)
    assert work.read_bytes["weights"] == N * K / 4
    assert gemm_work(1, N, K, "float16").read_bytes["weights"] / work.read_bytes["weights"] == 8


def test_dgq() -> None:
    g = 128
    work = dual_grain_gemm_work(M, N, K, g)
    assert work.operations[fma_key("int8")] == 2 * M * K * N
    assert work.read_bytes["weights"] + work.read_bytes["scales"] - 4 * M == K * N / 2 + 2 * K * N / g + 2 * N


def test_squeezellm() -> None:
    b, e, nnz = 3, 4, 1000
    work = lut_gemm_work(1, N, K, b, "float32", outliers=nnz)
    assert work.flop == 2 * K * N + 2 * nnz
    weights = sum(work.read_bytes[stream] for stream in ("weights", "scales", "index"))
    # The row writes the tables as 2 N 2^b e; one table a channel is N 2^b e. The row starts are N + 1, not N.
    assert weights == K * N * b / 8 + N * 2**b * e + nnz * (e + 4) + 4 * (N + 1)


def test_gptq_and_finequant() -> None:
    g, b = 128, 4
    work = weight_only_gemm_work(M, N, K, "int4", g, "float16", zero="float16")
    assert work.read_bytes["weights"] + work.read_bytes["scales"] == K * N * b / 8 + 2 * N * K / g * 2
    symmetric = weight_only_gemm_work(M, N, K, "int4", g, "float16")
    assert symmetric.read_bytes["weights"] + symmetric.read_bytes["scales"] == K * N * b / 8 + (K / g) * N * 2
    assert symmetric.flop == 2 * M * N * K


def test_llm_int8() -> None:
    """The row counts all of K in int8 and the outliers once more; ours takes them out of the int8 part."""
    o = 16
    work = int8_gemm_work(M, N, K, outlier_columns=o)
    assert work.operations[fma_key("int8")] + work.operations[fma_key("float16")] == 2 * M * K * N
    assert work.operations[fma_key("float16")] == 2 * M * o * N


def test_cats_reads_two_thirds_at_half_sparsity() -> None:
    h, f = 4096, 11008
    dense = fused_mlp_work(1, h, f, "silu_and_mul", "float32").read_bytes["weights"]
    half = gather_mlp_work(1, h, f, f / 2, f / 2, "float32").read_bytes["weights"]
    assert half / dense == pytest.approx((1 + 2 * 0.5) / 3)


def test_coreinfer_reads_its_core() -> None:
    h, f, share = 4096, 11008, 0.4
    dense = fused_mlp_work(1, h, f, "silu_and_mul", "float32").read_bytes["weights"]
    core = gather_mlp_work(1, h, f, share * f, share * f, "float32", selection="predicted").read_bytes["weights"]
    assert core / dense == pytest.approx(share)


def test_double_sparsity_reads_an_eighth() -> None:
    """r = 16 of 128 channels, S / 16 tokens, float32: ideally 8 times fewer bytes, scores on the chip."""
    s, d, r = 4096, 128, 16
    selector = label_channel_selector_work(1, 1, 1, s, r, s // 16, "float32", "float32")
    executor = sparse_attention_work(1, s / 16, s / 16, s / 16, d, "float32")
    dense = attention_work(1, 1, 1, 1, s, d, False, "float32")
    assert selector.read_bytes["kv"] + executor.read_bytes["kv"] == s * r * 4 + s / 16 * 2 * d * 4
    assert dense.read_bytes["kv"] / (selector.read_bytes["kv"] + executor.read_bytes["kv"]) == pytest.approx(8)


def test_qwen25_1m_estimates_with_64_queries() -> None:
    heads, s, d = 4, 8192, 128
    work = line_selector_work(1, heads, heads, s, 64, d, "bfloat16")
    assert work.operations[fma_key("bfloat16")] == 2 * 64 * s * heads * d


def test_flashbutterfly() -> None:
    """The row counts three transforms of N = 2 L complex points, that of the kernel too; ours two, of paired sequences."""
    length, channels = 1024, 64
    n = 2 * length
    fft = long_conv_work(1, channels, length, length, "float32", "fft", skip=False)
    assert fft.flop == channels * (2 * 5 * n * math.log2(n) / 2 + 3 * n)
    direct = long_conv_work(1, channels, length, length, "float32", skip=False)
    assert direct.flop == channels * length * (length + 1)
    assert fft.bytes == direct.bytes == (2 * channels * length + channels * length) * 4


def test_deepspeed_moe() -> None:
    s, e, c, m = 256, 16, 32, 512
    assert moe_einsum_dispatch_work(s, e, c, m, "float16").flop == 2 * s * e * c * m
    gather = moe_dispatch_work(s, 1, m, "float16")
    assert gather.flop == 0
    assert gather.read_bytes["activations"] == s * m * 2


def test_ctr_low_rank() -> None:
    b, r, fan_in, fan_out, fields = 64, 8, 400, 300, 39
    assert low_rank_gemm_work(b, fan_out, fan_in, r, "float32").flop == 2 * b * r * (fan_in + fan_out)
    assert embedding_bag_work(b, fields, 10**9, r, "float32", reduce=False).read_bytes["weights"] == pytest.approx(
        b * fields * r * 4, rel=1e-5
    )


def test_flashrnn() -> None:
    t, b, heads, d = 100, 2, 3, 64
    for kind, gates in (("lstm", 4), ("gru", 3), ("elman", 1)):
        work = recurrent_cell_work(kind, b, t, heads, d, "bfloat16")
        assert work.operations[fma_key("bfloat16")] == 2 * t * b * heads * gates * d * d


def test_shiftaddvit_weights_take_five_bits() -> None:
    dense = gemm_work(M, N, K, "float32").read_bytes["weights"]
    assert shift_gemm_work(M, N, K).read_bytes["weights"] / dense == 5 / 32


def test_deep_kernel_machine() -> None:
    """P^3 / 3 once; each of T points then two triangular solves with P inducing points: 2 T P^2 multiply-adds."""
    p, t = 200, 1000
    assert cholesky_work(p, "float64").flop == pytest.approx(p**3 / 3, rel=0.01)
    assert 2 * triangular_solve_work(p, t, "float64").flop == 2 * t * p * p


def test_tabpfn_queries_see_the_training_rows_only() -> None:
    train, test, width, heads = 1000, 500, 512, 4
    d = width // heads
    works = [attention_work(1, heads, heads, rows, train, d, False, "float32") for rows in (train, test)]
    assert sum(work.flop for work in works) == 4 * (train**2 + test * train) * width
