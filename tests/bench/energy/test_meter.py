"""The protocol on a card whose exact energy is known: figures, ladder, gate, and every fault as a reason."""

from __future__ import annotations

from typing import Any

import pytest
from fake_nvml import UUID, FakeNvml, VirtualCard

from ridgeline.bench.energy.meter import EnergyMeter, EnergySettings, Work, measure_energy
from ridgeline.bench.energy.nvml import NvmlSource
from ridgeline.bench.energy.source import EnergySource, MeterFacts, NullSource
from ridgeline.bench.energy.window import Hands, Load
from ridgeline.results.energy import EnergyFacts

BUSY_W, IDLE_W = 450.0, 70.0


def measure(card: VirtualCard, source: EnergySource | None = None, **options: Any) -> EnergyFacts:
    settings = EnergySettings(**options.pop("settings", {}))
    source = source or NvmlSource(UUID)
    try:
        return measure_energy(
            source, card.launch, card.launch_s, synchronize=card.synchronize, settings=settings, clock=card.clock,
            sleep=card.sleep, **{"budget_s": 20.0, **options},
        )  # fmt: skip
    finally:
        source.close()


def no_figure(facts: EnergyFacts, code: str) -> None:
    assert facts.gross_j is None, facts.gross_j
    assert facts.reason_code == code, facts.reason
    assert facts.reason
    assert "\n" not in facts.reason
    assert facts.net_j is None
    assert facts.quality == "none"


def test_joules_gross_net_and_derived_hold_the_truth(nvml: FakeNvml) -> None:
    nvml.set(jitter_us=2000)
    card = VirtualCard(nvml)
    facts = measure(card, work_flop=1e9, work_bytes=2e6)
    truth = BUSY_W * card.launch_s
    assert facts.gross_j is not None
    assert facts.net_j is not None
    assert facts.gross_j.low <= truth <= facts.gross_j.high
    assert facts.net_j.low <= (BUSY_W - IDLE_W) * card.launch_s <= facts.net_j.high
    assert facts.gross_j.random < 0.005 * truth
    assert facts.gross_j.sensor == pytest.approx(0.05 * facts.gross_j.value)
    assert facts.power_w is not None
    assert facts.power_w.low <= BUSY_W <= facts.power_w.high
    assert facts.j_per_flop is not None
    assert facts.j_per_flop.value == pytest.approx(facts.gross_j.value / 1e9)
    assert facts.j_per_byte is not None
    assert facts.j_per_byte.value == pytest.approx(facts.gross_j.value / 2e6)
    assert facts.edp_js is not None
    assert facts.ed2p_js2 is not None
    assert facts.edp_js.low <= truth * card.launch_s <= facts.edp_js.high
    assert facts.ed2p_js2.value == pytest.approx(truth * card.launch_s**2, rel=0.01)
    assert (facts.method, facts.scope, facts.quality, facts.trials) == ("counter_edge", "board", "good", 5)
    assert facts.update_period_s == pytest.approx(0.1, rel=0.02)
    assert facts.update_jitter_s == pytest.approx(0.00115, rel=0.5)
    assert facts.counter_over_power == pytest.approx(1.0, abs=0.02)
    assert facts.edges is not None
    assert facts.edges >= 11
    assert set(facts.side_channel.sm_mhz) == {1980.0}
    assert facts.labels == ()


def test_the_device_never_starves_within_a_window(nvml: FakeNvml) -> None:
    """Even if the first guess of the launch time is three times too long."""
    card = VirtualCard(nvml)
    meter = EnergyMeter(NvmlSource(UUID), clock=card.clock, sleep=card.sleep)
    facts = meter.measure(card.launch, 3.0 * card.launch_s, synchronize=card.synchronize)
    assert facts.launch_s is not None
    assert facts.launch_s.value == pytest.approx(card.launch_s, rel=0.01)
    assert facts.power_w is not None
    assert facts.power_w.value == pytest.approx(BUSY_W, rel=0.005)


def test_idle_time_between_launches_is_named(nvml: FakeNvml) -> None:
    """Timed at 1/1.3 of what a launch takes under load: the energy of the difference is in the figure."""
    card = VirtualCard(nvml)
    meter = EnergyMeter(NvmlSource(UUID), clock=card.clock, sleep=card.sleep)
    facts = meter.measure(card.launch, card.launch_s / 1.3, synchronize=card.synchronize)
    assert "gaps_between_launches" in facts.labels
    assert facts.quality == "low_confidence"


@pytest.mark.parametrize("launch_s", [2e-5, 0.003, 0.25])
def test_a_launch_that_waits_gives_the_same_figure(nvml: FakeNvml, launch_s: float) -> None:
    card = VirtualCard(nvml, launch_s=launch_s, blocking=True)
    facts = measure(card)
    assert facts.gross_j is not None, facts.reason
    assert abs(facts.gross_j.value - BUSY_W * launch_s) <= max(facts.gross_j.random, 0.01 * BUSY_W * launch_s)
    assert ("few_launches" in facts.labels) == (launch_s > 0.1)


def test_idle_and_period_are_learnt_once(nvml: FakeNvml) -> None:
    card = VirtualCard(nvml)
    meter = EnergyMeter(NvmlSource(UUID), clock=card.clock, sleep=card.sleep)
    begin = card.now_s
    first = meter.measure(card.launch, card.launch_s, synchronize=card.synchronize)
    between = card.now_s
    second = meter.measure(card.launch, card.launch_s, synchronize=card.synchronize)
    assert card.now_s - between < between - begin - 3.0
    assert first.idle_awake_w == second.idle_awake_w
    assert first.update_period_s == second.update_period_s


def test_pauses_before_windows_are_random_and_repeat_with_the_seed(nvml: FakeNvml) -> None:
    def starts(seed: int) -> list[float]:
        nvml.reset()
        card = VirtualCard(nvml)
        facts = measure(card, settings={"seed": seed})
        return [w.start_s for w in facts.windows]

    assert starts(1) == starts(1)
    assert starts(1) != starts(2)


def test_the_sleep_baseline_needs_a_device_without_our_context(nvml: FakeNvml) -> None:
    import os

    card = VirtualCard(nvml)
    meter = EnergyMeter(NvmlSource(UUID), clock=card.clock, sleep=card.sleep)
    asleep = meter.rest("sleep")
    assert asleep is not None
    assert abs(asleep.value - IDLE_W) <= max(asleep.random, 0.5)
    other = EnergyMeter(NvmlSource(UUID), clock=card.clock, sleep=card.sleep)
    nvml.set(pid=os.getpid())
    assert other.rest("sleep") is None
    assert "already has a context" in other.rest_notes["sleep"]
    facts = meter.measure(card.launch, card.launch_s, synchronize=card.synchronize)
    assert facts.idle_sleep_w is not None


# The ladder.


def test_without_a_counter_instant_power_is_integrated(nvml: FakeNvml) -> None:
    nvml.fault("nvmlDeviceGetTotalEnergyConsumption", 3)
    nvml.set(avg_us=25000)
    card = VirtualCard(nvml, busy_w=lambda t: BUSY_W + (20.0 if int(t / 0.03) % 2 else -20.0))
    facts = measure(card)
    assert facts.method == "power_integral", facts.reason
    assert facts.gross_j is not None
    assert facts.gross_j.low <= BUSY_W * card.launch_s <= facts.gross_j.high
    assert any("no energy counter" in note for note in facts.notes)


def test_with_averaged_power_alone_the_rise_does_not_count(nvml: FakeNvml) -> None:
    nvml.fault("nvmlDeviceGetTotalEnergyConsumption", 3)
    nvml.fault("field186", 3)
    card = VirtualCard(nvml)
    facts = measure(card, budget_s=30.0)
    assert facts.method == "average_power_integral", facts.reason
    assert facts.power_w is not None
    assert facts.power_w.value == pytest.approx(BUSY_W, rel=0.005)
    assert "averaged_power" in facts.labels


def test_a_frozen_counter_gives_way_to_the_power_sensor_and_is_noted(nvml: FakeNvml) -> None:
    card = VirtualCard(nvml)

    class StuckCounter(NvmlSource):
        def energy_j(self) -> float:
            return 1234.0

    facts = measure(card, StuckCounter(UUID))
    assert facts.method == "power_integral", facts.reason
    assert any("did not change" in note for note in facts.notes)
    assert facts.net_j is not None


def test_a_budget_too_short_for_updates_gives_a_naive_figure_of_low_confidence(nvml: FakeNvml) -> None:
    nvml.set(update_us=400_000)
    card = VirtualCard(nvml)
    facts = measure(card, budget_s=1.7)
    assert facts.method == "counter_naive", facts.reason
    assert facts.quality == "low_confidence"
    assert "not_edge_aligned" in facts.labels
    assert facts.gross_j is not None
    assert facts.gross_j.low <= BUSY_W * card.launch_s <= facts.gross_j.high


def test_a_shorter_window_within_the_budget_has_few_edges(nvml: FakeNvml) -> None:
    card = VirtualCard(nvml)
    facts = measure(card, budget_s=1.2)
    assert facts.method == "counter_edge", facts.reason
    assert {"few_edges", "few_trials"} <= set(facts.labels)
    assert facts.quality == "low_confidence"


def test_a_budget_for_nothing_says_what_it_takes(nvml: FakeNvml) -> None:
    facts = measure(VirtualCard(nvml), budget_s=0.4)
    no_figure(facts, "budget")
    assert "one window needs about 1.3 s" in facts.reason


# The gate.


def test_other_processes_contaminate(nvml: FakeNvml) -> None:
    nvml.set(pid=1)
    facts = measure(VirtualCard(nvml))
    assert facts.quality == "contaminated"
    assert "foreign_processes" in facts.labels
    assert any("other processes on the GPU: 1" in note for note in facts.notes)
    assert facts.gross_j is not None


def test_a_device_that_is_busy_before_us_contaminates(nvml: FakeNvml) -> None:
    nvml.set(util=40)
    facts = measure(VirtualCard(nvml))
    assert facts.quality == "contaminated"
    assert "busy_before" in facts.labels


def test_a_slice_of_a_card_has_no_figure_unless_it_is_alone(nvml: FakeNvml) -> None:
    nvml.set(mig=1)
    no_figure(measure(VirtualCard(nvml)), "mig_board_scope")
    facts = measure(VirtualCard(nvml), settings={"exclusive": True})
    assert facts.gross_j is not None
    assert "mig_board_scope" in facts.labels


# Windows that do not hold.


@pytest.mark.parametrize(
    ("setting", "code"),
    [("hw_thermal_share", "hw_thermal"), ("brake_share", "power_brake"), ("sw_thermal_share", "sw_thermal")],
)
def test_a_throttled_window_is_rejected(nvml: FakeNvml, setting: str, code: str) -> None:
    nvml.set(**{setting: 0.3})
    facts = measure(VirtualCard(nvml))
    no_figure(facts, code)
    assert [w.code for w in facts.rejected] == [code] * 5


def test_a_power_limited_window_is_kept_and_labelled(nvml: FakeNvml) -> None:
    nvml.set(sw_cap_share=0.4)
    facts = measure(VirtualCard(nvml))
    assert facts.labels == ("power_limited",)
    assert facts.limited["sw_power_cap"] == pytest.approx(0.4, rel=0.01)
    assert facts.quality == "good"


def test_a_moving_clock_and_a_drift_are_labelled(nvml: FakeNvml) -> None:
    card = VirtualCard(nvml, busy_w=lambda t: 450.0 if t < 17.0 else 400.0)
    nvml.set(sm_step_us=17.0e6, sm_step_mhz=1700)
    facts = measure(card, settings={"window_s": 3.0, "trials": 3})
    assert {"clock_moved", "drift"} <= set(facts.labels)


def test_counter_and_power_that_disagree_are_labelled(nvml: FakeNvml) -> None:
    nvml.set(instant_scale=1.7)
    facts = measure(VirtualCard(nvml))
    assert "counter_and_power_disagree" in facts.labels
    assert facts.counter_over_power == pytest.approx(1.0 / 1.7, rel=0.05)
    assert facts.quality == "low_confidence"


def test_more_power_than_the_limit_allows_is_implausible(nvml: FakeNvml) -> None:
    nvml.set(limit_mw=200_000)
    no_figure(measure(VirtualCard(nvml)), "implausible_power")


def test_a_counter_that_is_reset_costs_one_window(nvml: FakeNvml) -> None:
    nvml.set(reset_us=16.5e6)
    facts = measure(VirtualCard(nvml))
    assert [w.code for w in facts.rejected] == ["counter_reset"]
    assert facts.trials == 4
    assert "windows_rejected" in facts.labels
    assert facts.power_w is not None
    assert facts.power_w.low <= BUSY_W <= facts.power_w.high


def test_a_counter_that_wraps_all_the_time_gives_way_to_the_power_sensor(nvml: FakeNvml) -> None:
    nvml.set(wrap_mj=150_000)
    facts = measure(VirtualCard(nvml))
    assert facts.method == "power_integral"
    assert any("backwards" in note for note in facts.notes)


def test_a_sensor_that_freezes_on_the_way_has_no_figure(nvml: FakeNvml) -> None:
    nvml.set(frozen_us=15e6)
    facts = measure(VirtualCard(nvml))
    no_figure(facts, "sensor_frozen")
    assert "did not change for" in facts.reason


@pytest.mark.parametrize(
    ("code", "name"), [(15, "gpu_lost"), (18, "driver_mismatch"), (4, "no_permission"), (999, "unknown_error")]
)
@pytest.mark.parametrize("from_s", [0.0, 10.5, 12.0, 16.0])
def test_a_meter_that_fails_at_any_moment_is_a_reason(nvml: FakeNvml, code: int, name: str, from_s: float) -> None:
    """During the baseline, while learning, within a window: no number survives."""
    card = VirtualCard(nvml)
    source = NvmlSource(UUID)
    for function in ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetFieldValues", "nvmlDeviceGetPowerUsage"):
        nvml.fault(function, code, from_s=from_s)
    no_figure(measure(card, source), name)
    assert card.busy_until_s <= card.now_s, "the device was left with work"


def test_a_host_clock_that_jumps_costs_its_window(nvml: FakeNvml) -> None:
    class Jumping(VirtualCard):
        jump_at_s, jump_s = 16.4, 600.0

        def clock(self) -> float:
            if self.now_s > self.jump_at_s:
                self.now_s += self.jump_s
                self.jump_at_s = float("inf")
            return super().clock()

    facts = measure(Jumping(nvml), budget_s=2000.0)
    assert [w.code for w in facts.rejected] == ["clock_jump"]
    assert facts.trials == 4
    assert facts.power_w is not None
    assert facts.power_w.value == pytest.approx(BUSY_W, rel=0.005)


def test_a_clock_that_goes_back_is_no_number(nvml: FakeNvml) -> None:
    card = VirtualCard(nvml)
    shift = {"s": 0.0}

    def clock() -> float:
        now = card.clock()
        if now > 16.4:
            shift["s"] = 3.0
        return now - shift["s"]

    source = NvmlSource(UUID)
    facts = measure_energy(
        source, card.launch, card.launch_s, synchronize=card.synchronize, clock=clock, sleep=card.sleep, budget_s=30.0
    )
    assert [w.code for w in facts.rejected] == ["clock_jump"]
    source.close()


def test_a_kernel_that_fails_is_not_the_meters_business(nvml: FakeNvml) -> None:
    card = VirtualCard(nvml)

    def launch(count: int) -> None:
        raise RuntimeError("illegal memory access")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        measure_energy(NvmlSource(UUID), launch, 0.001, clock=card.clock, sleep=card.sleep)


def test_no_meter_is_its_reason() -> None:
    source = NullSource("no_meter", "no RAPL counter\non this machine")
    facts = measure_energy(source, lambda n: None, 1.0)
    no_figure(facts, "no_meter")
    assert facts.meter == "none"


def test_a_launch_time_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="launch_s must be positive"):
        Load(lambda n: None, lambda: None, 0.0, Hands(lambda: 0.0, lambda s: None))


class FastCounter(EnergySource):
    """RAPL-like: 1 ms updates on the virtual clock, a CPU kernel that waits."""

    def __init__(self) -> None:
        self.now_s = 5.0
        self.launch_s = 0.02

    @property
    def facts(self) -> MeterFacts:
        return MeterFacts("rapl", "package", has_counter=True, resolution_j=1e-6)

    def launch(self, count: int) -> None:
        self.now_s += count * self.launch_s

    def clock(self) -> float:
        self.now_s += 1e-6
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def energy_j(self) -> float:
        self.now_s += 2e-5
        return int(self.now_s / 0.001) * 0.001 * 80.0


def test_a_fast_counter_and_a_slow_launch() -> None:
    host = FastCounter()
    meter = EnergyMeter(host, clock=host.clock, sleep=host.sleep)
    facts = meter.measure(host.launch, host.launch_s, work=Work(flop=1e9))
    assert facts.gross_j is not None, facts.reason
    assert facts.power_w is not None
    assert facts.power_w.value == pytest.approx(80.0, rel=0.01)
    assert facts.method == "counter_edge"
