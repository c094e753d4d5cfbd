"""read, copy and triad against numpy on every instruction path: odd sizes, offsets, threads, passes, both stores."""

from __future__ import annotations

import gc
import os
import shutil
import threading
import time

import numpy as np
import pytest

from ridgeline.kernels.native import stream
from ridgeline.kernels.native.build import NativeCallError

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="needs a C++ compiler")

CPUS = len(os.sched_getaffinity(0))
SIZES = [1, 15, 16, 17, 1000, 1_000_003]
PATHS = ["avx512", "avx2", "portable"]
GUARD = np.float32(-77.0)


def need(path: str, threads: int = 1) -> None:
    if path not in stream.stream_paths():
        pytest.skip(f"this CPU has no {path}")
    if threads > CPUS:
        pytest.skip(f"needs {threads} CPUs")


def floats(size: int, seed: int, offset: int = 0) -> stream.Floats:
    """``size`` values that begin ``offset`` elements after a 64-byte boundary."""
    whole = np.empty(size + 32, np.float32)
    start = (-whole.ctypes.data % 64) // 4 + offset
    view = whole[start : start + size]
    view[:] = np.random.default_rng(seed).standard_normal(size, dtype=np.float32)
    return view


def lane_sums(a: stream.Floats) -> np.ndarray:
    padded = np.zeros(-(-a.size // 16) * 16, np.float64)
    padded[: a.size] = a
    return padded.reshape(-1, 16).sum(axis=0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("offset", [0, 1, 7])
@pytest.mark.parametrize("size", SIZES)
def test_read(path: str, threads: int, offset: int, size: int) -> None:
    need(path, threads)
    a = floats(size, size, offset)
    results = []
    for passes in (1, 2, 5):
        out = np.full(16, np.nan, np.float32)
        stream.stream_read(a, out, passes, threads, path=path)
        results.append(out)
    np.testing.assert_array_equal(results[0], results[1])  # the sums begin anew in every pass
    np.testing.assert_array_equal(results[0], results[2])
    np.testing.assert_allclose(results[0], lane_sums(a), rtol=1e-5, atol=1e-6 * np.abs(a).sum())


@pytest.mark.parametrize("nontemporal", [False, True])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("offset", [0, 1, 7])
@pytest.mark.parametrize("size", SIZES)
def test_copy_and_triad(path: str, nontemporal: bool, threads: int, offset: int, size: int) -> None:
    need(path, threads)
    if nontemporal and not stream.past_caches():
        pytest.skip("no non-temporal stores")
    a, b = floats(size, 1, offset), floats(size, 2, 3)
    for passes in (1, 3):
        whole = np.full(size + 64, GUARD)
        start = (-whole.ctypes.data % 64) // 4 + offset + 1
        c = whole[start : start + size]
        stream.stream_copy(a, c, passes, threads, nontemporal, path=path)
        np.testing.assert_array_equal(c, a)
        c[:] = np.nan
        stream.stream_triad(a, b, c, 0.37, passes, threads, nontemporal, path=path)
        expected = a.astype(np.float64) + float(np.float32(0.37)) * b.astype(np.float64)
        np.testing.assert_allclose(c, expected, rtol=1e-6, atol=1e-6)
        assert (whole[:start] == GUARD).all()
        assert (whole[start + size :] == GUARD).all()


def test_the_last_pass_reads_memory_as_it_then_is() -> None:
    a, out = np.zeros(16 * 256, np.float32), np.empty(16, np.float32)
    run = stream.bind_read(a.ctypes.data, out.ctypes.data, a.size, passes=1_000_000)
    worker = threading.Thread(target=run)
    worker.start()  # the call releases the GIL
    a[:] = 1.0
    worker.join()
    np.testing.assert_array_equal(out, 256.0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("operation", ["read", "copy", "triad"])
def test_no_pass_is_merged_or_dropped(path: str, operation: str) -> None:
    """200 000 passes over 16 KiB take at least as long as the widest core could: 4 vectors a cycle at 7 GHz."""
    need(path)
    a, c, passes = floats(4096, 0), floats(4096, 1), 200_000
    start = time.perf_counter()
    if operation == "read":
        stream.stream_read(a, c[:16], passes, path=path)
    elif operation == "copy":
        stream.stream_copy(a, c, passes, path=path)
    else:
        stream.stream_triad(a, a, c, 0.5, passes, path=path)
    assert time.perf_counter() - start > passes * a.nbytes / 64 / 4 / 7e9


def test_affinity_is_given_back() -> None:
    before = os.sched_getaffinity(0)
    a, out = floats(1000, 0), np.empty(16, np.float32)
    stream.stream_read(a, out, threads=min(2, CPUS))
    assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(CPUS < 2, reason="needs 2 CPUs")
def test_more_threads_than_cpus_is_refused_also_after_the_affinity_shrank() -> None:
    a, out = floats(1000, 0), np.empty(16, np.float32)
    with pytest.raises(NativeCallError, match="more threads than CPUs"):
        stream.stream_read(a, out, threads=CPUS + 1)
    before = os.sched_getaffinity(0)
    run = stream.bind_read(a.ctypes.data, out.ctypes.data, a.size, threads=2)
    run()
    try:
        os.sched_setaffinity(0, {min(before)})
        with pytest.raises(NativeCallError, match="more threads than CPUs"):
            run()
    finally:
        os.sched_setaffinity(0, before)
    run()


@pytest.mark.skipif(CPUS < 2, reason="needs 2 CPUs")
def test_a_forked_child_gets_its_own_threads() -> None:
    a, out = np.ones(1600, np.float32), np.zeros(16, np.float32)
    stream.stream_read(a, out, threads=2)
    child = os.fork()
    if child == 0:
        out[:] = 0
        stream.stream_read(a, out, threads=2)
        os._exit(0 if (out == 100).all() else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_bound_function_keeps_its_arrays() -> None:
    out = np.zeros(16, np.float32)
    run = stream.bind_read(np.ones(4_000_000, np.float32), out, 4_000_000)
    gc.collect()
    run()
    np.testing.assert_array_equal(out, 250_000.0)


def test_bad_arguments_are_refused() -> None:
    a, out = np.ones(32, np.float32), np.empty(16, np.float32)
    with pytest.raises(NativeCallError, match="16 sums"):
        stream.stream_read(a, out[:8])
    with pytest.raises(NativeCallError, match="float32"):
        stream.stream_copy(a.astype(np.float64), a)  # type: ignore[arg-type]
    with pytest.raises(NativeCallError, match="one length"):
        stream.stream_copy(a, out)
    with pytest.raises(NativeCallError, match="address"):
        stream.bind_read(a.ctypes.data + 1, out.ctypes.data, 8)
    with pytest.raises(NativeCallError, match="positive"):
        stream.bind_read(a.ctypes.data, out.ctypes.data, 8, passes=0)
    with pytest.raises(NativeCallError, match="no path"):
        stream.stream_read(a, out, path="sse9")


def test_isa_limit_chooses_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIDGELINE_NATIVE_ISA", "portable")
    assert stream.stream_path() == "portable"
