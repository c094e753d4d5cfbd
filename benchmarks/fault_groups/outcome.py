"""What became of an injected fault."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """One fault."""

    group: str
    fault: str
    became: str
    """The status, the reason or the exit code that it turned into."""
    held: bool
    """No number came of it, nothing measured was lost, no process was left."""
    why: str = ""
    """What did not hold."""


def judge(group: str, fault: str, became: str, **conditions: bool) -> Outcome:
    """An outcome that holds when every named condition does."""
    broken = [name.replace("_", " ") for name, held in conditions.items() if not held]
    return Outcome(group, fault, " ".join(became.split())[:90], not broken, ", ".join(broken))
