"""The logs behind the published A100 runtimes, read from a checkout of stanford-crfm/helm-efficiency.

The repository carries no licence, so nothing of it is shipped: ``HELM_EFFICIENCY_DIR`` names a checkout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ridgeline.analytical.idealized.points import IdealizedError
from ridgeline.analytical.idealized.published import PublishedRuntime, published_runtimes

VARIABLE = "HELM_EFFICIENCY_DIR"
NAMES = {
    "openai_ada": "ada", "openai_davinci": "opt_175b", "anthropic": "anthropic_52b", "yalm": "yalm_100b",
    "ai21_j1_large": "j1_large", "ai21_j1_grande": "j1_grande", "ai21_j1_jumbo": "j1_jumbo",
}  # fmt: skip
"""File of the logs to name of ours, where they differ."""
_LINE = re.compile(r"'num_input_tokens': (\d+), 'num_output_tokens': (\d+)\}: ([\d.]+) seconds")


@dataclass(frozen=True)
class Log:
    """The measured requests of one architecture."""

    name: str
    seconds: Mapping[tuple[int, int], float]
    """By (p, o)."""

    @property
    def published(self) -> PublishedRuntime | None:
        """What HELM published of it; ``None`` where it is not in the list, or scaled there."""
        found = published_runtimes().get(NAMES.get(self.name, self.name))
        return None if found is None or found.note else found

    def refit(self) -> tuple[dict[int, float], float]:
        """alpha by prompt and beta, as the paper's code (fit_runtimes.py) fits them.

        alpha(p) is a line's value at o = 1, at least that of the shortest prompt; beta is the slope of T - alpha on
        o - 1 over all prompts.
        """
        alpha: dict[int, float] = {}
        prompts = sorted({p for p, _ in self.seconds})
        for p in prompts:
            made = {o: s for (q, o), s in self.seconds.items() if q == p}
            slope, intercept = np.polyfit(list(made), list(made.values()), 1)
            alpha[p] = max(float(slope + intercept), alpha.get(prompts[0], 0.0))
        further = [o - 1 for _, o in self.seconds]
        rest_s = [s - alpha[p] for (p, _), s in self.seconds.items()]
        return alpha, float(np.polyfit(further, rest_s, 1)[0])

    def off_published_s(self) -> tuple[float, float] | None:
        """How far the refitted alpha, at worst, and beta lie from the published ones; ``None`` without these."""
        published = self.published
        if published is None:
            return None
        alpha, beta = self.refit()
        worst = max(abs(alpha[p] - s) for p, s in zip(published.prompt_tokens, published.prompt_s, strict=True))
        return worst, abs(beta - published.step_s)


def read_logs(folder: Path) -> list[Log]:
    """All architectures measured on A100.

    Raises:
        IdealizedError: for a folder without them.
    """
    found = []
    for file in sorted((folder / "logs" / "a100").glob("*.log")):
        text = file.read_text(encoding="utf-8", errors="replace")
        found.append(Log(file.stem, {(int(p), int(o)): float(s) for p, o, s in _LINE.findall(text)}))
    if not found:
        raise IdealizedError(f"{folder}: no logs/a100/*.log: {VARIABLE} names a checkout of helm-efficiency")
    return found
