"""Problems of every operator and the closed forms of their work. Importing this package registers them all.

What is where (formulas in docs/operators.md):

- products: ``gemm``, ``weight_only_gemm``, ``lut_gemm``, ``integer_gemm``, ``sparse_gemm``, ``gather_mlp``, ``mlp``
- attention: ``attention``, ``paged_attention``, ``mla``, ``quantised_attention``, ``attention_quantiser``,
  ``sparse_attention``, ``block_sparse_attention``, ``token_gather``, ``attention_selector``, ``line_selector``,
  ``tree_attention``
- around them: ``norm``, ``activation``, ``rope``, ``softmax``, ``elementwise``, ``embedding``, ``top_k``, ``moe``
- sequences and images: ``scan``, ``recurrent_cell``, ``long_conv``, ``convolution``
- linear algebra: ``positive_definite``
- between devices: ``collective``, ``all_reduce``, ``all_to_all``
- what measures a device: ``fma``, ``stream``

Arithmetic that sums up products is keyed to the matrix unit, whichever unit a kernel uses: a bound must let the fastest
one do it. What is done value by value is keyed to the vector unit, exponentials and their kin to the special one.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ridgeline.analytical.operators.activation import ACTIVATIONS, Activation, activation_work
from ridgeline.analytical.operators.all_reduce import AllReduce, all_reduce_work
from ridgeline.analytical.operators.all_to_all import AllToAll, all_to_all_work
from ridgeline.analytical.operators.attention import (
    Attention,
    attended_keys,
    attention_pairs,
    attention_work,
    paged_kv_bytes,
    pages,
)
from ridgeline.analytical.operators.attention_selector import (
    CentroidSelector,
    CodebookSelector,
    LabelChannelSelector,
    accumulated_score_selector_work,
    centroid_selector_work,
    codebook_selector_work,
    hierarchical_centroid_selector_work,
    label_channel_selector_work,
    line_selector_work,
)
from ridgeline.analytical.operators.block_sparse_attention import (
    BlockSparseAttention,
    strided_blocks,
    strided_columns,
    strided_kv_bytes,
    strided_kv_tokens,
    strided_shifts,
)
from ridgeline.analytical.operators.collective import Collective, all_gather_work, reduce_scatter_work, send_work
from ridgeline.analytical.operators.convolution import (
    Conv2d,
    conv2d_work,
    conv_inputs,
    conv_output,
    conv_taps,
    depthwise_conv_work,
)
from ridgeline.analytical.operators.elementwise import elementwise_work
from ridgeline.analytical.operators.embedding import EmbeddingBag, embedding_bag_work, embedding_work
from ridgeline.analytical.operators.fma import Fma, fma_work
from ridgeline.analytical.operators.gather_mlp import GatherMlp, gather_gemm_work, gather_mlp_work
from ridgeline.analytical.operators.gemm import Gemm, gemm_work
from ridgeline.analytical.operators.integer_gemm import (
    IntegerGemm,
    bit_plane_gemm_work,
    dual_grain_gemm_work,
    int8_gemm_work,
    quantise_work,
    shift_gemm_work,
    ternary_gemm_work,
)
from ridgeline.analytical.operators.line_selector import LineSelector
from ridgeline.analytical.operators.long_conv import (
    LONG_CONV_METHODS,
    LongConv,
    dilated_conv1d_work,
    long_conv_work,
)
from ridgeline.analytical.operators.lut_gemm import LutGemm, lut_gemm_work
from ridgeline.analytical.operators.mla import MultiHeadLatentAttention, mla_projection_work, mla_work
from ridgeline.analytical.operators.mlp import FusedMlp, LowRankGemm, fused_mlp_work, low_rank_gemm_work
from ridgeline.analytical.operators.moe import (
    MoeGemm,
    distinct_experts,
    moe_combine_work,
    moe_dispatch_work,
    moe_einsum_dispatch_work,
    moe_gemm_work,
    moe_routing_work,
)
from ridgeline.analytical.operators.norm import NORMS, norm_work
from ridgeline.analytical.operators.paged_attention import PagedAttention, paged_attention_work
from ridgeline.analytical.operators.positive_definite import (
    Cholesky,
    KernelMatrix,
    TriangularSolve,
    cholesky_work,
    gram_kernel_work,
    kernel_matrix_work,
    triangular_solve_work,
)
from ridgeline.analytical.operators.quantised_attention import (
    AttentionQuantiser,
    QuantisedAttention,
    quantised_attention_work,
)
from ridgeline.analytical.operators.recurrent_cell import CELLS, Cell, RecurrentCell, recurrent_cell_work
from ridgeline.analytical.operators.rope import rope_work
from ridgeline.analytical.operators.scan import (
    GatedScan,
    SelectiveScan,
    chunked_scan_work,
    gated_scan_work,
    selective_scan_work,
)
from ridgeline.analytical.operators.softmax import softmax_work
from ridgeline.analytical.operators.sparse_attention import sparse_attention_work
from ridgeline.analytical.operators.sparse_gemm import (
    SparseGemm,
    block_sparse_gemm_work,
    expected_used_columns,
    structured_sparse_gemm_work,
)
from ridgeline.analytical.operators.stream import STREAM_ARRAYS, Stream, stream_work
from ridgeline.analytical.operators.token_gather import TokenGatherAttention
from ridgeline.analytical.operators.top_k import TopK, sampling_work, speculative_verify_work, top_k_work
from ridgeline.analytical.operators.tree_attention import (
    TreeAttention,
    continual_attention_work,
    split_kv_combine_work,
    tree_attention_work,
)
from ridgeline.analytical.operators.weight_only_gemm import WeightOnlyGemm, dequantisation_work, weight_only_gemm_work
from ridgeline.analytical.problem import Problem, ProblemError, problem_classes

__all__ = [
    "ACTIVATIONS",
    "CELLS",
    "LONG_CONV_METHODS",
    "NORMS",
    "STREAM_ARRAYS",
    "Activation",
    "AllReduce",
    "AllToAll",
    "Attention",
    "AttentionQuantiser",
    "BlockSparseAttention",
    "Cell",
    "CentroidSelector",
    "Cholesky",
    "CodebookSelector",
    "Collective",
    "Conv2d",
    "EmbeddingBag",
    "Fma",
    "FusedMlp",
    "GatedScan",
    "GatherMlp",
    "Gemm",
    "IntegerGemm",
    "KernelMatrix",
    "LabelChannelSelector",
    "LineSelector",
    "LongConv",
    "LowRankGemm",
    "LutGemm",
    "MoeGemm",
    "MultiHeadLatentAttention",
    "PagedAttention",
    "QuantisedAttention",
    "RecurrentCell",
    "SelectiveScan",
    "SparseGemm",
    "Stream",
    "TokenGatherAttention",
    "TopK",
    "TreeAttention",
    "TriangularSolve",
    "WeightOnlyGemm",
    "accumulated_score_selector_work",
    "activation_work",
    "all_gather_work",
    "all_reduce_work",
    "all_to_all_work",
    "attended_keys",
    "attention_pairs",
    "attention_work",
    "bit_plane_gemm_work",
    "block_sparse_gemm_work",
    "centroid_selector_work",
    "cholesky_work",
    "chunked_scan_work",
    "codebook_selector_work",
    "continual_attention_work",
    "conv2d_work",
    "conv_inputs",
    "conv_output",
    "conv_taps",
    "depthwise_conv_work",
    "dequantisation_work",
    "dilated_conv1d_work",
    "distinct_experts",
    "dual_grain_gemm_work",
    "elementwise_work",
    "embedding_bag_work",
    "embedding_work",
    "expected_used_columns",
    "fma_work",
    "fused_mlp_work",
    "gated_scan_work",
    "gather_gemm_work",
    "gather_mlp_work",
    "gemm_work",
    "gram_kernel_work",
    "hierarchical_centroid_selector_work",
    "int8_gemm_work",
    "kernel_matrix_work",
    "label_channel_selector_work",
    "line_selector_work",
    "long_conv_work",
    "low_rank_gemm_work",
    "lut_gemm_work",
    "make_problem",
    "mla_projection_work",
    "mla_work",
    "moe_combine_work",
    "moe_dispatch_work",
    "moe_einsum_dispatch_work",
    "moe_gemm_work",
    "moe_routing_work",
    "norm_work",
    "paged_attention_work",
    "paged_kv_bytes",
    "pages",
    "quantise_work",
    "quantised_attention_work",
    "recurrent_cell_work",
    "reduce_scatter_work",
    "rope_work",
    "sampling_work",
    "selective_scan_work",
    "send_work",
    "shift_gemm_work",
    "softmax_work",
    "sparse_attention_work",
    "speculative_verify_work",
    "split_kv_combine_work",
    "stream_work",
    "strided_blocks",
    "strided_columns",
    "strided_kv_bytes",
    "strided_kv_tokens",
    "strided_shifts",
    "structured_sparse_gemm_work",
    "ternary_gemm_work",
    "top_k_work",
    "tree_attention_work",
    "triangular_solve_work",
    "weight_only_gemm_work",
]


def make_problem(operator: str, parameters: Mapping[str, Any]) -> Problem:
    """Build the problem of ``operator`` from named parameters.

    Raises:
        ProblemError: for an unknown operator (key ``operator``), an unknown or a missing parameter, or a shape that
            cannot be.
    """
    classes = problem_classes()
    if operator not in classes:
        raise ProblemError("operator", f"unknown operator {operator!r}: one of {', '.join(sorted(classes))}")
    cls = classes[operator]
    known = {f.name: f for f in dataclasses.fields(cls)}
    for key in parameters:
        if key not in known:
            raise ProblemError(key, f"{operator} has no such parameter; it takes {', '.join(known)}")
    for name, f in known.items():
        missing = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if missing and name not in parameters:
            raise ProblemError(name, f"{operator} needs it")
    return cls(**parameters)


def parameters_from_text(text: str) -> dict[str, int | float | bool | str]:
    """Parameters as people write them: ``m=512,causal=true,precision=float32``, or a JSON object.

    Raises:
        ProblemError: for text that is neither (key ``problem``).
    """
    if text.lstrip().startswith("{"):
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ProblemError("problem", f"not JSON: {error}") from None
        if not all(isinstance(value, int | float | bool | str) for value in values.values()):
            raise ProblemError("problem", "its values must be numbers, true or false, or text")
        return dict(values)
    found: dict[str, int | float | bool | str] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key or not value:
            raise ProblemError("problem", f"{part!r} is no key=value; write m=512,n=512,k=512,precision=float32")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found
