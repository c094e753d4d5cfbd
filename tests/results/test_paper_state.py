"""The state of a paper's row follows from stored records of checks, on the present source of their code, and from no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from synthetic import make_device, make_manifest, make_measurement

from ridgeline.analytical.claim_models import MODELS, Modelled
from ridgeline.results.check import SUITE, PaperCheck
from ridgeline.results.ledger import Paper
from ridgeline.results.pack import add, pack
from ridgeline.results.paper_pages import index_of, page_of, plot_of
from ridgeline.results.paper_state import PaperState, states_of, stored_checks
from ridgeline.results.store import Store

H100 = "nvidia-h100-sxm5-80gb"
CLAIM = {
    "metric": "speed", "value": 2.0, "unit": "x", "baseline": "b", "hardware": "H100", "condition": "c",
    "source": "abstract", "verified": True, "check": "faster", "devices": [H100],
}  # fmt: skip
PAPER: dict[str, Any] = {
    "id": "a", "number": 1, "title": "A", "category": "K", "families": ["K1"], "mechanism": "m", "claim": [CLAIM],
    "check": [
        {"name": "agrees", "kind": "correctness", "states": "it agrees"},
        {"name": "faster", "kind": "ratio", "states": "it is faster"},
    ],
}  # fmt: skip


def check(name: str, status: str = "passed", at: int = 0, device: str = "synthetic-cpu", **changes: Any) -> PaperCheck:
    ratio = {"value": 2.5, "threshold": 2.0, "unit": "x"} if name == "faster" and status in ("passed", "failed") else {}
    values: dict[str, Any] = {
        "record_id": f"{name}{at}", "run_id": "r", "started_at": f"2026-11-27T0{at}:00:00+00:00", "paper": "a",
        "check": name, "check_kind": "ratio" if name == "faster" else "correctness", "states": "s", "status": status,
        "reason": "" if status == "passed" else "why not", "seconds": 1.0, "threads": 2,
        "placement": make_measurement().placement.model_copy(update={"device": device}),
        "sources": ("bench/paper_checks/frame.py",), "sources_hash": "now", "versions": {"torch": "2"}, **ratio,
    }  # fmt: skip
    return PaperCheck.model_validate({**values, **changes})


def state(*records: PaperCheck, paper: dict[str, Any] | None = None) -> PaperState:
    (found,) = states_of([Paper.model_validate(paper or PAPER)], records, lambda sources: "now")
    return found


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"status": "failed", "reason": ""}, "failed needs a text or a reason"),
        ({"status": "crashed", "value": 1.0, "reason": "r"}, "must not carry a value"),
        ({"status": "timeout", "reason": ""}, "timeout needs a reason"),
        ({"threshold": 1.0}, "a threshold needs the value"),
        ({"check_kind": "ratio"}, "a ratio needs a value"),
        ({"check_kind": "ratio", "status": "failed", "value": 1.0, "text": "t"}, "the roofline's reason"),
        ({"value": float("nan")}, "finite"),
        ({"sources": ()}, "sources"),
    ],
)  # fmt: skip
def test_a_check_that_contradicts_itself_cannot_be_built(changes: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValidationError, match=wrong):
        check("agrees", **changes)


def test_a_row_works_when_all_passed_and_ratios_were_measured() -> None:
    assert state().state == "open"
    assert state().missing[0] == "agrees: not run"
    assert state(check("agrees")).missing == ("faster: not run",)
    assert state(check("agrees"), check("faster")).state == "works"


def test_a_ratio_that_misses_keeps_no_row_open_and_is_listed() -> None:
    found = state(check("agrees"), check("faster", "failed", value=1.5, reason="bound by DRAM"))
    assert found.state == "works"
    (missed,) = found.to_dict()["ratios_missed"]
    assert (missed["check"], missed["value"], missed["reason"]) == ("faster", 1.5, "bound by DRAM")
    for status in ("unsupported", "crashed", "timeout"):  # not measured
        found = state(check("agrees"), check("faster", status))
        assert (found.state, found.to_dict()["ratios_missed"]) == ("open", [])
        assert found.missing == (f"faster: {status} on synthetic-cpu: why not",)


GPU_PAPER: dict[str, Any] = {
    **PAPER,
    "claim": [{**CLAIM, "gpu_check": "gpu-faster"}],
    "check": [*PAPER["check"], {"name": "gpu-faster", "kind": "ratio", "states": "it is faster there", "on": "cuda"}],
}


def gpu_faster(status: str, value: float) -> PaperCheck:
    return check(
        "gpu-faster", status, device=H100, check_kind="ratio", value=value, threshold=2.0, unit="x", text="seen",
    )  # fmt: skip


def test_a_check_of_a_gpu_keeps_no_row_open_and_gives_the_claim_its_figure() -> None:
    here = (check("agrees"), check("faster"))
    without = state(*here, paper=GPU_PAPER)
    assert (without.state, without.missing, len(without.deciding)) == ("works", (), 2)
    assert without.checks[2].why == "needs a GPU: not run"
    assert without.claims[0].measured_value == 2.5, "where it was not run, the CPU's figure stands there"
    found = state(*here, gpu_faster("failed", 1.2), paper=GPU_PAPER)
    assert found.state == "works"
    assert (found.claims[0].measured_value, found.claims[0].verdict) == (1.2, "not reproduced")
    assert [missed["check"] for missed in found.to_dict()["ratios_missed"]] == ["gpu-faster"]
    assert state(*here, gpu_faster("passed", 2.1), paper=GPU_PAPER).claims[0].verdict == "reproduced"
    assert state(gpu_faster("passed", 2.1), paper=GPU_PAPER).state == "open", "what decides is the CPU's"


def test_a_claim_names_checks_that_there_are() -> None:
    with pytest.raises(ValidationError, match="gpu_check: no check 'nowhere'"):
        Paper.model_validate({**PAPER, "claim": [{**CLAIM, "gpu_check": "nowhere"}]})


def test_other_kinds_must_pass() -> None:
    assert state(check("agrees", "failed"), check("faster")).missing == ("agrees: failed on synthetic-cpu: why not",)


def test_the_newest_on_the_present_source_counts() -> None:
    ratio = check("faster")
    assert state(check("agrees", "failed", 1), check("agrees", at=2), ratio).state == "works"
    assert state(check("agrees", at=1), check("agrees", "failed", 2), ratio).state == "open"
    older = state(check("agrees", at=1, sources_hash="before"), ratio)
    assert older.missing == ("agrees: checked on an older version (2026-11-27)",)
    assert older.checks[0].measured == ()
    # A change was made, checked and taken back.
    assert state(check("agrees", at=1), check("agrees", "failed", at=2, sources_hash="changed"), ratio).state == "works"


def test_a_failure_on_any_device_decides_and_unsupported_on_one_does_not() -> None:
    ratio = check("faster")
    assert state(check("agrees"), check("agrees", "unsupported", device=H100), ratio).state == "works"
    assert state(check("agrees"), check("agrees", "failed", device=H100), ratio).state == "open"


def test_what_is_not_built_says_what_it_needs() -> None:
    checks = [{**PAPER["check"][0], "needs": "an engine"}, PAPER["check"][1]]
    assert state(check("faster"), paper={**PAPER, "check": checks}).missing == ("agrees: needs an engine",)
    found = state(paper={**PAPER, "needs": "a kernel"})
    assert set(found.missing) == {"agrees: needs a kernel", "faster: needs a kernel"}
    assert found.claims[0].not_measured == "needs a kernel"


def claim_state(record: PaperCheck | None, **changes: Any) -> Any:
    found = state(*([record] if record else []), paper={**PAPER, "claim": [{**CLAIM, **changes}]})
    return found.claims[0]


def test_verdicts_are_of_the_claims_own_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    on_h100 = check("faster", device=H100)
    assert claim_state(on_h100).verdict == "reproduced"
    missed = claim_state(check("faster", "failed", device=H100, value=1.0, reason="bound by DRAM"))
    assert (missed.verdict, missed.why) == ("not reproduced", f"1 on {H100}: bound by DRAM")
    elsewhere = claim_state(check("faster"))
    assert elsewhere.verdict == "not comparable"
    assert elsewhere.why.endswith("; 2.5 on synthetic-cpu, which is not the claim's hardware (H100)")
    assert claim_state(check("faster"), anywhere=True).verdict == "reproduced"
    monkeypatch.setitem(MODELS, "m", lambda: Modelled(1.0, 1.2, "x", H100, "bytes"))
    predicted = claim_state(None, prediction="m")
    assert (predicted.verdict, predicted.why) == (
        "predicted",
        "the model allows 1 to 1.2x, less than is claimed: bytes",
    )


def test_a_time_ratio_becomes_the_gain_that_was_claimed() -> None:
    record = check("faster", device=H100, value=0.8, threshold=1.0)
    found = claim_state(record, measured_as="time_ratio", unit="%", value=17.0)
    assert found.measured_value == pytest.approx(25.0)
    assert found.verdict == "reproduced"


def test_claims_without_a_model_say_why() -> None:
    assert claim_state(None).not_modelled == "not modelled: the source states no shape to model"
    assert claim_state(None, hardware="not stated").why == "the source names no hardware"
    assert claim_state(None, value=None, states="fast").why == "it states no figure"


def test_stored_checks_survive_packing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    manifest = make_manifest(suite=SUITE, planned=2)
    with store.create(manifest, make_device()) as writer:
        for record in (check("agrees"), check("faster", "failed", value=1.5, reason="bound by DRAM 1/16")):
            writer.append(record.model_copy(update={"run_id": manifest.run_id}))
        writer.finish()
    run = store.runs()[0]
    assert (run.records, run.ok) == (2, 1)
    before = stored_checks(store)
    other = Store(tmp_path / "other")
    pack(store, run.run_id, tmp_path / "run.zip")
    add(other, tmp_path / "run.zip")
    after = stored_checks(other)
    assert [r.model_copy(update={"placement": before[0].placement}) for r in after] == before


def test_a_page_shows_the_row_and_a_plot_its_ratios() -> None:
    missed = state(check("agrees"), check("faster", "failed", value=1.5, reason="bound by DRAM | twice"))
    plot = plot_of(missed)
    assert plot is not None
    assert plot.startswith("<svg ")
    assert "1.5x of 2" in plot
    page = page_of(missed, "a.svg")
    assert "State: **works**." in page
    assert "![Ratios measured, over their thresholds](a.svg)" in page
    assert (
        r"| faster | ratio | it is faster | failed | 1.5x (2x) | bound by DRAM \| twice | synthetic-cpu, 2026-11-27 |"
        in page
    )
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in tables} == {8}, "every line has the columns of its header"
    assert plot_of(state()) is None
    assert "- faster: not run" in page_of(state())
    assert "1 of 1 work" in index_of([missed])
