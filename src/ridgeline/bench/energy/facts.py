"""From windows that hold to the stored figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ridgeline.analytical.energy import (
    Estimate,
    UpdateProfile,
    WindowPower,
    combine_trials,
    delay_product,
    per_unit,
    subtract_idle,
)
from ridgeline.bench.energy.gate import DISAGREE_FRACTION, FEW_EDGES, Gate
from ridgeline.bench.energy.source import MeterFacts
from ridgeline.bench.energy.window import WindowTrace
from ridgeline.results.energy import EnergyFacts, Interval, Method, Quality, RejectedWindow, SideChannel, Window

FEW_LAUNCHES = 20
"""Launches in a window below which an unfinished one at its end counts."""
GAPS = 1.15
"""Time per launch under load over the timed one, above which the device idled between launches; where its clocks were
held down that is the reason instead (a matrix product at an H200's power limit: 1.19)."""
FEW_TRIALS = 3
FEWEST_READINGS = 5
LOW_CONFIDENCE = frozenset(
    {"few_edges", "few_trials", "not_edge_aligned", "counter_and_power_disagree", "gaps_between_launches"}
)
"""Labels with which a figure is not good."""
"""Power readings needed to hold the counter against them."""
MOST_SIDE_POINTS = 240
"""Points of the side channel that a record keeps."""


@dataclass(frozen=True)
class Trial:
    """One window that holds."""

    power: WindowPower
    trace: WindowTrace
    limited: dict[str, float]
    labels: tuple[str, ...]


def without_figure(
    facts: MeterFacts,
    code: str,
    reason: str,
    notes: Sequence[str] = (),
    rejected: tuple[RejectedWindow, ...] = (),
) -> EnergyFacts:
    """No energy, and why."""
    return EnergyFacts(
        meter=facts.meter,
        scope=facts.scope,
        driver=facts.driver,
        reason_code=code,
        reason=" ".join(reason.split()),
        notes=tuple(notes),
        rejected=rejected,
    )


def build_facts(
    facts: MeterFacts,
    method: Method,
    trials: Sequence[Trial],
    rejected: Sequence[RejectedWindow],
    gate: Gate,
    profile: UpdateProfile | None,
    idle: Mapping[str, Estimate],
    notes: Sequence[str],
    wanted: int,
    work_flop: float | None,
    work_bytes: float | None,
    timed_s: float,
) -> EnergyFacts:
    """Combine trials. Energy per launch of a window is its power times the time per launch of the same window.

    Where that time is much longer than the timed one (``timed_s``), the energy of gaps is in the figure: it says so.
    """
    gain = facts.gain_relative
    power = combine_trials([t.power.power_w for t in trials], [t.power.random_w for t in trials], gain)
    gross = _over(trials, gain, 0)
    seconds = combine_trials([t.trace.launch_s for t in trials], [0.0] * len(trials))
    awake = idle.get("awake")
    net = subtract_idle(gross, awake, seconds.value) if awake is not None else None
    edges = min(t.power.edges for t in trials)
    labels = _labels(method, trials, rejected, gate, wanted, edges, net)
    ratio = _counter_over_power(facts, method, trials)
    if ratio is not None and abs(ratio - 1.0) > DISAGREE_FRACTION:
        labels.append("counter_and_power_disagree")
    if seconds.value > GAPS * timed_s and not {"power_limited", "clock_moved"} & set(labels):
        labels.append("gaps_between_launches")
    drifts = [t.power.drift_relative for t in trials if t.power.drift_relative is not None]
    causes = {cause for t in trials for cause in t.limited}
    quality: Quality = "good"
    if LOW_CONFIDENCE & set(labels):
        quality = "low_confidence"
    if gate.contaminated:
        quality = "contaminated"
    return EnergyFacts(
        meter=facts.meter,
        scope=facts.scope,
        method=method,
        quality=quality,
        labels=tuple(dict.fromkeys(labels)),
        notes=(*notes, gate.note) if gate.note else tuple(notes),
        gross_j=Interval.of(gross),
        net_j=Interval.of(net),
        power_w=Interval.of(power),
        launch_s=Interval.of(seconds),
        j_per_flop=Interval.of(per_unit(gross, work_flop)),
        j_per_byte=Interval.of(per_unit(gross, work_bytes)),
        edp_js=Interval.of(_over(trials, gain, 1)),
        ed2p_js2=Interval.of(_over(trials, gain, 2)),
        idle_awake_w=Interval.of(awake),
        idle_sleep_w=Interval.of(idle.get("sleep")),
        update_period_s=profile.period_s if profile else None,
        update_jitter_s=profile.jitter_s if profile else None,
        resolution_j=facts.resolution_j or (profile.resolution_j if profile else None),
        sensor_relative=gain,
        window_s=float(np.mean([t.power.window_s for t in trials])),
        edges=edges,
        trials=len(trials),
        launches=sum(t.trace.launches for t in trials),
        windows=tuple(_window(t, gain) for t in trials),
        rejected=tuple(rejected),
        drift_relative=max(drifts, key=abs) if drifts else None,
        counter_over_power=ratio,
        power_limit_w=facts.power_limit_w,
        limited={cause: float(np.mean([t.limited.get(cause, 0.0) for t in trials])) for cause in sorted(causes)},
        driver=facts.driver,
        side_channel=_side_channel(trials),
    )


def _window(trial: Trial, gain: float) -> Window:
    power = trial.power
    return Window(
        start_s=power.start_s,
        end_s=power.end_s,
        power_w=Interval(value=power.power_w, random=power.random_w, sensor=gain * power.power_w),
        launch_s=trial.trace.launch_s,
        launches=trial.trace.launches,
        edges=power.edges,
    )


def _over(trials: Sequence[Trial], gain: float, delay_power: int) -> Estimate:
    """Energy per launch times its time to ``delay_power``, over trials."""
    products = []
    for trial in trials:
        energy = Estimate(trial.power.power_w, trial.power.random_w).scaled(trial.trace.launch_s)
        products.append(delay_product(energy, trial.trace.launch_s, power=delay_power) if delay_power else energy)
    return combine_trials([p.value for p in products], [p.random for p in products], gain)


def _labels(
    method: Method,
    trials: Sequence[Trial],
    rejected: Sequence[RejectedWindow],
    gate: Gate,
    wanted: int,
    edges: int,
    net: Estimate | None,
) -> list[str]:
    labels = list(gate.labels)
    for trial in trials:
        labels += trial.labels
    if edges < FEW_EDGES:
        labels.append("few_edges")
    if len(trials) < min(FEW_TRIALS, wanted):
        labels.append("few_trials")
    if min(t.power.window_s / t.trace.launch_s for t in trials) < FEW_LAUNCHES:
        labels.append("few_launches")
    if method == "counter_naive":
        labels.append("not_edge_aligned")
    if method == "average_power_integral":
        labels.append("averaged_power")
    if rejected:
        labels.append("windows_rejected")
    if net is not None and net.value <= net.random:
        labels.append("not_above_idle")
    return labels


def _counter_over_power(facts: MeterFacts, method: Method, trials: Sequence[Trial]) -> float | None:
    """Counter against instant power, where both speak."""
    if facts.power != "instant" or method not in ("counter_edge", "counter_naive"):
        return None
    watts = [
        s.power_w
        for t in trials
        for moment, s in t.trace.states
        if s.power_w is not None and t.power.start_s + facts.averaging_s <= moment <= t.power.end_s
    ]
    if len(watts) < FEWEST_READINGS or np.mean(watts) <= 0.0:
        return None
    return float(np.mean([t.power.power_w for t in trials]) / np.mean(watts))


def _side_channel(trials: Sequence[Trial]) -> SideChannel:
    points = [point for trial in trials for point in trial.trace.states]
    points = points[:: -(-len(points) // MOST_SIDE_POINTS)]
    begin = points[0][0]
    return SideChannel(
        time_s=tuple(round(moment - begin, 6) for moment, _ in points),
        power_w=tuple(s.power_w for _, s in points),
        sm_mhz=tuple(s.sm_mhz for _, s in points),
        memory_mhz=tuple(s.memory_mhz for _, s in points),
        temperature_c=tuple(s.temperature_c for _, s in points),
    )
