"""Records: what contradicts itself cannot be built, and what is written is what is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from synthetic import make_measurement

from ridgeline.results.columns import read_parquet, schema, to_parquet
from ridgeline.results.fact import SCHEMA_VERSION
from ridgeline.results.journal import Journal, read_journal
from ridgeline.results.measurement import TIMED, Measurement
from ridgeline.results.record import KINDS, RecordError, record_from_dict, record_schema

FAILED = ("unsupported", "incorrect", "out_of_memory", "timeout", "crashed")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"status": "crashed", "reason": ""}, "status crashed needs a reason"),
        ({"status": "unstable", "reason": ""}, "status unstable needs a reason"),
        ({"samples_s": ()}, "needs samples in every block"),
        ({"samples_s": ((0.1,), ())}, "needs samples in every block"),
        ({"samples_s": ((0.1, 0.0),)}, "samples must be positive times"),
        ({"samples_s": ((0.1, -0.1),)}, "samples must be positive times"),
        ({"samples_s": ((float("nan"),),)}, "finite number"),
        ({"samples_s": ((float("inf"),),)}, "finite number"),
        ({"error_relative": None}, "needs an error against the reference"),
        ({"error_tolerance": None}, "needs an error against the reference"),
        ({"rows_checked": 0}, "needs an error against the reference"),
        ({"error_relative": 1e-4, "error_tolerance": 1e-5}, "an error above the tolerance is `incorrect`"),
        ({"energy_reason": ""}, "a missing energy figure needs its reason"),
        ({"status": "fast"}, "Input should be 'ok'"),
        ({"kind": "published"}, "Input should be 'measurement'"),
        ({"color": "blue"}, "Extra inputs are not permitted"),
        ({"structure_figures": {"kept": float("nan")}}, "finite number"),
        ({"launches_per_sample": 0}, "greater than or equal to 1"),
        ({"process": -1}, "greater than or equal to 0"),
        ({"protocol": {"timer": "t", "cache": "tepid", "threads": 1, "version": 1}}, "'cold' or 'warm'"),
        ({"protocol": {"timer": "t", "cache": "cold", "threads": 0, "version": 1}}, "greater than or equal to 1"),
        ({"placement": {"device": "d", "torch_device": "cpu"}}, "Field required"),
        ({"roofs_beside": ({"limit": "DRAM", "values_per_s": ()},)}, "at least 1 item"),
        ({"samples_s": ((0.1,), (0.1,)), "conditions": ({},)}, "conditions are one per block"),
        ({"samples_s": ((0.1,),), "left_out": ({"block": 1, "cause": "c"},)}, "must be one of samples_s, once"),
        ({"samples_s": ((0.1,),), "left_out": ({"block": 0, "cause": "c"},)}, "every block is left out"),
    ],
)
def test_contradictions_cannot_be_built(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make_measurement(**overrides)


@pytest.mark.parametrize("status", FAILED)
def test_a_failure_carries_no_samples(status: str) -> None:
    assert make_measurement(status=status).samples_s == ()
    with pytest.raises(ValidationError, match=f"status {status} must not carry samples"):
        make_measurement(status=status, samples_s=((0.1,),))


@pytest.mark.parametrize("status", sorted(TIMED - {"ok"}))
def test_timed_statuses_keep_their_samples(status: str) -> None:
    assert make_measurement(status=status).samples_s


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make_measurement().status = "crashed"  # type: ignore[misc]


def test_an_unknown_kind_and_a_newer_schema_say_so() -> None:
    values = make_measurement().model_dump(mode="json")
    with pytest.raises(RecordError, match=r"^here: unknown kind 'dream': one of measurement, "):
        record_from_dict({**values, "kind": "dream"}, "here")
    with pytest.raises(RecordError, match=rf"^here: schema {SCHEMA_VERSION + 1} is newer .*: upgrade ridgeline$"):
        record_from_dict({**values, "schema_version": SCHEMA_VERSION + 1, "kind": "dream"}, "here")
    with pytest.raises(RecordError, match=r"^here: not a record$"):
        record_from_dict([values], "here")
    with pytest.raises(RecordError, match=r"^here: samples_s.0.0: ") as caught:
        record_from_dict({**values, "samples_s": [["fast"]]}, "here")
    assert "\n" not in str(caught.value)


def test_the_json_schema_accepts_what_is_written() -> None:
    document = record_schema()
    jsonschema.Draft202012Validator.check_schema(document)
    values = make_measurement(roofs_beside=({"limit": "DRAM", "values_per_s": (1e10,)},)).model_dump(mode="json")
    jsonschema.validate(values, document)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**values, "status": "fast"}, document)
    described = {name for name, p in document["$defs"]["Measurement"]["properties"].items() if "description" in p}
    assert {"started_at", "samples_s", "energy_j", "baseline"} <= described


def test_every_field_has_a_column() -> None:
    assert set(schema().names) == {name for model in KINDS.values() for name in model.model_fields}


finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=1e-12, max_value=1e6)
text = st.text(max_size=20)
whole = st.integers(min_value=1, max_value=2**62)
scalar = st.one_of(st.integers(), finite, st.booleans(), text)


@st.composite
def measurements(draw: st.DrawFn) -> Measurement:
    status = draw(st.sampled_from(("ok", "unstable", "impossible", *FAILED)))
    overrides: dict[str, Any] = {
        "status": status,
        "role": draw(st.sampled_from(("case", "roof"))),
        "baseline": draw(text),
        "problem": draw(st.dictionaries(text, scalar, max_size=4)),
        "problem_label": draw(text),
        "papers": draw(st.lists(text, max_size=3)),
        "structure_figures": draw(st.dictionaries(text, finite, max_size=3)),
        "process": draw(whole),
        "launches_per_sample": draw(whole),
        "placement": {"device": draw(text), "torch_device": "cpu", "unit": draw(text), "ranks": draw(whole)},
        "roofs_beside": [
            {"limit": draw(text), "values_per_s": draw(st.lists(finite, min_size=1, max_size=3))}
            for _ in range(draw(st.integers(0, 2)))
        ],
        "interference": {
            "steal_s": draw(st.none() | finite),
            "involuntary_switches": draw(st.none() | whole),
        },
        "energy_j": draw(st.none() | finite),
        "peak_memory_bytes": draw(st.none() | finite),
    }
    if status in TIMED:
        block = st.lists(positive, min_size=1, max_size=5)
        blocks = overrides["samples_s"] = draw(st.lists(block, min_size=1, max_size=4))
        if draw(st.booleans()):
            overrides["conditions"] = [{"clock_mhz": draw(st.none() | positive)} for _ in blocks]
        if len(blocks) > 1:
            overrides["left_out"] = [{"block": draw(st.integers(0, len(blocks) - 1)), "cause": draw(text)}]
    if status != "ok":
        overrides["reason"] = draw(st.text(min_size=1, max_size=40))
    return make_measurement(**overrides)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(records=st.lists(measurements(), max_size=3))
def test_journal_and_parquet_give_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, records: list[Measurement]
) -> None:
    folder: Path = tmp_path_factory.mktemp("round")
    journal = Journal(folder / "journal.jsonl")
    for record in records:
        journal.append(record)
    journal.close()
    assert read_journal(folder / "journal.jsonl") == (records, [])
    (folder / "records.parquet").write_bytes(to_parquet(records, "here"))
    back = read_parquet(folder / "records.parquet")
    assert back == records
    # Equality takes 1, 1.0 and True for the same; the text does not.
    assert [json.dumps(r.problem) for r in back] == [json.dumps(r.problem) for r in records]


def test_a_measurement_of_schema_1_is_read() -> None:
    values = make_measurement(interference={"steal_s": 0.5}).model_dump(mode="json")
    for name in ("conditions", "left_out", "peak_device_memory_bytes", "kernel_s", "kernels_per_launch"):
        del values[name]
    record = record_from_dict({**values, "schema_version": 1}, "here")
    assert isinstance(record, Measurement)
    assert record.schema_version == 1
    assert record.used_samples_s == record.samples_s


def test_blocks_that_are_left_out_do_not_count() -> None:
    record = make_measurement(samples_s=((1.0,), (9.0,), (2.0,)), left_out=({"block": 1, "cause": "power limit"},))
    assert record.used_samples_s == ((1.0,), (2.0,))
