"""What dense attention on the CPU is held against: torch's own kernels, and the roofs measured between its launches.

Imports torch's kernels only through the registry: the check modules import this one inside their functions.
"""

from __future__ import annotations

from dataclasses import dataclass

from ridgeline.analytical.operators import Attention
from ridgeline.analytical.problem import Problem
from ridgeline.bench.devices.cpu import detect
from ridgeline.bench.paper_checks.lab import Lab, Ratio
from ridgeline.bench.roofs import fma_problems, stream_problems

LAUNCHES_OF_A_QUAD = 4
"""Of each side: two legs, and before each one launch that is not timed."""
QUADS = 9
"""The 99 % interval of a median needs 8; launches of half a second get hardly more."""
OTHER_SHARE = 0.5
"""Of the quads' time, what the first tries, the pilot and new buffers take."""
USUAL_S = 6.0
"""Least budget of a ratio: small shapes are through hundreds of quads by then."""


@dataclass(frozen=True)
class Share:
    """Rate of a kernel over that of the roof beside it."""

    value: float
    low: float | None
    high: float | None
    """Ends of the 99 % interval on the median; ``None`` where there were too few quads."""

    def __str__(self) -> str:
        interval = "" if self.low is None or self.high is None else f" [{100 * self.low:.3g}, {100 * self.high:.3g}]"
        return f"{100 * self.value:.3g} %{interval}"


def prefill(length: int, head_dim: int, *, causal: bool) -> Attention:
    """One sequence of 8 heads, T = S."""
    return Attention(
        batch=1, q_heads=8, kv_heads=8, q_length=length, kv_length=length, head_dim=head_dim, causal=causal
    )


def product_flop(problem: Attention) -> float:
    """Operations of both products where every query sees every key: 4 B H T S d, as the literature counts them."""
    return 4.0 * problem.batch * problem.q_heads * problem.q_length * problem.kv_length * problem.head_dim


def budget_s(*launches_s: float) -> float:
    """Seconds in which sides whose launches take as long get :data:`QUADS` quads, at least :data:`USUAL_S`."""
    return max(USUAL_S, LAUNCHES_OF_A_QUAD * QUADS * (1.0 + OTHER_SHARE) * sum(launches_s))


def against(lab: Lab, problem: Attention, peer: str, name: str, launch_s: float) -> Ratio:
    """Time of ``peer`` over that of ``name``; ``launch_s`` is about what a launch of either takes."""
    sides = [lab.implementation("attention", problem, each) for each in (peer, name)]
    return lab.ratio(*sides, budget_s=budget_s(launch_s, launch_s))


def share_of_peak(lab: Lab, problem: Attention, name: str, launch_s: float) -> Share:
    """Rate of both products over the float32 peak of the same threads, by turns with it."""
    (fma,) = (found for found in fma_problems(lab.threads) if found.precision == "float32")
    amount = product_flop(problem) / fma.expected_work().flop
    # Both warm: the peak has no buffers to speak of, of which a cold side would need a hundred thousand.
    return _share(lab, problem, name, "fma", fma, amount, launch_s, cold=False)


def share_of_read(lab: Lab, problem: Attention, name: str) -> Share:
    """Rate of reading keys and values over that of reading main memory alone, by turns with it."""
    reads = (found for found in stream_problems(detect().device, lab.threads) if found.operation == "read")
    read = max(reads, key=lambda found: found.footprint_bytes())
    return _share(lab, problem, name, "stream", read, problem.expected_work().bytes / read.expected_work().bytes, 0.0)


def _share(
    lab: Lab,
    problem: Attention,
    name: str,
    roof_operator: str,
    roof: Problem,
    amount: float,
    launch_s: float,
    *,
    cold: bool = True,
) -> Share:
    """``amount`` is the kernel's work over the roof's."""
    kernel = lab.implementation("attention", problem, name)
    beside = lab.implementation(roof_operator, roof, "native")
    ratio = lab.ratio(kernel, beside, cold=cold, budget_s=budget_s(launch_s))
    return Share(
        amount / ratio.value,
        None if ratio.high is None else amount / ratio.high,
        None if ratio.low is None else amount / ratio.low,
    )
