"""``weight_only_gemm`` by ``torch.compile``: many sets of weights, one compilation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ridgeline.analytical.operators import WeightOnlyGemm
from ridgeline.kernels.inductor import compile_once
from ridgeline.kernels.registry import Context
from ridgeline.kernels.weight_only_gemm import torch_compile
from ridgeline.kernels.weight_only_gemm.torch_dequant import dequantise, store


@pytest.mark.parametrize("weight", ["int4", "int8"])
def test_all_sets_of_weights_share_one_compilation(weight: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def count(*arguments: Any) -> Any:
        compiled.append(arguments)
        return compile_once(*arguments)

    monkeypatch.setattr(torch_compile, "compile_once", count)
    problem = WeightOnlyGemm(m=3, n=5, k=8, weight=weight, group=4, precision="float32")
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        q = torch.randint(-8, 8, (problem.n, problem.k), generator=generator, dtype=torch.int8)
        scale = torch.rand(problem.n, problem.k // problem.group, generator=generator)
        run = torch_compile.prepare(problem, {"q": q, "scale": scale}, Context(torch.device("cpu"), 1, {}, 0, 1))
        x, out = torch.rand(problem.m, problem.k, generator=generator), torch.empty(problem.m, problem.n)
        run({"x": x}, out)
        torch.testing.assert_close(out, x @ dequantise(problem, store(problem, q), scale).T)
    assert len(compiled) == 1
