"""Steps from measured kernels: what one software's kernels took on a device, between the shapes that were measured.

A matrix product or an attention of a model is a site of its family's surface
(:mod:`ridgeline.analytical.calibration.inside`), and a step is a load there: rows, or sequences and lengths. The surface gives
log(measured / three constants) at the site for every load that was measured, and a step between two loads takes what lies on
the line between them, in the logarithms of the loads; beyond the last one the share of the bound stays as it is. Operators
without a public table keep their constants.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from scipy.interpolate import NearestNDInterpolator, RegularGridInterpolator

from ridgeline.analytical.calibration.inside import InsideModel, fit_inside
from ridgeline.analytical.calibration.measured import measured_rows
from ridgeline.analytical.calibration.public_tables import BACKENDS, FILES, SYSTEMS, PublicTableError, require_data_root
from ridgeline.analytical.calibration.shapes import log2_sizes
from ridgeline.analytical.calibration.three_parameters import ThreeParameters
from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.device import Device
from ridgeline.analytical.kernel_shape import KernelShape
from ridgeline.analytical.limits import limits
from ridgeline.analytical.step_form import Counted, Points
from ridgeline.analytical.step_table import CHUNK_ROWS, DeviceStep, Engine, StepColumns, operation_seconds

PRECISION = "bfloat16"
"""Of operands and of what is stored: the surfaces that are fitted."""
MEASURED_FAMILIES = ("gemm", "moe_gemm", "attention")
"""Families of operations that make a step's time; those of one without a table keep it from counting as measured."""
SITE: Mapping[str, tuple[str, ...]] = {
    "gemm": ("n", "k"),
    "attention prefill": ("q_heads", "kv_heads", "head_dim", "window"),
    "attention decode": ("q_heads", "kv_heads", "head_dim", "window"),
}
"""Sizes that the model fixes, by family."""
LOAD: Mapping[str, tuple[str, ...]] = {
    "gemm": ("m",),
    "attention prefill": ("batch", "q_length"),
    "attention decode": ("batch", "kv_length"),
}
"""Sizes that the step fixes. Prompts: those without a cache, whose length is that of their queries."""
_COLUMN: Mapping[str, tuple[int, ...]] = {"gemm": (0,), "attention prefill": (0, 1), "attention decode": (0, 2)}
"""Where those stand in a load of :class:`~ridgeline.analytical.calibration.shapes.Rows`."""


@dataclass(frozen=True)
class LoadSurface:
    """log(measured / constants) over the loads of one site."""

    axes: tuple[Any, ...]
    """Base-2 logarithms of the loads that were measured, ascending."""
    values: Any
    """float64, one axis for each of :attr:`axes`."""

    def at(self, loads: Sequence[Any]) -> Any:
        """The surface at loads (base-2 logarithms, numbers or columns); held at its ends."""
        held = [np.clip(load, axis[0], axis[-1]) for load, axis in zip(loads, self.axes, strict=True)]
        if len(self.axes) == 1:
            return np.interp(held[0], self.axes[0], self.values)
        points = np.stack(np.broadcast_arrays(*held), axis=-1)
        return self._interpolator(points).reshape(points.shape[:-1])[()]

    @cached_property
    def _interpolator(self) -> RegularGridInterpolator:
        return RegularGridInterpolator(self.axes, self.values)


def load_surface(loads: Any, residuals: Any) -> LoadSurface | None:
    """A surface through what was measured; combinations that were not take the value of the nearest that was.

    Args:
        loads: float64 [loads, sizes], base-2 logarithms.
        residuals: float64 [loads]; NaN where nothing is known.

    Returns:
        ``None`` where nothing is known at all.
    """
    known = np.isfinite(residuals)
    if not known.any():
        return None
    loads, residuals = loads[known], residuals[known]
    axes = tuple(np.unique(column) for column in loads.T)
    grid = np.full([len(axis) for axis in axes], np.nan)
    grid[tuple(np.searchsorted(axis, column) for axis, column in zip(axes, loads.T, strict=True))] = residuals
    holes = np.isnan(grid)
    if holes.any():
        missing = np.stack([axis[i] for axis, i in zip(axes, np.nonzero(holes), strict=True)], axis=1)
        grid[holes] = NearestNDInterpolator(loads, residuals)(missing)
    return LoadSurface(axes, grid)


class MeasuredKernels:
    """Kernels of one software on one device that was measured."""

    def __init__(self, device: Device, software: str, models: Mapping[str, InsideModel]) -> None:
        """From a model without boosting for each family."""
        self.device, self.software, self._models = device, software, models
        self._surfaces: dict[tuple[Any, ...], LoadSurface | None] = {}

    def knows(self, kernel: KernelShape | None) -> bool:
        """Whether a kernel of this family and precision was measured."""
        return kernel is not None and kernel.precision == PRECISION and kernel.family in self._models

    def serve(self, listed: Sequence[Counted]) -> bool:
        """Whether every matrix product and attention of a step was measured: else its prediction is not a surface's."""
        return all(self.knows(each.kernel) for each in listed if each.family in MEASURED_FAMILIES)

    def seconds(self, operation: Counted, kernel: KernelShape) -> Any:
        """Seconds of one run of an operation, a number or a column."""
        terms = limits(operation.work, self.device)
        constants = self._models[kernel.family].constants[self.software]
        items = operation.items / float(self.device.unit_count or 1)
        base = constants.seconds(terms.product_s, terms.of("memory"), items)
        site = tuple(float(kernel.sizes[name]) for name in SITE[kernel.family])
        key = (kernel.family, *site)
        if key not in self._surfaces:
            self._surfaces[key] = self._surface(kernel.family, site)
        surface = self._surfaces[key]
        if surface is not None:
            base = base * np.exp(surface.at([log2_sizes(kernel.sizes[name]) for name in LOAD[kernel.family]]))
        return np.maximum(base, terms.overlapped_s)

    def _surface(self, family: str, site: tuple[float, ...]) -> LoadSurface | None:
        model = self._models[family]
        own = [(key[1:], column) for key, column in model.loads.items() if key[0] == self.software]
        loads = np.array([load for load, _ in own], dtype=np.float64)
        whole = np.ones(len(loads), dtype=bool) if family != "attention prefill" else loads[:, 1] == loads[:, 2]
        asked = log2_sizes(np.array([site]))
        residuals = model.kriging.at(asked)[0]
        # Kriging smooths over sites: a site that was measured keeps its own values.
        same = np.flatnonzero(np.all(np.abs(model.kriging.sites - asked) < 1e-9, axis=1))
        for known in model.kriging.residual[same]:
            residuals = np.where(np.isfinite(known), known, residuals)
        residuals = residuals[[column for _, column in own]]
        return load_surface(loads[whole][:, _COLUMN[family]], residuals[whole])


@cache
def measured_kernels(device: Device, software: str) -> MeasuredKernels | None:
    """The kernels of a software on a device, fitted on the public tables; ``None`` where nobody measured them there.

    Takes some seconds the first time.

    Raises:
        PublicTableError: where the tables are not installed, or for a software that is in none of them.
    """
    if software not in BACKENDS:
        raise PublicTableError(f"no public table of software {software!r}: one of {', '.join(BACKENDS)}")
    root = require_data_root()
    systems = [system for system, name in SYSTEMS.items() if name == device.id]
    models = {}
    for family in FILES if systems else ():
        rows = measured_rows(root, catalogue(), family, systems[0], PRECISION, backend=software)
        if rows is not None:
            models[family] = fit_inside(rows, models=0)
    return MeasuredKernels(device, software, models) if "gemm" in models else None


@dataclass(frozen=True)
class SurfaceStep(DeviceStep):
    """A step whose prediction is that of measured kernels where there are any."""

    kernels: MeasuredKernels

    def columns(self, points: Points, engine: Engine = "auto") -> StepColumns:
        """As :meth:`DeviceStep.columns`; the prediction is numpy's with either engine."""
        found = super().columns(points, engine)
        predicted = np.empty(len(points))
        for start in range(0, len(points), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            listed = self.form.operations_of(*points.rows(rows).columns)
            predicted[rows] = sum(
                predicted_seconds(each, self.device, self.parameters, self.kernels, substitute=self.substitute)
                for each in listed
            )
        return dataclasses.replace(found, predicted_s=np.maximum(predicted, found.bound_s))


def predicted_seconds(
    operation: Counted,
    device: Device,
    parameters: Mapping[str, ThreeParameters],
    kernels: MeasuredKernels | None,
    *,
    substitute: bool = False,
) -> Any:
    """Seconds of an operation in all its runs: by measured kernels where they know it, else by its family's constants.

    Raises:
        LimitError, CollectiveError: as :func:`~ridgeline.analytical.step_table.operation_seconds`.
    """
    kernel = operation.kernel
    if kernels is not None and kernel is not None and kernels.knows(kernel):
        return operation.count * kernels.seconds(operation, kernel)
    return operation_seconds(operation, device, parameters, substitute)[1]


def with_surfaces(step: DeviceStep, kernels: MeasuredKernels) -> SurfaceStep:
    """The step with the prediction of measured kernels."""
    fields = {field.name: getattr(step, field.name) for field in dataclasses.fields(step)}
    return SurfaceStep(**fields, kernels=kernels)
