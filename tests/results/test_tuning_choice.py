"""Which configuration a search chooses, from what it measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synthetic import blocks, make_device, make_manifest, make_measurement

from ridgeline.results.measurement import Measurement
from ridgeline.results.store import Store
from ridgeline.results.tuning import choices, stored_choices


def tried(config: dict[str, int], time_s: float, status: str = "ok", **more: Any) -> Measurement:
    timed = {"samples_s": blocks(time_s, 0.01, 11)} if status in ("ok", "unstable") else {}
    key = "default" if not config else f"with {config}"
    case: dict[str, Any] = {"case_id": "case", "content_key": key, "role": "tuning", "config": config, "status": status}
    return make_measurement(**{**case, **timed, **more})


def test_a_configuration_that_is_surely_faster_is_chosen() -> None:
    (choice,) = choices([tried({"a": 1}, 0.009), tried({}, 0.010), tried({"a": 2}, 0.007), tried({"a": 3}, 0.012)])
    assert (choice.config, choice.content_key, choice.tried) == ({"a": 2}, "default", 4)
    assert choice.ratio is not None
    assert abs(choice.ratio - 10 / 7) < 0.01


def test_the_default_stays_where_nothing_is_surely_faster() -> None:
    (choice,) = choices([tried({}, 0.0100), tried({"a": 1}, 0.0099), tried({"a": 2}, 0.02)])
    assert (choice.config, choice.ratio) == ({}, 1.0)


def test_wrong_and_failed_candidates_are_never_chosen() -> None:
    wrong = [
        tried({"a": 1}, 0.001, "incorrect"),
        tried({"a": 2}, 0.001, "crashed"),
        tried({"a": 3}, 0.02, "unsupported"),
    ]
    (choice,) = choices([tried({}, 0.010), *wrong])
    assert (choice.config, choice.tried) == ({}, 1)
    (choice,) = choices([tried({}, 0.0, "unsupported"), tried({"a": 1}, 0.01)])
    assert (choice.config, choice.ratio) == ({"a": 1}, None), "a default that cannot run is no reason to keep it"
    assert choices([tried({}, 0.0, "crashed"), *wrong]) == []
    assert choices([tried({"a": 1}, 0.01)]) == [], "a search without its default was interrupted"


def test_the_newest_finished_search_of_the_store_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number, (time_s, finish) in enumerate(((0.005, True), (0.004, True), (0.003, False))):
        manifest = make_manifest(
            run_id=f"2026112{number}T000000Z-00000000", suite="tune quick", plan_digest=str(number)
        )
        with store.create(manifest, make_device()) as writer:
            writer.append(tried({}, 0.010, run_id=manifest.run_id))
            writer.append(tried({"a": number}, time_s, run_id=manifest.run_id))
            if finish:
                writer.finish()
    found = stored_choices(store)
    assert found["default"].config == {"a": 1}
    assert set(found) == {"default"}
