"""Triton implementations on the CPU, in Triton's interpreter: how far they are from their operator's reference.

``TRITON_INTERPRET`` is read when a kernel is decorated, so the interpreter has a process of its own.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ridgeline.analytical.operators import make_problem
from ridgeline.analytical.problem import Problem


class InterpreterError(ValueError):
    """Problems that the interpreter cannot be asked, or that failed in it. One line."""


def interpreted_errors(
    operator_name: str,
    problems: Sequence[Problem],
    implementation: str = "triton",
    *,
    config: Mapping[str, Any] | None = None,
    seed: int = 0,
    timeout_s: float = 600.0,
) -> list[float]:
    """Relative L2 error of ``implementation`` against the float64 reference, for each problem in order.

    All problems run in one process, on fresh inputs from ``seed`` and a poisoned output; infinite where not all of the
    output was written or is finite. Float8 and TF32 operands are multiplied exactly by the interpreter, so their
    hardware's own rounding is not seen. Keep shapes small: a tile of 64 x 64 takes about a millisecond.

    Args:
        config: tuned configuration for all problems; default the implementation's own.

    Raises:
        InterpreterError: for bfloat16, on whose bit patterns the interpreter of Triton 3.8 computes with numpy 2.4 (take
            float16 and float32 in its place), and with the reason where the implementation does not take a problem.
    """
    for problem in problems:
        if getattr(problem, "precision", "") == "bfloat16":
            raise InterpreterError(f"{problem.label}: the interpreter computes bfloat16 wrongly; ask float16 or float32")
    task = {
        "operator": operator_name,
        "implementation": implementation,
        "problems": [problem.to_dict() for problem in problems],
        "config": dict(config or {}),
        "seed": seed,
    }
    root = str(Path(__file__).resolve().parents[2])
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ridgeline.kernels.interpreted"],
            env={
                **os.environ,
                "TRITON_INTERPRET": "1",
                "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
            },
            input=json.dumps(task),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise InterpreterError(f"{operator_name} {implementation}: not done after {timeout_s:.0f} s") from None
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise InterpreterError(f"{operator_name} {implementation} in the interpreter: {last[0]}")
    return [math.inf if error is None else float(error) for error in json.loads(done.stdout)]


def errors(task: Mapping[str, Any]) -> list[float | None]:
    """What the process of its own does: the errors of one task, ``None`` for what is not finite."""
    import torch

    from ridgeline.kernels.registry import Context, get_implementation, get_operator, load

    load()
    operator = get_operator(task["operator"])
    implementation = get_implementation(task["operator"], task["implementation"])
    found: list[float | None] = []
    for parameters in task["problems"]:
        problem = make_problem(task["operator"], parameters)
        generator = torch.Generator().manual_seed(task["seed"])
        constants = operator.make_constants(problem, generator)
        inputs = operator.make_inputs(problem, generator)
        run = implementation.prepare(problem, constants, Context("cpu", 1, task["config"]))
        out = operator.make_output(problem)
        out.fill_(float("nan") if out.dtype.is_floating_point else torch.iinfo(out.dtype).max - 1)
        run(inputs, out)
        expected = operator.reference(problem, constants, inputs, None).double()
        norm = float(expected.norm()) or 1.0
        error = float((out.double() - expected).norm()) / norm
        found.append(error if math.isfinite(error) else None)
    return found


def main() -> int:
    """Read one task from standard input as JSON and print the errors as JSON."""
    print(json.dumps(errors(json.load(sys.stdin))))
    return 0


if __name__ == "__main__":
    # Kernels may import this module by its name; run that copy.
    sys.exit(importlib.import_module("ridgeline.kernels.interpreted").main())
