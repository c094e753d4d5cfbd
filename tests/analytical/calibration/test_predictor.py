"""Predictions from the constants that ship: bound, interval, tier, and draws that share a device's effect."""

from __future__ import annotations

import numpy as np
import pytest

from ridgeline.analytical.calibration.constants import ConstantsError, from_json, shipped, to_json
from ridgeline.analytical.calibration.predictor import PredictionError, Predictor
from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.limits import LimitError

SHAPES = {"m": np.array([1.0, 512.0, 8192.0]), "n": np.full(3, 8192.0), "k": np.full(3, 8192.0)}
DECODE = {
    "batch": np.array([1.0, 64.0]), "q_heads": np.full(2, 64.0), "kv_heads": np.full(2, 8.0), "q_length": np.ones(2),
    "kv_length": np.full(2, 8192.0), "head_dim": np.full(2, 128.0), "window": np.array([0.0, 128.0]),
}  # fmt: skip


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_shipped()


@pytest.mark.parametrize(
    ("device", "tier"), [("nvidia-h100-sxm5-80gb", "fitted"), ("amd-instinct-mi300x", "transferred")]
)
@pytest.mark.parametrize(("family", "shapes"), [("gemm", SHAPES), ("attention decode", DECODE)])
def test_a_prediction_has_its_interval_and_its_evidence(
    predictor: Predictor, device: str, tier: str, family: str, shapes: dict[str, object]
) -> None:
    found = predictor.predict(family, catalogue()[device], shapes, software="vllm")
    assert found.tier == tier
    assert np.all((found.bound_s <= found.low_s) & (found.low_s <= found.seconds) & (found.seconds <= found.high_s))
    assert np.all(found.seconds < 100.0 * found.bound_s + 1e-3)


def test_what_was_not_measured_is_less_sure(predictor: Predictor) -> None:
    known, unknown = (
        predictor.predict("gemm", catalogue()[d], SHAPES) for d in ("nvidia-h100-sxm5-80gb", "nvidia-gh200-96gb")
    )
    assert np.all(known.high_s / known.low_s < unknown.high_s / unknown.low_s)


def test_numbers_and_columns_agree(predictor: Predictor) -> None:
    device = catalogue()["nvidia-b200-sxm-180gb"]
    column = predictor.predict("gemm", device, SHAPES)
    one = predictor.predict("gemm", device, {name: float(v[1]) for name, v in SHAPES.items()})
    assert one.seconds == pytest.approx(column.seconds[1])


def test_draws_share_the_effect_of_the_device(predictor: Predictor) -> None:
    device = catalogue()["amd-instinct-mi300x"]
    worlds = []
    for family, shapes in (("gemm", SHAPES), ("attention decode", DECODE)):
        prediction = predictor.predict(family, device, shapes)
        worlds.append(predictor.draws(family, device, prediction, 400, 7)[:, -1])
    assert np.corrcoef(np.log(worlds[0]), np.log(worlds[1]))[0, 1] > 0.5
    again = predictor.draws("gemm", device, predictor.predict("gemm", device, SHAPES), 400, 7)
    assert np.array_equal(again[:, -1], worlds[0])


def test_bad_input_is_one_clear_line(predictor: Predictor) -> None:
    with pytest.raises(PredictionError, match="gemm"):
        predictor.predict("convolution", catalogue()["nvidia-h100-sxm5-80gb"], SHAPES)
    with pytest.raises(LimitError, match="float8"):
        predictor.predict("gemm", catalogue()["nvidia-a100-sxm4-80gb"], SHAPES, "float8_e4m3fn")
    with pytest.raises(ConstantsError, match="here"):
        from_json("{}", "here")


def test_constants_survive_their_file() -> None:
    constants = shipped()
    assert from_json(to_json(constants), "file") == constants
    assert constants.licence == "Apache-2.0"
    assert "aiconfigurator-core" in constants.source


def test_kernels_that_take_query_heads_one_by_one_pay_for_each(predictor: Predictor) -> None:
    """FlashAttention 2 with a window on an L40S; FlashAttention 3 on an H100 packs the heads that share a KV head."""

    def growth(device: str) -> float:
        heads = {
            "batch": np.full(2, 1024.0), "q_heads": np.array([8.0, 32.0]), "kv_heads": np.full(2, 4.0), "q_length": np.ones(2),
            "kv_length": np.full(2, 256.0), "head_dim": np.full(2, 64.0), "window": np.full(2, 128.0),
        }  # fmt: skip
        few, many = predictor.predict("attention decode", catalogue()[device], heads, software="vllm").seconds
        return float(many / few)

    assert 2.5 < growth("nvidia-l40s") <= 4.0
    assert growth("nvidia-h100-sxm5-80gb") < 1.2


def test_trtllms_kernel_for_many_query_heads_follows_the_vector_units(predictor: Predictor) -> None:
    heads = {
        **DECODE,
        "q_heads": np.array([32.0, 64.0]),
        "kv_heads": np.ones(2),
        "batch": np.full(2, 64.0),
        "window": np.zeros(2),
    }
    devices = ("nvidia-h100-sxm5-80gb", "nvidia-l40s")
    packed, alone = (
        [predictor.predict("attention decode", catalogue()[d], heads, software="trtllm").seconds[i] for d in devices]
        for i in (0, 1)
    )
    assert packed[1] > 3.0 * packed[0], "the memory's bandwidth: 0.86 and 3.35 TB/s"
    assert alone[1] < 1.5 * alone[0], "float32 on vector units: 92 and 67 TFLOP/s"
    assert min(alone) > 5.0 * packed[0]
