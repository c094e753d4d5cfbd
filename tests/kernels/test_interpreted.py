"""Triton implementations asked for their errors from another process."""

from __future__ import annotations

import pytest

from ridgeline.kernels.attention.operator import attention_case
from ridgeline.kernels.interpreted import InterpreterError, interpreted_errors
from ridgeline.kernels.tree_attention.operator import tree_case


def test_errors_in_the_order_of_the_problems() -> None:
    half, full = tree_case((1, 2, 1, 5, 9, 16), "float16"), tree_case((1, 2, 1, 5, 9, 16))
    errors = interpreted_errors("tree_attention", [half, full], config={"block_m": 32, "block_n": 16, "splits": 2})
    assert 1e-5 < errors[0] < 3e-3
    assert 0 < errors[1] < 1e-5


def test_what_cannot_be_asked_is_one_line() -> None:
    with pytest.raises(InterpreterError, match="bfloat16"):
        interpreted_errors("tree_attention", [tree_case((1, 2, 1, 5, 9, 16), "bfloat16")])
    sigmoid = attention_case((1, 1, 1, 1, 5, 16), False, "sigmoid")
    with pytest.raises(InterpreterError, match=r"triton_unified_max in the interpreter: .*maximum") as caught:
        interpreted_errors("attention", [sigmoid], "triton_unified_max")
    assert "\n" not in str(caught.value)
