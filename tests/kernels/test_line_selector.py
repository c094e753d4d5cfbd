"""The line selector: planted lines are found, sums are those of the definition, and without lines there is nothing to find."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ridgeline.kernels.line_selector.operator import last_scores, line_selector_case, line_sums
from ridgeline.kernels.line_selector.planted import isotropic, planted_lines
from ridgeline.kernels.registry import Context, get_implementation, load

load()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """torch's threads spin where others use the machine: for tensors this small they cost far more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_sums_by_column_and_by_distance() -> None:
    weights = torch.rand(2, 3, 4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    columns, distances = line_sums(weights)
    assert torch.allclose(columns, weights.sum(-2))
    for distance in range(9):
        # Query i of the last four stands at 5 + i.
        expected = sum(weights[..., i, 5 + i - distance] for i in range(4) if 5 + i - distance >= 0)
        assert torch.allclose(distances[..., distance], torch.as_tensor(expected))


def test_no_weight_before_the_causal_mask() -> None:
    problem = line_selector_case((1, 2, 1, 200, 16), 30, 100)
    q, k = isotropic(problem, torch.Generator().manual_seed(1))
    weights = last_scores(problem, q, k).softmax(-1)
    assert torch.equal(weights[0, 0] > 0, torch.ones(64, 200, dtype=torch.bool).tril(136))


def test_planted_lines_are_found_and_isotropic_ones_are_not_there() -> None:
    problem = line_selector_case((1, 4, 2, 600, 64), 40, 105)
    planted = planted_lines(problem, torch.Generator().manual_seed(3))
    run = get_implementation("line_selector", "torch").prepare(problem, {}, Context("cpu", 1))
    out = torch.empty(1, 4, 145, dtype=torch.int32)
    run({"q": planted.q, "k": planted.k}, out)
    for head in range(4):
        columns, distances = out[0, head, :40].tolist(), out[0, head, 40:].tolist()
        assert columns == [*range(30), *planted.columns[0, head // 2].tolist()]
        assert distances == [*range(100), *planted.distances[0, head // 2].tolist()]

    q, k = isotropic(problem, torch.Generator().manual_seed(3))
    weights = last_scores(problem, q, k).softmax(-1)
    run({"q": q, "k": k}, out)
    for head in range(4):
        drawn = out[0, head, 30:40].long()
        share = float(weights[0, head][:, drawn].sum(-1).mean())
        assert share < 3 * 10 / 600  # little more than any ten keys have
