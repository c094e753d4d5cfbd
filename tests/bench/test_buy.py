"""``ridgeline buy`` as a command: reports, exit codes, one line for bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ridgeline.bench.buy_command import run_buy
from ridgeline.bench.refusals import REFUSALS

SCENARIO = """
name = "small"
as_of = "2026-06-15"
draws = 1000
requests = 250

[[traffic]]
model = "llama-3.1-8b"
requests_per_s = 30.0
input = 300
output = 40
levels = [{ metric = "ttft", percentile = 90, limit_s = LIMIT }]

[[candidates]]
device = "nvidia-h100-sxm5-80gb"

[[prices]]
device = "nvidia-h100-sxm5-80gb"
basis = "rent_per_hour"
usd = 2.0
date = "2026-06"
"""
SECOND = """
[[candidates]]
device = "nvidia-h200-sxm-141gb"

[[prices]]
device = "nvidia-h200-sxm-141gb"
basis = "rent_per_hour"
usd = 2.2
date = "2026-06"
"""


def scenario(tmp_path: Path, text: str, limit: str = "1.0") -> Path:
    path = tmp_path / "s.toml"
    path.write_text(text.replace("LIMIT", limit))
    return path


def test_an_answer_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.md"
    run_buy(scenario(tmp_path, SCENARIO), True, report)  # exit code 0: it returns
    printed = capsys.readouterr()
    values = json.loads(printed.out)
    assert values["best"] == "nvidia-h100-sxm5-80gb"
    assert values["options"][0]["devices"]["p50"] >= 1.0
    assert report.read_text().startswith("# small\n")
    run_buy(scenario(tmp_path, SCENARIO), False, None)
    assert capsys.readouterr().out.startswith("# small\n")


def test_options_that_evidence_cannot_separate_are_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_buy(scenario(tmp_path, SCENARIO + SECOND), True, None)
    assert ended.value.code == 3
    values = json.loads(capsys.readouterr().out)
    assert values["best"] is None
    assert values["ranks"] is False
    assert values["measure"]


def test_levels_that_nothing_meets_are_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_buy(scenario(tmp_path, SCENARIO, "0.001"), True, None)
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "times as long" in printed.err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("llama-3.1-8b", "llama-9", "no built-in model"),
        ("llama-3.1-8b", "absent/config.json", "absent/config.json"),
        ("nvidia-h100-sxm5-80gb", "h100", "unknown device"),
        ('date = "2026-06"', "", "without a date"),
        ("requests_per_s", "requests", "no such key"),
        ("llama-3.1-8b", "llama-3.1-405b", "does not fit"),
    ],
)
def test_bad_input_is_one_refusal(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(REFUSALS, match=said) as refused:
        run_buy(scenario(tmp_path, SCENARIO.replace(old, new)), False, None)
    assert "\n" not in str(refused.value)


def test_the_page_names_every_key_of_a_scenario() -> None:
    from ridgeline.analytical.purchase import scenario as parts

    page = (Path(__file__).parents[2] / "docs" / "buy.md").read_text()
    for model in (parts.Traffic, parts.Candidate, parts.PriceOf, parts.PowerOf, parts.Costs, parts.Evidence):
        for name in model.model_fields:
            assert f"`{name}`" in page, f"docs/buy.md does not name {name}"
