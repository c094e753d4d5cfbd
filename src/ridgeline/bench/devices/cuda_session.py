"""A CUDA (or ROCm) card as the worker uses it: the only file that talks to torch.cuda while something is measured."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ridgeline.bench.devices.cuda_timer import TIMERS, Card, Event, EventTimer, card_and_timer
from ridgeline.bench.devices.cuda_watch import CardWatch, NotWatched
from ridgeline.bench.devices.kernel_trace import CardActivity, figures
from ridgeline.bench.devices.nvml_card import NvmlCard
from ridgeline.bench.devices.unit import Session, UnitError, UnitLostError, Watch

if TYPE_CHECKING:
    from ridgeline.kernels.registry import Tensors

PROFILED_LAUNCHES = 3
GRAPH_S = 1e-3
"""Length of a graph of launches whose energy is measured: a quarter of what is handed over at once, and 100 times what
replaying it costs the host."""
ASSUMED_CLOCK_HZ = 2.0e9
"""Clock by which a hold is turned into cycles where the card does not tell its own: as fast as any, so that the hold is
not too short; a slower card holds longer."""
_LOST = re.compile(
    r"GPU is lost|fallen off the bus|no CUDA-capable device|busy or unavailable|"
    r"ECC error|driver shutting down|system not yet initialized|hipErrorNoDevice",
    re.IGNORECASE,
)
"""CUDA's words (cudaErrorDevicesUnavailable, cudaErrorECCUncorrectable, cudaErrorNoDevice, ...) for a card that no new
process will find well."""


def lost_reason(text: str) -> str:
    """The line of a CUDA error's text that says that the card is gone; empty for any other error."""
    for line in text.splitlines():
        if _LOST.search(line):
            return line.strip()
    return ""


@contextlib.contextmanager
def naming_loss() -> Iterator[None]:
    """Turn a CUDA error that says that the card is gone into :class:`UnitLostError`; others pass."""
    try:
        yield
    except RuntimeError as error:
        reason = "" if isinstance(error, UnitLostError) else lost_reason(str(error))
        if reason:
            raise UnitLostError(f"the card is gone: {reason}") from error
        raise


class TorchCard:
    """:class:`ridgeline.bench.devices.cuda_timer.Card` of the current CUDA device."""

    def __init__(self, torch: Any, clock_hz: float) -> None:
        self._torch = torch
        self._clock_hz = clock_hz

    def event(self) -> Event:
        """A timing event."""
        event: Event = self._torch.cuda.Event(enable_timing=True)
        return event

    def hold(self, seconds: float) -> None:
        """torch's spinning kernel."""
        self._torch.cuda._sleep(int(seconds * self._clock_hz))

    def synchronize(self) -> None:
        """Wait for the device."""
        with naming_loss():
            self._torch.cuda.synchronize()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """A CUDA graph; capture does not run the work."""
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph):
            work()
        replay: Callable[[], None] = graph.replay
        return replay

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """A collection between two launches takes milliseconds and would expose the launches after it."""
        enabled = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if enabled:
                gc.enable()


class CudaSession(Session):
    """One card; it is the current one of this process.

    Args:
        torch: the module.
        card: what captures graphs.
        timer: what times launches.
        watch: what looks at the card.
        card_uuid: by which its energy meter is found.
    """

    torch_device = "cuda"
    timer: EventTimer

    def __init__(self, torch: Any, card: Card, timer: EventTimer, watch: Watch, card_uuid: str | None = None) -> None:
        self._torch = torch
        self._card = card
        self.card_uuid = card_uuid
        self.timer = timer
        self.watch = watch
        self._held_bytes = 0.0

    def use(self, threads: int, rank: int = 0) -> None:
        """Give back what the last case left in torch's cache, and begin to count memory.

        One thread enqueues; the host's other ones compute references between the blocks. torch multiplies float32 as
        float32 (some containers' environment says TF32), unless the implementation asks for TF32, which it then states.
        """
        self._torch.set_float32_matmul_precision("highest")
        self.timer.forget()
        self._torch.set_num_threads(max(threads, len(os.sched_getaffinity(0))))
        gc.collect()
        self._torch.cuda.empty_cache()
        self._torch.cuda.reset_peak_memory_stats()
        self._held_bytes = float(self._torch.cuda.memory_allocated())

    def interruption(self) -> str:
        """The card waited for the host."""
        return "launch exposed" if self.timer.take_exposed() else ""

    def place(self, tensors: Tensors) -> Tensors:
        """Copies on the card."""
        with naming_loss():
            return {name: tensor.to("cuda") for name, tensor in tensors.items()}

    def synchronize(self) -> None:
        """Wait for everything launched; an error of a kernel shows here."""
        with naming_loss():
            self._torch.cuda.synchronize()

    def unattended(self, launch: Callable[[int], None], launch_s: float, rotation: int) -> Callable[[int], None]:
        """Replays of captured graphs; ``launch`` itself where it cannot be captured.

        An int4 product of 80 us on an H200, launched from Python three kernels at a time, came every 283 us: two thirds
        of the energy that was counted as its own was the idle card's.
        """
        count = max(1, int(GRAPH_S / launch_s))
        try:
            graphs = itertools.cycle([self._card.capture(lambda: launch(count)) for _ in range(-(-rotation // count))])
        except RuntimeError:
            self.synchronize()
            return launch

        def replay(launches: int) -> None:
            for graph in itertools.islice(graphs, launches // count):
                graph()
            launch(launches % count)

        return replay

    def peak_memory_bytes(self) -> float | None:
        """Largest allocation of torch since :meth:`use`, less what was held then (probes of the roofs)."""
        return max(0.0, float(self._torch.cuda.max_memory_allocated()) - self._held_bytes)

    def free_bytes(self) -> float:
        """What the driver has free, and what torch holds in reserve."""
        with naming_loss():
            free, _ = self._torch.cuda.mem_get_info()
        return float(free + self._torch.cuda.memory_reserved() - self._torch.cuda.memory_allocated())

    def profile(self, launch: Callable[[int], None]) -> Mapping[str, Any]:
        """Figures of a few launches from torch's profiler (CUPTI, roctracer); empty where it sees no kernels."""
        try:
            from torch.profiler import ProfilerActivity, profile

            self.synchronize()
            with profile(activities=[ProfilerActivity.CUDA]) as profiler:
                launch(PROFILED_LAUNCHES)
                self._torch.cuda.synchronize()
            return figures(activities_of(profiler.events()), PROFILED_LAUNCHES)
        except (ImportError, AttributeError, RuntimeError) as error:
            # A fault of the kernel is sticky: it shows again here and is not taken for a missing profiler.
            if not isinstance(error, UnitLostError):
                self.synchronize()
                return {}
            raise


def activities_of(events: Any) -> list[CardActivity]:
    """What the card did, of the events of ``torch.profiler`` (microseconds)."""
    return [
        CardActivity(str(event.name), float(event.time_range.start) * 1e-6, float(event.time_range.end) * 1e-6)
        for event in events or ()
        if str(event.device_type).rpartition(".")[2] in ("CUDA", "HIP")
    ]


def open_cuda(argument: str) -> CudaSession:
    """Open the card that ``argument`` (``0``, ``1:graph``) names as the current one of this process.

    Raises:
        UnitError: where torch cannot use it.
    """
    import torch

    index, kind = card_and_timer(argument)
    if not torch.cuda.is_available():
        raise UnitError(f"cuda:{argument}: torch {torch.__version__} finds no card that it can use")
    try:
        torch.cuda.set_device(int(index or 0))
        properties = torch.cuda.get_device_properties(int(index or 0))
    except (RuntimeError, AssertionError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnitError(f"cuda:{argument}: {first}") from error
    reader: NvmlCard | None = None
    if torch.version.hip:
        unseen = "ROCm: clocks, power and limits are read through NVML, which AMD cards do not have"
    else:
        try:
            reader, unseen = NvmlCard(str(getattr(properties, "uuid", ""))), ""
        except UnitError as error:
            unseen = str(error)
    clock_mhz = float(reader.facts().get("max_sm_clock_mhz", 0.0)) if reader is not None else 0.0
    card = TorchCard(torch, clock_mhz * 1e6 or ASSUMED_CLOCK_HZ)
    timer = TIMERS[kind](card)
    watch: Watch
    if reader is None:
        watch = NotWatched(unseen, timer.take_exposed)
    else:
        watch = CardWatch(reader, timer.take_exposed)
    return CudaSession(torch, card, timer, watch, str(getattr(properties, "uuid", "")) or None)
