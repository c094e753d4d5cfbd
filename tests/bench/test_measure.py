"""Callables of the user's own: in this process, and through the command in a worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ridgeline_process import SOURCE, Run

import ridgeline
from ridgeline.analytical.ceilings import Bandwidth, Source
from ridgeline.analytical.device import Device, MemoryLevel
from ridgeline.analytical.work import Work, fma_key
from ridgeline.bench.callables import CallableLaunches

FILE = """
import os, sys, time
from beside import SECONDS

def work():
    time.sleep(SECONDS)

def take(n, text):
    assert text in ("a", "b") and n in (1, 2)

def given():
    return [(1, "a"), (2, "b")]

def broken():
    raise ValueError("no input file")

def dies():
    os.kill(os.getpid(), 11)

print("a file that prints")
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mine") / "mine.py"
    path.write_text(FILE)
    (path.parent / "beside.py").write_text("SECONDS = 0.002")
    return path


def test_arguments_are_used_in_turn() -> None:
    seen: list[tuple[int, ...]] = []
    launches = CallableLaunches(lambda *a: seen.append(a), [(1,), (2,), (3,)])
    launches.launch(2)
    launches.launch(3)
    assert seen == [(1,), (2,), (3,), (1,), (2,)]


def test_a_callable_is_measured_in_this_process_with_rates_and_a_bound() -> None:
    before = os.sched_getaffinity(0)
    source = Source(title="t", detail="d")
    level = MemoryLevel(name="DRAM", capacity_bytes=1e12)
    rates = {"low_per_s": 1e9, "high_per_s": 1e9, "kind": "measured", "source": source}
    roofs = Device(
        id="d", name="d", vendor="v", kind="cpu", memory=(level,),
        bandwidths=(Bandwidth(level="DRAM", value_per_s=1e9, **rates),),  # type: ignore[arg-type]
    )  # fmt: skip
    work = Work({fma_key("float32"): 4e3}, {"activations": 1e3})
    got = ridgeline.measure(lambda: sum(range(20_000)), work=work, budget_s=1.0, target_relative=0.5, roofs=roofs)
    assert got.median_s > 0.0
    assert got.flop_per_s == pytest.approx(4e3 / got.median_s)
    assert got.bytes_per_s == pytest.approx(1e3 / got.median_s)
    assert got.bound_s == pytest.approx(1e3 / 1e9)
    assert got.roof_fraction == pytest.approx(1e-6 / got.median_s)
    assert len(got.conditions) == len(got.samples_s)
    assert os.sched_getaffinity(0) == before


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="threads: 9999"):
        ridgeline.measure(lambda: None, threads=9999)
    with pytest.raises(ValueError, match="unknown device 'tpu'"):
        ridgeline.measure(lambda: None, device="tpu")
    with pytest.raises(ValueError, match="target_relative"):
        ridgeline.measure(lambda: None, target_relative=0.0)


def test_the_timer_core_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "import ridgeline\n"
        "m = ridgeline.measure(lambda: sum(range(1000)), budget_s=0.1)\n"
        "assert m.median_s > 0; print(*(n in sys.modules for n in ('torch', 'pandas', 'pyarrow')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False"] * 3


def test_the_command_measures_a_function_in_a_worker(started_command: Run, file: Path, tmp_path: Path) -> None:
    asked = [f"{file}:work", "--budget", "0.6", "--target", "40", "--store", tmp_path / "s", "--json"]
    done = started_command("measure", *asked, "--bytes", "1e6")
    document = json.loads(done.stdout)
    assert done.returncode == {"ok": 0, "unstable": 3}[document["status"]]
    assert document["median_s"] >= 0.002
    assert document["bytes_per_s"] == pytest.approx(1e6 / document["median_s"])
    assert document["roof_fraction"] is None
    assert len(document["samples_s"]) == len(document["conditions"])
    assert not (tmp_path / "s").exists()


def test_arguments_come_from_a_function_of_the_file(ridgeline_command: Run, file: Path) -> None:
    done = ridgeline_command("measure", f"{file}:take", "--arguments", "given", "--budget", "0.5", "--target", "90")
    assert f"{file}:take: " in done.stdout
    assert "results not checked" in done.stdout


@pytest.mark.parametrize(
    ("function", "said"),
    [("broken", "crashed: ValueError: no input file"), ("dies", "crashed: killed by SIGSEGV")],
)
def test_a_fault_of_the_function_is_a_status(ridgeline_command: Run, file: Path, function: str, said: str) -> None:
    done = ridgeline_command("measure", f"{file}:{function}")
    assert done.returncode == 4
    assert said in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mine.py"], "'mine.py': write FILE.py:function"),
        (["nowhere.py:f"], "nowhere.py: cannot be read: No such file or directory"),
        (["{file}:walk"], "no function 'walk': it defines work, take, given, broken, dies"),
        (["{file}:work", "--arguments", "missing"], "no function 'missing'"),
        (["{file}:work", "--flop", "-3"], "--flop: -3 is no amount of work"),
        (["{file}:work", "--target", "0"], "--target: "),
        (["{file}:work", "--device", "tpu"], "unknown device 'tpu'"),
    ],
)
def test_bad_input_is_one_line(ridgeline_command: Run, file: Path, arguments: list[str], said: str) -> None:
    done = ridgeline_command("measure", *(a.format(file=file) for a in arguments))
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_that_is_not_python_is_named_with_its_line(ridgeline_command: Run, tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("x = 1\ndef f(:\n")
    done = ridgeline_command("measure", f"{path}:f")
    assert done.returncode == 2
    assert f"{path}:2: not Python" in done.stderr
