"""The page Papers: all rows without any store, filters, and a row with its claims and evidence."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import make_device, make_manifest, make_measurement
from test_model_pages import open_page

from ridgeline.results.check import SUITE, PaperCheck
from ridgeline.results.ledger import load_ledger
from ridgeline.results.sources import check_hash
from ridgeline.results.store import Store

SOURCES = ("analytical/problem.py",)


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store in which every check of flashsigmoid on the CPU passed, but for a ratio that missed."""
    store = Store(tmp_path / "checked")
    monkeypatch.setenv("RIDGELINE_STORE", str(store.path))
    paper, manifest = load_ledger()["flashsigmoid"], make_manifest(suite=SUITE)
    with store.create(manifest, make_device()) as writer:
        for required in (check for check in paper.checks if check.on == "cpu"):
            ratio = required.kind == "ratio"
            writer.append(
                PaperCheck(
                    record_id=required.name, run_id=manifest.run_id, started_at="2026-11-27T00:00:00+00:00",
                    paper=paper.id, check=required.name, check_kind=required.kind, states=required.states,
                    status="failed" if ratio else "passed", value=1.25 if ratio else 2e-7,
                    threshold=1.0 if ratio else 1e-5, reason="bound by DRAM" if ratio else "", seconds=1.0,
                    placement=make_measurement().placement, threads=2, sources=SOURCES,
                    sources_hash=check_hash(SOURCES) or "", versions={},
                )
            )  # fmt: skip
        writer.finish()
    return store


def test_without_a_store_all_rows_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIDGELINE_STORE", str(tmp_path / "none"))  # not what whoever runs the tests has measured here
    app = open_page("papers")
    claims = sum(len(paper.claims) for paper in load_ledger().values())
    shown = {m.label: m.value for m in app.metric}
    assert shown == {"Papers": "79", "Rows that work": "0", "Checks shown": "0", "Claims": str(claims)}
    table = app.dataframe[0].value
    assert len(table) == 79
    assert set(table["state"]) == {"open"}
    app = open_page("papers", category=["analytical"])
    assert len(app.dataframe[0].value) == 4
    app = open_page("papers", family=["K3"], state=["works"])
    assert "Nothing matches the filter." in app.info[0].value


def test_a_row_shows_published_measured_and_modelled(checked: Store) -> None:
    app = open_page("papers", paper="flashsigmoid", state=["works"])
    (row,) = app.dataframe[0].value.to_dict("records")
    assert row["missing"] == "sigmoid-against-softmax: below its threshold"
    claim = app.table[0].value.loc["forward kernel speed-up"]
    assert (claim["published"], claim["verdict"]) == ("17 %", "predicted")
    assert claim["measured here"] == "-20 % on synthetic-cpu"
    assert "which is not the claim's hardware (H100)" in claim["why"]
    missed = app.table[1].value.loc["sigmoid-against-softmax"]
    assert (missed["state"], missed["value"], missed["seen"]) == ("failed", "1.25", "bound by DRAM")
    of_a_gpu = app.table[1].value.loc["gpu-faster-than-flash-attention-2"]
    assert (of_a_gpu["state"], of_a_gpu["seen"]) == ("not run", "needs a GPU: not run")


def test_an_unknown_paper_is_said(checked: Store) -> None:
    app = open_page("papers", paper="nothing")
    assert "No paper `nothing` here" in app.warning[0].value
