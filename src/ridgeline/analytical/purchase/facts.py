"""What a scenario's candidates cost and draw: its own figures, else the catalogue's, each with where it comes from."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ridgeline.analytical.device import Device
from ridgeline.analytical.purchase.chance import Certain, Chance, Triangular
from ridgeline.analytical.purchase.scenario import STALE_DAYS, Scenario, ScenarioError, price_day, spread

Basis = Literal["rent_per_hour", "purchase"]


@dataclass(frozen=True)
class PriceFact:
    """A price of one device, with its spread."""

    usd: Chance
    date: str
    source: str
    age_days: int

    @property
    def stale(self) -> bool:
        """Whether it is older than :data:`STALE_DAYS`."""
        return self.age_days > STALE_DAYS


@dataclass(frozen=True)
class Facts:
    """Money and watts of one device."""

    device: Device
    rent: PriceFact | None
    purchase: PriceFact | None
    busy_w: Chance
    idle_w: Chance
    power_source: str


def facts_of(scenario: Scenario, device: Device, origin: str) -> Facts:
    """The facts that pricing ``device`` needs.

    Raises:
        ScenarioError: where there is no price of the kind that the scenario acquires by, or no power.
    """
    rent, purchase = (_price(scenario, device, basis) for basis in ("rent_per_hour", "purchase"))
    if (rent if scenario.costs.acquire == "rent" else purchase) is None:
        basis = "rent_per_hour" if scenario.costs.acquire == "rent" else "purchase"
        raise ScenarioError(
            f'{origin}: candidates: no price of {device.id}: add [[prices]] with device, basis = "{basis}", usd and date'
        )
    busy, idle, source = _power(scenario, device, origin)
    return Facts(device, rent, purchase, busy, idle, source)


def _price(scenario: Scenario, device: Device, basis: str) -> PriceFact | None:
    for price in scenario.prices:
        if (price.device, price.basis) == (device.id, basis):
            chance = spread(price.usd, scenario.evidence.price_sigma)
            return PriceFact(chance, price.date, price.source or "the scenario", _age(scenario, price.date))
    known = [price for price in device.prices if price.basis == basis and price_day(price.date) is not None]
    if not known:
        return None
    newest = max(known, key=lambda price: price.date)
    low, high = newest.low_usd, newest.high_usd
    chance = (
        spread(Certain(low), scenario.evidence.price_sigma)
        if low == high
        else Triangular(low, math.sqrt(low * high), high)
    )
    return PriceFact(chance, newest.date, f"catalogue: {newest.source.title}", _age(scenario, newest.date))


def _age(scenario: Scenario, text: str) -> int:
    day = price_day(text)
    assert day is not None
    return (scenario.day - day).days


def _power(scenario: Scenario, device: Device, origin: str) -> tuple[Chance, Chance, str]:
    for power in scenario.power:
        if power.device == device.id:
            return power.busy_w, power.idle_w, power.source or "the scenario"
    stated = [power for power in device.power if power.tdp_w is not None or power.sustained_w is not None]
    if not stated:
        raise ScenarioError(
            f"{origin}: candidates: no power of {device.id}: add [[power]] with device, busy_w and idle_w"
        )
    tdp = next((power.tdp_w for power in stated if power.tdp_w is not None), None)
    idle = next((power.idle_w for power in device.power if power.idle_w is not None), None)
    sustained = next((power.sustained_w for power in stated if power.sustained_w is not None), None)
    top = tdp if tdp is not None else sustained
    assert top is not None
    busy_chance = _scaled(scenario.costs.busy_share_of_tdp, top)
    idle_chance = Certain(idle) if idle is not None else _scaled(scenario.costs.idle_share_of_tdp, top)
    return busy_chance, idle_chance, "assumed shares of " + ("TDP" if tdp is not None else "the sustained power")


def _scaled(share: Chance, by: float) -> Chance:
    if isinstance(share, Triangular):
        return Triangular(share.low * by, share.mode * by, share.high * by)
    if isinstance(share, Certain):
        return Certain(share.value * by)
    return type(share)(share.median * by, share.sigma)


def devices_of(scenario: Scenario, known: Mapping[str, Device], origin: str) -> dict[str, Device]:
    """The devices that the scenario names.

    Raises:
        ScenarioError: for one that is not in the catalogue, wherever it is named.
    """
    named = [("candidates", c.device) for c in scenario.candidates]
    named += [("prices", p.device) for p in scenario.prices] + [("power", p.device) for p in scenario.power]
    for where, name in named:
        if name not in known:
            near = [one for one in known if name in one] or difflib.get_close_matches(name, known, 1, 0.3)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ScenarioError(
                f"{origin}: {where}: unknown device {name!r}: {hint}`ridgeline list devices` lists them"
            )
    return {candidate.device: known[candidate.device] for candidate in scenario.candidates}
