"""Which meter is opened by which name, and what is said where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_nvml import UUID, FakeNvml

from ridgeline.bench.energy.choose import check_meter, choose_source, meters_seen
from ridgeline.bench.energy.nvml import NvmlSource
from ridgeline.bench.energy.source import MeterError, NullSource


@pytest.mark.parametrize("name", ["", "watts", "nvml:0", "replay", "replay:"])
def test_what_is_no_meter_is_refused_with_the_choices(name: str) -> None:
    with pytest.raises(MeterError, match="one of auto, none, nvml, rapl, zeus, replay:FILE"):
        check_meter(name)


def test_a_trace_that_is_not_there_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(MeterError, match=r"none\.jsonl: No such file"):
        check_meter(f"replay:{tmp_path / 'none.jsonl'}")


def test_no_meter_at_all_is_said_so() -> None:
    source = choose_source("none")
    assert isinstance(source, NullSource)
    assert (source.code, source.reason) == ("switched_off", "no meter was asked for (--meter none)")


def test_a_card_is_metered_by_its_own_sensor(nvml: FakeNvml) -> None:
    for name in ("auto", "nvml"):
        source = choose_source(name, UUID)
        assert isinstance(source, NvmlSource)
        source.close()


def test_another_card_than_those_there_is_not_metered(nvml: FakeNvml) -> None:
    """Asked for by name it is refused; found automatically, the reason is in the record."""
    with pytest.raises(MeterError, match="UUID"):
        choose_source("nvml", "GPU-00000000-0000-0000-0000-000000000000")
    source = choose_source("auto", "GPU-00000000-0000-0000-0000-000000000000")
    assert isinstance(source, NullSource)
    assert source.code == "no_such_device"


def test_the_doctor_sees_every_meter_once_and_why_it_does_not_work() -> None:
    seen = meters_seen()
    assert [meter.meter for meter in seen] == ["nvml", "rapl", "zeus"]
    for meter in seen:
        assert bool(meter.scope) != bool(meter.reason)
        assert "\n" not in meter.reason
