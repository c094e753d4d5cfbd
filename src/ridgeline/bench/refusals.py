"""Errors that are about the input. The command imports this only once one was raised: it loads half of the house."""

from __future__ import annotations

from ridgeline.analytical.architectures.architecture import ArchitectureError
from ridgeline.analytical.benchmark_table import AuditError
from ridgeline.analytical.calibration.constants import ConstantsError
from ridgeline.analytical.calibration.predictor import PredictionError
from ridgeline.analytical.calibration.public_tables import PublicTableError
from ridgeline.analytical.calibration.three_parameters import FitError
from ridgeline.analytical.catalogue import DeviceError
from ridgeline.analytical.collectives import CollectiveError
from ridgeline.analytical.idealized.points import IdealizedError
from ridgeline.analytical.layout import LayoutError
from ridgeline.analytical.limits import LimitError
from ridgeline.analytical.llm_viewer import ParityError
from ridgeline.analytical.model_table import TableError
from ridgeline.analytical.phases import PhaseError
from ridgeline.analytical.problem import ProblemError
from ridgeline.analytical.purchase.scenario import ScenarioError
from ridgeline.analytical.sweep_scenario import SweepError
from ridgeline.bench.compile_command import CompileRequestError
from ridgeline.bench.devices.unit import UnitError
from ridgeline.bench.energy.source import MeterError
from ridgeline.bench.paper_checks.frame import CheckError
from ridgeline.kernels.registry import RegistryError
from ridgeline.results.comparison import ComparisonError
from ridgeline.results.ledger import PapersError
from ridgeline.results.record import RecordError
from ridgeline.results.store import StoreError
from ridgeline.workloads.runnable.sizes import RunnableError
from ridgeline.workloads.suite import SuiteError

REFUSALS: tuple[type[Exception], ...] = (
    ArchitectureError,
    AuditError,
    CheckError,
    CollectiveError,
    ComparisonError,
    CompileRequestError,
    ConstantsError,
    DeviceError,
    FitError,
    IdealizedError,
    LayoutError,
    LimitError,
    MeterError,
    PapersError,
    ParityError,
    PhaseError,
    PredictionError,
    ProblemError,
    PublicTableError,
    RecordError,
    RegistryError,
    RunnableError,
    ScenarioError,
    StoreError,
    SuiteError,
    SweepError,
    TableError,
    UnitError,
)
"""Their text is the one line to show; the exit code is 2."""
