"""A CUDA (or ROCm) card as something to measure on, described without touching it."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.device import Device, MemoryLevel
from ridgeline.analytical.identify import Identified, identify
from ridgeline.bench.devices.cuda_probe import CudaCard, card_named, probe, something_there
from ridgeline.bench.devices.cuda_timer import TIMERS, card_and_timer
from ridgeline.bench.devices.nvml_card import NvmlCard
from ridgeline.bench.devices.unit import Member, RoofSpec, Session, Unit, UnitError
from ridgeline.bench.environment import unit_hash
from ridgeline.results.measurement import Placement

L2_UNKNOWN_BYTES = 128e6
"""L2 where torch does not tell its size: as large as any so far, so that a cold rotation is cold."""


@dataclass(frozen=True)
class Cuda(Unit):
    """One card."""

    card: CudaCard
    device: Device
    timer_kind: str = "events"
    card_facts: Mapping[str, str] = field(default_factory=dict)
    others: tuple[CudaCard, ...] = ()
    """Further cards of the same name, for placements of several ranks."""
    threads = 1
    """Host threads: one enqueues launches."""
    torch_device = "cuda"

    @property
    def spec(self) -> str:  # type: ignore[override]
        """As :attr:`Unit.spec`; the worker inherits the environment that gives torch's index its meaning."""
        return self._spec_of(self.card)

    def _spec_of(self, card: CudaCard) -> str:
        return f"cuda:{card.index}" + ("" if self.timer_kind == "events" else f":{self.timer_kind}")

    @property
    def timer(self) -> str:  # type: ignore[override]
        """As :attr:`Unit.timer`."""
        return TIMERS[self.timer_kind].name

    @property
    def placement(self) -> Placement:
        """One rank on this card."""
        return Placement(device=self.device.id, torch_device="cuda", unit=card_hash(self.card))

    def members(self, ranks: int) -> Sequence[Member]:
        """One card each: this one, then others of its name by torch's index."""
        cards = (self.card, *self.others)
        if ranks > len(cards):
            raise UnitError(f"{ranks} ranks need a card each: torch can use {len(cards)} {self.card.name}")
        return [Member(self._spec_of(card), card_hash(card), self.threads) for card in cards[:ranks]]

    @property
    def last_level_cache_bytes(self) -> float:
        """Capacity of the level before main memory: the L2, or the Infinity Cache behind it."""
        return self.device.memory[-2].capacity_bytes

    def roofs(self) -> Sequence[RoofSpec]:
        """Bandwidth of L2 and main memory, and the rate of every precision that the card has."""
        from ridgeline.bench.gpu_roofs import gpu_roofs

        return gpu_roofs(self.device, self.card.multiprocessors, self.card.architecture)

    def session(self) -> Session:
        """Open the card in this process."""
        from ridgeline.bench.devices.cuda_session import open_cuda

        return open_cuda(self.spec.removeprefix("cuda:"))

    def facts(self) -> Mapping[str, str]:
        """Driver, runtime, power limit, ECC, MIG and clocks."""
        return self.card_facts


def detect(argument: str) -> Cuda:
    """The card that ``argument`` (what follows ``cuda:``) chooses.

    Raises:
        UnitError: where it cannot be used.
    """
    index, timer = card_and_timer(argument)
    if not something_there():
        raise UnitError("no GPU to measure on: neither NVML nor an AMD driver shows a card; ridgeline doctor says more")
    probed = probe()
    card = card_named(index, probed)
    device = device_of(card)
    others = tuple(other for other in probed.cards if other.name == card.name and other.index != card.index)
    return Cuda(card, device, timer, facts_of(card, device), others)


def identified(card: CudaCard) -> Identified:
    """The device of the catalogue that the card is, by name, memory and multiprocessors; or why it is none."""
    return identify(card.name, card.memory_bytes, card.multiprocessors)


def device_of(card: CudaCard) -> Device:
    """Facts of the card's SKU: from the catalogue where it is known there, else its memory and no ceilings.

    The L2 is what the card tells: no data sheet prints that of an H200, and a cold rotation must pass through all of it.
    """
    name = identified(card).id
    if name is not None:
        known = catalogue()[name]
        *caches, main = known.memory
        l2 = caches[0] if caches else MemoryLevel(name="L2", capacity_bytes=L2_UNKNOWN_BYTES)
        told = dataclasses.replace(l2, capacity_bytes=card.l2_bytes or l2.capacity_bytes)
        return dataclasses.replace(known, memory=(told, *caches[1:], main))
    return Device(
        id=re.sub(r"[^a-z0-9]+", "-", card.name.lower()).strip("-") or "unknown-gpu",
        name=card.name,
        vendor="AMD" if card.is_amd else "NVIDIA",
        kind="gpu",
        memory=(
            MemoryLevel(name="L2", capacity_bytes=card.l2_bytes or L2_UNKNOWN_BYTES),
            MemoryLevel(name="DRAM", capacity_bytes=card.memory_bytes),
        ),
    )


def facts_of(card: CudaCard, device: Device) -> dict[str, str]:
    """What decides numbers on this card, from torch and NVML."""
    facts = {"runtime": card.runtime, "architecture": card.architecture, "multiprocessors": str(card.multiprocessors)}
    if not device.rates:
        facts["physical_ceilings"] = f"none, so none can be impossible: {identified(card).reason}"
    if card.is_amd:
        return facts | {"nvml": "not for AMD cards: clocks, power and limits are not seen"}
    try:
        reader = NvmlCard(card.uuid)
    except UnitError as error:
        return facts | {"nvml": str(error)}
    try:
        return facts | reader.facts()
    finally:
        reader.close()


def card_hash(card: CudaCard) -> str:
    """A hash that tells this card from others without naming it; without a UUID, of host and index."""
    identity = card.uuid or f"{unit_hash()} {card.index} {card.name}"
    return hashlib.sha256(f"ridgeline unit {identity}".encode()).hexdigest()[:12]
