"""Comparisons by the dozen for the benches of trust: kernels, problems, one warm worker, and a journal to continue from."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from ridgeline.analytical.operators import make_problem, parameters_from_text
from ridgeline.bench.compare_command import Options, compare_once, parse_target
from ridgeline.bench.devices.choose import choose_unit
from ridgeline.bench.devices.unit import Unit
from ridgeline.bench.supervisor import Supervisor
from ridgeline.kernels import registry
from ridgeline.results.comparison import Comparison
from ridgeline.results.record import record_from_dict

FOLDER = str(Path(__file__).resolve().parent / "repeated")
GRACE_S = 60.0


@dataclass(frozen=True)
class Contest:
    """A kernel on a problem; its operator, the registered implementation, and the problem's parameters."""

    operator: str
    base: str
    problem: str

    @property
    def name(self) -> str:
        """For the tables."""
        return f"{self.operator}/{self.base}"


CONTESTS = (
    Contest("gemm", "torch", "m=96,n=96,k=96,precision=float32"),
    Contest("gemm", "numba", "m=64,n=64,k=64,precision=float32"),
    Contest("attention", "torch_sdpa", "batch=1,q_heads=2,kv_heads=2,q_length=64,kv_length=64,head_dim=32"),
    Contest("attention", "torch_eager", "batch=1,q_heads=2,kv_heads=2,q_length=64,kv_length=64,head_dim=32"),
    Contest("weight_only_gemm", "torch_int8_packed", "m=4,n=256,k=256,weight=int8,group=256,precision=bfloat16"),
    Contest("stream", "native", "operation=copy,elements=16384,passes=4"),
)
"""Small shapes: a kernel that is repeated 20 to 100 times in a launch still fits many legs in a comparison."""


class Arena:
    """One warm worker on one unit."""

    def __init__(self, unit: Unit, supervisor: Supervisor, threads: int) -> None:
        self._unit, self._supervisor, self._threads = unit, supervisor, threads

    def compare(self, contest: Contest, a: str, b: str, seconds: float, margin: float) -> Comparison:
        """One comparison of two implementations of the contest's operator."""
        options = Options("warm", self._threads, seconds, margin, 0.99)
        problem = make_problem(contest.operator, parameters_from_text(contest.problem))
        sides = [parse_target(f"{contest.operator}/{name}") for name in (a, b)]
        return compare_once(
            self._supervisor, sides[0], sides[1], problem, options, self._unit, (None, None), "bench", (FOLDER,)
        )


@contextmanager
def arena(threads: int, seconds: float) -> Iterator[Arena]:
    """Kernels loaded and a worker ready."""
    registry.load([Path(FOLDER)])
    unit = choose_unit("cpu")
    if "stream" in {contest.operator for contest in CONTESTS}:
        from ridgeline.kernels.native.build import load

        load("stream")
    with Supervisor(seconds + GRACE_S, 0.5 * psutil.virtual_memory().available) as supervisor:
        yield Arena(unit, supervisor, threads)


class Journal:
    """Comparisons already made, by key, in a file that an interrupted bench continues from."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.records: dict[str, Comparison] = {}
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                key, values = json.loads(line)
                record = record_from_dict(values, str(path))
                if isinstance(record, Comparison):
                    self.records[key] = record

    def add(self, key: str, record: Comparison) -> None:
        """Keep one."""
        self.records[key] = record
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, record.model_dump(mode="json")]) + "\n")


def parser(description: str, trials: int, seconds: float) -> argparse.ArgumentParser:
    """The options that both benches take."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--trials", type=int, default=trials)
    options.add_argument("--seconds", type=float, default=seconds, help="longest comparison")
    options.add_argument("--threads", type=int, default=1, help="of every kernel")
    options.add_argument("--journal", type=Path, help="file to continue from")
    return options
