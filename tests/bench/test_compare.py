"""Quads under a clock of our own, and `ridgeline compare` as a command."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ridgeline_process import Run

from ridgeline.analytical.comparison import log_ratios, sequential_interval, verdict
from ridgeline.bench.quads import MOST_LEFT_OUT, Quads, QuadSettings, measure_quads

TINY = "m=16,n=16,k=16,precision=float32"


class World:
    """Two sides whose launches take what they are told, on one clock; time passes nowhere else."""

    def __init__(self, a_s: float, b_s: float, noise: float = 0.01, drift_per_s: float = 0.0) -> None:
        self.now = 0.0
        self.random = random.Random(1)
        self.noise, self.drift_per_s = noise, drift_per_s
        self.sides = (_Side(self, a_s), _Side(self, b_s))
        self.order: list[int] = []
        self.arranged: list[int] = []

    def arrange(self, number: int) -> tuple[_Side, _Side]:
        self.arranged.append(number)
        self.now += 1e-3
        return self.sides

    def measure(
        self, budget_s: float = 5.0, margin: float = 0.02, interruption: Callable[[], str] = lambda: ""
    ) -> Quads:
        settings = QuadSettings(budget_s, margin, 0.99, seed=3)
        return measure_quads(self.arrange, settings, lambda: self.now, interruption)


class _Side:
    def __init__(self, world: World, seconds: float) -> None:
        self.world, self.seconds = world, seconds

    def begin(self, launches: int) -> None:
        assert launches >= 2

    def leg(self, launches: int) -> float:
        world = self.world
        world.order.append(world.sides.index(self))
        took = launches * self.seconds * (1.0 + world.drift_per_s * world.now) * world.random.gauss(1.0, world.noise)
        world.now += took + self.seconds
        return took

    def end(self) -> None:
        pass


def said(quads: Quads, margin: float = 0.02) -> str:
    values = log_ratios([quads.a_s[i] for i in quads.used], [quads.b_s[i] for i in quads.used])
    interval = sequential_interval(values, quads.looks)
    return verdict(interval.log_low, interval.log_high, margin)


@pytest.mark.parametrize(("b_s", "expected"), [(1.0e-3, "same"), (1.1e-3, "slower"), (0.9e-3, "faster")])
def test_a_clear_case_ends_long_before_its_budget(b_s: float, expected: str) -> None:
    world = World(1e-3, b_s)
    quads = world.measure(budget_s=60.0)
    assert said(quads) == expected
    assert quads.measured_s < 10.0
    assert len(quads.used) in quads.looks


def test_what_cannot_be_told_ends_with_its_budget() -> None:
    world = World(1e-3, 1.02e-3, noise=0.2)
    quads = world.measure(budget_s=2.0)
    assert said(quads) == "unclear"
    assert 1.9 <= world.now <= 2.5


def test_a_machine_that_slows_down_is_no_difference() -> None:
    assert said(World(1e-3, 1e-3, drift_per_s=0.5).measure(budget_s=20.0)) == "same"


def test_sides_begin_equally_often_and_buffers_change() -> None:
    world = World(1e-3, 1.02e-3, noise=0.1)
    quads = world.measure()
    assert abs(2 * sum(quads.a_first) - len(quads.a_first)) <= 1
    assert world.arranged == list(range(len(world.arranged)))
    assert len(world.arranged) > 3
    assert quads.arrangement == sorted(quads.arrangement)
    # The last quad is A B B A or B A A B, as it says.
    first = 0 if quads.a_first[-1] else 1
    assert world.order[-4:] == [first, 1 - first, 1 - first, first]


def test_interrupted_quads_do_not_count_unless_most_are() -> None:
    world = World(1e-3, 1e-3)
    always = world.measure(budget_s=3.0, interruption=lambda: "CPU time stolen by other guests")
    assert 0 < len(always.left_out) <= MOST_LEFT_OUT * len(always.a_s)
    assert set(always.left_out.values()) == {"CPU time stolen by other guests"}
    assert World(1e-3, 1e-3).measure(budget_s=3.0).left_out == {}


def test_two_kernels_are_compared_stored_and_shown(
    ridgeline_command: Run, started_command: Run, tmp_path: Path
) -> None:
    asked = ["gemm/torch", "gemm/numba", "--problem", TINY, "--seconds", "0.5", "--store", tmp_path / "s"]
    done = started_command("compare", *asked, "--json")
    document = json.loads(done.stdout)
    (record,) = document if isinstance(document, list) else document["comparisons"]
    assert record["kind"] == "comparison"
    assert done.returncode == {"slower": 1, "unclear": 3}.get(record["verdict"], 0)
    assert record["ratio"] > 0.0
    shown = ridgeline_command("show", "--store", tmp_path / "s", "--json")
    assert [row["verdict"] for row in json.loads(shown.stdout)] == [record["verdict"]]
    table = ridgeline_command("show", "--store", tmp_path / "s")
    assert record["verdict"] in table.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gemm/torch", "gemm/tortch", "--problem", TINY], "unknown implementation 'tortch' of gemm: one of "),
        (["gemm/torch", "attention/torch_sdpa"], "gemm"),
        (["gemm/torch", "20261122T000000Z-0000"], "name two kernels"),
        (["gemm/torch", "gemm/numba", "--problem", "m=0,n=1,k=1,precision=float32"], "m"),
        (["gemm/torch", "gemm/numba", "--problem", "m=1", "--cache", "tepid"], "--cache 'tepid': cold or warm"),
        (["gemm/torch", "gemm/numba", "--problem", TINY, "--margin", "0"], "--margin 0"),
        (["gemm/torch", "gemm/torch@nowhere", "--problem", TINY], "nowhere"),
        (["gemm/torch", "gemm/numba", "--problem", TINY, "--device", "tpu"], "unknown device 'tpu'"),
    ],
)
def test_bad_input_is_one_line(ridgeline_command: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = ridgeline_command("compare", *arguments, "--store", tmp_path / "s")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "s").exists()


KERNEL = """
import time
import torch
from ridgeline.kernels.registry import implementation

@implementation("gemm", "revised")
def prepare(problem, constants, context):
    def run(inputs, out):
        time.sleep({seconds})
        torch.matmul(inputs["a"], constants["b"], out=out)
    return run
"""


def test_two_revisions_of_a_kernel_are_told_apart(ridgeline_command: Run, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)

    git("init", "-q")
    for seconds in (0.0005, 0.005):
        (folder / "kernel.py").write_text(KERNEL.format(seconds=seconds))
        git("add", "-A")
        git("commit", "-q", "-m", f"{seconds}")
    done = ridgeline_command(
        "compare", "gemm/revised@HEAD~1", "gemm/revised@HEAD", "--with", folder, "--problem", TINY,
        "--seconds", "6", "--store", tmp_path / "s", "--json",
    )  # fmt: skip
    document = json.loads(done.stdout)
    (record,) = document if isinstance(document, list) else document["comparisons"]
    assert record["verdict"] == "slower", done.stderr
    assert done.returncode == 1
    assert record["side_a"]["revision"] != record["side_b"]["revision"]
    assert record["processes"] == "two"
