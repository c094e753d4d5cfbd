"""``ridgeline model device``: every figure of one device, with its kind and source."""

from __future__ import annotations

import json as json_module
from typing import Annotated

import typer


def device(
    name: Annotated[str, typer.Argument(help="Id, other name or unique start of an id; or the path of a TOML file.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Show one device: its ceilings, memory, links, power and prices, each with its source."""
    from ridgeline.analytical.catalogue import find_device

    found = find_device(name)
    if json:
        print(json_module.dumps(found.to_dict(), indent=1))
        return
    from rich.console import Console

    from ridgeline.bench.device_view import device_parts

    console = Console(width=None if Console().is_terminal else 160)
    for part in device_parts(found):
        console.print(part)
