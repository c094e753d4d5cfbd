"""``ridgeline`` as a process forked from one that has imported torch and the rest, which takes 4 s of every other start.

Each command is a process with its own arguments, environment, folder, streams and exit code, as one from the shell is.
What it imports itself is not seen this way: every verb is also started from the shell by at least one test.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PRELOADED = (
    "ridgeline.bench.compare_report", "ridgeline.bench.compare_command", "ridgeline.bench.doctor",
    "ridgeline.bench.measure_command", "ridgeline.bench.progress", "ridgeline.bench.run", "ridgeline.bench.summary",
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
    from ridgeline.kernels.registry import load

    load()
    for name in PRELOADED:
        importlib.import_module(name)
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
