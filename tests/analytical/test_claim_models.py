"""Models of published figures: each against what can be worked out by hand."""

from __future__ import annotations

import pytest

from ridgeline.analytical.claim_models import MODELS, Modelled, model_of


def test_bytes_and_blocks_saved_are_those_worked_out_by_hand() -> None:
    # Labels of 1/16 of the channels of K and 1/16 of the tokens of K and V, over K and V; in 16 and in 4 bits.
    found = model_of("double-sparsity-bytes")
    assert found.low == pytest.approx(2.0 / (1 / 16 + 2 / 16), rel=0.03)
    assert found.high == pytest.approx(2.0 / (1 / 64 + 2 / 16), rel=0.03)
    # Centroids for 5 % of K, a cluster number and a mask a key, and 20 or 10 % of K and V.
    found = model_of("squeezed-attention-bytes")
    keys = [0.05 + (4 + 1) / 256 + 2 * share for share in (0.2, 0.1)]
    assert [found.low, found.high] == pytest.approx([2.0 / key for key in keys], rel=0.02)
    # Of 1024 rows of blocks each keeps 8, and every 16th or 32nd of those before.
    found = model_of("s2-attention-blocks")
    kept = [sum(min(i, 8) + max(i - 8, 0) / stride for i in range(1, 1025)) for stride in (16, 32)]
    assert [found.low, found.high] == pytest.approx([1024 * 1025 / 2 / k for k in kept], rel=0.03)


def test_products_in_fewer_bits_save_what_their_rates_say() -> None:
    # 4 d at 165.2 TFLOP/s against 2 d at 1321.2 and 2 d at 330.3 or 660.6.
    found = model_of("sageattention2-rtx4090")
    assert found.high == pytest.approx((4 / 165.2) / (2 / 1321.2 + 2 / 660.6), rel=0.01)
    overlapped = (4 / 165.2) / (2 / 1321.2 + 2 / 330.3)
    assert 0.8 * overlapped < found.low < overlapped, "the exponential is not hidden"


def test_intervals_are_intervals_and_say_what_they_are_of() -> None:
    for name in MODELS:
        found = model_of(name)
        assert 0.0 <= found.low <= found.high < 100.0, name
        assert found.text, name
    assert model_of("flashsigmoid-h100").low == pytest.approx(0.0, abs=1e-9), "nothing is saved where all overlaps"


def test_a_published_figure_stands_below_within_or_above() -> None:
    found = Modelled(2.0, 3.0, "x", "", "bytes")
    assert found.figure == "2 to 3x"
    assert found.against(1.5) == "the model allows 2 to 3x, more than is claimed: bytes"
    assert found.against(3.1) == "the model allows 2 to 3x, as claimed: bytes"
    assert found.against(4.0) == "the model allows 2 to 3x, less than is claimed: bytes"
    assert Modelled(20.0, 20.0, "%", "", "t").against(None) == "20 %: t"
