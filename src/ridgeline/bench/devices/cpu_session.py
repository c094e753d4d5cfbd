"""This host as the worker uses it: pinned threads, the monotonic clock, and what else ran while a block was timed."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ridgeline.bench.devices.unit import Observed, Session, Timer, Watch
from ridgeline.results.measurement import Conditions

if TYPE_CHECKING:
    from ridgeline.kernels.registry import Tensors

CPUACCT = Path("/sys/fs/cgroup/cpuacct/cpuacct.usage_percpu")
STAT = Path("/proc/stat")
FREQUENCIES = "/sys/devices/system/cpu"
TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")

OTHERS_SHARE = 0.5
"""A block in which others took more than half of one processor's time does not count. Below that they can delay a
sample or two of a block, which its median does not see; above it they can hold half of the samples."""

TASKS = Path("/proc/self/task")
LONGEST_SETTLE_S = 0.02
"""libgomp's threads pause 300,000 times before they sleep: 4 ms where a pause takes 12 ns, 14 ms where it takes 47."""
FEWEST_HELPER_S = 50e-6
"""Processor time by which a thread is known to have helped: native ones spin for 100 us after a launch."""


class PerfCounterTimer(Timer):
    """The monotonic clock of the host; a launch on the CPU has ended when its call returns."""

    name = "perf_counter"

    def time(self, launch: Callable[[int], None], launches: int) -> float:
        """As :meth:`Timer.time`."""
        start = time.perf_counter_ns()
        launch(launches)
        return (time.perf_counter_ns() - start) * 1e-9


@dataclass(frozen=True)
class Reading:
    """Counters of the host and of this process at one instant, in seconds."""

    at_s: float
    busy_s: float | None
    """Time that all processors together spent on any process."""
    resolution_s: float
    """What ``busy_s`` may be wrong by, over all processors."""
    own_s: float
    """Time that they spent on this one."""
    steal_s: float | None
    involuntary_switches: int


@functools.cache
def _descriptor(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _text(path: Path) -> str:
    """The first lines of a file that the kernel makes anew for each read: opening it took three times as long as reading."""
    return os.pread(_descriptor(path), 65536, 0).decode("ascii")


def read_counters() -> Reading:
    """The counters now; costs about 30 us, outside of every sample."""
    busy, resolution, steal = None, 0.0, None
    with contextlib.suppress(OSError, ValueError):
        fields = [int(text) for text in _text(STAT).split("\n", 1)[0].split()[1:9]]
        user, nice, system, _, _, irq, softirq, stolen = fields
        busy, resolution = (user + nice + system + irq + softirq) * TICK_S, (os.cpu_count() or 1) * TICK_S
        steal = stolen * TICK_S
    with contextlib.suppress(OSError, ValueError):
        # Nanoseconds, where ticks of 10 ms are half a block; in a container it may leave out what runs beside it.
        busy, resolution = sum(map(int, _text(CPUACCT).split())) * 1e-9, 0.0
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    return Reading(time.monotonic(), busy, resolution, time.process_time(), steal, switches)


def judge(before: Reading, after: Reading, clock_mhz: float | None) -> Observed:
    """What happened between two readings, and whether it spoils a block."""
    elapsed = max(after.at_s - before.at_s, 1e-9)
    steal = None if before.steal_s is None or after.steal_s is None else max(0.0, after.steal_s - before.steal_s)
    others = None
    if before.busy_s is not None and after.busy_s is not None:
        own = after.own_s - before.own_s
        others = max(0.0, after.busy_s - before.busy_s - own - after.resolution_s) / elapsed
    cause = ""
    if others is not None and others > OTHERS_SHARE:
        cause = "other processes"
    elif steal is not None and steal > OTHERS_SHARE * elapsed + TICK_S:
        cause = "hypervisor"
    conditions = Conditions(
        steal_s=steal,
        involuntary_switches=after.involuntary_switches - before.involuntary_switches,
        load_other=others,
        clock_mhz=clock_mhz,
    )
    return Observed(conditions, cause)


def clock_mhz(processors: set[int]) -> float | None:
    """Median current frequency of the processors; ``None`` where the kernel shows none, as in most virtual machines."""
    found = []
    for number in processors:
        try:
            text = Path(f"{FREQUENCIES}/cpu{number}/cpufreq/scaling_cur_freq").read_text(encoding="ascii")
            found.append(int(text) / 1e3)
        except (OSError, ValueError):
            return None
    return statistics.median(found) if found else None


class CpuWatch(Watch):
    """Steal, switches, other processes and the clock of the processors in use, per block."""

    def __init__(self) -> None:
        self.processors: set[int] = set()
        self._shows_clock = any(Path(FREQUENCIES).glob("cpu*/cpufreq/scaling_cur_freq"))
        self._before = read_counters()

    def begin(self) -> None:
        """As :meth:`Watch.begin`."""
        self._before = read_counters()

    def end(self) -> Observed:
        """As :meth:`Watch.end`."""
        return self.end_among(lambda own_s: own_s)

    def end_among(self, total: Callable[[float], float]) -> Observed:
        """As :meth:`Watch.end_among`."""
        after = read_counters()
        own_s = self._before.own_s + total(after.own_s - self._before.own_s)
        clock = clock_mhz(self.processors) if self._shows_clock else None
        return judge(self._before, replace(after, own_s=own_s), clock)


def pin(processors: set[int]) -> None:
    """Bind every thread of this process, and through them those they start, to ``processors``."""
    for task in Path("/proc/self/task").glob("*"):
        try:
            os.sched_setaffinity(int(task.name), processors)
        except OSError:
            continue  # the thread has ended


def thread_times() -> dict[int, float]:
    """Processor seconds of each thread of this process but the caller's, by its id; a sleeping thread's are exact.

    Empty where the kernel does not tell.
    """
    found = {}
    own = threading.get_native_id()
    for task in TASKS.glob("*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int(task.name) != own:
                found[int(task.name)] = int((task / "schedstat").read_text(encoding="ascii").split()[0]) * 1e-9
    return found


def any_running(threads: Iterable[int]) -> bool:
    """Whether one of these threads runs or waits for a processor; one that has ended does not."""
    for thread in threads:
        with contextlib.suppress(OSError):
            # 90 us for the eight threads of a worker. Process times would be cheaper to read, but a running
            # thread's are brought up to date by the tick, every 4 ms.
            if (TASKS / str(thread) / "stat").read_bytes().rpartition(b") ")[2][:1] == b"R":
                return True
    return False


class CpuSession(Session):
    """This host. Tensors stay where they were made.

    Threads of torch's OpenMP spin for milliseconds after each operation. A kernel with threads of its own that is
    launched meanwhile shares processors with them: an INT8 product of 100 us took up to twice its time by turns with
    torch.matmul (docs/trust.md), which :meth:`settle` ends. Where all that has helped fits on the processors beside the
    caller, as with torch alone, nothing is in the way and nothing is waited for.
    """

    torch_device = "cpu"

    def __init__(self) -> None:
        self.timer = PerfCounterTimer()
        self.watch: CpuWatch = CpuWatch()
        self._all = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._steal_s = read_counters().steal_s
        self._threads = 1
        self._before: dict[int, float] = {}
        self._helpers: set[int] = set()
        self._settles = 0

    def interruption(self) -> str:
        """Time that the hypervisor gave to other guests."""
        before, self._steal_s = self._steal_s, read_counters().steal_s
        stolen = before is not None and self._steal_s is not None and self._steal_s > before
        return "CPU time stolen by other guests" if stolen else ""

    def use(self, threads: int, rank: int = 0) -> None:
        """Pin the process to ``threads`` processors of its own, from the last: the first takes most interrupts."""
        torch = sys.modules.get("torch")  # a callable of the user's own may do without
        if torch is not None:
            torch.set_num_threads(threads)
        if self._all:
            last = len(self._all) - rank * threads
            self.watch.processors = set(self._all[max(0, last - threads) : last])
            pin(self.watch.processors)
        self._threads = threads
        self._before = thread_times()
        self._helpers = set()
        self._settles = 0

    def begin_case(self, operator: str, implementation: str, seed: int) -> None:
        """Other threads may help from now on."""
        self._settles = 0

    def settle(self) -> None:
        """Wait until no thread that has worked since :meth:`use` runs, where there are too many to run side by side."""
        if len(self._helpers) < self._threads and self._settles & (self._settles - 1) == 0:
            # At the first time, the second, the third, the fifth, the ninth: what is launched later may have others.
            self._wait_for(thread_times())  # what they took is exact once they sleep
            taken = {thread: spent - self._before.get(thread, 0.0) for thread, spent in thread_times().items()}
            self._helpers = {thread for thread, spent in taken.items() if spent >= FEWEST_HELPER_S}
        self._settles += 1
        if len(self._helpers) >= self._threads:
            self._wait_for(self._helpers)

    @staticmethod
    def _wait_for(threads: Iterable[int]) -> None:
        until = time.monotonic() + LONGEST_SETTLE_S
        while any_running(threads) and time.monotonic() < until:
            pass

    def close(self) -> None:
        """Give the process its processors back."""
        if self._all:
            pin(set(self._all))

    def place(self, tensors: Tensors) -> Tensors:
        """The tensors themselves."""
        return tensors

    def synchronize(self) -> None:
        """A launch has ended when its call returns."""
