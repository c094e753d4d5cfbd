"""One side of a comparison in a process of its own, on source of its own: a revision of a kernel.

Started by the worker that conducts the contest. It reads a JSON message a line and answers each with one; times are
taken in here, so the talk costs nothing that is timed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ridgeline.bench.channels import die_with_parent, take_channels

if TYPE_CHECKING:
    from ridgeline.bench.quads import Side

QUIET_S = 2e-3
"""Pause before a leg: the threads of the other side's OpenMP spin for 1 to 4 ms after their work. What is left of that passes
in the launches that are not timed."""


class OtherMaker:
    """Makes a side in another process.

    Args:
        request: as for :class:`ridgeline.bench.makers.OwnMaker`, and ``with``, folders of kernels.
        implementation: name of the implementation.
        python_path: folder that holds the ``ridgeline`` package to use.

    Raises:
        Unsupported, IncorrectError, RuntimeError: what went wrong over there.
    """

    def __init__(self, request: Mapping[str, Any], implementation: str, python_path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ridgeline.bench.side_process", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, "PYTHONPATH": str(python_path)},
        )
        self.ask("open", request=dict(request), implementation=implementation)

    def ask(self, do: str, **values: Any) -> Any:
        """Send one message and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **values}) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline() or "{}")
        except (OSError, ValueError):
            answer = {}
        if "error" in answer:
            raise _exception(answer["error"], answer["reason"])
        if "answer" not in answer:
            raise RuntimeError(f"the process of a side ended with code {self._process.wait()} (asked to {do})")
        return answer["answer"]

    def make(self, arrangement: int) -> Side:
        self.ask("make", arrangement=arrangement)
        return _OtherSide(self)

    def check(self, when: str) -> None:
        self.ask("check", when=when)

    def facts(self) -> dict[str, Any]:
        return dict(self.ask("facts"))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class _OtherSide:
    def __init__(self, maker: OtherMaker) -> None:
        self._maker = maker

    def begin(self, launches: int) -> None:
        self._maker.ask("begin", launches=launches)

    def leg(self, launches: int) -> float:
        time.sleep(QUIET_S)
        return float(self._maker.ask("leg", launches=launches))

    def end(self) -> None:
        self._maker.ask("end")


def _exception(kind: str, reason: str) -> Exception:
    from ridgeline.bench.checks import IncorrectError
    from ridgeline.bench.memory import TooLargeError
    from ridgeline.kernels.registry import RegistryError, Unsupported

    kinds: dict[str, type[Exception]] = {
        "IncorrectError": IncorrectError,
        "Unsupported": Unsupported,
        "RegistryError": RegistryError,
        "MemoryError": MemoryError,
        "TooLargeError": TooLargeError,
    }
    return kinds.get(kind, RuntimeError)(reason)


class _Server:
    def __init__(self) -> None:
        self._maker: Any = None
        self._side: Any = None

    def serve(self, message: Mapping[str, Any]) -> Any:
        do = message["do"]
        if do == "open":
            self._open(message["request"], message["implementation"])
        elif do == "make":
            self._side = self._maker.make(message["arrangement"])
        elif do == "begin":
            self._side.begin(message["launches"])
        elif do == "leg":
            return self._side.leg(message["launches"])
        elif do == "end":
            self._side.end()
        elif do == "check":
            self._maker.check(message["when"])
        elif do == "facts":
            return self._maker.facts()
        return None

    def _open(self, request: Mapping[str, Any], implementation: str) -> None:
        from ridgeline.bench.makers import OwnMaker, session_of
        from ridgeline.kernels.registry import load

        load([Path(folder) for folder in request["with"]])
        self._maker = OwnMaker(request, implementation, session_of(request))


def main() -> None:
    """Answer messages until standard input closes."""
    messages, answers = take_channels()
    die_with_parent(int(sys.argv[1]))
    server = _Server()
    for line in messages:
        try:
            answer = {"answer": server.serve(json.loads(line))}
        except Exception as error:
            text = " ".join(str(error).split())
            kind = type(error).__name__
            known = kind in ("IncorrectError", "Unsupported", "RegistryError", "MemoryError", "TooLargeError")
            answer = {"error": kind, "reason": text if known else f"{kind}: {text}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
