"""``ridgeline`` as a process forked from one that has imported torch and the rest, which takes 4 s of every other start.

Each command is a process with its own arguments, environment, folder, streams and exit code, as one from the shell is,
and so is the worker of each, which is forked from the command. What they import themselves is not seen this way: every
verb is also started from the shell, with a worker started as users' are, by at least one test.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

PRELOADED = (
    "ridgeline.bench.compare_report", "ridgeline.bench.compare_command", "ridgeline.bench.doctor",
    "ridgeline.bench.measure_command", "ridgeline.bench.progress", "ridgeline.bench.refusals", "ridgeline.bench.run",
    "ridgeline.bench.summary", "ridgeline.bench.worker", "ridgeline.bench.launches", "ridgeline.bench.timing",
    "ridgeline.bench.checks", "ridgeline.bench.devices.cuda_timer", "ridgeline.bench.contest",
)  # fmt: skip


class WarmCommands:
    """The process that forks the commands, one after the other; it is started by the first."""

    def __init__(self, environment: Mapping[str, str], folder: Path, limit_s: float) -> None:
        self._environment = environment
        self._out, self._err = folder / "stdout", folder / "stderr"
        self._limit_s = limit_s
        self._server: subprocess.Popen[str] | None = None

    def run(self, arguments: list[str], environment: Mapping[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
        """As ``subprocess.run`` of the command with captured text."""
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, __file__], env=dict(self._environment), cwd=cwd, text=True, start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        streams = [str(self._out), str(self._err)]
        print(json.dumps([arguments, dict(environment), str(cwd), streams]), file=self._server.stdin, flush=True)
        if not select.select([self._server.stdout], [], [], self._limit_s)[0]:
            self.stop()
            raise subprocess.TimeoutExpired(arguments, self._limit_s)
        code = int(self._server.stdout.readline())
        return subprocess.CompletedProcess(arguments, code, self._out.read_text(), self._err.read_text())

    def stop(self) -> None:
        """End the process and what it forked."""
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.communicate()
            self._server = None


class ForkedWorker:
    """What the supervisor uses of ``subprocess.Popen``, for a worker that has imported torch already."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: int,
        stdout: int,
        stderr: IO[bytes],
        env: Mapping[str, str],
        start_new_session: bool,
    ) -> None:
        assert (stdin, stdout, start_new_session) == (subprocess.PIPE, subprocess.PIPE, True)
        requests, to_worker = os.pipe()
        from_worker, answers = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            self._work(command, [requests, answers, stderr.fileno()], env)
        os.close(requests)
        os.close(answers)
        self.stdin, self.stdout = os.fdopen(to_worker, "wb"), os.fdopen(from_worker, "rb")
        self.returncode: int | None = None

    def _work(self, command: Sequence[str], streams: Sequence[int], env: Mapping[str, str]) -> None:
        from ridgeline.bench import worker

        code = 1
        try:
            os.setsid()
            for number, opened in enumerate(streams):
                os.dup2(opened, number)
            os.closerange(len(streams), 1 << 10)
            os.environ.clear()
            os.environ.update(env)
            sys.argv = list(command[-2:])
            worker.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float = 60.0) -> int:
        until = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("worker", timeout)
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def fork_workers() -> None:
    """Let the supervisors of this process fork their workers."""
    from ridgeline.bench import supervisor

    subprocess_: Any = SimpleNamespace(**vars(subprocess))
    subprocess_.Popen = ForkedWorker
    supervisor.subprocess = subprocess_


def serve() -> None:
    """Fork a command for every line of standard input and answer with its exit code; return in the command."""
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    for line in requests:
        arguments, environment, cwd, streams = json.loads(line)
        child = os.fork()
        if not child:
            requests.close()
            answers.close()
            for number, path in enumerate([os.devnull, *streams]):
                opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY)
                os.dup2(opened, number)
                os.close(opened)
            os.environ.clear()
            os.environ.update(environment)
            os.chdir(cwd)
            sys.argv[1:] = arguments
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)
    os._exit(0)


if __name__ == "__main__":
    import importlib

    from ridgeline.bench import cli
    from ridgeline.bench.supervisor import WORKER_ENVIRONMENT
    from ridgeline.kernels.registry import load

    os.environ.update(WORKER_ENVIRONMENT)  # what is read at an import
    for name in PRELOADED:
        importlib.import_module(name)
    load()
    fork_workers()
    sys.argv = [cli.__file__]
    serve()
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        # What Python does at its end, without taking torch apart, which lasts another second.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
