"""Steps from measured kernels: between the loads that were measured, at the site that a model has, never under the bound."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from synthetic_rows import gemm_rows

from ridgeline.analytical.architectures import load_architecture
from ridgeline.analytical.architectures.operations import Operation, operations
from ridgeline.analytical.calibration.inside import fit_inside
from ridgeline.analytical.calibration.public_tables import PublicTableError, data_root
from ridgeline.analytical.calibration.surfaces import (
    MeasuredKernels,
    load_surface,
    measured_kernels,
    with_surfaces,
)
from ridgeline.analytical.calibration.three_parameters import ASSUMED, ThreeParameters
from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.layout import Layout, Precisions
from ridgeline.analytical.limits import limits
from ridgeline.analytical.phases import Phase
from ridgeline.analytical.step_table import on_device
from ridgeline.analytical.sweep import Grid, Swept, model_form, step_points, sweep

H100 = catalogue()["nvidia-h100-sxm5-80gb"]
TRUTH = ThreeParameters(overhead_s=4e-6, compute_share=0.7, memory_share=0.8)
LLAMA = load_architecture("llama-3-8b")


def test_a_surface_passes_through_what_was_measured_and_is_held_beyond() -> None:
    loads = np.array([[0.0, 8.0], [0.0, 10.0], [4.0, 8.0]])  # (4, 10) was not measured
    surface = load_surface(loads, np.array([0.1, 0.3, 0.5]))
    assert surface is not None
    at = [np.array([0.0, 2.0, 0.0, -3.0, 9.0]), np.array([8.0, 8.0, 9.0, 8.0, 8.0])]
    assert surface.at(at) == pytest.approx([0.1, 0.3, 0.2, 0.1, 0.5])
    assert float(surface.at([np.array([4.0]), np.array([10.0])])[0]) in (0.3, 0.5)
    line = load_surface(np.array([[3.0], [1.0]]), np.array([2.0, 0.0]))
    assert line is not None
    assert line.at([np.array([0.0, 2.0, 5.0])]) == pytest.approx([0.0, 1.0, 2.0])
    assert load_surface(np.array([[1.0]]), np.array([np.nan])) is None


def slowed(by: float) -> MeasuredKernels:
    """Kernels that take ``by`` times the truth from 256 rows on, at every site, as measured."""
    rows = gemm_rows(H100.id, TRUTH, ms=(1, 16, 64, 256, 1024, 4096), ns=(1024, 4096, 8192, 16384, 32768))
    rows = dataclasses.replace(rows, seconds=rows.seconds * np.where(rows.load[:, 0] >= 8.0, by, 1.0))
    return MeasuredKernels(H100, "vllm", {"gemm": fit_inside(rows, models=0)})


def test_a_products_time_is_that_of_its_measured_site_and_load() -> None:
    kernels = slowed(1.5)
    m = np.array([1.0, 64.0, 128.0, 256.0, 1024.0])
    for one in operations(LLAMA, Phase.decode(m, 2048.0)):
        if one.name in ("qkv", "gate_up"):
            assert one.kernel is not None
            assert kernels.knows(one.kernel)
            plain = gemm_seconds(one)
            found = kernels.seconds(one, one.kernel)
            assert found[[0, 1, 3, 4]] == pytest.approx(plain[[0, 1, 3, 4]] * [1.0, 1.0, 1.5, 1.5], rel=0.03)
            assert plain[2] < found[2] < 1.5 * plain[2]  # half way between 64 and 256 rows


def gemm_seconds(operation: Operation) -> np.ndarray:
    terms = limits(operation.work, H100)
    return np.asarray(TRUTH.seconds(terms.product_s, terms.of("memory")))


def test_what_has_no_surface_keeps_its_constants() -> None:
    kernels = slowed(1.0)
    points = step_points("decode", Layout(), np.array([1.0, 32.0]), np.array([512.0, 2048.0]))
    eight = Precisions(weights="float8_e4m3fn", activations="float8_e4m3fn", kv="float8_e4m3fn")
    for precisions, same in ((eight, True), (Precisions(), False)):
        step = on_device(model_form(LLAMA, "decode", precisions, Layout(), points), H100, ASSUMED)
        constants, surface = step.columns(points).predicted_s, with_surfaces(step, kernels).columns(points).predicted_s
        assert np.allclose(constants, surface, rtol=1e-9) == same
        assert np.all(surface >= step.columns(points).bound_s)


def test_only_what_the_tables_list_is_looked_up() -> None:
    listed = {o.name: o.kernel for o in operations(LLAMA, Phase.prefill(4.0, 512.0))}
    assert listed["attention"] is not None
    assert listed["attention"].family == "attention prefill"
    assert listed["attention"].sizes["kv_heads"] == 8
    assert listed["norm"] is None
    mixed = Phase.mixed(Phase.decode(8.0, 512.0), Phase.chunked(1.0, 256.0, 0.0))
    assert {o.name: o.kernel for o in operations(LLAMA, mixed)}["attention"] is None  # two kinds in one launch
    (only_stored,) = {
        o.kernel.precision for o in operations(LLAMA, Phase.decode(8.0, 512.0), Precisions(weights="int8"))
        if o.name == "qkv" and o.kernel
    }  # fmt: skip
    assert only_stored == ""


def test_unknown_software_is_one_clear_line() -> None:
    with pytest.raises(
        PublicTableError, match=r"no public table of software 'llama\.cpp': one of vllm, sglang, trtllm"
    ):
        measured_kernels(H100, "llama.cpp")


@pytest.mark.skipif(data_root() is None, reason="needs the extra `data` (public tables)")
def test_measured_kernels_follow_the_public_tables() -> None:
    """At a shape of the table the step takes what was measured; a device that nobody measured has none."""
    from ridgeline.analytical.calibration.measured import measured_rows
    from ridgeline.analytical.calibration.public_tables import require_data_root

    kernels = measured_kernels(H100, "vllm")
    assert kernels is not None
    assert measured_kernels(catalogue()["amd-instinct-mi300x"], "vllm") is None
    rows = measured_rows(require_data_root(), catalogue(), "gemm", "h100_sxm", backend="vllm")
    assert rows is not None
    m = np.array([1.0, 16.0, 64.0, 256.0, 1024.0])
    (qkv,) = [o for o in operations(LLAMA, Phase.decode(m, 2048.0)) if o.name == "qkv"]
    assert qkv.kernel is not None
    found = kernels.seconds(qkv, qkv.kernel)
    at = (rows.site == np.log2([6144.0, 4096.0])).all(axis=1)
    measured = [rows.seconds[at & (rows.load[:, 0] == np.log2(size))] for size in m]
    assert sum(map(len, measured)) >= 4
    for seconds, own in zip(found, measured, strict=True):
        assert len(own) == 0 or seconds == pytest.approx(float(own[0]), rel=0.02)
    (swept,) = sweep(
        Grid(
            models={"llama-3-8b": LLAMA}, devices=(H100,), phases=("decode",), precisions=(Precisions(),),
            layouts=(Layout(),), batches=np.array([1.0, 64.0]), lengths=np.array([2048.0]), software="vllm",
        )
    )  # fmt: skip
    assert isinstance(swept, Swept)
    assert swept.evidence == "surface"
    eight = Precisions(weights="float8_e4m3fn", activations="float8_e4m3fn")
    (unmeasured,) = sweep(
        Grid(
            models={"llama-3-8b": LLAMA}, devices=(H100,), phases=("decode",), precisions=(eight,), layouts=(Layout(),),
            batches=np.array([1.0]), lengths=np.array([2048.0]), software="vllm",
        )
    )  # fmt: skip
    assert isinstance(unmeasured, Swept)
    assert unmeasured.evidence == "transferred"  # its products are none of those that were fitted
    assert np.all(swept.columns.predicted_s > swept.columns.bound_s)
