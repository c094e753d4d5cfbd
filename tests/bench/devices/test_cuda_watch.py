"""Which blocks of a card count: limits, clocks, other processes, launches that waited for the host."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.bench.devices.cuda_watch import (
    LIMIT_SHARES,
    SETTLED_BLOCKS,
    CardCounters,
    CardReader,
    CardSample,
    CardWatch,
    ClockReference,
    NotWatched,
    conditions,
    limit_cause,
    limits_between,
)


class ScriptedCard(CardReader):
    """Plays the clocks and counters it is given; its seconds are its own."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.limited: dict[str, float] = {}
        self.clock_mhz: float | None = 1980.0
        self.foreign: int | None = 0
        self.sampled = threading.Event()

    def sample(self) -> CardSample:
        self.sampled.set()
        return CardSample(self.clock_mhz, 2619.0, 450.0, 60.0)

    def counters(self) -> CardCounters:
        return CardCounters(self.now_s, dict(self.limited))

    def others(self) -> int | None:
        return self.foreign


def block(watch: CardWatch, card: ScriptedCard, seconds: float = 0.02, **limited: float):
    watch.begin()
    card.now_s += seconds
    for cause, held in limited.items():
        name = cause.replace("_", " ")
        card.limited[name] = card.limited.get(name, 0.0) + held
    return watch.end()


def test_a_quiet_block_counts_and_carries_its_conditions() -> None:
    card = ScriptedCard()
    seen = block(CardWatch(card), card)
    assert seen.cause == ""
    assert (seen.conditions.clock_mhz, seen.conditions.memory_clock_mhz) == (1980.0, 2619.0)
    assert (seen.conditions.power_w, seen.conditions.temperature_c) == (450.0, 60.0)
    assert seen.conditions.limited_s is None, "this card counts no limits: that is not zero"


def test_the_counter_names_the_limit_however_short_the_look() -> None:
    card = ScriptedCard()
    card.limited = {"power limit": 7.0, "thermal limit": 3.0}
    watch = CardWatch(card)
    assert block(watch, card).conditions.limited_s == 0.0
    held = block(watch, card, power_limit=0.004)
    assert (held.cause, held.conditions.limited_s) == ("power limit", pytest.approx(0.004))
    assert block(watch, card, power_limit=0.004, thermal_limit=0.001).cause == "thermal limit"
    assert block(watch, card, power_limit=0.0005).cause == "", "2.5 % of the block"


@given(st.sampled_from(sorted(LIMIT_SHARES)), st.floats(0.001, 10.0), st.floats(0.0, 1.0))
def test_a_limit_is_named_above_its_share_and_not_below(cause: str, elapsed: float, share: float) -> None:
    if abs(share - LIMIT_SHARES[cause]) > 1e-9:
        found = limit_cause({cause: share * elapsed}, elapsed)
        assert found == (cause if share > LIMIT_SHARES[cause] else "")


def test_a_counter_that_was_reset_tells_nothing() -> None:
    before = CardCounters(0.0, {"power limit": 5.0, "thermal limit": 1.0})
    after = CardCounters(1.0, {"power limit": 0.5, "thermal limit": 1.25})
    assert limits_between(before, after) == {"thermal limit": 0.25}


def test_a_card_that_wakes_up_is_a_ramp() -> None:
    reference = ClockReference()
    assert reference.judge([345.0, 345.0, 1200.0, 1980.0]) == "clock ramp"
    assert reference.judge([1980.0] * 4) == ""
    assert reference.judge([1965.0] * 4) == "", "boost steps are no disturbance"
    assert reference.judge([1200.0] * 4) == "lower clock"
    assert reference.judge([]) == ""


def test_a_card_that_settles_lower_is_taken_as_it_is() -> None:
    """Without this, a card that warmed up would never give another block that counts."""
    reference = ClockReference()
    reference.judge([1980.0])
    causes = [reference.judge([1500.0]) for _ in range(2 * SETTLED_BLOCKS)]
    assert causes[: SETTLED_BLOCKS - 1] == ["lower clock"] * (SETTLED_BLOCKS - 1)
    assert set(causes[SETTLED_BLOCKS:]) == {""}


@given(st.lists(st.floats(1900.0, 1980.0), min_size=1, max_size=20))
def test_clocks_within_a_few_percent_never_disturb(clocks: list[float]) -> None:
    reference = ClockReference()
    assert [reference.judge([clock]) for clock in clocks] == [""] * len(clocks)


def test_others_on_the_card_and_launches_that_waited() -> None:
    card = ScriptedCard()
    waited = [0, 1, 0, 0]  # asked at the beginning and the end of each block
    watch = CardWatch(card, exposed=lambda: waited.pop(0))
    assert block(watch, card).cause == "launch exposed"
    assert block(watch, card).cause == ""
    card.foreign = 1
    waited += [0, 1]
    assert block(watch, card).cause == "other processes"
    card.foreign = None
    waited += [0, 0]
    assert block(watch, card).cause == "", "what cannot be seen is not blamed"


def test_a_card_without_clocks_is_watched_all_the_same() -> None:
    card = ScriptedCard()
    card.clock_mhz = None
    seen = block(CardWatch(card), card)
    assert (seen.cause, seen.conditions.clock_mhz) == ("", None)
    assert conditions([], None).limited_s is None


def test_the_card_is_sampled_while_the_block_runs_and_never_after_it() -> None:
    card = ScriptedCard()
    watch = CardWatch(card, every_s=0.001)
    watch.begin()
    assert card.sampled.wait(10.0)
    watch.end()
    card.sampled.clear()
    time.sleep(0.01)
    assert not card.sampled.is_set()
    watch.begin()
    watch.begin()  # a block that ended in an exception
    watch.end()
    assert not any(thread.name == "ridgeline-watch" for thread in threading.enumerate())


def test_without_counters_exposed_launches_are_still_seen() -> None:
    waited = [5, 0, 0, 2]
    watch = NotWatched("ROCm", lambda: waited.pop(0))
    watch.begin()
    assert watch.end().cause == ""
    watch.begin()
    assert watch.end().cause == "launch exposed"
