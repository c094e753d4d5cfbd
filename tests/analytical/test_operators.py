"""Work formulas against brute-force counts, torch's own counter, and properties; bad problems and their keys."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from brute_force import counted_flop, counts
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.analytical.operators import (
    STREAM_ARRAYS,
    Attention,
    Fma,
    Gemm,
    Stream,
    WeightOnlyGemm,
    attention_pairs,
    attention_work,
    fma_work,
    gemm_work,
    make_problem,
    stream_work,
    weight_only_gemm_work,
)
from ridgeline.analytical.problem import Problem, ProblemError, problem_classes
from ridgeline.analytical.work import SPECIAL, fma_key

sizes = st.integers(1, 4096)


# Brute force


@pytest.mark.parametrize(("q_length", "kv_length"), list(itertools.product(range(1, 8), repeat=2)))
@pytest.mark.parametrize("causal", [False, True])
def test_attention_pairs_are_those_of_the_mask(q_length: int, kv_length: int, causal: bool) -> None:
    pairs = sum(
        1
        for t in range(q_length)
        for s in range(kv_length)
        if not causal or s <= t + kv_length - q_length  # bottom-right
    )
    assert attention_pairs(q_length, kv_length, causal) == pairs


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("q_length", "kv_length"), [(1, 1), (1, 5), (3, 5), (5, 3), (4, 4)])
@pytest.mark.parametrize(("q_heads", "kv_heads"), [(1, 1), (4, 2), (6, 2), (3, 1)])
def test_attention_work_by_brute_force(
    q_heads: int, kv_heads: int, q_length: int, kv_length: int, causal: bool
) -> None:
    batch, head_dim = 2, 3
    flop = exponentials = 0
    read, written = set(), set()
    for b, h, t in itertools.product(range(batch), range(q_heads), range(q_length)):
        for d in range(head_dim):
            read.add(("q", b, h, t, d))
            written.add((b, h, t, d))
        for s in range(kv_length):
            if causal and s > t + kv_length - q_length:
                continue
            exponentials += 1
            for d in range(head_dim):
                flop += 2 + 2  # the score's multiply-add, and the value's
                read.add(("k", b, h // (q_heads // kv_heads), s, d))
                read.add(("v", b, h // (q_heads // kv_heads), s, d))
    work = Attention(
        batch=batch,
        q_heads=q_heads,
        kv_heads=kv_heads,
        q_length=q_length,
        kv_length=kv_length,
        head_dim=head_dim,
        causal=causal,
        precision="bfloat16",
    ).work()
    assert work.flop == work.operations[fma_key("bfloat16")] == flop
    assert work.operations[SPECIAL] == exponentials
    assert work.read_bytes["activations"] == 2 * sum(1 for name, *_ in read if name == "q")
    # Bottom-right: the last query sees every key, so that every key and value is read, whatever the lengths.
    assert work.read_bytes["kv"] == 2 * sum(1 for name, *_ in read if name != "q")
    assert work.written_bytes == {"activations": 2 * len(written)}


@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (2, 3, 5), (4, 1, 3)])
@pytest.mark.parametrize(
    ("precision", "width", "out_width"), [("float32", 4, 4), ("bfloat16", 2, 2), ("int8", 1, 4), ("float64", 8, 8)]
)
def test_gemm_work_by_brute_force(m: int, n: int, k: int, precision: str, width: int, out_width: int) -> None:
    triples = list(itertools.product(range(m), range(n), range(k)))
    work = Gemm(m=m, n=n, k=k, precision=precision).work()
    assert work.operations == {fma_key(precision): 2 * len(triples)}
    assert work.read_bytes["activations"] == width * len({(i, p) for i, _, p in triples})
    assert work.read_bytes["weights"] == width * len({(p, j) for _, j, p in triples})
    assert work.written_bytes == {"activations": out_width * len({(i, j) for i, j, _ in triples})}


@pytest.mark.parametrize(("weight", "width"), [("int8", 1.0), ("int4", 0.5)])
@pytest.mark.parametrize(("m", "n", "k", "group"), [(1, 1, 1, 1), (2, 3, 6, 3), (3, 5, 4, 4), (1, 2, 6, 1)])
def test_weight_only_gemm_work_by_brute_force(m: int, n: int, k: int, group: int, weight: str, width: float) -> None:
    triples = list(itertools.product(range(m), range(n), range(k)))
    work = WeightOnlyGemm(m=m, n=n, k=k, weight=weight, group=group, precision="float16").work()
    assert work.operations == {fma_key("float16"): 2 * len(triples)}
    assert work.read_bytes["activations"] == 2 * len({(i, p) for i, _, p in triples})
    assert work.read_bytes["weights"] == width * len({(j, p) for _, j, p in triples})
    assert work.read_bytes["scales"] == 2 * len({(j, p // group) for _, j, p in triples})
    assert work.written_bytes == {"activations": 2 * len({(i, j) for i, j, _ in triples})}


@pytest.mark.parametrize("operation", list(STREAM_ARRAYS))
def test_stream_work_by_brute_force(operation: str) -> None:
    elements, passes = 5, 3
    flop = read = written = 0
    for _ in range(passes):
        for _ in range(elements):
            # read: sum += a; copy: c = a; triad: c = a + s * b
            flop += {"read": 1, "copy": 0, "triad": 2}[operation]
            read += 4 * {"read": 1, "copy": 1, "triad": 2}[operation]
            written += 4 * {"read": 0, "copy": 1, "triad": 1}[operation]
    problem = Stream(operation=operation, elements=elements, passes=passes)
    work = problem.work()
    assert work.flop == flop
    assert sum(work.read_bytes.values()) == read
    assert sum(work.written_bytes.values()) == written
    # Passes sweep the same arrays again: the memory that is needed does not grow.
    assert problem.footprint_bytes() == (read + written) / passes


@pytest.mark.parametrize(("precision", "unit"), [("float32", "vector"), ("bfloat16", "vector"), ("int8", "matrix")])
def test_fma_work_by_brute_force(precision: str, unit: str) -> None:
    groups, chains, lanes, depth, iterations = 2, 3, 4, 2, 5
    accumulators = list(itertools.product(range(groups), range(chains), range(lanes)))
    flop = sum(2 for _ in itertools.product(range(iterations), accumulators, range(depth)))
    problem = Fma(
        precision=precision,
        unit=unit,
        groups=groups,
        chains=chains,
        lanes=lanes,
        depth=depth,
        iterations=iterations,
    )
    work = problem.work()
    assert work.operations == {fma_key(precision, unit): flop}
    assert work.read_bytes == {}
    assert work.bytes == 4 * len(accumulators)  # accumulators are float32 or int32


# torch's counter


@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (17, 33, 65), (128, 64, 256)])
def test_gemm_work_is_what_torch_counts(m: int, n: int, k: int) -> None:
    import torch

    a, b = torch.ones(m, k), torch.ones(k, n)
    assert Gemm(m=m, n=n, k=k, precision="float32").work().flop == counted_flop(lambda: a @ b)


@pytest.mark.parametrize(("m", "n", "k", "group"), [(1, 8, 16, 8), (5, 7, 12, 12)])
def test_weight_only_gemm_work_is_what_torch_counts(m: int, n: int, k: int, group: int) -> None:
    import torch

    x, w = torch.ones(m, k), torch.ones(n, k)
    problem = WeightOnlyGemm(m=m, n=n, k=k, weight="int8", group=group, precision="float32")
    assert problem.work().flop == counted_flop(lambda: x @ w.T)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1, 1), (2, 4, 2, 5, 9, 16), (1, 6, 1, 1, 33, 8), (2, 3, 3, 7, 4, 40)])
def test_attention_work_is_what_torch_counts(shape: tuple[int, ...]) -> None:
    """Eager and without a mask: torch counts no masked pair out, and 0 for its fused operator on the CPU."""
    import torch

    batch, q_heads, kv_heads, q_length, kv_length, head_dim = shape
    q = torch.ones(batch, q_heads, q_length, head_dim)
    k = v = torch.ones(batch, kv_heads, kv_length, head_dim).repeat_interleave(q_heads // kv_heads, dim=1)
    work = attention_work(*shape, causal=False, precision="float32")
    assert work.flop == counted_flop(lambda: torch.softmax(q @ k.transpose(-1, -2), dim=-1) @ v)


# Properties

gemm_sizes = st.fixed_dictionaries({"m": sizes, "n": sizes, "k": sizes})
attention_sizes = st.fixed_dictionaries(
    dict.fromkeys(("batch", "q_heads", "kv_heads", "q_length", "kv_length", "head_dim"), sizes)
)
wogemm_sizes = st.fixed_dictionaries({"m": sizes, "n": sizes, "k": sizes, "group": st.sampled_from([1, 2, 32, 128])})
FORMULAS = [
    pytest.param(lambda **s: gemm_work(**s, precision="bfloat16"), gemm_sizes, id="gemm"),
    pytest.param(lambda **s: gemm_work(**s, precision="int8"), gemm_sizes, id="gemm-int8"),
    pytest.param(
        lambda **s: attention_work(**s, causal=False, precision="float16"), attention_sizes, id="attention-full"
    ),
    pytest.param(
        lambda **s: attention_work(**s, causal=True, precision="float16"), attention_sizes, id="attention-causal"
    ),
    pytest.param(
        lambda **s: weight_only_gemm_work(**s, weight="int4", precision="bfloat16"), wogemm_sizes, id="weight-only"
    ),
    pytest.param(
        lambda **s: stream_work("triad", **s), st.fixed_dictionaries({"elements": sizes, "passes": sizes}), id="stream"
    ),
    pytest.param(
        lambda **s: fma_work("int8", "matrix", **s),
        st.fixed_dictionaries({"accumulators": sizes, "depth": sizes, "iterations": sizes}),
        id="fma",
    ),
]


@pytest.mark.parametrize(("formula", "strategy"), FORMULAS)
@given(data=st.data())
def test_work_grows_with_every_size(formula: Any, strategy: Any, data: st.DataObject) -> None:
    small = data.draw(strategy)
    name = data.draw(st.sampled_from(sorted(set(small) - {"group"})))  # a larger group has fewer scales
    large = {**small, name: small[name] + data.draw(sizes)}
    before, after = counts(formula(**small)), counts(formula(**large))
    assert before.keys() == after.keys()
    for key in before:
        assert after[key] >= before[key] >= 0, f"{key} shrinks as {name} grows"
    # Every size but kv_heads (shared by query heads) and a causal q_length beyond kv_length buys operations or bytes.
    assert after["flop"] > before["flop"] or after["bytes"] > before["bytes"]


@pytest.mark.parametrize(("formula", "strategy"), FORMULAS)
@given(data=st.data())
def test_numbers_and_columns_agree_exactly(formula: Any, strategy: Any, data: st.DataObject) -> None:
    rows = data.draw(st.lists(strategy, min_size=1, max_size=5))
    columns = {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]}
    of_columns = counts(formula(**columns))
    for i, row in enumerate(rows):
        for name, value in counts(formula(**row)).items():
            assert np.broadcast_to(of_columns[name], len(rows))[i] == value, name
            assert isinstance(float(value), float)


@pytest.mark.parametrize(("formula", "strategy"), FORMULAS)
@given(data=st.data())
def test_work_adds_up(formula: Any, strategy: Any, data: st.DataObject) -> None:
    first, second = formula(**data.draw(strategy)), formula(**data.draw(strategy))
    both = first + second
    assert both.launches == 2
    a, b, c = counts(first), counts(second), counts(both)
    for name in c:
        assert c[name] == a[name] + b[name]


@given(batch=sizes, q_length=sizes, kv_length=sizes)
def test_batch_and_lengths_split(batch: int, q_length: int, kv_length: int) -> None:
    """A batch is as much work as its halves, and a causal prefill as its chunks, each on all keys so far."""
    whole = attention_work(2 * batch, 4, 2, q_length, kv_length, 64, True, "float16")
    half = attention_work(batch, 4, 2, q_length, kv_length, 64, True, "float16")
    assert counts(half + half) == counts(whole)
    prompt = q_length + kv_length
    chunks = attention_pairs(q_length, q_length, True) + attention_pairs(kv_length, prompt, True)
    assert chunks == attention_pairs(prompt, prompt, True)


def test_big_products_do_not_overflow() -> None:
    # 2 * 70e9 * 1e6 * 1024 is 16 times what int64 holds.
    m, n, k = 1_000_000, 1024, 70_000_000_000
    expected = 2.0 * m * n * k
    assert expected > 2.0**63
    for column in (False, True):
        sizes_ = {name: np.array([v], dtype=np.int64) if column else v for name, v in (("m", m), ("n", n), ("k", k))}
        flop = gemm_work(**sizes_, precision="bfloat16").flop
        assert math.isclose(float(np.ravel(flop)[0]), expected, rel_tol=1e-15)
        flop = weight_only_gemm_work(**sizes_, weight="int4", group=128, precision="bfloat16").flop
        assert math.isclose(float(np.ravel(flop)[0]), expected, rel_tol=1e-15)
    length = np.array([2**32], dtype=np.int64)
    assert float(attention_pairs(length, length, True)[0]) == 2.0**31 * (2.0**32 + 1)
    many = attention_work(1024, 128, 8, length, length, 128, False, "bfloat16")
    assert float(many.operations[SPECIAL][0]) == 1024 * 128 * 2.0**64
    assert stream_work("copy", np.array([2**40], dtype=np.int64), 2**30).bytes[0] == 8 * 2.0**70
    assert fma_work("float32", "vector", np.array([2**20], dtype=np.int64), 2**20, 2**30).flop[0] == 2.0**71


# Bad problems

GOOD: dict[str, dict[str, Any]] = {
    "gemm": {"m": 4, "n": 4, "k": 4, "precision": "float32"},
    "attention": {"batch": 1, "q_heads": 4, "kv_heads": 2, "q_length": 3, "kv_length": 5, "head_dim": 8},
    "weight_only_gemm": {"m": 4, "n": 4, "k": 8, "weight": "int4", "group": 4},
    "stream": {"operation": "copy", "elements": 16},
    "fma": {
        "precision": "float32",
        "unit": "vector",
        "groups": 1,
        "chains": 2,
        "lanes": 4,
        "depth": 1,
        "iterations": 4,
    },
}
WHOLE = [(op, key) for op, parameters in GOOD.items() for key, value in parameters.items() if isinstance(value, int)]


def test_every_operator_has_a_good_problem_here() -> None:
    assert GOOD.keys() <= problem_classes().keys()
    for operator, parameters in GOOD.items():
        problem = make_problem(operator, parameters)
        assert isinstance(problem, Problem)
        assert problem.label
        assert make_problem(operator, problem.to_dict()) == problem
        assert problem.expected_work() == problem.work()
        assert problem.footprint_bytes() > 0


@pytest.mark.parametrize(("operator", "key"), WHOLE)
@pytest.mark.parametrize("value", [0, -1, True, 4.0, "4", None, float("nan")])
def test_sizes_are_whole_numbers_from_one(operator: str, key: str, value: object) -> None:
    with pytest.raises(ProblemError, match=f"^{key}: ") as caught:
        make_problem(operator, {**GOOD[operator], key: value})
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("operator", "change", "key"),
    [
        ("attention", {"kv_heads": 3}, "kv_heads"),
        ("attention", {"kv_heads": 8}, "kv_heads"),
        ("attention", {"transform": "relu"}, "transform"),
        ("attention", {"transform": 1}, "transform"),
        ("attention", {"causal": 1}, "causal"),
        ("attention", {"causal": "yes"}, "causal"),
        ("attention", {"precision": "int8"}, "precision"),
        ("attention", {"precision": "float31"}, "precision"),
        ("gemm", {"precision": "float31"}, "precision"),
        ("gemm", {"precision": "int4"}, "precision"),
        ("gemm", {"precision": 32}, "precision"),
        ("weight_only_gemm", {"weight": "int3"}, "weight"),
        ("weight_only_gemm", {"group": 3}, "group"),
        ("weight_only_gemm", {"group": 16}, "group"),
        ("weight_only_gemm", {"precision": "int8"}, "precision"),
        ("stream", {"operation": "scan"}, "operation"),
        ("stream", {"operation": 3}, "operation"),
        ("fma", {"unit": "tensor"}, "unit"),
        ("fma", {"precision": "half"}, "precision"),
        ("gemm", {"batch": 2}, "batch"),
        ("stream", {"element": 2}, "element"),
    ],
)
def test_what_is_wrong_is_named(operator: str, change: dict[str, Any], key: str) -> None:
    with pytest.raises(ProblemError, match=f"^{key}: ") as caught:
        make_problem(operator, {**GOOD[operator], **change})
    assert caught.value.key == key
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("operator", "key"), [(op, key) for op, parameters in GOOD.items() for key in parameters])
def test_what_is_missing_is_named(operator: str, key: str) -> None:
    with pytest.raises(ProblemError, match="needs it") as caught:
        make_problem(operator, {k: v for k, v in GOOD[operator].items() if k != key})
    assert caught.value.key == key


def test_unknown_operator_is_named() -> None:
    with pytest.raises(ProblemError, match="unknown operator 'gem'") as caught:
        make_problem("gem", {})
    assert caught.value.key == "operator"


@given(st.permutations(list(GOOD["attention"])))
def test_identity_does_not_depend_on_the_order_of_parameters(order: list[str]) -> None:
    problem = make_problem("attention", {key: GOOD["attention"][key] for key in order})
    assert problem.digest == make_problem("attention", GOOD["attention"]).digest
    assert problem.digest != make_problem("attention", {**GOOD["attention"], "batch": 2}).digest
    assert hash(problem) == hash(make_problem("attention", GOOD["attention"]))
