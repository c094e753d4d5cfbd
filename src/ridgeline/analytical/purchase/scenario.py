"""A buyer's scenario: traffic, service levels, candidates, prices, power and money, from a TOML file.

Keys that a scenario leaves out have the values of this file, each with where it comes from; a report lists those it used.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from ridgeline.analytical.purchase.chance import Certain, Chance, ChanceError, Lognormal, Triangular, parse_chance
from ridgeline.analytical.serving import traffic
from ridgeline.analytical.serving.server import SimulationError
from ridgeline.analytical.serving.summary import ServiceLevel

STALE_DAYS = 90
"""Prices older than this are flagged: they go stale within weeks."""


class ScenarioError(ValueError):
    """A scenario that cannot be answered. One line: file, key, what is wrong, what to do."""


class InfeasibleError(ScenarioError):
    """No candidate meets the service levels. One line that says by how much the closest misses them."""


def _chance(least: float, most: float = float("inf")) -> Any:
    def parse(value: Any) -> Chance:
        try:
            return parse_chance(value, least=least, most=most)
        except ChanceError as error:
            raise ValueError(str(error)) from None

    return PlainValidator(parse)


def _lengths(value: Any) -> traffic.Lengths:
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            return traffic.Fixed(value)
        if isinstance(value, dict) and set(value) == {"median", "sigma", "most"}:
            return traffic.Lognormal(float(value["median"]), float(value["sigma"]), int(value["most"]))
        if isinstance(value, dict) and set(value) == {"observed"}:
            return traffic.Empirical(tuple(int(tokens) for tokens in value["observed"]))
    except (TypeError, traffic.TrafficError) as error:
        raise ValueError(str(error)) from None
    raise ValueError("needs tokens, {median, sigma, most} or {observed = [...]}")


def _level(value: Any) -> ServiceLevel:
    if not isinstance(value, dict) or set(value) != {"metric", "percentile", "limit_s"}:
        raise ValueError("needs metric, percentile and limit_s")
    try:
        return ServiceLevel(str(value["metric"]), float(value["percentile"]), float(value["limit_s"]))
    except (TypeError, SimulationError) as error:
        raise ValueError(str(error)) from None


def _several(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Positive = Annotated[Any, _chance(1e-12)]
Share = Annotated[Any, _chance(0.0, 1.0)]
NotNegative = Annotated[Any, _chance(0.0)]
Counts = Annotated[list[Annotated[int, Field(ge=1)]], BeforeValidator(_several)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)


class Traffic(_Part):
    """What is asked of one model."""

    model: str
    """A built-in architecture, or the path of a config.json."""
    requests_per_s: float | None = Field(default=None, gt=0.0)
    """Mean over the day."""
    tokens_per_day: float | None = Field(default=None, gt=0.0)
    """Instead: input and output together."""
    peak_factor: float = Field(default=2.0, ge=1.0)
    """Load of the busiest hour over the mean: what the fleet is sized for."""
    input: Annotated[Any, PlainValidator(_lengths)]
    output: Annotated[Any, PlainValidator(_lengths)]
    weights: str = "bfloat16"
    activations: str = "bfloat16"
    kv: str = "bfloat16"
    levels: list[Annotated[Any, PlainValidator(_level)]] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_load(self) -> Traffic:
        if (self.requests_per_s is None) == (self.tokens_per_day is None):
            raise ValueError("give one of requests_per_s and tokens_per_day")
        return self

    @property
    def mean_requests_per_s(self) -> float:
        """Mean load."""
        if self.requests_per_s is not None:
            return self.requests_per_s
        assert self.tokens_per_day is not None
        return float(self.tokens_per_day / (self.input.mean_tokens + self.output.mean_tokens) / 86400.0)


class Candidate(_Part):
    """A device and the layouts to try on it: every combination. Pipelines are not simulated, so there is no pp."""

    device: str
    tp: Counts = [1]
    ep: Counts = [1]
    max_sequences: Counts = [256]
    token_budget: int = Field(default=8192, ge=1)

    @model_validator(mode="after")
    def _steps_hold_the_batch(self) -> Candidate:
        if max(self.max_sequences) > self.token_budget:
            raise ValueError(
                f"max_sequences of {max(self.max_sequences)} need a token_budget as large, not {self.token_budget}"
            )
        return self


class PriceOf(_Part):
    """A price of one device."""

    device: str
    basis: Literal["rent_per_hour", "purchase"]
    usd: Positive
    date: str
    """When it held: YYYY-MM or YYYY-MM-DD."""
    source: str = ""


class PowerOf(_Part):
    """Power of one device that somebody measured."""

    device: str
    busy_w: Positive
    idle_w: Positive
    source: str = ""


class Costs(_Part):
    """Money and power; ranges are assumptions of energy-stats-dashboard-tco.md D where no other source is named."""

    acquire: Literal["rent", "buy"] = "rent"
    rate: Share = Triangular(0.08, 0.10, 0.12)
    """Cost of capital per year."""
    years: float = Field(default=4.0, gt=0.0)
    """Life."""
    horizon_years: float = Field(default=3.0, gt=0.0)
    residual_share: Share = Triangular(0.0, 0.1, 0.25)
    """Of the purchase, at the end of the life."""
    maintenance_share_per_year: Share = Triangular(0.03, 0.04, 0.05)
    system_share: NotNegative = Triangular(0.3, 0.5, 0.7)
    """Server, network and rack, as a share of the device's price."""
    usd_per_kwh: Positive = Triangular(0.05, 0.08, 0.20)
    pue: Annotated[Any, _chance(1.0)] = Triangular(1.1, 1.25, 1.6)
    hosting_usd_per_kw_month: NotNegative = Triangular(100.0, 150.0, 200.0)
    host_w: NotNegative = Triangular(150.0, 250.0, 400.0)
    """Host's share of one device. All-in power is 1.7 to 2.5 times TDP."""
    busy_share_of_tdp: Share = Triangular(0.7, 0.85, 1.0)
    """Where no power was measured. Kernels that compute draw all of it (691 of 700 W on H100), decoding less."""
    idle_share_of_tdp: Share = Triangular(0.08, 0.12, 0.2)
    max_utilisation: float = Field(default=0.8, gt=0.0, le=1.0)
    """Share of the goodput that the peak may use."""
    availability: float = Field(default=0.97, gt=0.0, le=1.0)
    spare_replicas: int = Field(default=0, ge=0)
    grid_g_per_kwh: NotNegative = Triangular(50.0, 350.0, 600.0)
    embodied_kg: NotNegative = Triangular(100.0, 200.0, 400.0)
    """Of one device with its share of the server; recalled, not looked up."""


class Evidence(_Part):
    """How sure the times are; see :mod:`ridgeline.analytical.purchase.step_model` for where the defaults come from."""

    software_efficiency: Positive | None = None
    first_token: Positive | None = None
    """Time to first token over the simulated one, beyond the software's share."""
    device_sigma: float | None = Field(default=None, gt=0.0)
    shape_sigma: float | None = Field(default=None, gt=0.0)
    price_sigma: float = Field(default=0.15, ge=0.0)
    """Of prices that come as one number: quotes differ (InferenceX, aggregators: +/- 20 to 40 %)."""
    least_probability: float = Field(default=0.8, gt=0.0, le=1.0)
    """Of being cheapest, from which an option is recommended."""


class Scenario(_Part):
    """All of it."""

    name: str
    as_of: str | None = None
    """Day that prices are judged on, YYYY-MM-DD; today without."""
    seed: int = Field(default=1, ge=0)
    draws: int = Field(default=10_000, ge=100, le=1_000_000)
    requests: int = Field(default=500, ge=200)
    """Simulated for each load."""
    traffic: list[Traffic] = Field(min_length=1)
    candidates: list[Candidate] = Field(min_length=1)
    costs: Costs = Costs()
    evidence: Evidence = Evidence()
    prices: list[PriceOf] = []
    power: list[PowerOf] = []

    @property
    def day(self) -> date:
        """:attr:`as_of` as a date."""
        return date.fromisoformat(self.as_of) if self.as_of else date.today()


def parse_scenario(values: Mapping[str, Any], origin: str) -> Scenario:
    """Validate a scenario.

    Raises:
        ScenarioError: one line naming ``origin``, the key and what is wrong.
    """
    for place, price in enumerate(values.get("prices") or []):
        if isinstance(price, dict) and not price.get("date"):
            raise ScenarioError(
                f'{origin}: prices.{place}: a price of {price.get("device")} without a date: add date = "YYYY-MM"'
            )
    try:
        scenario = Scenario.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "scenario"
        said = first["msg"].removeprefix("Value error, ")
        hint = ": no such key" if first["type"] == "extra_forbidden" else ""
        raise ScenarioError(f"{origin}: {where}: {said}{hint}") from None
    for where, day in (
        ("as_of", scenario.as_of),
        *((f"prices.{i}.date", p.date) for i, p in enumerate(scenario.prices)),
    ):
        if day is not None and price_day(day) is None:
            raise ScenarioError(f"{origin}: {where}: {day!r} is no date: YYYY-MM-DD or YYYY-MM")
    named: dict[str, list[str]] = {
        "prices": [f"{price.device} {price.basis}" for price in scenario.prices],
        "power": [power.device for power in scenario.power],
        "candidates": [candidate.device for candidate in scenario.candidates],
    }
    for kind, names in named.items():
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ScenarioError(f"{origin}: {kind}: {twice} twice: keep one")
    return scenario


def load_scenario(path: Path) -> Scenario:
    """Read a scenario.

    Raises:
        ScenarioError: for a file that cannot be read, is not TOML, or does not validate.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ScenarioError(f"{path}: {error}") from None
    return parse_scenario(values, str(path))


def price_day(text: str) -> date | None:
    """The day of ``YYYY-MM-DD``, the first of ``YYYY-MM``; ``None`` for other text."""
    try:
        return date.fromisoformat(text if len(text) > 7 else f"{text}-01")
    except ValueError:
        return None


def spread(chance: Chance, sigma: float) -> Chance:
    """A price that is one number, with the spread of quotes."""
    return Lognormal(chance.value, sigma) if isinstance(chance, Certain) and sigma > 0.0 else chance
