"""The page Compiled code."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import make_manifest
from test_compile_record import FAILURE, code
from test_pages import figure, open_page, values, words

from ridgeline.dashboard.figures.issue import issue_bars
from ridgeline.results.deposit import deposit
from ridgeline.results.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    opened = Store(tmp_path_factory.mktemp("compiled"))
    records = [
        code(record_id="r0"), code(record_id="r1", target="sm_80", spills_bytes=8),
        code(record_id="r2", target="gfx942", shared_bytes=81920, loop_results={"vector": 6400.0}),
        code(record_id="r3", label="gemm int8 4x4", **FAILURE),
    ]  # fmt: skip
    for night, registers in ((6, 200), (7, 168)):
        run_id = f"2026112{night}T000000Z-00000000"
        kept = [
            r.model_copy(update={"run_id": run_id, **({"registers": registers} if r.registers else {})})
            for r in records
        ]
        deposit(opened, make_manifest(run_id=run_id, suite="compile", device=""), kept, None)
    return opened.path


def test_the_newest_code_of_each_kernel_is_shown(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("compiled", store, monkeypatch)
    assert "compiled, not run" in words(app)
    table = app.dataframe[0].value
    assert set(table["target"]) == {"sm_90"}, "until the reader chooses"
    app.multiselect(key="target").set_value([]).run()
    table = app.dataframe[0].value.set_index(["target", "kernel"])
    assert len(table) == 4
    row = table.loc[("sm_90", "attention prefill softmax bf16 d128 128x128")]
    assert (row["registers"], row["roof, overlapped"], row["roof, serial"]) == (168, "100%", "57%")
    assert [m.value for m in app.metric] == ["4", "1", "1", "1"]
    assert "does not fit: too much of shared memory" in words(app)
    assert "the compiler died" in words(app)
    assert list(app.dataframe[1].value["opcode"]) == ["MUFU", "HGMMA"]


def test_bars_are_serial_and_the_mark_is_overlapped(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("compiled", store, monkeypatch, target="sm_90", operator="attention")
    parts = {trace["name"]: values(trace["x"])[0] for trace in figure(app)["data"]}
    assert parts["overlapped bound"] == pytest.approx(parts["matrix unit"])
    assert sum(x for name, x in parts.items() if name != "overlapped bound") == pytest.approx(100.0)
    assert not issue_bars([code(**FAILURE)]).data


def test_a_store_without_code_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Store(tmp_path)
    deposit(other, make_manifest(run_id="20261126T000000Z-00000000"), [], None)
    assert "`ridgeline compile`" in words(open_page("compiled", other.path, monkeypatch))
