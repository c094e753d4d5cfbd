"""``ridgeline model scorecard``: errors of the predictions on what they had not seen. Runs without torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

EXIT_BAD_INPUT = 2
SPLITS = ("site", "device", "architecture")


def scorecard(
    splits: Annotated[str, typer.Option("--splits", help="Of site, device, architecture; with commas.")] = ",".join(
        SPLITS
    ),
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
    write: Annotated[
        Path | None, typer.Option("--write", help="Write the card as Markdown, such as docs/scorecard.md.")
    ] = None,
    constants: Annotated[
        Path | None, typer.Option("--constants", help="Fit the constants that ship anew, into this file, and stop.")
    ] = None,
) -> None:
    """Predict published kernel times from others and print the errors (extra `data`; some minutes with `site`)."""
    import json as json_module

    from ridgeline.analytical.calibration import scorecard as card
    from ridgeline.analytical.calibration.public_tables import DISTRIBUTION, require_data_root, source_version
    from ridgeline.analytical.catalogue import catalogue

    chosen = [s.strip() for s in splits.split(",") if s.strip()]
    unknown = [s for s in chosen if s not in SPLITS]
    if unknown or not chosen:
        print(f"ridgeline: --splits {splits!r}: of {', '.join(SPLITS)}", file=sys.stderr)
        raise SystemExit(EXIT_BAD_INPUT)
    root = require_data_root()
    if constants is not None:
        from ridgeline.analytical.calibration.constants import fit_shipped, to_json

        constants.write_text(to_json(fit_shipped(root, catalogue())), encoding="utf-8")
        print(constants)
        return
    rows = card.card_rows(card.scorecard(root, catalogue(), chosen))
    page = card.markdown(rows, f"{DISTRIBUTION} {source_version(root)}".strip())
    if write is not None:
        write.write_text(page, encoding="utf-8")
    print(json_module.dumps(rows, indent=1) if json else page, end="\n" if json else "")
