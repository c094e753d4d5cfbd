"""The quick suite as a pytest-benchmark suite: ``pytest benchmarks/ --benchmark-only``.

Options: ``--ridgeline-suite NAME``, ``--ridgeline-device UNIT``, ``--ridgeline-budget SECONDS``, ``--ridgeline-store DIR``
(whose newest roofs the fractions are against).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ridgeline.analytical.device import Device
from ridgeline.bench.devices.unit import Session, Unit
from ridgeline.bench.plan import Case


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which suite, where, how long, and the store of the roofs."""
    group = parser.getgroup("ridgeline")
    group.addoption("--ridgeline-suite", default="quick", help="suite whose cases to run")
    group.addoption("--ridgeline-device", default=None, help="unit, as for `ridgeline run --device`")
    group.addoption(
        "--ridgeline-budget", type=float, default=1.0, help="seconds of Ridgeline's own timing of each case"
    )
    group.addoption("--ridgeline-store", type=Path, default=None, help="store whose newest roofs count")


@dataclass(frozen=True)
class Bench:
    """What every case of one pytest session shares."""

    unit: Unit
    session: Session
    roofs: Device | None
    budget_s: float


def _unit(config: pytest.Config) -> Unit:
    from ridgeline.bench.devices.choose import choose_unit

    return choose_unit(config.getoption("--ridgeline-device"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for every case, named so that ``-k`` can choose."""
    if "case" not in metafunc.fixturenames:
        return
    from ridgeline.bench.plan import make_plan
    from ridgeline.kernels.registry import load
    from ridgeline.workloads.suite import load_suite

    load()
    cases = make_plan(load_suite(metafunc.config.getoption("--ridgeline-suite")), _unit(metafunc.config)).cases
    metafunc.parametrize("case", cases, ids=[_name(case) for case in cases])


def _name(case: Case) -> str:
    parts = (case.problem.operator, case.implementation.name, case.problem.label, case.protocol.cache)
    return "-".join(part.replace(" ", "_") for part in parts)


@pytest.fixture(scope="session")
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """The unit, opened in this process."""
    from ridgeline.bench.measure_command import newest_roofs
    from ridgeline.results.store import Store

    unit = _unit(request.config)
    roofs = newest_roofs(Store(request.config.getoption("--ridgeline-store")), unit)
    with unit.session() as session:
        yield Bench(unit, session, roofs, request.config.getoption("--ridgeline-budget"))
