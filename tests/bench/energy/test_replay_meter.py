"""A recorded meter: its file, its readings against a clock, its faults, and a whole measurement from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ridgeline.bench.energy.meter import EnergySettings, measure_energy
from ridgeline.bench.energy.replay import ReplaySource, load_trace
from ridgeline.bench.energy.source import MeterError, MeterFault

BUSY_W = 300.0


def written(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def counting(path: Path, seconds: float, fault_at_s: float = 1e9) -> Path:
    """A counter brought up to date every 0.1 s on a card that draws ``BUSY_W`` all the time."""
    readings = [
        {"t_s": i / 10, "energy_j": BUSY_W * i / 10, "power_w": BUSY_W, "sm_mhz": 1980}
        for i in range(int(10 * seconds))
        if i / 10 < fault_at_s
    ]
    ending = [{"t_s": fault_at_s, "fault": "gpu_lost"}] if fault_at_s < seconds else []
    return written(path, {"meter": "nvml", "scope": "board"}, *readings, *ending)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1e-5  # looking takes time
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def launch(self, count: int) -> None:
        self.now_s += 1e-3 * count


def measured(path: Path):  # type: ignore[no-untyped-def]
    clock = Clock()
    source = ReplaySource(*load_trace(path), clock=clock)
    settings = EnergySettings(trials=3)
    return measure_energy(source, clock.launch, 1e-3, settings=settings, clock=clock, sleep=clock.sleep)


def test_the_energy_of_a_trace_is_what_it_says(tmp_path: Path) -> None:
    facts = measured(counting(tmp_path / "trace.jsonl", 30.0))
    assert facts.gross_j is not None, facts.reason
    assert facts.gross_j.value == pytest.approx(BUSY_W * 1e-3, rel=0.02)
    assert (facts.meter, facts.scope, facts.method) == ("replay", "board", "counter_edge")
    assert "replay of a trace of nvml" in facts.notes
    assert set(facts.side_channel.sm_mhz) == {1980.0}


def test_a_card_that_is_lost_in_the_trace_gives_a_reason_and_no_figure(tmp_path: Path) -> None:
    facts = measured(counting(tmp_path / "trace.jsonl", 30.0, fault_at_s=3.0))
    assert (facts.gross_j, facts.reason_code) == (None, "gpu_lost")


def test_a_reading_holds_until_the_next_and_a_key_until_it_is_given_again(tmp_path: Path) -> None:
    path = written(
        tmp_path / "t.jsonl", {}, {"t_s": 0, "energy_j": 5, "power_w": 70}, {"t_s": 1, "energy_j": 9}, {"t_s": 2, "fault": "x"}
    )  # fmt: skip
    now = [0.0]
    source = ReplaySource(*load_trace(path), clock=lambda: now[0])
    seen = []
    for moment in (0.0, 0.9, 1.0, 1.9):
        now[0] = moment
        seen.append((source.energy_j(), source.power_w()))
    assert seen == [(5.0, 70.0), (5.0, 70.0), (9.0, 70.0), (9.0, 70.0)]
    now[0] = 2.0
    with pytest.raises(MeterFault, match="fault in the trace at 2"):
        source.energy_j()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "no readings"),
        ([{"meter": "nvml"}], "no readings"),
        ([{}, "{"], "line 2: not JSON"),
        ([{}, {"t_s": 0, "joules": 1}], "line 2: joules: "),
        ([{}, {"t_s": -1.0}], "line 2: t_s: "),
        ([{}, {"t_s": 1.0}, {"t_s": 0.5}], "line 3: t_s goes back"),
    ],
)
def test_a_bad_trace_is_one_line_with_its_place(tmp_path: Path, lines: list[object], said: str) -> None:
    with pytest.raises(MeterError) as error:
        load_trace(written(tmp_path / "bad.jsonl", *lines))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
