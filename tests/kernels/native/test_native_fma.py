"""Every multiply-add kernel against its closed form, for few and many iterations, on every path of this CPU."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from ridgeline.kernels.native import fma
from ridgeline.kernels.native.build import NativeCallError

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="needs a C++ compiler")

CPUS = len(os.sched_getaffinity(0))
EVERY_PATH = [
    *((precision, path) for precision in ("float64", "float32") for path in ("avx512", "avx2", "portable")),
    *(("bfloat16", path) for path in ("avx512_bf16", "avx512", "avx2", "portable")),
    *(("int8", path) for path in ("avx512_vnni", "avx_vnni", "avx512", "avx2", "portable")),
]


def run(precision: str, path: str, iterations: int, threads: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    if path not in fma._entries()[precision]:
        pytest.skip(f"this CPU has no {path}")
    if threads > CPUS:
        pytest.skip(f"needs {threads} CPUs")
    shape = fma.fma_shape(precision, path)
    x, y = fma.fma_inputs(precision, seed, path)
    out = np.full((threads, shape.chains, shape.lanes), 99, fma.TYPES[precision].out)
    fma.fma_run(precision, x, y, out, iterations, threads, path=path)
    return out, fma.fma_reference(precision, x, y, iterations, path)


@pytest.mark.parametrize(("precision", "path"), EVERY_PATH)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("iterations", [1, 2, 3, 4, 17, 1_000_000, 1_000_001])
def test_matches_the_closed_form(precision: str, path: str, threads: int, iterations: int) -> None:
    out, expected = run(precision, path, iterations, threads)
    for part in out:
        if precision == "int8":
            np.testing.assert_array_equal(part, expected)
        else:
            np.testing.assert_allclose(part, expected, rtol=fma.TOLERANCE[precision])


@pytest.mark.parametrize(("precision", "path"), EVERY_PATH)
@pytest.mark.parametrize("iterations", [1, 1_000_000])
def test_result_depends_on_the_inputs(precision: str, path: str, iterations: int) -> None:
    first, second = (run(precision, path, iterations, seed=seed)[0] for seed in (1, 2))
    assert np.mean(first == second) < 0.1


def test_int8_reference_is_the_loop_modulo_2_to_32() -> None:
    x, y = fma.fma_inputs("int8", 3, "portable")
    iterations = 40_000_000  # past 2^31: the accumulators wrap
    groups = range(0, 16, 4)
    products = [[int(a) * int(b) for a, b in zip(x[i : i + 4], y[i : i + 4], strict=True)] for i in groups]
    expected = [(1 + iterations * sum(four) + 2**31) % 2**32 - 2**31 for four in products]
    assert fma.fma_reference("int8", x, y, iterations, "portable")[0].tolist() == expected


def test_affine_reference_is_the_loop() -> None:
    x, y = fma.fma_inputs("float64", 3, "portable")
    value = 2 * y
    for _ in range(5):
        value = value * x + y
    np.testing.assert_allclose(fma.fma_reference("float64", x, y, 5, "portable")[1], value, rtol=1e-14)


def test_operations() -> None:
    shape = fma.fma_shape("int8", "portable")
    assert tuple(shape) == (8, 4, 4)
    assert fma.fma_operations("int8", 10, 2, "portable") == 2 * 2 * 8 * 4 * 4 * 10


def test_paths_are_best_first_and_end_portable() -> None:
    for precision in fma.TYPES:
        paths = fma.fma_paths(precision)
        assert paths[-1] == "portable"
        assert fma.fma_path(precision) == paths[0]


def test_isa_limit_chooses_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIDGELINE_NATIVE_ISA", "portable")
    assert {fma.fma_path(precision) for precision in fma.TYPES} == {"portable"}


def test_bad_arguments_are_refused() -> None:
    shape = fma.fma_shape("int8", "portable")
    x, y = fma.fma_inputs("int8", 0, "portable")
    out = np.zeros((1, shape.chains, shape.lanes), np.int32)
    with pytest.raises(NativeCallError, match="at most 127"):
        fma.fma_run("int8", x | np.uint8(128), y, out, 1, path="portable")
    with pytest.raises(NativeCallError, match="x must be contiguous uint8"):
        fma.fma_run("int8", x[:4], y, out, 1, path="portable")
    with pytest.raises(NativeCallError, match="out must be"):
        fma.fma_run("int8", x, y, out, 1, threads=2, path="portable")
    with pytest.raises(NativeCallError, match="positive"):
        fma.fma_run("int8", x, y, out, 0, path="portable")
    with pytest.raises(NativeCallError, match="precision"):
        fma.fma_path("float8")
    with pytest.raises(NativeCallError, match="no path"):
        fma.fma_shape("int8", "amx")


def test_clock_is_one_of_this_century() -> None:
    assert 2e8 < max(fma.clock_hz(200_000) for _ in range(5)) < 1e10
