"""``ridgeline list devices`` and ``ridgeline model device``: the catalogue for people and for programs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ridgeline.analytical.catalogue import OWN_DEVICES, DeviceError, catalogue, find_device
from ridgeline.bench.cli import app
from ridgeline.bench.listing import print_listing

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "add-a-device.md"


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The example of the document, as the file that a user writes."""
    code = re.search(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    path = tmp_path / "acme-one-80gb.toml"
    path.write_text(code.group(1), encoding="utf-8")
    return path


def listed(capsys: pytest.CaptureFixture[str], as_json: bool) -> tuple[str, str]:
    print_listing("devices", None, [], as_json)
    printed = capsys.readouterr()
    return printed.out, printed.err


def test_the_list_begins_with_this_machine_and_holds_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = listed(capsys, as_json=True)
    rows = json.loads(out)
    assert err == ""
    assert [row["here"] for row in rows] == [True] + [False] * len(catalogue())
    assert [row["device"] for row in rows[1:]] == list(catalogue())
    h100 = next(row for row in rows if row["device"] == "nvidia-h100-sxm5-80gb")
    assert h100["bfloat16_flop_per_s"] == 989.4e12
    assert (h100["float8_flop_per_s"], h100["float8"]) == (1978.9e12, "float8_e4m3fn")
    assert (h100["link"], h100["link_per_direction_bytes_per_s"]) == ("nvlink", 450e9)
    assert (h100["tdp_w"], h100["confidence"], h100["origin"]) == (700.0, "high", "shipped")
    assert h100["rent_low_usd_per_hour"] < h100["rent_high_usd_per_hour"]
    a100 = next(row for row in rows if row["device"] == "nvidia-a100-sxm4-80gb")
    assert (a100["float8_flop_per_s"], a100["float8"]) == (None, None), "what there is not is null, never 0"
    mi300 = next(row for row in rows if row["device"] == "amd-instinct-mi300x")
    assert mi300["float8"] == "float8_e4m3fnuz"


def test_the_table_fits_and_shows_a_dash_for_what_nobody_stated(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = listed(capsys, as_json=False)
    assert max(map(len, out.splitlines())) <= 200
    (a100,) = [line for line in out.splitlines() if "nvidia-a100-sxm4-80gb" in line]
    assert [cell.strip() for cell in a100.split("│")[1:-1]] == [
        "nvidia-a100-sxm4-80gb", "2020", "80", "2,039", "312", "-", "300", "400", "0.80 to 3.00", "high",
    ]  # fmt: skip
    assert "None" not in out
    assert "nan" not in out


def test_a_users_file_is_listed_with_its_place_and_with_what_is_wrong(
    example: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OWN_DEVICES, str(example.parent))
    out, err = listed(capsys, as_json=True)
    (row,) = [row for row in json.loads(out) if row["device"] == "acme-one-80gb"]
    assert (row["origin"], err) == (str(example), "")
    example.write_text(example.read_text().replace("64e9", "64"))
    out, err = listed(capsys, as_json=False)
    assert re.fullmatch(rf"ridgeline: {example}: units: pcie: 64 bytes per second is not .*\n", err)
    assert "from" in out


def test_the_example_of_the_document_is_a_device_and_plausible(example: Path) -> None:
    device = find_device(str(example))
    shown = CliRunner().invoke(app, ["model", "device", str(example)])
    assert shown.exit_code == 0
    assert "implausible" not in shown.stdout
    assert "matrix float16 into float16" in shown.stdout
    assert "819.2 T/s at 2000 MHz" in shown.stdout
    assert device.id == example.stem
    text = DOCUMENT.read_text(encoding="utf-8")
    assert len(re.findall(r"^\d+\. ", text, re.MULTILINE)) <= 10, "ten lines"


def test_one_device_shows_every_figure_with_its_source() -> None:
    shown = CliRunner().invoke(app, ["model", "device", "rtx-4090"])
    assert shown.exit_code == 0
    for text in (
        "nvidia-geforce-rtx-4090",
        "GDDR bandwidth",
        "matrix float8_e4m3fn into float16",
        "matrix bfloat16 2:4",
        "each way",
        "rent per hour, 2026-05",
        "NVIDIA Ada GPU Architecture whitepaper",
        "bfloat16 is bound by arithmetic from 164 FLOP per byte of GDDR",
    ):
        assert text in shown.stdout, text
    as_json = CliRunner().invoke(app, ["model", "device", "rtx-4090", "--json"])
    assert json.loads(as_json.stdout) == find_device("rtx-4090").to_dict()


def test_a_slip_in_a_file_is_pointed_at(example: Path) -> None:
    example.write_text(example.read_text().replace("819.2e12", "900e12"))
    shown = CliRunner().invoke(app, ["model", "device", str(example)])
    assert "implausible: clock: matrix bfloat16 is 4500 operations a clock of each unit" in shown.stdout


@pytest.mark.parametrize("name", ["h1000", "nvidia-h100", "nowhere.toml"])
def test_an_unknown_device_is_refused(name: str) -> None:
    refused = CliRunner().invoke(app, ["model", "device", name])
    assert isinstance(refused.exception, DeviceError), "one line and code 2, by main()"
    assert refused.stdout == ""
