"""Constants for every operator of a model's step on a device, with the evidence they rest on.

Matrix products and attention take the constants that were fitted on the device's own public measurements, or, where nobody
measured it, those carried over from its vendor's devices or from all. Other operators have no public table: theirs are assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ridgeline.analytical.calibration.predictor import Predictor
from ridgeline.analytical.calibration.three_parameters import ASSUMED, ThreeParameters
from ridgeline.analytical.device import Device
from ridgeline.analytical.prediction import TIERS, Tier

Attending = Literal["prefill", "decode", "both"]
"""What attention does in a step: many queries of a prompt, one of each sequence, or some of each (chunked prefill)."""


@dataclass(frozen=True)
class StepConstants:
    """Constants by family of operations; the key ``""`` serves the others."""

    parameters: Mapping[str, ThreeParameters]
    tier: Tier
    """The weakest evidence among matrix products and attention."""


def step_constants(device: Device, attending: Attending, precision: str = "bfloat16") -> StepConstants:
    """The constants of a step on ``device``; without a software's name, those of all measured software together.

    Where a step holds prompts and decoding, attention's arithmetic is the prompts' and its bytes are decoding's.

    Args:
        device: its id says whether it was measured.
        attending: what attention does.
        precision: that products compute in. Constants are of bfloat16; the shares of another precision's peak are taken
            to be the same, and the evidence then counts as transferred.
    """
    known = Predictor.from_shipped()
    gemm, tier = known.constants_of("gemm", device, precision)
    tiers = [tier]
    attention = {}
    for phase in ("prefill", "decode"):
        if attending in (phase, "both"):
            attention[phase], tier = known.constants_of(f"attention {phase}", device, precision)
            tiers.append(tier)
    prompts, decoding = attention.get("prefill"), attention.get("decode")
    if prompts is not None and decoding is not None:
        own = ThreeParameters(
            overhead_s=decoding.overhead_s,
            compute_share=prompts.compute_share,
            memory_share=decoding.memory_share,
            item_s=decoding.item_s,
        )
    else:
        own = prompts or decoding or ASSUMED["attention"]
    parameters = {"gemm": gemm, "moe_gemm": gemm, "attention": own, "": ASSUMED[""]}
    return StepConstants(parameters, max(tiers, key=TIERS.index))
