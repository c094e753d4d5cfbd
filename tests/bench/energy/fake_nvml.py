"""The C library of ``fake_nvml.c``: built with the system's compiler, loaded so that the real pynvml finds it.

Also a device on a virtual clock: launches fill a queue, and the power trace follows the queue.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("fake_nvml.c")
LIBRARY = "libnvidia-ml.so.1"
UUID = "GPU-fa4e0000-0000-4000-8000-000000000000"


def build(folder: Path) -> Path:
    """Compile the library into ``folder``; its path."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise RuntimeError("no C compiler: sudo apt-get install gcc")
    target = folder / LIBRARY
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", f"-Wl,-soname,{LIBRARY}"]
    subprocess.run([compiler, *flags, "-o", str(target), str(SOURCE), "-lm"], check=True, timeout=60)
    return target


class FakeNvml:
    """Controls of the library. Loading it by its path is enough: the loader then gives it to everyone who asks for
    ``libnvidia-ml.so.1`` by name, so pynvml is used as it is."""

    def __init__(self, library: Path) -> None:
        self.lib: Any = ctypes.CDLL(str(library))
        self.lib.fakeNvmlExactMj.restype = ctypes.c_double
        self.lib.fakeNvmlExactMj.argtypes = [ctypes.c_int, ctypes.c_double]
        self.lib.fakeNvmlPower.argtypes = [ctypes.c_int, ctypes.c_double, ctypes.c_double]
        self.lib.fakeNvmlSet.argtypes = [ctypes.c_char_p, ctypes.c_double]
        self.lib.fakeNvmlFault.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_double]
        self.lib.fakeNvmlClock.argtypes = [ctypes.c_int64]

    def reset(self) -> None:
        """A fresh card, enabled, at virtual time 0."""
        self.lib.fakeNvmlReset()
        self.lib.fakeNvmlEnable(1)
        self.lib.fakeNvmlClock(0)

    def disable(self) -> None:
        """As if there were no library."""
        self.lib.fakeNvmlReset()
        self.lib.fakeNvmlEnable(0)

    def set(self, **values: float) -> None:
        """Settings by name."""
        for name, value in values.items():
            assert self.lib.fakeNvmlSet(name.encode(), float(value)) == 0, name

    def name(self, name: str) -> None:
        """Name of the card."""
        self.lib.fakeNvmlName(name.encode())

    def fault(self, function: str, code: int, from_s: float = 0.0) -> None:
        """Let a function return ``code`` from a moment on; ``field186`` is one field."""
        assert self.lib.fakeNvmlFault(function.encode(), code, from_s * 1e6) == 0

    def exact_j(self, time_s: float, device: int = 0) -> float:
        """Exact energy up to a moment."""
        return float(self.lib.fakeNvmlExactMj(device, time_s * 1e6)) / 1e3


class VirtualCard:
    """A GPU on the virtual clock. ``launch`` queues work, ``sleep`` and ``synchronize`` let time pass.

    Args:
        fake: the library.
        launch_s: seconds of one launch.
        busy_w: power while busy, as a function of time.
        idle_w: power at rest.
        cell_s: step in which ``busy_w`` is written into the trace.
        read_s: time that a look at the clock costs, so that polling costs time as it does.
    """

    def __init__(
        self,
        fake: FakeNvml,
        launch_s: float = 0.0005,
        busy_w: Callable[[float], float] = lambda t: 450.0,
        idle_w: float = 70.0,
        cell_s: float = 0.01,
        read_s: float = 2e-5,
        blocking: bool = False,
        start_s: float = 10.0,
    ) -> None:
        self.fake, self.launch_s, self.busy_w, self.idle_w = fake, launch_s, busy_w, idle_w
        self.cell_s, self.read_s, self.blocking = cell_s, read_s, blocking
        self.now_s = self.busy_until_s = start_s
        self.launches = 0
        self.busy_s = 0.0
        fake.lib.fakeNvmlForget(0)
        self._point(0.0, idle_w)
        self._tick()

    def play(self, busy_w: Callable[[float], float], launch_s: float) -> None:
        """Another kernel on the same card, later: forgets the trace so far."""
        self.synchronize()
        self.fake.lib.fakeNvmlForget(0)
        self._point(0.0, self.idle_w)
        self.busy_w, self.launch_s = busy_w, launch_s

    def _point(self, time_s: float, watts: float) -> None:
        assert self.fake.lib.fakeNvmlPower(0, time_s * 1e6, watts) == 0

    def _tick(self) -> None:
        self.fake.lib.fakeNvmlClock(round(self.now_s * 1e6))

    def clock(self) -> float:
        """Seconds; looking takes ``read_s``."""
        self.now_s += self.read_s
        self._tick()
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += max(0.0, seconds)
        self._tick()

    def launch(self, count: int) -> None:
        """Queue launches."""
        begin = max(self.now_s, self.busy_until_s)
        end = begin + count * self.launch_s
        cell = int(begin / self.cell_s)
        moment = begin
        while moment < end:
            self._point(moment, self.busy_w(moment))
            cell += 1
            moment = max(cell * self.cell_s, moment + 1e-9)
        self._point(end, self.idle_w)
        self.busy_until_s = end
        self.launches += count
        self.busy_s += end - begin
        if self.blocking:
            self.synchronize()

    def synchronize(self) -> None:
        """Wait for the queue."""
        if self.busy_until_s > self.now_s:
            self.now_s = self.busy_until_s
            self._tick()
