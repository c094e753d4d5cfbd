"""Addresses of torch tensors for native functions, which read what they are told to: a wrong tensor is refused here."""

from __future__ import annotations

import torch

from ridgeline.kernels.native.build import NativeCallError


def address(
    tensor: torch.Tensor, name: str, dtype: torch.dtype, shape: tuple[int, ...], *, align: int | None = None
) -> int:
    """Address of the first element of ``tensor``, in host memory, its elements in row-major order without gaps.

    Costs about half a microsecond where all is well, so that it can be asked in every call: the same memory may come
    back as another view.

    Args:
        tensor: what the native function is to read or fill; the caller keeps it alive.
        name: what the function calls it, for the error.
        dtype: the dtype it must have.
        shape: the shape it must have, a tuple.
        align: bytes that the address must be a multiple of; by default the size of an element, which is what
            unaligned vector loads and scalar access need.

    Raises:
        NativeCallError: for anything else, in one line: name, what is wanted, what it is.
    """
    wanted = align or dtype.itemsize
    if (
        isinstance(tensor, torch.Tensor)
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and tensor.dtype is dtype
        and tensor.shape == shape
        and tensor.is_contiguous()
    ):
        found = tensor.data_ptr()
        if found % wanted == 0:
            return found
    raise NativeCallError(_complaint(tensor, name, dtype, shape, wanted))


def _complaint(tensor: object, name: str, dtype: torch.dtype, shape: tuple[int, ...], align: int) -> str:
    expected = f"{name} must be a contiguous CPU tensor {_text(dtype)}{list(shape)}"
    if not isinstance(tensor, torch.Tensor):
        return f"{expected}, not {type(tensor).__name__}"
    if not tensor.is_cpu:
        return f"{expected}, not one on {tensor.device.type}: call .cpu()"
    if tensor.layout is not torch.strided:
        return f"{expected}, not one of layout {_text(tensor.layout)}: call .to_dense()"
    if tensor.dtype is not dtype or tensor.shape != shape:
        return f"{expected}, not {_text(tensor.dtype)}{list(tensor.shape)}"
    if not tensor.is_contiguous():
        return f"{expected}, not one with strides {list(tensor.stride())}: call .contiguous()"
    where = tensor.data_ptr()
    return f"{expected} at a multiple of {align} bytes, not {where % align} bytes past one: call .clone()"


def _text(torch_name: object) -> str:
    return str(torch_name).removeprefix("torch.")
