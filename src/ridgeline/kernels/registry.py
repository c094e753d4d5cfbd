"""Operators and their implementations: what a kernel has to declare, and how all of them are found.

An operator lives in ``kernels/<name>/operator.py``; every other module of that folder registers implementations with
:func:`implementation`. Kernels outside this package are found through the entry-point group ``ridgeline.kernels`` (a
module each) and through ``--with DIR`` (every Python file of a folder).
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ridgeline.analytical.problem import NO_STRUCTURE, Problem, Structure

if TYPE_CHECKING:
    import torch

Tensors = Mapping[str, "torch.Tensor"]
"""Tensors by name."""

ENTRY_POINT_GROUP = "ridgeline.kernels"

Run = Callable[[Tensors, "torch.Tensor"], None]
"""What is measured: ``run(inputs, out)`` reads the input tensors and fills ``out`` completely."""


class Unsupported(Exception):
    """Raised by ``prepare`` where the implementation cannot run this problem here; the text is the reason shown."""


class RegistryError(ValueError):
    """A kernel file that cannot be loaded, or a name that is not registered. One line: what, where, what to do."""


@dataclass(frozen=True)
class Tolerance:
    """Largest accepted relative error ||out - reference|| / ||reference|| in one precision, and why."""

    relative: float
    reason: str


@dataclass(frozen=True)
class Context:
    """What ``prepare`` may know of where it runs."""

    device: str
    """torch device type: ``cpu`` or ``cuda``."""
    threads: int
    """Threads the protocol gives to the kernel."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Tuned configuration; empty for the implementation's default."""
    rank: int = 0
    """Which of the placement's ranks this process is."""
    ranks: int = 1
    """Ranks of the placement; where there are several, their process group is there (kernels/process_group.py)."""


class Operator:
    """A family of kernels with one meaning. Subclass it in ``kernels/<name>/operator.py`` and decorate it.

    All tensors that these methods make live on the CPU; the harness moves them to the device. Random values come from
    ``generator`` alone, are never all zeros, and are spread independently over the elements, so that the harness may
    roll a tensor by any offset to obtain fresh inputs; ``fixed_inputs`` names those it must leave as they are.
    """

    name: str = ""
    tolerances: Mapping[str, Tolerance] = {}
    """Accepted error by precision of the problem (see :meth:`tolerance`)."""
    baselines: Mapping[str, str] = {}
    """Name of the implementation that speeds are compared with, by device type."""
    fixed_inputs: frozenset[str] = frozenset()
    """Inputs whose elements depend on each other (block tables, offsets), so that the harness must not roll them."""
    test_problems: Sequence[Problem] = ()
    """Small problems with odd sizes and tails, on which every implementation is checked in full."""

    def make_constants(self, problem: Any, generator: torch.Generator) -> Tensors:
        """What is the same in every call (weights, scales, masks); packed by ``prepare``."""
        return {}

    def make_inputs(self, problem: Any, generator: torch.Generator) -> Tensors:
        """What changes from call to call."""
        raise NotImplementedError

    def structure(self, problem: Any, constants: Tensors, inputs: Tensors) -> Structure:
        """What constants and inputs realise of the problem's data-dependent part, and a digest of it.

        It must follow from the problem alone (its generator, parameters and seed): buffers that a measurement takes
        by turns are then of one structure. By default a problem has none.
        """
        return NO_STRUCTURE

    def make_output(self, problem: Any) -> torch.Tensor:
        """An uninitialised output tensor of the right shape and dtype."""
        raise NotImplementedError

    def reference(self, problem: Any, constants: Tensors, inputs: Tensors, rows: torch.Tensor | None) -> torch.Tensor:
        """The right answer in float64 (exact for integers), computed on the CPU.

        ``rows`` are indices into the output viewed as ``out.reshape(-1, row_elements(problem, out))``; only those rows
        are computed and returned, ``[len(rows), row_elements]``. ``None`` asks for all, in the output's own shape.
        """
        raise NotImplementedError

    def row_elements(self, problem: Any, out: torch.Tensor) -> int:
        """Length of a row as ``reference`` counts rows: the last dimension, unless that is all there is."""
        return out.shape[-1]

    def of_rank(self, rank: int) -> Operator:
        """The operator as rank ``rank`` of a placement sees it: its inputs, its output. By default all see the same."""
        return self

    def hidden_inputs(self, problem: Any) -> frozenset[str]:
        """Inputs that only the reference reads: they stay on the host and the kernel is not given them."""
        return frozenset()

    def baseline(self, problem: Any, device: str) -> str:
        """Name of the implementation that speeds on this problem are compared with; empty for none."""
        return self.baselines.get(device, "")

    def tolerance(self, problem: Any) -> Tolerance:
        """Accepted error for this problem."""
        try:
            return self.tolerances[problem.precision]
        except KeyError:
            raise RegistryError(
                f"operator {self.name} states no tolerance for {problem.precision}: add it to its `tolerances`"
            ) from None


@dataclass(frozen=True)
class Implementation:
    """One way to compute an operator."""

    operator: str
    name: str
    prepare: Callable[[Any, Tensors, Context], Run]
    devices: frozenset[str]
    """torch device types it runs on."""
    precisions: frozenset[str]
    """Precisions of the problem it takes; empty for all of the operator's."""
    papers: tuple[str, ...]
    """Ids of the papers whose mechanism it is."""
    path: Path
    """The file it is defined in; its hash, with all it imports from this repository, is part of the content key."""
    tf32: bool = False
    """Computes float32 products in TF32, so the tolerance is TF32's."""

    def unsupported_reason(self, problem: Problem, device: str) -> str | None:
        """Why it cannot take this problem on this device type, or ``None``."""
        if device not in self.devices:
            return f"runs on {' and '.join(sorted(self.devices))} only; this device is {device}"
        precision = getattr(problem, "precision", None)
        if self.precisions and precision is not None and precision not in self.precisions:
            return f"takes {', '.join(sorted(self.precisions))}, not {precision}"
        return None


_OPERATORS: dict[str, Operator] = {}
_IMPLEMENTATIONS: dict[tuple[str, str], Implementation] = {}
_UNAVAILABLE: dict[str, str] = {}
_loaded = False


def operator(cls: type[Operator]) -> type[Operator]:
    """Register an operator class under its ``name``."""
    if not cls.name:
        raise RegistryError(f"{cls.__module__}.{cls.__qualname__} has no name: set `name = ...` in the class")
    _OPERATORS[cls.name] = cls()
    return cls


def implementation(
    operator: str,
    name: str,
    *,
    devices: Sequence[str] = ("cpu",),
    precisions: Sequence[str] = (),
    papers: Sequence[str] = (),
    tf32: bool = False,
) -> Callable[[Callable[[Any, Any, Context], Run]], Callable[[Any, Any, Context], Run]]:
    """Register the decorated ``prepare(problem, constants, context) -> run`` as an implementation of ``operator``.

    ``prepare`` packs, quantises and compiles (its time is reported apart) and raises :class:`Unsupported` with a
    reason where it cannot run. ``run(inputs, out)`` is what is measured.
    """

    def register(prepare: Callable[[Any, Any, Context], Run]) -> Callable[[Any, Any, Context], Run]:
        key = (operator, name)
        path = Path(sys.modules[prepare.__module__].__file__ or "").resolve()
        earlier = _IMPLEMENTATIONS.get(key)
        if earlier is not None and earlier.path != path:
            raise RegistryError(
                f"{path}: {operator} already has an implementation {name!r} in {earlier.path}: rename one"
            )
        _IMPLEMENTATIONS[key] = Implementation(
            operator, name, prepare, frozenset(devices), frozenset(precisions), tuple(papers), path, tf32
        )
        return prepare

    return register


def load(extra: Sequence[Path] = ()) -> None:
    """Import every kernel module: of this package, of the entry points, and of the folders in ``extra``.

    A module of this package whose imports are not installed is left out and named by :func:`unavailable`.

    Raises:
        RegistryError: for a file of ``extra`` or an entry point that cannot be imported.
    """
    global _loaded
    if not _loaded:
        package = importlib.import_module("ridgeline.kernels")
        for folder in pkgutil.iter_modules(package.__path__):
            if not folder.ispkg or folder.name == "native":
                continue
            subpackage = importlib.import_module(f"ridgeline.kernels.{folder.name}")
            for module in sorted(
                pkgutil.iter_modules(subpackage.__path__), key=lambda m: (m.name != "operator", m.name)
            ):
                name = f"ridgeline.kernels.{folder.name}.{module.name}"
                try:
                    importlib.import_module(name)
                except ModuleNotFoundError as error:
                    if (error.name or "").split(".")[0] == "ridgeline":
                        raise
                    _UNAVAILABLE[name] = f"needs {error.name}: pip install 'ridgeline[run]'"
        for point in entry_points(group=ENTRY_POINT_GROUP):
            try:
                point.load()
            except Exception as error:
                raise RegistryError(f"entry point {point.name} ({point.value}): {one_line(error)}") from error
        _loaded = True
    for folder_path in extra:
        _load_folder(Path(folder_path))


def _load_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise RegistryError(f"--with {folder}: not a folder")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # so that a kernel can import a file beside it
    for path in sorted(folder.glob("*.py")):
        name = f"ridgeline_with_{path.parent.name}_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise RegistryError(f"{path}: not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except RegistryError:
            raise
        except Exception as error:
            raise RegistryError(f"{path}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """Class and first line of an error's text."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def operators() -> Mapping[str, Operator]:
    """Registered operators by name. Call :func:`load` first."""
    return _OPERATORS


def implementations(operator: str | None = None) -> list[Implementation]:
    """Registered implementations, of one operator or of all, sorted by name."""
    return [i for key, i in sorted(_IMPLEMENTATIONS.items()) if operator is None or key[0] == operator]


def unavailable() -> Mapping[str, str]:
    """Modules that could not be imported, with what they need."""
    return _UNAVAILABLE


def get_operator(name: str) -> Operator:
    """The operator called ``name``.

    Raises:
        RegistryError: naming the registered ones.
    """
    try:
        return _OPERATORS[name]
    except KeyError:
        raise RegistryError(f"unknown operator {name!r}: one of {', '.join(sorted(_OPERATORS))}") from None


def get_implementation(operator: str, name: str) -> Implementation:
    """The implementation ``name`` of ``operator``.

    Raises:
        RegistryError: naming the registered ones.
    """
    get_operator(operator)
    try:
        return _IMPLEMENTATIONS[operator, name]
    except KeyError:
        known = ", ".join(i.name for i in implementations(operator))
        raise RegistryError(f"unknown implementation {name!r} of {operator}: one of {known}") from None
