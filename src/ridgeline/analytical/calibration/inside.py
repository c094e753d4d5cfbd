"""Prediction inside a measured device: three constants, a surface over sites, and boosting of what the surface leaves.

The surface is kriging of log(measured / three constants) over the sites (n, k of a weight; heads of an attention), for every
load that was measured at them: simple kriging with a separable Matern-3/2 covariance (Rasmussen and Williams, "Gaussian
Processes for Machine Learning", 2006, eq. 4.17; leave-one-out by eq. 5.12). Boosting then learns log(measured / surface) from
tiles, waves and occupancy; it is trained on the surface's *leave-one-out* values, so that at an unseen site it meets errors
of the kind it has learned from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.analytical.calibration.shapes import Rows
from ridgeline.analytical.calibration.splits import group_ids
from ridgeline.analytical.calibration.three_parameters import ThreeParameters, fit_three_parameters

LENGTH = 6.0
"""Length scale of the covariance, in doublings of a size. On held-out GEMM sites of an H100, 5 gave a median error of 2.8 %,
3 with short scales beside it 3.1 %, 2 3.5 %."""
NOISE = 1e-4
"""Variance of a measurement's own noise over that of the surface."""
NEAR = 0.15
"""Doublings of a load that count as its neighbourhood."""
_FEWEST_SITES = 8
_FIT_ROWS = 15_000
"""Rows that three constants are fitted on: more changed none of them by 1 %."""


def fit_by_software(rows: Rows) -> dict[str, ThreeParameters]:
    """Three constants for each software of ``rows``."""
    found = {}
    for name in np.unique(rows.software.astype(str)):
        own = np.flatnonzero(rows.software == name)
        own = own[:: max(1, len(own) // _FIT_ROWS)]
        found[str(name)] = fit_three_parameters(
            rows.compute_s[own], rows.memory_s[own], rows.seconds[own], rows.items[own]
        )
    return found


def base_seconds(rows: Rows, constants: Mapping[str, ThreeParameters]) -> Any:
    """Seconds by the three constants of each row's software.

    Raises:
        KeyError: for a software that no constants were fitted for.
    """
    seconds = np.empty(len(rows))
    for name in np.unique(rows.software.astype(str)):
        own = rows.software == name
        seconds[own] = constants[str(name)].seconds(rows.compute_s[own], rows.memory_s[own], rows.items[own])
    return seconds


@dataclass(frozen=True, kw_only=True)
class SiteKriging:
    """A surface over sites for each load: what was learned, as a matrix of residuals."""

    sites: Any
    """float64 [sites, sizes], base-2 logarithms."""
    residual: Any
    """log(measured / base), float64 [sites, loads]; NaN where that load was not measured at that site."""

    def at(self, site: Any) -> Any:
        """The surface at ``site`` [queries, sizes], for every load: float64 [queries, loads]; NaN where too few sites
        were measured at a load."""
        found = np.full((len(site), self.residual.shape[1]), np.nan)
        for own, loads in self._patterns():
            values = self.residual[np.ix_(own, loads)]
            mean = values.mean(axis=0)
            solved = np.linalg.solve(self._covariance(own), values - mean)
            found[:, loads] = _covariance(site, self.sites[own]) @ solved + mean
        return found

    def leave_one_out(self) -> Any:
        """The surface at every site from all others, float64 [sites, loads]."""
        found = np.full(self.residual.shape, np.nan)
        for own, loads in self._patterns():
            values = self.residual[np.ix_(own, loads)]
            inverse = np.linalg.inv(self._covariance(own))
            mean = values.mean(axis=0)
            found[np.ix_(own, loads)] = values - (inverse @ (values - mean)) / np.diag(inverse)[:, None]
        return found

    def beside(self, site: Any) -> Any:
        """Residuals of the next sites that differ in one size only, below and above: float64 [queries, 2 sizes, loads];
        NaN where there is none."""
        found = np.full((len(site), 2 * site.shape[1], self.residual.shape[1]), np.nan)
        for query, own in enumerate(site):
            apart = self.sites - own
            differs = np.abs(apart) > 1e-9
            alone = differs.sum(axis=1) == 1
            for axis in range(site.shape[1]):
                step = np.where(alone & differs[:, axis], apart[:, axis], 0.0)
                for side, towards in enumerate((-step, step)):
                    ahead = np.where(towards > 0.0, towards, np.inf)
                    if np.isfinite(ahead.min()):
                        found[query, 2 * axis + side] = self.residual[int(ahead.argmin())]
        return found

    def _covariance(self, own: Any) -> Any:
        return _covariance(self.sites[own], self.sites[own]) + NOISE * np.eye(len(own))

    def _patterns(self) -> list[tuple[Any, Any]]:
        """(sites, loads) of each set of loads that were measured at the same sites."""
        measured = np.isfinite(self.residual)
        patterns, of_load = np.unique(measured, axis=1, return_inverse=True)
        pairs = (
            (np.flatnonzero(patterns[:, i]), np.flatnonzero(of_load.ravel() == i)) for i in range(patterns.shape[1])
        )
        return [(own, loads) for own, loads in pairs if len(own) >= _FEWEST_SITES]


def _covariance(left: Any, right: Any) -> Any:
    product = np.ones((len(left), len(right)))
    for axis in range(left.shape[1]):
        scaled = np.sqrt(3.0) * np.abs(left[:, axis, None] - right[None, :, axis]) / LENGTH
        product *= (1.0 + scaled) * np.exp(-scaled)
    return product


@dataclass(frozen=True, kw_only=True)
class InsideModel:
    """What was learned of one family on one device."""

    constants: Mapping[str, ThreeParameters]
    kriging: SiteKriging
    loads: Mapping[tuple[Any, ...], int]
    """(software, sizes of the load) to the column of the surface."""
    smooth: SiteKriging
    """The same, with each load's residual averaged over its neighbours and over software: a table's own jitter (a tenth of
    its rows of SGLang on B200 lie 20 % off their neighbours in m) is no property of the site."""
    boosting: Mapping[str, tuple[Any, ...]]
    """For each software, fitted regressors of log(measured / surface), each of another part of its rows; their mean counts."""

    def predict(self, rows: Rows) -> Any:
        """Seconds of every row. At a load that was never measured the three constants stand alone, corrected by boosting."""
        base = base_seconds(rows, self.constants)
        site_of, sites = _distinct(rows.site)
        column = np.array([self.loads.get(key, -1) for key in _load_keys(rows)])
        known = column >= 0
        column = np.maximum(column, 0)
        surface, smooth = (
            np.where(known, each.at(sites)[site_of, column], np.nan) for each in (self.kriging, self.smooth)
        )
        if not self.boosting:
            return base * np.exp(np.nan_to_num(surface))
        beside = np.where(known[:, None], self.kriging.beside(sites)[site_of, :, column], np.nan)
        features = _boosting_features(rows, base, surface, smooth, beside)
        boosted = np.zeros(len(rows))
        with one_thread():
            for name, regressors in self.boosting.items():
                own = np.flatnonzero(rows.software == name)
                if len(own):
                    boosted[own] = np.mean([each.predict(features[own]) for each in regressors], axis=0)
        return base * np.exp(np.nan_to_num(surface) + boosted)


def fit_inside(
    rows: Rows, *, models: int = 2, boost_rows: int = 60_000, iterations: int = 300, seed: int = 0
) -> InsideModel:
    """Learn from ``rows`` of one family on one device.

    Each software has trees of its own: it chooses among kernels by rules of its own, and trees for all together need many
    splits to tell that (decode attention at unseen heads of an H100: p90 of the error 8.3 % for 9.6 %).

    Args:
        rows: measured, past the gate.
        models: boosted models of each software, each of ``boost_rows`` rows at random; 0 for no boosting.
        boost_rows: at most so many rows for each.
        iterations: trees of each.
        seed: of the random rows.

    Raises:
        FitError: for too few rows.
    """
    constants = fit_by_software(rows)
    base = base_seconds(rows, constants)
    residual = np.log(rows.seconds / base)
    site_of, sites = _distinct(rows.site)
    keys = _load_keys(rows)
    loads = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    column = np.array([loads[key] for key in keys])
    matrix = np.full((len(sites), len(loads)), np.nan)
    matrix[site_of, column] = residual
    kriging = SiteKriging(sites=sites, residual=matrix)
    smooth = SiteKriging(sites=sites, residual=_smoothed(matrix, list(loads)))
    boosting: dict[str, tuple[Any, ...]] = {}
    if models:
        from sklearn.ensemble import HistGradientBoostingRegressor

        surface, smooth_surface = (each.leave_one_out()[site_of, column] for each in (kriging, smooth))
        beside = kriging.beside(sites)[site_of, :, column]
        features = _boosting_features(rows, base, surface, smooth_surface, beside)
        for name in constants:
            known = np.flatnonzero(np.isfinite(surface) & (rows.software == name))
            regressors = []
            for model in range(models if len(known) else 0):
                part = known
                if len(known) > boost_rows:
                    part = np.random.default_rng(seed + model).choice(known, boost_rows, replace=False)
                regressor = HistGradientBoostingRegressor(
                    loss="absolute_error", max_iter=iterations, learning_rate=0.08, max_leaf_nodes=31,
                    min_samples_leaf=20, l2_regularization=1.0, max_features=0.5, early_stopping=False,
                    random_state=seed + model,
                )  # fmt: skip
                with one_thread():
                    regressors.append(regressor.fit(features[part], residual[part] - surface[part]))
            if regressors:
                boosting[name] = tuple(regressors)
    return InsideModel(constants=constants, kriging=kriging, smooth=smooth, loads=loads, boosting=boosting)


def _smoothed(matrix: Any, keys: list[tuple[Any, ...]]) -> Any:
    """Each load's residuals averaged with those of loads within :data:`NEAR` of it, in any software."""
    loads = np.array([key[1:] for key in keys], dtype=np.float64)
    near = np.abs(loads[:, None, :] - loads[None, :, :]).max(axis=2)
    weight = np.exp(-0.5 * (near / NEAR) ** 2) * (near < 3.0 * NEAR)
    known = np.isfinite(matrix)
    return np.where(known, (np.where(known, matrix, 0.0) @ weight) / np.maximum(known @ weight, 1e-12), np.nan)


def _boosting_features(rows: Rows, base: Any, surface: Any, smooth: Any, beside: Any) -> Any:
    return np.column_stack(
        [rows.site, rows.load, rows.features, np.log(base), surface, smooth - surface, beside - surface[:, None]]
    )


def _distinct(site: Any) -> tuple[Any, Any]:
    """(index of each row's site, the distinct sites)."""
    of_row = group_ids(*site.T)
    _, first = np.unique(of_row, return_index=True)
    return of_row, site[first]


def _load_keys(rows: Rows) -> list[tuple[Any, ...]]:
    return [(str(name), *load) for name, load in zip(rows.software, rows.load.tolist(), strict=True)]


def one_thread() -> Any:
    """scikit-learn's OpenMP threads spin while they wait: on a machine of two threads that others use too, two of them took
    ten times as long as one (44 s for 4.2 s)."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)
