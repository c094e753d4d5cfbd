"""Runtimes that others measured and published: Megatron-LM on A100 (published.toml beside this file)."""

from __future__ import annotations

import statistics
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from ridgeline.analytical.idealized.points import IdealizedError, Point

SOURCE = (
    "stanford-crfm/helm @63754d05, inference_idealized_runtimes.json (Apache-2.0); "
    "layers and widths: stanford-crfm/helm-efficiency @c31b8fcc, headers of logs/a100"
)
LONGEST = 64
"""Generated tokens of the longest request that was measured."""
A100_BYTES_PER_S = 2.039e12
"""Of the 80 GB part, the faster; which one it was is not published."""
STEPS = ("gptj_6b", "j1_large", "j1_grande", "anthropic_52b", "bloom", "j1_jumbo", "yalm_100b", "opt_175b")
"""Those whose seconds per token papers.md D.1 lists."""


@dataclass(frozen=True)
class PublishedRuntime:
    """One architecture: T(p, o) = prompt_s(p) + (o - 1) step_s; float16, batch 1, A100, rounded to 1 ms."""

    name: str
    deployments: tuple[str, ...]
    """Names under which HELM lists it."""
    layers: int
    hidden: int
    ffn: int
    devices: int
    """A100 cards, tensor parallel."""
    prompt_tokens: tuple[int, ...]
    prompt_s: tuple[float, ...]
    step_s: float
    note: str = ""

    @property
    def points(self) -> tuple[Point, ...]:
        """What the publication says of single requests: the prefill of each prompt, and the shortest with 64 tokens."""
        first = Point(self.prompt_tokens[0], LONGEST, 1, (self.prompt_s[0] + (LONGEST - 1) * self.step_s,))
        return (*(Point(p, 1, 1, (s,)) for p, s in zip(self.prompt_tokens, self.prompt_s, strict=True)), first)

    @property
    def block_parameter_count(self) -> float:
        """Weights of the layers, embeddings left out: 4 h^2 of attention and 2 h ffn each."""
        return self.layers * (4.0 * self.hidden**2 + 2.0 * self.hidden * self.ffn)


@cache
def published_runtimes() -> dict[str, PublishedRuntime]:
    """All of them by name."""
    text = resources.files("ridgeline.analytical.idealized").joinpath("published.toml").read_text(encoding="utf-8")
    values = tomllib.loads(text)
    prompt_tokens = tuple(values.pop("prompt_tokens"))
    found = {}
    for name, entry in values.items():
        prompt_s = tuple(float(s) for s in entry["prompt_s"])
        if len(prompt_s) != len(prompt_tokens):
            raise IdealizedError(f"published.toml: {name}: {len(prompt_s)} times for {len(prompt_tokens)} prompts")
        found[name] = PublishedRuntime(
            name=name,
            deployments=tuple(entry["deployments"]),
            layers=entry["layers"],
            hidden=entry["hidden"],
            ffn=entry["ffn"],
            devices=entry["devices"],
            prompt_tokens=prompt_tokens,
            prompt_s=prompt_s,
            step_s=entry["step_s"],
            note=entry.get("note", ""),
        )
    return found


def find_published(name: str) -> PublishedRuntime:
    """One by its name or that of a deployment.

    Raises:
        IdealizedError: naming what there is.
    """
    for runtime in published_runtimes().values():
        if name == runtime.name or name in runtime.deployments:
            return runtime
    raise IdealizedError(f"no published runtime of {name!r}: one of {', '.join(published_runtimes())}")


@dataclass(frozen=True)
class StepFromOthers:
    """Seconds of a further token as the others' seconds per layer predict it."""

    runtime: PublishedRuntime
    predicted_s: float
    bandwidth_bound_s: float
    """To read every float16 weight of the layers once: the bare roofline."""

    @property
    def error(self) -> float:
        """Predicted over published, less one."""
        return self.predicted_s / self.runtime.step_s - 1.0

    @property
    def over_bound(self) -> float:
        """Published over what the bare roofline says."""
        return self.runtime.step_s / self.bandwidth_bound_s


def steps_from_others(names: Sequence[str] = STEPS) -> list[StepFromOthers]:
    """Each step from the mean seconds per layer of the others with as many cards, one or several."""
    runtimes = [published_runtimes()[name] for name in names]
    found = []
    for runtime in runtimes:
        alike = [r for r in runtimes if (r.devices > 1) == (runtime.devices > 1) and r is not runtime]
        per_layer_s = statistics.fmean(r.step_s / r.layers for r in alike)
        bound_s = 2.0 * runtime.block_parameter_count / runtime.devices / A100_BYTES_PER_S
        found.append(StepFromOthers(runtime, per_layer_s * runtime.layers, bound_s))
    return found
