"""The supervisor: keeps one warm worker, watches its time and memory, and turns its death into a status."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import psutil

POLL_S = 0.05
"""How often memory and time are looked at: a kernel that touches 4 GB/s of new pages gains 0.2 GB between looks."""
START_LIMIT_S = 300.0
"""Longest start of a worker: importing torch takes seconds, and a minute on a busy or cold machine."""
END_LIMIT_S = 5.0
"""How long a worker that closed its channel may take to end."""
LONGEST_REASON = 500
PLACE_LIMIT_S = 2.0
"""How long a worker may take to say where it is."""
_FRAME = re.compile(r'File "(.*)", line (\d+) in (\S+)')
"""A frame as ``faulthandler`` writes it; the innermost one comes first."""
WORKER_ENVIRONMENT = {
    # One compiler process at a time inside the worker: inductor's pool would outlive a killed worker for seconds.
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    # A second OpenMP runtime is not needed, and its spinning threads slow the kernels of the first on few cores.
    "NUMBA_THREADING_LAYER": "workqueue",
}


@dataclass(frozen=True)
class Outcome:
    """What became of a case."""

    fields: Mapping[str, Any]
    """Status, reason and, where it was timed, the record's measured fields."""
    peak_memory_bytes: float
    unit_lost: bool = False
    """The unit went away while the case ran."""
    answered: bool = True
    """The worker said so itself; otherwise it died or was ended."""


@dataclass(frozen=True)
class Place:
    """The innermost Python frame of a worker."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.function} ({os.path.basename(self.file)}, line {self.line})"


@dataclass
class _Running:
    """What is known of the case that a worker runs."""

    process: psutil.Process
    memory_limit_bytes: float
    phase: str = "start"
    peak_bytes: float = 0.0
    # The case's own time begins when the worker has imported what it needs, which says nothing of the case.
    limit_s: float = START_LIMIT_S
    deadline: float = field(default_factory=lambda: time.monotonic() + START_LIMIT_S)

    def see_memory(self) -> None:
        self.peak_bytes = max(self.peak_bytes, _resident_bytes(self.process))


class Supervisor:
    """Runs requests in a warm worker process, which it replaces after any fault."""

    def __init__(self, timeout_s: float, memory_limit_bytes: float) -> None:
        self._timeout_s = timeout_s
        self._memory_limit_bytes = memory_limit_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._buffer = b""
        self._case: _Running | None = None

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the worker and everything it started."""
        children = self._children()
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, self._errors):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._buffer = b""

    def run(self, request: Mapping[str, Any]) -> Outcome:
        """Run one case; a fault of the worker becomes ``timeout``, ``out_of_memory`` or ``crashed`` with its reason."""
        outcome = self.begin(request)
        if outcome is not None:
            return outcome
        with selectors.DefaultSelector() as selector:
            selector.register(self.channel, selectors.EVENT_READ)
            while outcome is None:
                outcome = self.look(readable=bool(selector.select(POLL_S)))
        return outcome

    def begin(self, request: Mapping[str, Any], memory_share: float = 1.0) -> Outcome | None:
        """Send a case to the worker; :meth:`look` says what becomes of it.

        Args:
            request: the case.
            memory_share: of the limit, for one worker of several.

        Returns:
            The outcome, where it is known already.
        """
        process = self._worker()
        assert process.stdin is not None
        limit = memory_share * self._memory_limit_bytes
        self._case = _Running(psutil.Process(process.pid), limit)
        try:
            process.stdin.write(json.dumps({**request, "memory_limit_bytes": limit}).encode() + b"\n")
            process.stdin.flush()
        except (BrokenPipeError, OSError):
            return self._ended("crashed", f"the worker did not start: {self._last_words()}")
        return None

    @property
    def channel(self) -> int:
        """The descriptor on which the worker answers, while it runs."""
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def look(self, readable: bool) -> Outcome | None:
        """What became of the case that runs; ``None`` while it goes on. ``readable``: :attr:`channel` has something."""
        case = self._case
        assert case is not None
        assert self._process is not None
        if readable:
            chunk = os.read(self.channel, 1 << 16)
            if not chunk:
                return self._ended("crashed", f"{self._cause_of_death()} (phase: {case.phase})")
            self._buffer += chunk
            while b"\n" in self._buffer:
                line, self._buffer = self._buffer.split(b"\n", 1)
                try:
                    event = json.loads(line)
                    if event.pop("event") == "result":
                        case.see_memory()
                        return self._finish(event, case.peak_bytes)
                    case.phase = event["name"]
                except (ValueError, KeyError, AttributeError):
                    return self._ended("crashed", f"the kernel wrote to the worker's channel (phase: {case.phase})")
                if case.phase != "import" and case.limit_s != self._timeout_s:
                    case.limit_s, case.deadline = self._timeout_s, time.monotonic() + self._timeout_s
                case.see_memory()
        elif self._process.poll() is not None:
            # A process that the kernel forked holds the channel open: its end is never seen.
            return self._ended("crashed", f"{self._cause_of_death()} (phase: {case.phase})")
        else:
            case.see_memory()
        if case.peak_bytes > case.memory_limit_bytes:
            reason = f"{case.peak_bytes / 1e9:.1f} GB resident, limit {case.memory_limit_bytes / 1e9:.1f} GB"
            return self._ended("out_of_memory", f"{reason} (phase: {case.phase})")
        return self.end_overdue() if self.overdue else None

    @property
    def overdue(self) -> bool:
        """Whether the case that runs has had all its time."""
        return self._case is not None and time.monotonic() > self._case.deadline

    def end_overdue(self, where: str = "") -> Outcome:
        """End a case that has had all its time; ``where`` it was is said in the reason."""
        assert self._case is not None
        reason = f"no result after {self._case.limit_s:.3g} s (phase: {self._case.phase})"
        return self._ended("timeout", f"{reason}, in {where}" if where else reason)

    def place(self) -> Place | None:
        """Where the worker's own code is now; ``None`` where it does not tell."""
        if self._process is None or self._errors is None:
            return None
        errors = self._errors.fileno()
        # Not by seek: the worker writes at the same position.
        before = os.fstat(errors).st_size
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGUSR1)
        until = time.monotonic() + PLACE_LIMIT_S
        while time.monotonic() < until:
            frame = _FRAME.search(os.pread(errors, 1 << 16, before).decode(errors="replace"))
            if frame is not None:
                return Place(frame[1], int(frame[2]), frame[3])
            time.sleep(0.01)
        return None

    def _finish(self, fields: Mapping[str, Any], peak: float) -> Outcome:
        fields = dict(fields)
        lost = bool(fields.pop("unit_lost", False))
        # A kernel that went wrong may have damaged the process; one that left another running would disturb the next.
        if fields["status"] not in ("ok", "unstable", "unsupported") or self._children():
            self.stop()
        reason = _one_line(fields.get("reason", ""))
        if fields["status"] != "ok" and not reason:
            reason = "the kernel gave no reason"
        return Outcome({**fields, "reason": reason}, peak, lost)

    def _ended(self, status: str, reason: str) -> Outcome:
        peak = self._case.peak_bytes if self._case is not None else 0.0
        self.stop()
        return Outcome({"status": status, "reason": _one_line(reason)}, peak, answered=False)

    def _children(self) -> list[psutil.Process]:
        """Every process below the worker, also those that left its process group."""
        if self._process is None:
            return []
        try:
            return psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _worker(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the worker)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ridgeline.bench.worker", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, **WORKER_ENVIRONMENT},
                start_new_session=True,
            )
        return self._process

    def _cause_of_death(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(timeout=END_LIMIT_S)
        except subprocess.TimeoutExpired:
            return "the kernel closed the worker's channel"
        if code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = f"signal {-code}"
            return f"killed by {name}"
        words = self._last_words()
        return f"exited with code {code}" + (f": {words}" if words else "")

    def _last_words(self) -> str:
        """The last line the worker wrote to standard error."""
        if self._errors is None:
            return ""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else ""


def _one_line(text: str) -> str:
    """``text`` as a reason: one line, of valid Unicode (an error's text may hold lone surrogates), not endless."""
    return " ".join(text.encode(errors="replace").decode().split())[:LONGEST_REASON]


def _resident_bytes(process: psutil.Process) -> float:
    """Resident bytes of the worker and its children; 0 when it is gone."""
    total = 0.0
    try:
        for member in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += member.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total
