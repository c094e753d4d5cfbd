"""Zeus' device layer as a meter, played by objects of the shape that zeus 0.16 documents."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ridgeline.bench.energy.source import MeterError, MeterFault
from ridgeline.bench.energy.zeus_source import ZeusSource


class Card:
    def __init__(self, counts: bool = True, fails: bool = False) -> None:
        self.counts, self.fails, self.energy_mj = counts, fails, 1500

    def supports_get_total_energy_consumption(self) -> bool:
        return self.counts

    def get_total_energy_consumption(self) -> int:
        if self.fails:
            raise RuntimeError("amdsmi says no\nand more")
        return self.energy_mj


def raising(text: str) -> Callable[[], Any]:
    def call() -> Any:
        raise RuntimeError(text)

    return call


def layer(*cards: Card, chip: Any = None) -> SimpleNamespace:
    soc = raising("no such chip") if chip is None else lambda: chip
    gpus = (lambda: SimpleNamespace(gpus=list(cards))) if cards else raising("no GPU\nhere")
    return SimpleNamespace(get_soc=soc, get_gpus=gpus)


def test_a_card_gives_joules_of_the_board() -> None:
    card = Card()
    source = ZeusSource(device=layer(card))
    assert (source.facts.meter, source.facts.scope) == ("zeus", "board")
    before = source.energy_j()
    card.energy_mj += 2500
    assert source.energy_j() - before == pytest.approx(2.5)


def test_a_chip_is_the_sum_of_its_parts_and_the_system() -> None:
    parts = SimpleNamespace(cpu_total_mj=1000, gpu_mj=500, dram_mj=None)
    source = ZeusSource(device=layer(chip=SimpleNamespace(get_total_energy_consumption=lambda: parts)))
    assert source.facts.scope == "system"
    assert source.energy_j() == pytest.approx(1.5)


def test_several_cards_are_not_guessed_between() -> None:
    with pytest.raises(MeterError, match="say which GPU by its UUID"):
        ZeusSource(device=layer(Card(), Card()))


def test_a_card_without_a_counter_and_a_host_without_a_card_say_so() -> None:
    with pytest.raises(MeterFault, match="trusts no energy counter"):
        ZeusSource(device=layer(Card(counts=False)))
    with pytest.raises(MeterFault, match="zeus finds no meter: no GPU here"):
        ZeusSource(device=layer())


def test_a_driver_that_is_not_there_is_a_reason() -> None:
    card = Card()
    card.supports_get_total_energy_consumption = raising("Uninitialized")  # type: ignore[method-assign]
    with pytest.raises(MeterFault, match="zeus cannot use this GPU: Uninitialized"):
        ZeusSource(device=layer(card))


def test_a_counter_that_fails_is_a_reason_in_one_line() -> None:
    source = ZeusSource(device=layer(Card(fails=True)))
    with pytest.raises(MeterFault, match="zeus cannot read the counter: amdsmi says no and more"):
        source.energy_j()


def test_without_zeus_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeus", None)
    monkeypatch.setitem(sys.modules, "zeus.device", None)
    with pytest.raises(MeterFault, match=r"pip install 'ridgeline\[energy\]'"):
        ZeusSource()
