"""Tuning: the search for the best configuration of each case of a plan, with the harness's own timer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ridgeline.bench.devices.unit import Unit
from ridgeline.bench.plan import Case, Plan
from ridgeline.kernels.tuning import candidates, space
from ridgeline.results.store import Store
from ridgeline.results.tuning import SUITE, Choice, stored_choices


def tuning_plan(plan: Plan, unit: Unit, known: Mapping[str, Choice]) -> Plan | None:
    """Every configuration of the plan's cases that has to be measured; ``None`` where there is nothing to search.

    A case is searched where its implementation declares a space for the problem and no choice is known for its present
    code, versions and unit. The default configuration is a candidate like the others.

    Args:
        plan: whose cases are tuned.
        unit: where; on a GPU candidates that spill or do not fit are refused from their compiled code.
        known: choices by content key.
    """
    architecture = unit.facts().get("architecture", "")
    cases: list[Case] = []
    for case in plan.cases:
        runs = case.implementation.unsupported_reason(case.problem, case.placement.torch_device) is None
        if not runs or case.content_key in known or not space(case.implementation, case.problem):
            continue
        bare = dataclasses.replace(case, role="tuning", baseline="", papers=())
        cases.append(bare)
        cases += [
            dataclasses.replace(bare, config=candidate.config, refused=candidate.refused)
            for candidate in candidates(case.implementation, case.problem, architecture)
        ]
    if not cases:
        return None
    settings = plan.settings.model_copy(update={"processes": 1, "meter": "none"})
    return Plan(SUITE + plan.name, tuple(cases), settings, plan.with_folders)


def tuned_plan(plan: Plan, store: Store) -> Plan:
    """The plan with the configuration that was chosen for each case; those without a choice keep their default.

    Raises:
        StoreError: where the store cannot be read.
    """
    known = stored_choices(store)
    cases = (dataclasses.replace(case, config=chosen_config(case, known)) for case in plan.cases)
    return dataclasses.replace(plan, cases=tuple(cases))


def chosen_config(case: Case, known: Mapping[str, Choice]) -> Mapping[str, Any]:
    """The configuration that was chosen for a case without one, by content key; empty for its default."""
    choice = known.get(case.content_key)
    return choice.config if choice is not None else {}
