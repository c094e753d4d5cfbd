"""Every implementation that runs on the CPU gives its operator's reference, on every test problem it takes.

Nothing here names an operator or an implementation, except to limit compilations: what is registered is tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

from ridgeline.analytical.problem import Problem
from ridgeline.kernels import registry
from ridgeline.kernels.registry import Context, Implementation, Operator, Tensors, Unsupported

registry.load()

THREADS = 2
LEAST_PROBLEMS = 3
"""Test problems that every implementation has to take."""
COMPILED_PROBLEMS = 4
"""Test problems of an implementation that calls a compiler for each: 5 to 8 s each."""
POISONS = {torch.int8: 77, torch.int32: 0x5A5A5A5A}


@dataclass
class Errors:
    """Largest errors of one implementation, for the report at the end of the test."""

    ran: int = 0
    refused: int = 0
    relative: float = 0.0
    worst: float = 0.0


def cpu_implementations() -> list[Implementation]:
    return [i for i in registry.implementations() if "cpu" in i.devices]


def problems_of(implementation: Implementation) -> list[Problem]:
    """Test problems whose precision it takes; an even choice of few where each has to be compiled."""
    operator = registry.get_operator(implementation.operator)
    problems = [p for p in operator.test_problems if implementation.unsupported_reason(p, "cpu") is None]
    if implementation.name in ("torch_compile", "torch_flex") and len(problems) > COMPILED_PROBLEMS:
        step = (len(problems) - 1) / (COMPILED_PROBLEMS - 1)
        return [problems[round(i * step)] for i in range(COMPILED_PROBLEMS)]
    return problems


def poison(out: torch.Tensor) -> None:
    """Fill with what no right answer holds."""
    out.fill_(float("nan") if out.dtype.is_floating_point else POISONS[out.dtype])


def check(
    operator: Operator,
    problem: Problem,
    tolerance: float,
    constants: Tensors,
    inputs: Tensors,
    out: torch.Tensor,
    errors: Errors,
) -> None:
    """Compare ``out`` with the reference in full, and keep the errors."""
    expected = operator.reference(problem, constants, inputs, None)
    assert expected.shape == out.shape
    assert expected.dtype == torch.float64
    assert torch.isfinite(out.double()).all(), f"{problem.label}: not all of the output was written"
    difference = (out.double() - expected).abs()
    norm = float(expected.norm())
    assert norm > 0, f"{problem.label}: a reference of zeros shows nothing"
    relative = float(difference.norm()) / norm
    worst = float(difference.max()) / (norm / expected.numel() ** 0.5)
    errors.relative, errors.worst = max(errors.relative, relative), max(errors.worst, worst)
    assert relative <= tolerance, f"{problem.label}: relative error {relative:.3g}, worst element {worst:.3g}"


@pytest.fixture
def threads() -> Iterator[int]:
    """torch limited to what the context says, as the worker does."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield THREADS
    torch.set_num_threads(before)


@pytest.mark.parametrize("implementation", cpu_implementations(), ids=lambda i: f"{i.operator}-{i.name}")
def test_gives_the_reference(
    implementation: Implementation, threads: int, record_property: pytest.RecordProperty
) -> None:
    operator = registry.get_operator(implementation.operator)
    errors: dict[str, Errors] = {}
    reasons: list[str] = []
    for problem in problems_of(implementation):
        precision = getattr(problem, "precision", "float32")
        seen = errors.setdefault(precision, Errors())
        generator = torch.Generator().manual_seed(11)
        constants = operator.make_constants(problem, generator)
        kept = {name: tensor.clone() for name, tensor in constants.items()}
        try:
            run = implementation.prepare(problem, constants, Context("cpu", threads))
        except Unsupported as refusal:
            reasons.append(str(refusal))
            seen.refused += 1
            continue
        tolerance = operator.tolerance(problem).relative
        inputs = operator.make_inputs(problem, generator)
        out = operator.make_output(problem)
        poison(out)
        run(inputs, out)
        check(operator, problem, tolerance, constants, inputs, out, seen)

        # Other values in the same buffers: what was computed from the old ones is no answer.
        for name, fresh in operator.make_inputs(problem, generator).items():
            inputs[name].copy_(fresh)
        before = {name: tensor.clone() for name, tensor in inputs.items()}
        poison(out)
        run(inputs, out)
        check(operator, problem, tolerance, constants, inputs, out, seen)

        # The same values at other addresses, off a vector's alignment by one element.
        moved = {name: at_other_address(tensor) for name, tensor in inputs.items()}
        elsewhere = at_other_address(out)
        poison(elsewhere)
        run(moved, elsewhere)
        check(operator, problem, tolerance, constants, moved, elsewhere, seen)

        for name, tensor in {**before, **kept}.items():
            assert torch.equal(tensor, {**inputs, **constants}[name]), f"{problem.label}: {name} was written to"
        seen.ran += 1
    for precision, seen in errors.items():
        record_property(precision, f"ran {seen.ran}, error {seen.relative:.2e}, worst element {seen.worst:.2e}")
        print(f"{implementation.operator} {implementation.name} {precision}: {seen}")
    assert all(reason.strip() and "\n" not in reason for reason in reasons), reasons
    ran = sum(seen.ran for seen in errors.values())
    assert ran >= LEAST_PROBLEMS, f"took {ran} of {len(problems_of(implementation))} test problems"


def at_other_address(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy that starts one element into its storage."""
    storage = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)
    return storage[1:].view(tensor.shape).copy_(tensor)


@pytest.mark.parametrize("name", sorted(registry.operators()))
def test_reference_of_rows_is_that_of_the_whole(name: str) -> None:
    operator = registry.get_operator(name)
    assert operator.test_problems
    for problem in operator.test_problems:
        generator = torch.Generator().manual_seed(5)
        constants = operator.make_constants(problem, generator)
        inputs = operator.make_inputs(problem, generator)
        whole = operator.reference(problem, constants, inputs, None)
        flat = whole.reshape(-1, whole.shape[-1])
        out = operator.make_output(problem)
        assert out.shape == whole.shape
        # In no order, with repetitions, as well as the first and the last.
        rows = torch.randint(0, len(flat), (9,), generator=generator)
        rows = torch.cat([rows, rows[:2], torch.tensor([len(flat) - 1, 0])])
        some = operator.reference(problem, constants, inputs, rows)
        assert some.shape == (len(rows), flat.shape[1])
        torch.testing.assert_close(some, flat[rows], rtol=1e-12, atol=1e-13, msg=f"{name} {problem.label}")


@pytest.mark.parametrize("name", sorted(registry.operators()))
def test_values_come_from_the_generator_alone(name: str) -> None:
    operator = registry.get_operator(name)
    problem = operator.test_problems[-1]
    torch.manual_seed(1)
    first = operator.make_inputs(problem, torch.Generator().manual_seed(3))
    torch.manual_seed(2)
    again = operator.make_inputs(problem, torch.Generator().manual_seed(3))
    for key, tensor in first.items():
        assert torch.equal(tensor, again[key])
        assert tensor.is_contiguous()
        assert tensor.double().count_nonzero() > 0  # torch counts no FP8


@pytest.mark.parametrize("name", sorted(registry.operators()))
def test_baseline_is_an_implementation_of_that_device(name: str) -> None:
    operator = registry.get_operator(name)
    for problem in operator.test_problems:
        for device in operator.baselines:
            baseline = registry.get_implementation(name, operator.baseline(problem, device))
            assert baseline.unsupported_reason(problem, device) is None
