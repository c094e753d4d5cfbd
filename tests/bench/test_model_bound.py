"""``ridgeline model bound``, in process."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from ridgeline.analytical.operators import parameters_from_text
from ridgeline.analytical.problem import ProblemError
from ridgeline.bench import cli

H100 = ("--device", "nvidia-h100-sxm5-80gb")
GEMM = ("gemm", "m=4096,n=4096,k=4096,precision=bfloat16")
FLOP = 2.0 * 4096**3


def bounds(*arguments: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(cli.app, ["model", "bound", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return list(json.loads(done.stdout))


def test_a_large_product_waits_for_the_matrix_unit_and_a_narrow_one_for_memory() -> None:
    (large,) = bounds(*GEMM, *H100)
    assert (large["bound_by"], large["limits"][0]["share"]) == ("matrix bfloat16", 1.0)
    assert large["bound_s"] == pytest.approx(FLOP / 989.4e12, rel=1e-3)
    assert large["flop"] == FLOP
    assert large["measured"] is None
    (narrow,) = bounds("gemm", "m=1,n=4096,k=4096,precision=bfloat16", *H100)
    assert narrow["limits"][0]["kind"] == "memory"
    # With the bandwidth that it would take, memory and unit need the same time.
    matrix = next(row["seconds"] for row in narrow["limits"] if row["kind"] == "unit")
    assert narrow["bytes"] / narrow["compute_bound_from_bytes_per_s"] == pytest.approx(matrix)
    assert narrow["serial_s"] == pytest.approx(sum(row["seconds"] for row in narrow["limits"]))


def test_devices_come_in_the_order_asked_for() -> None:
    found = bounds(*GEMM, "--device", "nvidia-a100-sxm4-80gb", *H100)
    assert [one["device"] for one in found] == ["nvidia-a100-sxm4-80gb", "nvidia-h100-sxm5-80gb"]
    assert found[0]["bound_s"] > found[1]["bound_s"]


def test_a_measured_time_is_split_into_causes_that_add_up() -> None:
    (found,) = bounds(*GEMM, *H100, "--measured", "3e-4", "--launch", "3e-6", "--clock", "1400", "--moved", "2e8")
    gap = found["measured"]
    assert gap["ideal_s"] + sum(gap["parts_s"].values()) == pytest.approx(3e-4)
    assert gap["parts_s"]["overhead"] == pytest.approx(3e-6)
    assert gap["parts_s"]["clock"] > 0.0
    assert set(gap["unknown"]) == {"tile quantisation", "wave quantisation"}


def test_the_power_roof_is_a_limit_of_its_own() -> None:
    (found,) = bounds(*GEMM, *H100, "--j-per-flop", "1e-11", "--j-per-byte", "0", "--limit-w", "700")
    power = next(row for row in found["limits"] if row["kind"] == "power")
    assert found["bound_by"] == "power"
    assert power["seconds"] >= 1e-11 * FLOP / 700.0


def test_people_get_the_same_in_words() -> None:
    done = CliRunner().invoke(cli.app, ["model", "bound", *GEMM, *H100, "--measured", "3e-4"])
    assert done.exit_code == 0, done.output
    for words in ("137.4 GFLOP", "bound by matrix bfloat16", "of main memory on", "overhead is in the residual"):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gem", "m=1", *H100), "unknown operator 'gem'"),
        (("gemm", "m", *H100), "problem: 'm' is no key=value"),
        (("gemm", "{m: 1}", *H100), "problem: not JSON"),
        (("gemm", '{"m": [1]}', *H100), "its values must be numbers"),
        (("gemm", "m=1,n=1,precision=int8", *H100), "k: gemm needs it"),
        ((*GEMM, "--device", "h1000"), "no device is called 'h1000'"),
        ((*GEMM, *H100, "--level", "L9"), "no memory level 'L9'"),
        ((*GEMM, *H100, "--measured", "0"), "a measured time of 0 s is none"),
        ((*GEMM, *H100, "--measured", "1", "--moved", "5"), "less than the compulsory bytes"),
        ((*GEMM, *H100, "--j-per-flop", "1"), "needs both"),
        ((*GEMM, *H100, "--limit-w", "1"), "alone is no power roof"),
        ((*GEMM, *H100, "--j-per-flop", "1", "--j-per-byte", "1", "--limit-w", "0"), "nothing is left for the work"),
        (("gemm", "m=1,n=1,k=1,precision=float8_e4m3fn", "--device", "nvidia-a100-sxm4-80gb"), ""),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["ridgeline", "model", "bound", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1), err
    assert words in err


def test_parameters_are_read_as_people_write_them() -> None:
    assert parameters_from_text("m=64,precision=float32,causal=true") == {
        "m": 64,
        "precision": "float32",
        "causal": True,
    }
    assert parameters_from_text('{"m": 64}') == {"m": 64}
    with pytest.raises(ProblemError):
        parameters_from_text("m=")
