"""Records of one case pooled over fresh processes: what is used, and why the rest is not."""

from __future__ import annotations

from synthetic import make_measurement

from ridgeline.results.pooling import pool


def test_processes_of_a_case_are_pooled_and_other_cases_are_not() -> None:
    records = [make_measurement(run_id="r", case_id=c, process=p, content_key="k") for p in range(2) for c in "ab"]
    a, b = pool(records)
    assert (a.case_id, b.case_id) == ("a", "b")
    assert [r.process for r in a.used] == [0, 1]
    assert a.summary is not None
    assert len(a.summary.processes) == 2
    assert a.left_out == ()


def test_what_is_left_out_is_named_with_its_reason() -> None:
    failed = {"status": "crashed", "reason": "signal 11", "samples_s": ()}
    records = [
        make_measurement(run_id="r", case_id="a", process=0, content_key="old"),
        make_measurement(run_id="r", case_id="a", process=1, content_key="old"),
        make_measurement(run_id="r", case_id="a", process=0, content_key="new"),
        make_measurement(run_id="r", case_id="a", process=2, content_key="new", **failed),
    ]
    (case,) = pool(records)
    assert case.used == (records[2],)
    assert [reason for _, reason in case.left_out] == [
        "measured again later",
        "of other code than the latest record of the case",
        "crashed: signal 11",
    ]


def test_a_case_that_was_never_timed_has_no_summary() -> None:
    failed = make_measurement(run_id="r", case_id="a", status="timeout", reason="killed after 120 s", samples_s=())
    assert pool([failed])[0].summary is None
    assert pool([]) == ()
