"""Known constants are recovered, left-out rows stay out, and intervals hold what was left out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_rows import DEVICES, gemm_rows

from ridgeline.analytical.calibration.across import Target, leave_out, mean_constants
from ridgeline.analytical.calibration.errors import error_figures, size_bucket
from ridgeline.analytical.calibration.inside import SiteKriging, fit_inside
from ridgeline.analytical.calibration.scorecard import card_rows, score_hardware, score_sites
from ridgeline.analytical.calibration.shapes import rows_of
from ridgeline.analytical.calibration.splits import group_folds, group_ids
from ridgeline.analytical.calibration.spread import common_draws, fit_spread
from ridgeline.analytical.calibration.three_parameters import FitError, ThreeParameters, fit_three_parameters
from ridgeline.analytical.catalogue import catalogue

TRUTH = ThreeParameters(overhead_s=4e-6, compute_share=0.7, memory_share=0.8)


@settings(max_examples=15, deadline=None)
@given(
    st.floats(1e-6, 3e-5),
    st.floats(0.3, 0.95),
    st.floats(0.3, 0.95),
)
def test_three_constants_are_recovered(overhead_s: float, compute: float, memory: float) -> None:
    truth = ThreeParameters(overhead_s=overhead_s, compute_share=compute, memory_share=memory)
    rows = gemm_rows("nvidia-h100-sxm5-80gb", truth)
    found = fit_three_parameters(rows.compute_s, rows.memory_s, rows.seconds)
    assert found.overhead_s == pytest.approx(overhead_s, rel=0.02)
    assert found.compute_share == pytest.approx(compute, rel=0.02)
    assert found.memory_share == pytest.approx(memory, rel=0.02)


def test_the_cost_of_an_item_is_recovered() -> None:
    rng = np.random.default_rng(0)
    memory, items = 10 ** rng.uniform(-7, -3, 400), 10 ** rng.uniform(-2, 3, 400)
    seconds = 5e-6 + 2e-6 * items + memory / 0.8
    assert fit_three_parameters(memory / 50.0, memory, seconds, items).item_s == pytest.approx(2e-6, rel=0.05)


def test_a_constant_that_no_row_tells_is_the_usual_one() -> None:
    memory = np.geomspace(1e-7, 1e-3, 200)
    compute = memory / 50.0  # the memory's time is the longer one whatever share of the arithmetic's peak is reached
    noise = np.random.default_rng(0).lognormal(0.0, 0.05, 200)
    found = fit_three_parameters(compute, memory, (4e-6 + memory / 0.5) * noise)
    assert found.memory_share == pytest.approx(0.5, rel=0.03)
    assert found.compute_share == pytest.approx(0.7, rel=1e-3)


def test_bad_rows_are_refused_not_fitted() -> None:
    with pytest.raises(FitError, match="at least 6"):
        fit_three_parameters([1.0], [1.0], [1.0])
    with pytest.raises(FitError, match="gate"):
        fit_three_parameters(np.ones(9), np.ones(9), np.zeros(9))
    with pytest.raises(ValueError, match="gate"):
        error_figures([0.0], [1.0])


def test_folds_never_part_a_group() -> None:
    groups = np.repeat(np.arange(11), 7)
    tested = np.zeros(len(groups), dtype=int)
    for train, test in group_folds(groups, 5, 3):
        assert not set(groups[train]) & set(groups[test])
        tested += test
    assert np.all(tested == 1)
    with pytest.raises(ValueError, match="folds"):
        list(group_folds([1, 2], 5, 0))


def test_kriging_returns_what_was_measured_and_leaves_out_what_it_says() -> None:
    sites = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), axis=-1).reshape(-1, 2)
    values = np.column_stack([sites.sum(axis=1) * 0.1, np.full(25, np.nan)])
    surface = SiteKriging(sites=sites, residual=values)
    assert surface.at(sites)[:, 0] == pytest.approx(values[:, 0], abs=0.01)
    assert np.all(np.isnan(surface.at(sites)[:, 1]))  # a load measured nowhere is unknown, not zero
    without = SiteKriging(sites=np.delete(sites, 7, axis=0), residual=np.delete(values, 7, axis=0))
    assert surface.leave_one_out()[7, 0] == pytest.approx(without.at(sites[7:8])[0, 0], abs=0.01)
    beside = surface.beside(sites[12:13])[0, :, 0]
    assert beside == pytest.approx([values[i, 0] for i in (11, 13, 7, 17)])


def test_unseen_sites_are_predicted_better_than_by_constants() -> None:
    rows = gemm_rows("nvidia-h100-sxm5-80gb", TRUTH, noise=0.01)
    rows = dataclasses.replace(rows, seconds=rows.seconds * (1.0 + 0.3 * np.sin(rows.site.sum(axis=1) / 3.0)))
    scored = score_sites(rows, "nvidia-h100-sxm5-80gb", iterations=10, models=1)
    figures = scored.figures()
    constants = fit_three_parameters(rows.compute_s, rows.memory_s, rows.seconds)
    alone = error_figures(rows.seconds, constants.seconds(rows.compute_s, rows.memory_s))
    assert figures is not None
    assert alone is not None
    assert figures.median < 0.6 * alone.median
    assert figures.coverage is not None
    assert 0.8 <= figures.coverage <= 0.98


def test_a_held_out_site_does_not_reach_its_own_prediction() -> None:
    rows = gemm_rows("nvidia-h100-sxm5-80gb", TRUTH)
    sites = group_ids(*rows.site.T)
    train, test = next(iter(group_folds(sites, 5, 0)))
    spoiled = dataclasses.replace(rows, seconds=np.where(test, rows.seconds * 50.0, rows.seconds))
    clean, dirty = (fit_inside(r.take(train), models=0).predict(r.take(test)) for r in (rows, spoiled))
    assert clean == pytest.approx(dirty)


def _with_effects(effects: dict[str, float]) -> dict[str, object]:
    return {
        d: dataclasses.replace(r, seconds=r.seconds * np.exp(effects[d]))
        for i, d in enumerate(DEVICES)
        for r in [gemm_rows(d, TRUTH, noise=0.1, seed=i)]
    }


def test_intervals_of_left_out_devices_hold_them() -> None:
    """A device effect that is common to all rows of a device: pooled residuals would miss whole devices."""
    devices, covered = catalogue(), []
    for seed in range(3):
        draw = np.random.default_rng(seed).normal(0.0, 0.2, len(DEVICES))
        rows = _with_effects(dict(zip(DEVICES, draw, strict=True)))
        covered += [s.figures().coverage for s in score_hardware(rows, devices, "architecture")]
    assert np.mean(covered) > 0.85
    assert np.mean(np.array(covered) < 0.5) < 0.15


def test_a_left_out_architecture_leaks_into_nothing() -> None:
    devices, rows = catalogue(), _with_effects(dict.fromkeys(DEVICES, 0.0))
    by = {d: devices[d].architecture for d in rows}
    changed = dict(rows)
    name = "nvidia-l40s"
    changed[name] = dataclasses.replace(rows[name], seconds=rows[name].seconds * 7.0)
    before, after = (next(one for one in leave_out(r, devices, by=by) if one.device == name) for r in (rows, changed))
    assert before.predicted_s == pytest.approx(after.predicted_s)
    assert before.low_s == pytest.approx(after.low_s)
    assert before.high_s == pytest.approx(after.high_s)


def test_near_twins_count_once() -> None:
    devices = catalogue()
    slow = dataclasses.replace(TRUTH, compute_share=0.4)
    constants = {
        "nvidia-h100-sxm5-80gb": TRUTH, "nvidia-h200-sxm-141gb": TRUTH, "nvidia-a100-sxm4-80gb": slow,
    }  # fmt: skip
    mean = mean_constants(constants, devices, Target(vendor="NVIDIA"))
    assert mean.compute_share == pytest.approx(np.sqrt(0.7 * 0.4))


def test_half_of_a_memorys_share_is_of_its_kind() -> None:
    devices = catalogue()
    gddr, hbm = (dataclasses.replace(TRUTH, memory_share=share) for share in (0.9, 0.6))
    constants = {"nvidia-l40s": gddr, "nvidia-a100-sxm4-80gb": hbm, "nvidia-h100-sxm5-80gb": hbm}
    of_all = (0.9 * 0.6 * 0.6) ** (1 / 3)
    for target, share in (
        (Target.of(devices["nvidia-rtx-pro-6000-blackwell-server"]), np.sqrt(of_all * 0.9)),
        (Target.of(devices["amd-instinct-mi300x"]), np.sqrt(of_all * 0.6)),
        (Target(vendor="NVIDIA", memory="LPDDR"), of_all),
    ):
        assert mean_constants(constants, devices, target).memory_share == pytest.approx(share)


def test_the_same_effect_of_a_device_is_drawn_for_every_operator() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(5), 100)
    ratio = rng.normal(0.0, 0.3, 5)[groups] + rng.normal(0.0, 0.05, 500)
    spread = fit_spread(ratio, np.full(500, 1e-4), groups, device_effect=True)
    draws = common_draws(["a", "b"], 500, 1, spread.freedom)
    z, shape = draws["a"]
    first, second = (spread.factors(np.array([s]), z, shape)[:, 0] for s in (1e-4, 3e-4))
    assert np.corrcoef(first, second)[0, 1] > 0.99
    other = spread.factors(np.array([1e-4]), *draws["b"])[:, 0]
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.5
    low, high = spread.log_interval(np.array([1e-4]), 0.9)
    assert low[0] < -0.2 < 0.2 < high[0]
    with pytest.raises(ValueError, match="two"):
        fit_spread(ratio, np.full(500, 1e-4), np.zeros(500), device_effect=True)


def test_the_card_has_every_bucket_that_occurs() -> None:
    rows = gemm_rows("nvidia-h100-sxm5-80gb", TRUTH)
    card = card_rows([score_sites(rows, "nvidia-h100-sxm5-80gb", models=0)])
    counts = {(r["size"], r["regime"]): r["count"] for r in card}
    assert counts["all", "all"] == len(rows) == counts["all", "compute-bound"] + counts["all", "memory-bound"]
    assert size_bucket([1e-6, 20e-6, 21e-6, 1e-3, 2e-3]).tolist() == [0, 0, 1, 2, 3]


def test_constants_of_a_kind_are_constants_of_what_its_kernel_does() -> None:
    """Wide decode is predicted on a left-out device from the vector units' rate, and heads one by one from their number."""
    wide = ThreeParameters(overhead_s=9e-6, compute_share=0.1, memory_share=0.75, item_s=1.4e-6)
    others = dataclasses.replace(wide, compute_share=0.7, item_s=4e-6)
    q_heads, batch, length, window = (
        v.ravel()
        for v in np.meshgrid(
            [48.0, 64.0, 128.0], [4.0, 64.0, 512.0], [16.0, 128.0, 512.0, 2048.0, 8192.0], [0.0, 128.0]
        )
    )
    n = len(q_heads)
    columns = {
        "q_heads": q_heads, "kv_heads": np.ones(n), "batch": batch, "q_length": np.ones(n), "kv_length": length,
        "head_dim": np.full(n, 128.0), "window": window, "seconds": np.ones(n),
    }  # fmt: skip
    columns = {name: np.concatenate([v] * 4) for name, v in columns.items()}
    software = np.repeat(np.array(["trtllm", "vllm"], dtype=object), 2 * n)
    columns |= {"software": software, "kernel": np.where(software == "vllm", "vllm_flash_attn_fa2", "torch_flow")}
    devices, rows = catalogue(), {}
    for device in DEVICES:
        own = rows_of("attention decode", columns, devices[device], "bfloat16")
        seconds = np.empty(len(own))
        for kind in np.unique(own.kernels.astype(str)):
            chosen = own.kernels == kind
            of_kind = wide if kind.startswith("trtllm on vector units") else others
            seconds[chosen] = of_kind.seconds(*own.take(chosen).terms(kind))
        rows[device] = dataclasses.replace(own, seconds=seconds)
    kinds = {"trtllm on vector units", "trtllm on vector units windowed", "vllm wide", "vllm one by one windowed"}
    assert set(rows["nvidia-l40s"].kernels) == kinds
    prompts = rows_of("attention prefill", columns, devices["nvidia-l40s"], "bfloat16")
    assert set(prompts.kernels) == {"trtllm wide", "trtllm wide windowed", "vllm wide", "vllm wide windowed"}
    for left in leave_out(rows, devices, by={d: devices[d].architecture for d in rows}):
        own = rows[left.device]
        apart = np.abs(left.predicted_s / own.seconds - 1.0)
        for kind in kinds - {"vllm wide"}:
            assert np.max(apart[own.kernels == kind]) < 0.02, (left.device, kind)
