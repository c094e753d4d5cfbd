"""llm-viewer: its counts reproduced integer by integer, what we count otherwise, and its hardware table."""

from __future__ import annotations

import csv
from importlib import resources
from typing import TYPE_CHECKING

from ridgeline.bench.paper_checks.frame import Finding, Lab, check

if TYPE_CHECKING:
    from ridgeline.analytical.llm_viewer import Row

TOKENS = 2048
COLUMNS = {
    "operations": "operations", "load_weight": "load_weight_bytes", "load_act": "load_activation_bytes",
    "store_act": "store_activation_bytes", "load_kv_cache": "load_kv_bytes", "store_kv_cache": "store_kv_bytes",
}  # fmt: skip
"""Column of its output to ours."""


def _rows(stage: str, *, flash: bool, of: str = "llama-2-7b") -> dict[str, Row]:
    from ridgeline.analytical.architectures import load_architecture
    from ridgeline.analytical.llm_viewer import analyse, dimensions, hardware

    model = dimensions(load_architecture(of))
    rows = analyse(model, hardware("nvidia_A100_80G"), stage, sequence=TOKENS, flash=flash)  # type: ignore[arg-type]
    return {row.name: row for row in rows}


@check(
    "llm-viewer",
    "parity",
    kind="correctness",
    states="""In compatibility mode operations and bytes of every operator of Llama-2-7B at batch 1 and 2,048 tokens are the
        integers that the tool itself gave at 472f71f: prefill and decode, with flash attention and without""",
)
def parity(lab: Lab) -> Finding:
    text = resources.files("ridgeline.analytical").joinpath("llm_viewer_llama_2_7b.csv").read_text(encoding="utf-8")
    compared, wrong, seen = 0, [], set()
    for theirs in csv.DictReader(line for line in text.splitlines() if not line.startswith("#")):
        key = (theirs["stage"], theirs["flash"] == "yes")
        ours = _rows(key[0], flash=key[1]).get(theirs["operator"])
        seen.add((*key, theirs["operator"]))
        for column, name in COLUMNS.items():
            compared += 1
            if ours is None or getattr(ours, name) != int(theirs[column]):
                wrong.append(f"{theirs['stage']} {theirs['operator']} {column}")
    for stage in ("prefill", "decode"):
        for flash in (False, True):
            wrong += [
                f"{stage} {name} is not theirs"
                for name in _rows(stage, flash=flash)
                if (stage, flash, name) not in seen
            ]
    return Finding(
        passed=compared > 0 and not wrong,
        value=float(len(wrong)),
        threshold=0.0,
        text=f"{compared} figures compared" + (f"; other than the tool's: {', '.join(wrong[:5])}" if wrong else ""),
    )


@check(
    "llm-viewer",
    "deviations-listed",
    kind="mechanism",
    states="""What is counted otherwise on purpose is listed by name, and shows: attention of a prefill takes half the
        operations, flash attention writes S x d instead of twice S x S values, and reads keys once per KV head""",
)
def deviations_listed(lab: Lab) -> Finding:
    from ridgeline.analytical.llm_viewer import DEFECTS
    from ridgeline.analytical.operators import Attention

    fused = _rows("prefill", flash=True)["fused_attention"]
    grouped = _rows("decode", flash=True, of="llama-3-8b")["fused_attention"]
    ours = Attention(
        batch=1, q_heads=32, kv_heads=32, q_length=TOKENS, kv_length=TOKENS, head_dim=128, causal=True,
        precision="float16",
    )  # fmt: skip
    products = {key.unit: value for key, value in ours.expected_work().operations.items()}["matrix"]
    theirs_flop = 4.0 * TOKENS**2 * 128 * 32
    written = TOKENS * 128 * 32 * 2
    shows = {
        "no causal mask": theirs_flop / products,
        "flash output": fused.store_activation_bytes / written,
        # Llama-3-8B has 8 KV heads for 32 query heads; a decode step has one block of queries.
        "flash loses GQA": grouped.load_kv_bytes / (2 * TOKENS * 128 * 8 * 2),
    }
    missing = [name for name in shows if name not in DEFECTS or not shows[name] > 1.9]
    return Finding(
        passed=not missing,
        text=f"{len(DEFECTS)} listed: {', '.join(DEFECTS)}; theirs over ours: "
        + ", ".join(f"{name} {factor:.3g}x" for name, factor in shows.items())
        + (f"; not shown: {', '.join(missing)}" if missing else ""),
    )


@check(
    "llm-viewer",
    "hardware-importable",
    kind="mechanism",
    states="Every row of its hardware table becomes ceilings with units and source, and gives both stages a time",
)
def hardware_importable(lab: Lab) -> Finding:
    from ridgeline.analytical.architectures import load_architecture
    from ridgeline.analytical.ceilings import Rate
    from ridgeline.analytical.llm_viewer import HARDWARE, STAGES, analyse, ceilings_of, dimensions, total_s

    model = dimensions(load_architecture("llama-2-7b"))
    wrong, shown = [], []
    for name, row in HARDWARE.items():
        times = [total_s(analyse(model, row, stage, sequence=TOKENS)) for stage in STAGES]
        # Outside of these a giga or a tera was lost on the way.
        plausible = all(
            (5e11 if isinstance(ceiling, Rate) else 5e10)
            < ceiling.value_per_s
            < (1e16 if isinstance(ceiling, Rate) else 1e13)
            for ceiling in ceilings_of(name)
        )
        if not plausible or not 0.0 < times[1] < times[0]:
            wrong.append(name)
        shown.append(f"{name} {times[0] * 1e3:.3g} and {times[1] * 1e3:.3g}")
    return Finding(
        passed=not wrong,
        value=float(len(HARDWARE) - len(wrong)),
        threshold=float(len(HARDWARE)),
        text="prefill and decode of Llama-2-7B, ms: "
        + ", ".join(shown)
        + (f"; not: {', '.join(wrong)}" if wrong else ""),
    )
