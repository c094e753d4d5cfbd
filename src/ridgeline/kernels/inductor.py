"""``torch.compile`` for an implementation's ``prepare``: compiled there and then, for one shape."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ridgeline.kernels.registry import Unsupported


def compile_once(function: Callable[..., Any], examples: Sequence[torch.Tensor]) -> Callable[..., Any]:
    """``function`` compiled by Inductor as one graph for the shapes, dtypes and device of ``examples``.

    Raises:
        Unsupported: where there is no C++ compiler.
    """
    # Dynamo keeps what it compiled by code object. All closures of one `prepare` share theirs: each call would test
    # the guards of the problems prepared before, and the ninth problem would exceed the recompile limit.
    own = types.FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    compiled = torch.compile(own, fullgraph=True, dynamic=False, backend="inductor")

    def call(*arguments: Any) -> Any:
        with torch.no_grad():
            return compiled(*arguments)

    try:
        call(*examples)
    except Exception as error:
        if "InvalidCxxCompiler" in f"{type(error).__name__} {error}":
            raise Unsupported("torch.compile needs a C++ compiler: install g++, or name one in CXX") from None
        raise
    return call
