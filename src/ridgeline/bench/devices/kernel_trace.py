"""Figures of a profile: how long the card was busy with a launch, and with how many kernels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NOT_KERNELS = ("memcpy", "memset")


@dataclass(frozen=True)
class CardActivity:
    """Something the card did: a kernel, a copy or a fill."""

    name: str
    start_s: float
    end_s: float

    @property
    def is_kernel(self) -> bool:
        """Whether it is a kernel and no copy or fill."""
        return not self.name.lower().startswith(NOT_KERNELS)


def busy_s(activities: Iterable[CardActivity]) -> float:
    """Seconds in which at least one activity ran: kernels on two streams at once count once."""
    total, until = 0.0, float("-inf")
    for activity in sorted(activities, key=lambda a: a.start_s):
        total += max(0.0, activity.end_s - max(activity.start_s, until))
        until = max(until, activity.end_s)
    return total


def figures(activities: Sequence[CardActivity], launches: int) -> dict[str, float]:
    """Fields of the record: ``kernel_s`` and ``kernels_per_launch``; empty where the profiler saw nothing."""
    kernels = sum(activity.is_kernel for activity in activities)
    seconds = busy_s(activities)
    if not kernels or seconds <= 0.0:
        return {}
    return {"kernel_s": seconds / launches, "kernels_per_launch": kernels / launches}
