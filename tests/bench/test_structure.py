"""What a problem's seed realises: drawn once for all buffers, stored in the record, and counted there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ridgeline_process import Run

from ridgeline.analytical.operators import make_problem
from ridgeline.analytical.problem import Structure
from ridgeline.results.store import Store

SUITE = """
name = "blocks"
description = "one drawn structure"

[settings]
target_relative = 0.5
budget_s = 0.3
timeout_s = 60.0

[[case]]
operator = "block_sparse_attention"
cache = ["warm"]
implementations = ["torch_masked"]
problems = [{ batch = 1, q_heads = 2, kv_heads = 1, length = 64, head_dim = 16, block = 16, density = 0.5 }]
"""


def test_a_record_counts_the_structure_it_stores(ridgeline_command: Run, tmp_path: Path) -> None:
    suite = tmp_path / "blocks.toml"
    suite.write_text(SUITE)
    done = ridgeline_command("run", suite, "--store", tmp_path / "store", "--json", HOME=str(tmp_path))
    assert done.returncode in (0, 3), done.stderr
    (row,) = json.loads(done.stdout)
    assert row["status"] in ("ok", "unstable"), row["reason"]
    problem = make_problem("block_sparse_attention", row["problem"])
    realised = problem.work(Structure(row["structure_figures"]))
    assert set(row["structure_figures"]) == {"kept_blocks", "kept_pairs", "kept_keys"}
    assert len(row["structure_digest"]) == 16
    assert row["flop"] == realised.flop
    assert row["flop"] != problem.expected_work().flop  # half of the blocks, which is not what this seed drew
    (record,) = Store(tmp_path / "store").records(None)[0]
    assert record.model_dump()["structure_figures"] == row["structure_figures"]


def test_the_work_of_a_case_is_the_forecast_until_the_structure_is_known() -> None:
    problem = make_problem(
        "block_sparse_attention",
        {"batch": 1, "q_heads": 1, "kv_heads": 1, "length": 32, "head_dim": 8, "block": 16, "density": 0.5},
    )
    figures = {"kept_blocks": 2.0, "kept_pairs": 272.0, "kept_keys": 32.0}
    assert problem.known_work(Structure()) == problem.expected_work()
    assert problem.known_work(Structure(figures)).flop == 272 * 4 * 8
    with pytest.raises(ValueError, match="'kept_pairs'"):
        problem.known_work(Structure({"kept_blocks": 2.0}))
