"""``ridgeline buy``: which hardware, how many, at what cost and energy per token, and how sure that is. Runs without torch."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ridgeline.analytical.architectures.architecture import Architecture
    from ridgeline.analytical.purchase.scenario import Scenario

EXIT_BELOW = 1
EXIT_UNCLEAR = 3


def run_buy(path: Path, as_json: bool, output: Path | None) -> None:
    """Answer a scenario and end with its exit code.

    Raises:
        ScenarioError: for a scenario that cannot be answered.
        ArchitectureError: for a model that is neither built in nor a config.json.
        DeviceError: where the catalogue does not load.
    """
    from ridgeline.analytical.catalogue import catalogue
    from ridgeline.analytical.purchase.evaluate import answer
    from ridgeline.analytical.purchase.markdown import as_markdown
    from ridgeline.analytical.purchase.report import as_dict
    from ridgeline.analytical.purchase.scenario import InfeasibleError, load_scenario

    scenario = load_scenario(path)
    try:
        found = answer(scenario, catalogue(), _architectures(scenario, path), str(path))
    except InfeasibleError as error:
        print(f"ridgeline: {error}", file=sys.stderr)
        raise SystemExit(EXIT_BELOW) from None
    markdown = as_markdown(found)
    if output is not None:
        from ridgeline.results.durable import write_durably

        write_durably(output, markdown.encode())
    if as_json:
        print(json_module.dumps(as_dict(found), indent=1, allow_nan=False))
    elif output is None:
        sys.stdout.write(markdown)
    else:
        print(output)
    if not found.decision.ranks:
        raise SystemExit(EXIT_UNCLEAR)


def _architectures(scenario: Scenario, path: Path) -> dict[str, Architecture]:
    """Models by the scenario's name for them; a path counts from the scenario's folder."""
    from ridgeline.analytical.architectures.builtin import load_architecture

    names = {traffic.model for traffic in scenario.traffic}
    return {
        name: load_architecture(path.parent / name if name.endswith(".json") or "/" in name else name) for name in names
    }
