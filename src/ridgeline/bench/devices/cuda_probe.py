"""The cards that this installation's torch can use, asked of a process of its own.

The process that plans must not hold a CUDA context: it takes memory and time on the card that is measured, and a card
that falls off the bus would take the run with it. Only torch knows how it numbers the cards (CUDA_VISIBLE_DEVICES,
CUDA_DEVICE_ORDER), so it is asked, once per command: about three seconds, and only where there is a card at all.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ridgeline.bench.devices.unit import UnitError

PROBE_LIMIT_S = 120.0
"""Longest probe: importing torch and waking the card take up to a minute on a cold machine."""
AMD_DRIVER = Path("/dev/kfd")


@dataclass(frozen=True)
class CudaCard:
    """A card as torch describes it."""

    index: int
    """torch's index."""
    name: str
    uuid: str
    """Empty where torch does not tell."""
    memory_bytes: float
    l2_bytes: float
    multiprocessors: int
    architecture: str
    """sm_90, gfx942."""
    runtime: str
    """Version of CUDA or ROCm that torch was built for, such as ``cuda 13.0``."""

    @property
    def is_amd(self) -> bool:
        """Whether torch reaches it through ROCm."""
        return self.runtime.startswith("rocm")


@dataclass(frozen=True)
class Probed:
    """The cards, or why there are none."""

    cards: tuple[CudaCard, ...]
    reason: str = ""


def something_there() -> bool:
    """Whether a driver shows a card, found in milliseconds and without torch."""
    from ridgeline.bench.devices.nvml_card import nvml_cards

    return nvml_cards() > 0 or AMD_DRIVER.exists()


def probe() -> Probed:
    """Ask torch, in a process of its own; never raises."""
    command = [sys.executable, "-m", "ridgeline.bench.devices.cuda_probe"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_LIMIT_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return Probed((), f"torch did not answer within {PROBE_LIMIT_S:.0f} s: check the driver with nvidia-smi")
    except OSError as error:
        return Probed((), f"torch could not be asked: {error}")
    return read_answer(done.returncode, done.stdout, done.stderr)


def read_answer(code: int, output: str, errors: str) -> Probed:
    """The answer of the probing process: one JSON document on its last line of output."""
    lines = output.strip().splitlines()
    try:
        values = json.loads(lines[-1])
        return Probed(tuple(CudaCard(**card) for card in values["cards"]), str(values["reason"]))
    except (IndexError, ValueError, KeyError, TypeError):
        words = (errors.strip().splitlines() or [f"exit code {code}"])[-1]
        return Probed((), f"torch failed while looking for cards: {words[:200]}")


def describe(torch: Any) -> Probed:
    """The cards of this process's torch; called in the probing process."""
    hip = getattr(torch.version, "hip", None)
    runtime = f"rocm {hip}" if hip else f"cuda {torch.version.cuda}" if torch.version.cuda else ""
    if not runtime:
        return Probed((), f"torch {torch.__version__} is built for the CPU only: make run TORCH=system")
    if not torch.cuda.is_available():
        return Probed((), f"torch {torch.__version__} ({runtime}) finds no card that it can use")
    cards = [
        card_of(index, torch.cuda.get_device_properties(index), runtime) for index in range(torch.cuda.device_count())
    ]
    return Probed(tuple(cards))


def card_of(index: int, properties: Any, runtime: str) -> CudaCard:
    """A card from torch's properties of it."""
    architecture = str(getattr(properties, "gcnArchName", "")).split(":")[0] if runtime.startswith("rocm") else ""
    return CudaCard(
        index=index,
        name=str(properties.name),
        uuid=str(getattr(properties, "uuid", "") or ""),
        memory_bytes=float(properties.total_memory),
        l2_bytes=float(getattr(properties, "L2_cache_size", 0) or 0),
        multiprocessors=int(properties.multi_processor_count),
        architecture=architecture or f"sm_{properties.major}{properties.minor}",
        runtime=runtime,
    )


def card_named(argument: str, probed: Probed) -> CudaCard:
    """The card that ``argument`` chooses: an index of torch, or nothing for the first.

    Raises:
        UnitError: where there is none, or not that one.
    """
    if not probed.cards:
        raise UnitError(f"no GPU to measure on: {probed.reason or 'none found'}")
    known: Mapping[str, CudaCard] = {str(card.index): card for card in probed.cards}
    if (argument or "0") not in known:
        names = ", ".join(f"cuda:{card.index} ({card.name})" for card in probed.cards)
        raise UnitError(f"no card cuda:{argument}: there is {names}")
    return known[argument or "0"]


def main() -> None:
    """Print the answer."""
    try:
        import torch

        found = describe(torch)
    except ImportError:
        found = Probed((), "torch is not installed: pip install 'ridgeline[run]'")
    except Exception as error:
        found = Probed((), f"torch cannot use the card: {(str(error).splitlines() or [type(error).__name__])[0]}")
    print(json.dumps({"cards": [asdict(card) for card in found.cards], "reason": found.reason}))


if __name__ == "__main__":
    main()
