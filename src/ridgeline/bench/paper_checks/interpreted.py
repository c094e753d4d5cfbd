"""A Triton kernel in Triton's interpreter, in a process of its own: prints its error against the reference as JSON.

``TRITON_INTERPRET`` is read when a kernel is decorated, so a process that compiles kernels cannot interpret them.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def errors_in_interpreter(cases: Sequence[Mapping[str, Any]], threads: int) -> list[float]:
    """Relative L2 error of each case (operator, problem, implementation, config, seed).

    Raises:
        RuntimeError: where the process ends without an answer.
        IncorrectError: for an output that is not finite or not written.
    """
    from ridgeline.bench.checks import IncorrectError

    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps({"cases": list(cases), "threads": threads}),
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    if done.returncode != 0:
        words = done.stderr.strip().splitlines()
        raise RuntimeError(f"the interpreter's process ended with code {done.returncode}: {words[-1] if words else ''}")
    answers = json.loads(done.stdout.splitlines()[-1])
    for answer in answers:
        if answer["reason"]:
            raise IncorrectError(answer["reason"])
    return [answer["error"] for answer in answers]


def main() -> None:
    """Answer the cases on standard input."""
    import torch

    from ridgeline.kernels.registry import load

    asked = json.loads(sys.stdin.read())
    torch.set_num_threads(asked["threads"])
    load()
    print(json.dumps([_answer(case, asked["threads"]) for case in asked["cases"]]))


def _answer(case: Mapping[str, Any], threads: int) -> dict[str, Any]:
    import torch

    from ridgeline.analytical.operators import make_problem
    from ridgeline.bench.checks import Checker, IncorrectError, poison
    from ridgeline.kernels.registry import Context, get_implementation, get_operator

    problem = make_problem(case["operator"], case["problem"])
    operator = get_operator(case["operator"])
    generator = torch.Generator().manual_seed(case["seed"])
    constants, inputs = operator.make_constants(problem, generator), operator.make_inputs(problem, generator)
    out = operator.make_output(problem)
    context = Context("cpu", threads, case["config"])
    run = get_implementation(case["operator"], case["implementation"]).prepare(problem, constants, context)
    poison(out)
    run(inputs, out)
    checker = Checker(operator, problem, constants, generator, math.inf)
    try:
        checker.check(inputs, out, "in the interpreter")
    except IncorrectError as error:
        return {"error": None, "reason": str(error)}
    return {"error": checker.error_relative, "reason": ""}


if __name__ == "__main__":
    main()
