"""What may reach C++: a contiguous CPU tensor of the right dtype, shape and alignment, and nothing else."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from ridgeline.analytical.operators import Fma, Stream
from ridgeline.kernels.native.build import NativeCallError
from ridgeline.kernels.native.tensors import address
from ridgeline.kernels.registry import Context, Run, get_implementation, load

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="needs a C++ compiler"
)


def misaligned(count: int) -> torch.Tensor:
    """float32 that start one byte past a boundary."""
    return torch.frombuffer(bytearray(4 * count + 64), dtype=torch.float32, count=count, offset=1)


def test_a_right_tensor_gives_its_address() -> None:
    tensor = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    assert address(tensor, "a", torch.float32, (3, 4)) == tensor.data_ptr()
    view = tensor[1:]
    assert address(view, "a", torch.float32, (2, 4)) == tensor.data_ptr() + 16
    assert address(torch.empty(0, 4), "a", torch.float32, (0, 4)) >= 0


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (torch.zeros(3, 4, dtype=torch.float64), r"not float64\[3, 4\]"),
        (torch.zeros(4, 3), r"not float32\[4, 3\]"),
        (torch.zeros(12), r"not float32\[12\]"),
        (torch.zeros(4, 3).T, r"strides \[1, 3\]: call .contiguous\(\)"),
        (torch.zeros(3, 8)[:, ::2], r"strides \[8, 2\]"),
        (torch.zeros(1, 4).expand(3, 4), r"strides \[0, 1\]"),
        (torch.zeros(3, 4, device="meta"), "not one on meta"),
        (torch.eye(3, 4).to_sparse(), "layout sparse_coo"),
        (misaligned(12).view(3, 4), "multiple of 4 bytes, not 1 bytes past one"),
        (np.zeros((3, 4), np.float32), "not ndarray"),
        (None, "not NoneType"),
    ],
)
def test_a_wrong_tensor_is_one_clear_line(tensor: torch.Tensor, says: str) -> None:
    with pytest.raises(NativeCallError, match=says) as caught:
        address(tensor, "keys", torch.float32, (3, 4))
    text = str(caught.value)
    assert text.startswith("keys must be a contiguous CPU tensor float32[3, 4]")
    assert "\n" not in text


def test_alignment_can_be_asked_for() -> None:
    whole = torch.zeros(64)
    start = (-whole.data_ptr() % 64) // 4
    assert address(whole[start : start + 8], "a", torch.float32, (8,), align=64) % 64 == 0
    with pytest.raises(NativeCallError, match="multiple of 64 bytes, not 4 bytes past one"):
        address(whole[start + 1 : start + 9], "a", torch.float32, (8,), align=64)


@needs_compiler
def test_stream_and_fma_refuse_before_they_read() -> None:
    load()
    from ridgeline.kernels.native.fma import fma_shape

    stream = Stream(operation="copy", elements=64, passes=1)
    run = get_implementation("stream", "native").prepare(stream, {}, Context("cpu", 1))
    right = {"a": torch.ones(64)}
    out = torch.zeros(64)
    run(right, out)
    assert torch.equal(out, right["a"])
    for a, filled in (
        (torch.ones(32), out),
        (torch.ones(64, dtype=torch.float64), out),
        (torch.ones(128)[::2], out),
        (misaligned(64), out),
        (right["a"], torch.zeros(63)),
        (right["a"], out.view(8, 8).T),
    ):
        refuses(run, {"a": a}, filled)

    shape = fma_shape("float32")
    problem = Fma(
        unit="vector",
        precision="float32",
        groups=1,
        chains=shape.chains,
        lanes=shape.lanes,
        depth=shape.products,
        iterations=3,
    )
    run = get_implementation("fma", "native").prepare(problem, {}, Context("cpu", 1))
    x = torch.full((shape.lanes * shape.products,), 0.5)
    sums = torch.zeros(1, shape.chains, shape.lanes)
    refuses(run, {"x": x.double(), "y": x}, sums)
    refuses(run, {"x": x, "y": x}, sums[:, :-1])


def refuses(run: Run, inputs: dict[str, torch.Tensor], out: torch.Tensor) -> None:
    with pytest.raises(NativeCallError, match="must be a contiguous CPU tensor"):
        run(inputs, out)
