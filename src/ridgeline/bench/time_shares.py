"""Who gets the seconds that others leave: roofs and cases that end early give theirs to those that need a little more."""

from __future__ import annotations

from ridgeline.workloads.suite import Settings

ROOF_SETTINGS = Settings(target_relative=0.05, budget_s=1.8, timeout_s=60.0, meter="none")
"""What a roof has at least, where all have the time that is usual. 36 cases of 1.8 s where they need it, and their
checks, end in under 90 s on two cores. A target of 3 % left 12 of them unstable, because the bandwidth of a shared
machine moves by more than that within two seconds."""
CHECK_S = 0.5
"""What the checks of a roof take, about."""
MEAN_SHARE = 0.75
"""Of its budget, what a roof or a case takes on average: 36 roofs took 60 to 65 s of 83 in five runs."""
EXTRA_PARTS = 3
"""One may take this part of the time that the others leave, so that the first does not take it all."""
PRIOR_CASES = 5
"""Cases as usual that the mean of those measured so far begins with."""


def roof_settings(all_s: float, elapsed_s: float, left: int) -> Settings:
    """Settings of the next roof.

    Args:
        all_s: time for all roofs together.
        elapsed_s: since the first roof began.
        left: roofs that are still to be measured, with this one.
    """
    budget_s = ROOF_SETTINGS.budget_s * min(1.0, all_s / ROOF_SETTINGS.roofs_s)
    spare_s = all_s - elapsed_s - left * (MEAN_SHARE * budget_s + CHECK_S)
    return ROOF_SETTINGS.model_copy(update={"budget_s": budget_s, "extra_s": _part(spare_s, left)})


def case_settings(settings: Settings, elapsed_s: float, usual_s: float, done: int, left: int) -> Settings:
    """Settings of the next case; those of the suite where it does not say how long it should take in all.

    Args:
        settings: the suite's.
        elapsed_s: since the run began, its roofs included.
        usual_s: what the cases measured so far took, without what went beyond their budget.
        done: how many these are.
        left: cases that are still to be measured, with this one.
    """
    if settings.suite_s is None:
        return settings
    mean_s = (PRIOR_CASES * MEAN_SHARE * settings.budget_s + usual_s) / (PRIOR_CASES + done)
    return settings.model_copy(update={"extra_s": _part(settings.suite_s - elapsed_s - left * mean_s, left)})


def _part(spare_s: float, left: int) -> float:
    return max(0.0, spare_s / min(left, EXTRA_PARTS))
