"""Seconds that roofs and cases leave, and who gets them."""

from __future__ import annotations

import random

import pytest

from ridgeline.bench.time_shares import (
    CHECK_S,
    EXTRA_PARTS,
    MEAN_SHARE,
    ROOF_SETTINGS,
    case_settings,
    roof_settings,
)
from ridgeline.workloads.suite import Settings


@pytest.mark.parametrize("all_s", [ROOF_SETTINGS.roofs_s, 30.0])
def test_roofs_that_end_early_leave_their_time_to_the_others(all_s: float) -> None:
    budget_s = ROOF_SETTINGS.budget_s * all_s / ROOF_SETTINGS.roofs_s
    assert roof_settings(all_s, all_s / 2, 100).extra_s == 0.0, "no more time than there is"
    assert roof_settings(all_s, all_s / 2, 1).extra_s == pytest.approx(all_s / 2 - MEAN_SHARE * budget_s - CHECK_S)
    # Half of them end after a third of their budget, the others take all they may: together they stay within the time.
    elapsed_s = 0.0
    count = round(all_s / 2)
    extras = []
    for number in range(count):
        settings = roof_settings(all_s, elapsed_s, count - number)
        assert settings.budget_s == pytest.approx(budget_s), "no roof gets less"
        extras.append(settings.extra_s)
        elapsed_s += CHECK_S + (budget_s / 3 if number % 2 else budget_s + settings.extra_s)
    assert elapsed_s <= all_s + budget_s
    assert max(extras) > budget_s / 2


def test_a_suite_without_a_time_of_its_own_is_left_as_it_is() -> None:
    settings = Settings(extra_s=2.0)
    assert case_settings(settings, 1e6, 1e6, 10, 10) is settings


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("roofs_s", [60.0, 110.0])
def test_cases_share_what_the_suite_leaves_and_no_more(seed: int, roofs_s: float) -> None:
    """Fifty cases: a third needs all it may have, some are refused at once, one compiles for half a minute."""
    lots, suite = random.Random(seed), Settings(budget_s=6.0, suite_s=335.0)
    needs = [0.0] * 15 + [1e9] * 12 + [2.0] * 22 + [30.0]
    lots.shuffle(needs)
    elapsed_s, usual_s, extras = roofs_s, 0.0, []
    for done, needed_s in enumerate(needs):
        settings = case_settings(suite, elapsed_s, usual_s, done, len(needs) - done)
        assert settings.budget_s == suite.budget_s
        took_s = min(needed_s, suite.budget_s + settings.extra_s) if needed_s != 30.0 else needed_s
        beyond_s = max(0.0, took_s - suite.budget_s) if needed_s == 1e9 else 0.0
        extras.append(beyond_s)
        elapsed_s, usual_s = elapsed_s + took_s, usual_s + took_s - beyond_s
    assert elapsed_s <= 335.0 + suite.budget_s, "what the last ones take is not known"
    assert sum(extras) > 0.5 * (335.0 - roofs_s - usual_s), "it is used"
    assert max(extras) <= (335.0 - roofs_s) / EXTRA_PARTS


def test_a_late_run_gives_nothing_beyond_the_budget() -> None:
    assert case_settings(Settings(suite_s=100.0), 120.0, 50.0, 10, 10).extra_s == 0.0
