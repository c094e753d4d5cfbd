"""Idealized runtimes: T(p, o) of any backend, fitted from few measured points.

Narayanan et al., "Cheaply Evaluating Inference Efficiency Metrics for Autoregressive Transformer APIs", 2023:
T(p, o) = alpha(p) + (o - 1) beta. Here beta may grow with the context, both with the batch, alpha is interpolated by a
monotone map of its trend, and every prediction has an interval.
"""

from ridgeline.analytical.idealized.model import Estimate, IdealizedRuntime, fit_runtime
from ridgeline.analytical.idealized.points import (
    RESPONSES,
    IdealizedError,
    Point,
    denoised,
    points_from_rows,
    software_efficiency,
    usd_per_request,
)
from ridgeline.analytical.idealized.published import PublishedRuntime, find_published, published_runtimes

__all__ = [
    "RESPONSES",
    "Estimate",
    "IdealizedError",
    "IdealizedRuntime",
    "Point",
    "PublishedRuntime",
    "denoised",
    "find_published",
    "fit_runtime",
    "points_from_rows",
    "published_runtimes",
    "software_efficiency",
    "usd_per_request",
]
