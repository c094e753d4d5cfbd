"""Stored energy figures: what contradicts itself cannot be built, a missing figure is never a number."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from ridgeline.analytical.energy import Estimate
from ridgeline.results.energy import EnergyFacts, Interval, SideChannel, Window

VALUE = Interval(value=2.0, random=0.1, sensor=0.2)
WINDOW = Window(start_s=0.0, end_s=1.0, power_w=VALUE, launch_s=0.001, launches=1000, edges=11)
GOOD: dict[str, Any] = {
    "meter": "nvml",
    "scope": "board",
    "method": "counter_edge",
    "quality": "good",
    "gross_j": VALUE,
    "power_w": VALUE,
    "launch_s": VALUE,
    "trials": 1,
    "windows": (WINDOW,),
}
NONE: dict[str, Any] = {"meter": "none", "reason_code": "no_meter", "reason": "no meter"}


def test_figures_survive_a_round_trip() -> None:
    facts = EnergyFacts(**GOOD)
    assert EnergyFacts.model_validate_json(facts.model_dump_json()) == facts
    assert EnergyFacts(**NONE).gross_j is None
    assert (VALUE.low, VALUE.high) == (1.9, 2.1)
    assert Interval.of(Estimate(2.0, 0.1, 0.2)) == VALUE
    assert Interval.of(None) is None


@pytest.mark.parametrize(
    ("base", "change", "message"),
    [
        (NONE, {"reason": ""}, "needs its reason and code"),
        (NONE, {"reason_code": ""}, "needs its reason and code"),
        (NONE, {"power_w": VALUE}, "without a gross energy"),
        (NONE, {"method": "counter_edge"}, "without a gross energy"),
        (NONE, {"quality": "good"}, "without a gross energy"),
        (GOOD, {"reason": "no"}, "a reason why there is none"),
        (GOOD, {"method": None}, "needs method"),
        (GOOD, {"scope": ""}, "needs method"),
        (GOOD, {"quality": "none"}, "needs method"),
        (GOOD, {"trials": 2}, "needs its windows"),
        (GOOD, {"trials": 0, "windows": ()}, "needs its windows"),
        (GOOD, {"gross_j": Interval(value=0.0, random=0.0)}, "must be positive"),
        (GOOD, {"power_w": None}, "must be positive"),
        (GOOD, {"net_j": VALUE}, "needs its idle baseline"),
        (GOOD, {"method": "guess"}, "counter_edge"),
        (GOOD, {"joules": 3.0}, "Extra inputs"),
    ],
)
def test_contradictions_cannot_be_built(base: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EnergyFacts(**{**base, **change})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_figure_is_other_than_finite(value: float) -> None:
    with pytest.raises(ValidationError):
        Interval(value=value, random=0.0)
    with pytest.raises(ValidationError):
        Interval(value=1.0, random=value)


def test_series_of_the_side_channel_are_equally_long() -> None:
    with pytest.raises(ValidationError, match="differ in length"):
        SideChannel(time_s=(0.0, 1.0), power_w=(1.0,))
