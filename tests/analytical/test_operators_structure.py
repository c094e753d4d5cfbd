"""Problems whose work depends on data: the forecast is right on average over drawn structures; bad parameters are named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from brute_force import counts

from ridgeline.analytical.operators import make_problem
from ridgeline.analytical.problem import Problem, ProblemError, Structure, StructureError, problem_classes

DRAWS = 300
Random = np.random.Generator


def routing(p: Any, random: Random) -> dict[str, float]:
    chosen = random.permuted(np.tile(np.arange(p.experts), (p.tokens, 1)), axis=1)[:, : p.top_k]
    return {"distinct_experts": len(np.unique(chosen))}


def rows(p: Any, random: Random) -> dict[str, float]:
    return {"distinct_rows": len(np.unique(random.integers(p.vocabulary, size=p.bags * p.per_bag)))}


def outlying_weights(p: Any, random: Random) -> dict[str, float]:
    return {"outliers": np.count_nonzero(random.random((p.n, p.k)) < p.outlier_density)}


def outlying_columns(p: Any, random: Random) -> dict[str, float]:
    return {"outlier_columns": np.count_nonzero(random.random(p.k) < p.outlier_share)}


def weight_blocks(p: Any, random: Random) -> dict[str, float]:
    kept = random.random((p.n // p.block_rows, p.k // p.block_columns)) < p.density
    return {
        "kept_blocks": np.count_nonzero(kept),
        "used_columns": p.block_columns * np.count_nonzero(kept.any(axis=0)),
    }


def neurons(p: Any, random: Random) -> dict[str, float]:
    tokens = p.tokens if p.selection == "gate" else 1
    fires = random.random((tokens, p.intermediate)) < p.active
    pairs = np.count_nonzero(fires) * (p.tokens // tokens)
    return {"pairs": pairs, "neurons": np.count_nonzero(fires.any(axis=0))}


def score_blocks(p: Any, random: Random) -> dict[str, float]:
    """Masks written out, element by element."""
    blocks, heads = -(-p.length // p.block), (p.batch, p.q_heads)
    past = p.past // p.block
    kept = random.random((*heads, blocks - past, blocks)) < p.density
    kept |= np.eye(blocks, dtype=bool)[past:]
    if p.causal:
        kept &= np.tri(blocks, dtype=bool)[past:]
    pairs = kept.repeat(p.block, axis=2).repeat(p.block, axis=3)[:, :, : p.queries, : p.length]
    if p.causal:
        pairs &= np.tri(p.length, dtype=bool)[p.past :]
    keys = pairs.any(axis=2).reshape(p.batch, p.kv_heads, -1, p.length).any(axis=2)
    return {
        "kept_blocks": np.count_nonzero(kept),
        "kept_pairs": np.count_nonzero(pairs),
        "kept_keys": np.count_nonzero(keys),
    }


def tokens(p: Any, random: Random) -> dict[str, float]:
    groups, width = (p.batch, p.kv_heads, p.q_heads // p.kv_heads), round(p.kept * p.spread)
    lengths = random.integers(p.kept - width, p.kept + width + 1, size=groups)
    places = random.permuted(np.broadcast_to(np.arange(p.kv_length), (*groups, p.kv_length)), axis=-1)
    kept = places < lengths[..., None]
    return {"kept_keys": np.count_nonzero(kept.any(axis=2)), "kept_pairs": np.count_nonzero(kept)}


def lengths(p: Any, random: Random) -> dict[str, float]:
    drawn = random.integers(1, p.kv_length + 1, size=p.batch)
    pairs = [np.count_nonzero(np.tri(p.q_length, n, k=n - p.q_length)) for n in drawn]
    return {"keys": int(drawn.sum()), "pages": int((-(-drawn // p.page)).sum()), "pairs": sum(pairs)}


def tree(p: Any, random: Random) -> dict[str, float]:
    depths = [1]
    for node in range(1, p.nodes):
        depths.append(1 + depths[random.integers(node)])
    return {"ancestor_pairs": sum(depths)}


STRUCTURED: dict[str, tuple[str, dict[str, Any], Callable[[Any, Random], dict[str, float]]]] = {
    "moe": ("moe_gemm", {"tokens": 5, "experts": 12, "top_k": 3, "n": 4, "k": 6}, routing),
    "moe-full": ("moe_gemm", {"tokens": 2, "experts": 3, "top_k": 3, "n": 4, "k": 6}, routing),
    "bag": ("embedding_bag", {"bags": 4, "per_bag": 3, "vocabulary": 20, "width": 4}, rows),
    "lut": ("lut_gemm", {"m": 1, "n": 8, "k": 16, "index_bits": 3, "outlier_density": 0.3}, outlying_weights),
    "int8": ("integer_gemm", {"m": 2, "n": 3, "k": 40, "outlier_share": 0.3}, outlying_columns),
    "csr": ("sparse_gemm", {"m": 2, "n": 6, "k": 9, "density": 0.2}, weight_blocks),
    "4x1": ("sparse_gemm", {"m": 2, "n": 8, "k": 9, "density": 0.3, "block_rows": 4}, weight_blocks),
    "bsr": (
        "sparse_gemm",
        {"m": 2, "n": 8, "k": 12, "density": 0.3, "block_rows": 2, "block_columns": 3},
        weight_blocks,
    ),
    "gate": ("gather_mlp", {"tokens": 3, "hidden": 4, "intermediate": 30, "active": 0.3}, neurons),
    "core": (
        "gather_mlp",
        {"tokens": 3, "hidden": 4, "intermediate": 30, "active": 0.3, "selection": "predicted"},
        neurons,
    ),
    "blocks": (
        "block_sparse_attention",
        {"batch": 2, "q_heads": 4, "kv_heads": 2, "length": 12, "head_dim": 4, "block": 2, "density": 0.3},
        score_blocks,
    ),
    "blocks-chunk": (
        "block_sparse_attention",
        {
            "batch": 1,
            "q_heads": 4,
            "kv_heads": 2,
            "length": 17,
            "head_dim": 4,
            "block": 3,
            "density": 0.2,
            "q_length": 8,
        },
        score_blocks,
    ),
    "blocks-tail-two-sided": (
        "block_sparse_attention",
        {
            "batch": 1,
            "q_heads": 2,
            "kv_heads": 1,
            "length": 14,
            "head_dim": 4,
            "block": 4,
            "density": 0.5,
            "causal": False,
        },
        score_blocks,
    ),
    "blocks-two-sided": (
        "block_sparse_attention",
        {
            "batch": 1,
            "q_heads": 2,
            "kv_heads": 2,
            "length": 9,
            "head_dim": 4,
            "block": 3,
            "density": 0.4,
            "causal": False,
        },
        score_blocks,
    ),
    "pages": (
        "paged_attention",
        {"batch": 3, "q_heads": 4, "kv_heads": 2, "kv_length": 21, "head_dim": 4, "page": 4, "kv_precision": "int8"},
        lengths,
    ),
    "pages-queries": (
        "paged_attention",
        {"batch": 4, "q_heads": 4, "kv_heads": 2, "kv_length": 13, "head_dim": 4, "page": 5, "q_length": 6},
        lengths,
    ),
    "tree": (
        "tree_attention",
        {"batch": 2, "q_heads": 4, "kv_heads": 2, "context": 3, "nodes": 9, "head_dim": 4},
        tree,
    ),
    "tokens-ragged": (
        "token_gather_attention",
        {"batch": 2, "q_heads": 6, "kv_heads": 2, "kv_length": 20, "kept": 6, "head_dim": 4, "spread": 0.5},
        tokens,
    ),
    "tokens": (
        "token_gather_attention",
        {"batch": 2, "q_heads": 6, "kv_heads": 2, "kv_length": 20, "kept": 5, "head_dim": 4},
        tokens,
    ),
}


def test_lengths_and_trees_are_drawn_as_the_forecast_says() -> None:
    paged = make_problem(*STRUCTURED["pages-queries"][:2])
    drawn = [replace(paged, seed=seed).lengths() for seed in range(1, 500)]
    assert {n for lengths in drawn for n in lengths.tolist()} == set(range(1, 14))
    assert paged.lengths().tolist() == paged.lengths().tolist() == drawn[0].tolist()
    found = paged.structure_of(np.array([13, 2, 5, 6]))
    assert found.figures == {"keys": 26.0, "pages": 7.0, "pairs": (8 + 13) * 3.0 + 3.0 + 15.0 + 21.0}
    tree_problem = make_problem(*STRUCTURED["tree"][:2])
    pairs = []
    for seed in range(1, 500):
        sees = replace(tree_problem, seed=seed).ancestors()
        assert sees.diagonal().all()
        assert not np.triu(sees, 1).any()
        assert sees[:, 0].all()
        # What an ancestor sees, its descendant sees.
        assert not (sees.astype(int) @ sees.astype(int) > 0)[~sees].any()
        pairs.append(tree_problem.structure_of(sees).figure("ancestor_pairs"))
    expected = sum(1.0 + sum(1.0 / j for j in range(1, i)) for i in range(1, 10))
    assert np.mean(pairs) == pytest.approx(expected, rel=0.05)
    assert (
        tree_problem.structure_of(np.tri(3, dtype=bool)).digest
        != tree_problem.structure_of(np.eye(3, dtype=bool)).digest
    )


@pytest.mark.parametrize("name", STRUCTURED)
def test_the_forecast_is_right_on_average(name: str) -> None:
    operator, parameters, draw = STRUCTURED[name]
    problem = make_problem(operator, parameters)
    random = np.random.default_rng(problem.to_dict()["seed"])
    drawn = [counts(problem.work(Structure(draw(problem, random)))) for _ in range(DRAWS)]
    for figure, forecast in counts(problem.expected_work()).items():
        values = np.array([float(one[figure]) for one in drawn])
        error = values.std() / np.sqrt(DRAWS)
        assert forecast == pytest.approx(values.mean(), rel=1e-9, abs=4.0 * error), figure


@pytest.mark.parametrize("name", STRUCTURED)
def test_work_without_its_figures_says_which(name: str) -> None:
    operator, parameters, draw = STRUCTURED[name]
    problem = make_problem(operator, parameters)
    figure = next(iter(draw(problem, np.random.default_rng(1))))
    with pytest.raises(StructureError, match=f"needs the figure '{figure}'; stated: none$"):
        problem.work()


def test_extremes_of_density_are_dense_and_empty() -> None:
    parameters = {"m": 2, "n": 6, "k": 9}
    empty = make_problem("sparse_gemm", {**parameters, "density": 0.0}).expected_work()
    full = make_problem("sparse_gemm", {**parameters, "density": 1.0}).expected_work()
    dense = make_problem("gemm", {**parameters, "precision": "float32"}).work()
    assert empty.flop == 0
    assert empty.read_bytes["activations"] == 0
    assert full.operations == dense.operations
    assert full.read_bytes["weights"] == dense.read_bytes["weights"]
    blocks = {"batch": 1, "q_heads": 4, "kv_heads": 2, "length": 12, "head_dim": 4, "block": 3, "density": 1.0}
    attention = {
        "batch": 1,
        "q_heads": 4,
        "kv_heads": 2,
        "q_length": 12,
        "kv_length": 12,
        "head_dim": 4,
        "causal": True,
    }
    sparse, whole = make_problem("block_sparse_attention", blocks).expected_work(), make_problem("attention", attention)
    assert sparse.operations == whole.work().operations
    assert sparse.read_bytes["kv"] == whole.work().read_bytes["kv"]


# Problems without structure, and what is wrong with one

SELECTOR = {"batch": 2, "q_heads": 4, "kv_heads": 2, "kv_length": 21, "head_dim": 8}
PLAIN: dict[str, dict[str, Any]] = {
    "conv2d": {
        "batch": 1,
        "in_channels": 4,
        "out_channels": 8,
        "height": 5,
        "width": 6,
        "kernel_height": 3,
        "kernel_width": 3,
    },
    "gated_scan": {"batch": 1, "length": 4, "channels": 3},
    "selective_scan": {"batch": 1, "length": 4, "channels": 3, "state": 2},
    "recurrent_cell": {"cell": "lstm", "batch": 1, "length": 4, "heads": 2, "head_dim": 3},
    "long_conv": {"batch": 1, "channels": 2, "length": 16, "kernel": 16},
    "fused_mlp": {"tokens": 2, "hidden": 3, "intermediate": 4},
    "low_rank_gemm": {"m": 2, "n": 3, "k": 4, "rank": 1},
    "integer_gemm": {"m": 2, "n": 3, "k": 4},
    "kernel_matrix": {"m": 2, "n": 3, "features": 4},
    "cholesky": {"n": 3},
    "triangular_solve": {"n": 3, "columns": 2},
    "quantised_attention": {
        "batch": 1,
        "q_heads": 4,
        "kv_heads": 2,
        "q_length": 3,
        "kv_length": 5,
        "head_dim": 8,
    },
    "attention_quantiser": {"batch": 1, "heads": 4, "length": 5, "head_dim": 8},
    "mla": {"batch": 1, "heads": 2, "q_length": 3, "kv_length": 5},
    "label_channel_selector": {**SELECTOR, "channels": 3, "kept": 5},
    "centroid_selector": {**SELECTOR, "centroids": 4, "kept": 0.3},
    "codebook_selector": {**SELECTOR, "codes": 7, "kept": 5, "sinks": 1, "window": 3},
    "top_k": {"rows": 2, "width": 9, "k": 3},
    "line_selector": {
        "batch": 1,
        "q_heads": 4,
        "kv_heads": 2,
        "length": 300,
        "head_dim": 8,
        "columns": 40,
        "diagonals": 110,
    },
}
STRIDED = {"pattern": "strided", "causal": True, "density": None, "local": 2, "stride": 2}
GOOD = {**PLAIN, **{operator: parameters for operator, parameters, _ in STRUCTURED.values()}}
ELSEWHERE = {"gemm", "attention", "weight_only_gemm", "stream", "fma", "all_reduce", "all_to_all"}


def test_every_operator_of_the_package_has_a_good_problem_here() -> None:
    ours = {name for name, cls in problem_classes().items() if cls.__module__.startswith("ridgeline.")}
    assert ours == GOOD.keys() | ELSEWHERE


@pytest.mark.parametrize("operator", GOOD)
def test_problems_are_themselves(operator: str) -> None:
    problem = make_problem(operator, GOOD[operator])
    assert isinstance(problem, Problem)
    assert make_problem(operator, problem.to_dict()) == problem
    assert "\n" not in problem.label
    assert float(problem.expected_work().flop) >= 0
    assert problem.footprint_bytes() >= problem.expected_work().bytes


@pytest.mark.parametrize("operator", PLAIN)
def test_without_structure_the_forecast_is_the_work(operator: str) -> None:
    problem = make_problem(operator, PLAIN[operator])
    assert problem.work() == problem.expected_work()


def test_whole_and_broken_numbers_are_one_problem() -> None:
    parameters = GOOD["sparse_gemm"]
    one, other = (make_problem("sparse_gemm", {**parameters, "density": density}) for density in (1, 1.0))
    assert one == other
    assert one.digest == other.digest


@pytest.mark.parametrize(
    ("operator", "change", "key"),
    [
        ("moe_gemm", {"top_k": 99}, "top_k"),
        ("lut_gemm", {"index_bits": 9}, "index_bits"),
        ("lut_gemm", {"outlier_density": 1.5}, "outlier_density"),
        ("lut_gemm", {"outlier_density": float("nan")}, "outlier_density"),
        ("integer_gemm", {"weights": "binary"}, "weights"),
        ("integer_gemm", {"weights": "ternary", "outlier_share": 0.1}, "outlier_share"),
        ("integer_gemm", {"outlier_share": -0.1}, "outlier_share"),
        ("integer_gemm", {"weights": "dual_grain", "outlier_share": 0.0, "k": 100}, "k"),
        ("sparse_gemm", {"density": True}, "density"),
        ("sparse_gemm", {"density": "half"}, "density"),
        ("sparse_gemm", {"density": 2}, "density"),
        ("sparse_gemm", {"block_rows": 5}, "block_rows"),
        ("sparse_gemm", {"block_columns": 5}, "block_columns"),
        ("gather_mlp", {"active": 1.1}, "active"),
        ("gather_mlp", {"selection": "oracle"}, "selection"),
        ("block_sparse_attention", {"block": 0}, "block"),
        ("block_sparse_attention", {"pattern": "diagonal"}, "pattern"),
        ("block_sparse_attention", {"density": None}, "density"),
        ("block_sparse_attention", {"stride": 2}, "stride"),
        ("block_sparse_attention", {"pattern": "strided", "density": None, "local": 2}, "stride"),
        ("block_sparse_attention", {"pattern": "strided", "local": 2, "stride": 2}, "density"),
        ("block_sparse_attention", {**STRIDED, "dense_heads": 3}, "dense_heads"),
        ("block_sparse_attention", {**STRIDED, "causal": False}, "causal"),
        ("block_sparse_attention", {**STRIDED, "local": 0}, "local"),
        ("block_sparse_attention", {"q_length": 5}, "q_length"),
        ("block_sparse_attention", {"q_length": 14}, "q_length"),
        ("line_selector", {"columns": 29}, "columns"),
        ("line_selector", {"diagonals": 237}, "diagonals"),
        ("line_selector", {"last_queries": 301}, "last_queries"),
        ("block_sparse_attention", {"kv_heads": 3, "q_heads": 4}, "kv_heads"),
        ("block_sparse_attention", {"density": float("inf")}, "density"),
        ("token_gather_attention", {"kept": 21}, "kept"),
        ("token_gather_attention", {"kv_heads": 4}, "kv_heads"),
        ("token_gather_attention", {"spread": -0.1}, "spread"),
        ("token_gather_attention", {"kept": 15, "spread": 0.5}, "spread"),
        ("label_channel_selector", {"channels": 9}, "channels"),
        ("label_channel_selector", {"kept": 22}, "kept"),
        ("label_channel_selector", {"kv_heads": 3}, "kv_heads"),
        ("label_channel_selector", {"label_precision": "int5"}, "label_precision"),
        ("centroid_selector", {"centroids": 22}, "centroids"),
        ("centroid_selector", {"kept": 1.0}, "kept"),
        ("codebook_selector", {"codes": 40000}, "codes"),
        ("codebook_selector", {"kept": 18}, "kept"),
        ("paged_attention", {"kv_precision": "int5"}, "kv_precision"),
        ("paged_attention", {"kv_heads": 3}, "kv_heads"),
        ("tree_attention", {"kv_heads": 3}, "kv_heads"),
        ("conv2d", {"groups": 3}, "in_channels"),
        ("conv2d", {"groups": 4, "out_channels": 6}, "out_channels"),
        ("conv2d", {"kernel_width": 2}, "kernel_width"),
        ("conv2d", {"stride": 2, "dilation": 2}, "dilation"),
        ("recurrent_cell", {"cell": "rnn"}, "cell"),
        ("fused_mlp", {"activation": "swish"}, "activation"),
        ("quantised_attention", {"scores": "float32"}, "scores"),
        ("quantised_attention", {"values": "float64"}, "values"),
        ("quantised_attention", {"kv_heads": 3}, "kv_heads"),
        ("quantised_attention", {"granularity": "row"}, "granularity"),
        ("quantised_attention", {"precision": "float64"}, "precision"),
        ("attention_quantiser", {"role": "bias"}, "role"),
        ("attention_quantiser", {"to": "int3"}, "to"),
        ("attention_quantiser", {"role": "value"}, "granularity"),
        ("attention_quantiser", {"granularity": "channel"}, "granularity"),
        ("attention_quantiser", {"precision": "int8"}, "precision"),
        ("top_k", {"k": 10}, "k"),
        ("cholesky", {"precision": "double"}, "precision"),
    ],
)
def test_what_is_wrong_is_named(operator: str, change: dict[str, Any], key: str) -> None:
    with pytest.raises(ProblemError, match=f"^{key}: ") as caught:
        make_problem(operator, {**GOOD[operator], **change})
    assert caught.value.key == key
    assert "\n" not in str(caught.value)
