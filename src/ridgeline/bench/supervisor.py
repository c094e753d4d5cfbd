"""The supervisor: keeps one warm worker, watches its time and memory, and turns its death into a status."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any

import psutil

POLL_S = 0.05
"""How often memory and time are looked at: a kernel that touches 4 GB/s of new pages gains 0.2 GB between looks."""
START_LIMIT_S = 300.0
"""Longest start of a worker: importing torch takes seconds, and a minute on a busy or cold machine."""
END_LIMIT_S = 5.0
"""How long a worker that closed its channel may take to end."""
LONGEST_REASON = 500
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


class Supervisor:
    """Runs requests in a warm worker process, which it replaces after any fault."""

    def __init__(self, timeout_s: float, memory_limit_bytes: float) -> None:
        self._timeout_s = timeout_s
        self._memory_limit_bytes = memory_limit_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._buffer = b""

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        process = self._worker()
        assert process.stdin is not None
        assert process.stdout is not None
        phase, peak = "start", 0.0
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except (BrokenPipeError, OSError):
            return self._ended("crashed", f"the worker did not start: {self._last_words()}", peak)
        # The case's own time begins when the worker has imported what it needs, which says nothing of the case.
        limit_s, deadline = START_LIMIT_S, time.monotonic() + START_LIMIT_S
        watched = psutil.Process(process.pid)
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                if selector.select(POLL_S):
                    chunk = os.read(process.stdout.fileno(), 1 << 16)
                    if not chunk:
                        return self._ended("crashed", f"{self._cause_of_death()} (phase: {phase})", peak)
                    self._buffer += chunk
                    while b"\n" in self._buffer:
                        line, self._buffer = self._buffer.split(b"\n", 1)
                        try:
                            event = json.loads(line)
                            if event.pop("event") == "result":
                                return self._finish(event, max(peak, _resident_bytes(watched)))
                            phase = event["name"]
                        except (ValueError, KeyError, AttributeError):
                            reason = f"the kernel wrote to the worker's channel (phase: {phase})"
                            return self._ended("crashed", reason, peak)
                        if phase != "import" and limit_s != self._timeout_s:
                            limit_s, deadline = self._timeout_s, time.monotonic() + self._timeout_s
                        peak = max(peak, _resident_bytes(watched))
                elif process.poll() is not None:
                    # A process that the kernel forked holds the channel open: its end is never seen.
                    return self._ended("crashed", f"{self._cause_of_death()} (phase: {phase})", peak)
                else:
                    peak = max(peak, _resident_bytes(watched))
                if peak > self._memory_limit_bytes:
                    reason = f"{peak / 1e9:.1f} GB resident, limit {self._memory_limit_bytes / 1e9:.1f} GB"
                    return self._ended("out_of_memory", f"{reason} (phase: {phase})", peak)
                if time.monotonic() > deadline:
                    return self._ended("timeout", f"no result after {limit_s:.3g} s (phase: {phase})", peak)

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

    def _ended(self, status: str, reason: str, peak: float) -> Outcome:
        self.stop()
        return Outcome({"status": status, "reason": _one_line(reason)}, peak)

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
