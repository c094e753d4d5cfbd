"""Run by ``test_nvml_card.py`` in a process of its own, whose NVML is ``card_nvml.c``; prints what it saw."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os

from ridgeline.bench.devices.nvml_card import NvmlCard, nvml_cards
from ridgeline.bench.devices.unit import UnitError, UnitLostError

LIBC = ctypes.CDLL(None)
ONE = "00000000-0000-4000-8000-000000000001"


def put(name: str, value: float) -> None:
    LIBC.setenv(name.encode(), str(value).encode(), 1)


def main() -> None:
    seen: dict[str, object] = {"cards": nvml_cards()}
    card = NvmlCard(ONE, known_pid=lambda pid: pid == 77)
    seen["facts"] = card.facts()
    seen["sample"] = dataclasses.asdict(card.sample())
    put("CARD_POWER_NS", 2.5e9)
    put("CARD_HEAT_NS", 1e9)
    seen["limited"] = dict(card.counters().limited_s)
    others = {}
    for label, first, second in (
        ("none", 0, 0),
        ("own", os.getpid(), 0),
        ("host id", 999_999, 0),
        ("known", 77, 0),
        ("own and another", os.getpid(), 999_999),
    ):
        put("CARD_PID", first)
        put("CARD_PID2", second)
        others[label] = card.others()
    seen["others"] = others
    put("CARD_LOST", 1)
    seen["lost sample"] = dataclasses.asdict(card.sample())
    try:
        card.counters()
    except UnitLostError as error:
        seen["lost"] = str(error)
    card.close()
    put("CARD_LOST", 0)
    put("CARD_FIELDS", 0)
    seen["limited by policies"] = dict(NvmlCard("GPU-" + ONE).counters().limited_s)
    for label, code, uuid in (("unknown card", 0, "GPU-ffff"), ("driver mismatch", 18, ONE)):
        put("CARD_INIT", code)
        try:
            NvmlCard(uuid)
        except UnitError as error:
            seen[label] = str(error)
    seen["cards without a driver"] = nvml_cards()
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
