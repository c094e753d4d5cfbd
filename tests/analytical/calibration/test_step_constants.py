"""Constants of a whole step: the device's own where it was measured, its vendor's where not, and never silently."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from ridgeline.analytical.architectures import load_architecture
from ridgeline.analytical.calibration.predictor import Predictor
from ridgeline.analytical.calibration.step_constants import step_constants
from ridgeline.analytical.calibration.three_parameters import ASSUMED, ThreeParameters
from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.layout import Layout, Precisions
from ridgeline.analytical.sweep import Grid, Swept, sweep

H100, A100, MI300X = (
    catalogue()[name] for name in ("nvidia-h100-sxm5-80gb", "nvidia-a100-sxm4-80gb", "amd-instinct-mi300x")
)


def test_a_measured_device_has_its_own_constants() -> None:
    known = Predictor.from_shipped()
    h100, a100 = (step_constants(device, "decode") for device in (H100, A100))
    assert (h100.tier, a100.tier) == ("fitted", "fitted")
    assert h100.parameters["gemm"] == known.constants_of("gemm", H100, "bfloat16")[0]
    assert h100.parameters["attention"] == known.constants_of("attention decode", H100, "bfloat16")[0]
    assert h100.parameters["gemm"] != a100.parameters["gemm"]
    assert h100.parameters[""] == ASSUMED[""]


def test_what_nobody_measured_is_carried_over_and_says_so() -> None:
    found = step_constants(MI300X, "decode")
    assert found.tier == "transferred"
    assert found.parameters["gemm"] != step_constants(H100, "decode").parameters["gemm"]
    assert step_constants(H100, "decode", "float8_e4m3fn").tier == "transferred"


def test_a_step_with_prompts_and_decoding_takes_arithmetic_from_one_and_bytes_from_the_other() -> None:
    prompts, decoding, both = (
        step_constants(H100, attending).parameters["attention"] for attending in ("prefill", "decode", "both")
    )
    assert (both.compute_share, both.memory_share) == (prompts.compute_share, decoding.memory_share)
    assert prompts.compute_share != decoding.compute_share
    assert prompts.memory_share != decoding.memory_share


def swept(device: str, parameters: Mapping[str, ThreeParameters] | None = None) -> Swept:
    (found,) = sweep(
        Grid(
            models={"llama-3-8b": load_architecture("llama-3-8b")}, devices=(catalogue()[device],), phases=("decode",),
            precisions=(Precisions(),), layouts=(Layout(),), batches=np.array([1.0, 64.0]), lengths=np.array([2048.0]),
            parameters=parameters,
        )
    )  # fmt: skip
    assert isinstance(found, Swept)
    return found


@pytest.mark.parametrize(("device", "tier"), [(H100.id, "fitted"), (MI300X.id, "transferred")])
def test_a_sweep_predicts_with_the_constants_of_each_device(device: str, tier: str) -> None:
    found = swept(device)
    assert found.evidence == tier
    assert np.all(found.columns.predicted_s > found.columns.bound_s)
    assert swept(device, parameters=ASSUMED).evidence == "given"
    assert not np.allclose(found.columns.predicted_s, swept(device, parameters=ASSUMED).columns.predicted_s)
