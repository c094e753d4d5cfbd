"""Precisions, block formats and canonical JSON."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.analytical.quantities import (
    BITS,
    Format,
    UnknownPrecisionError,
    bits,
    bytes_of,
    canonical_json,
    digest,
    holds_exactly,
)

PRECISIONS = sorted(BITS)
NUMERIC = [name for name in PRECISIONS if name != "bool"]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("name", PRECISIONS)
def test_every_precision_holds_itself(name: str) -> None:
    assert holds_exactly(name, name)


def test_holding_is_transitive() -> None:
    for a, b, c in itertools.product(PRECISIONS, repeat=3):
        if holds_exactly(a, b) and holds_exactly(b, c):
            assert holds_exactly(a, c), f"{a} holds {b} holds {c}"


def test_holding_is_antisymmetric() -> None:
    for a, b in itertools.permutations(NUMERIC, 2):
        assert not (holds_exactly(a, b) and holds_exactly(b, a)), f"{a} and {b}"


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ("float32", "bfloat16"),
        ("float32", "float16"),
        ("float32", "tfloat32"),
        ("float32", "int8"),
        ("float32", "uint8"),
        ("float32", "int16"),
        ("float32", "float8_e4m3fn"),
        ("float64", "int32"),
        ("float64", "float32"),
        ("tfloat32", "bfloat16"),
        ("tfloat32", "float16"),
        ("bfloat16", "int8"),
        ("bfloat16", "uint8"),
        ("bfloat16", "int4"),
        ("bfloat16", "float8_e4m3fn"),
        ("float16", "float8_e5m2"),
        ("float8_e4m3fn", "float4_e2m1fn"),
        ("float8_e4m3fn", "int4"),
        ("int8", "int4"),
        ("int8", "uint4"),
        ("int16", "uint8"),
        ("uint8", "uint4"),
        ("int64", "int32"),
    ],
)
def test_holds(wide: str, narrow: str) -> None:
    assert holds_exactly(wide, narrow)
    assert not holds_exactly(narrow, wide)


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ("bfloat16", "float16"),  # 8 significand bits are fewer than 11
        ("float16", "bfloat16"),  # 5 exponent bits are fewer than 8
        ("tfloat32", "float32"),
        ("float32", "int32"),
        ("float64", "int64"),
        ("float8_e4m3fn", "float8_e5m2"),
        ("float8_e4m3fn", "float8_e4m3fnuz"),  # 2 ** -10
        ("float8_e4m3fnuz", "float8_e4m3fn"),  # 448
        ("float8_e5m2", "float8_e5m2fnuz"),  # 2 ** -17
        ("float8_e4m3fn", "int8"),
        ("int8", "uint8"),
        ("uint8", "int8"),
        ("uint8", "int4"),
        ("int32", "float16"),
        ("int8", "float4_e2m1fn"),  # 0.5 is one of its values
    ],
)
def test_does_not_hold(wide: str, narrow: str) -> None:
    assert not holds_exactly(wide, narrow)


def test_holding_agrees_with_torch_on_every_value_of_8_and_16_bits() -> None:
    """Exhaustive: cast all bit patterns of the narrow format to the wide one and back, compare in float64."""
    import torch

    eights = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
    names = ("float32", "float16", "bfloat16", *eights, "int8", "uint8", "int16")
    for wide, narrow in itertools.permutations(names, 2):
        if narrow == "float32" or (wide.startswith(("int", "uint")) and not narrow.startswith(("int", "uint"))):
            continue
        patterns = (
            torch.arange(256, dtype=torch.int32).to(torch.uint8)
            if bits(narrow) == 8
            else torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
        )
        values = patterns.view(getattr(torch, narrow))
        exact = values.double()
        finite = torch.isfinite(exact)  # infinities and NaN are not numbers to be held
        held = values.double()[finite].to(getattr(torch, wide)).double() == exact[finite]
        assert bool(held.all()) == holds_exactly(wide, narrow), f"{wide} holds {narrow}"


def test_unknown_precision_has_no_size() -> None:
    for call in (
        lambda: bits("float12"),
        lambda: bytes_of(1, "float12"),
        lambda: holds_exactly("float12", "int8"),
        lambda: holds_exactly("float32", "int9"),
        lambda: Format("int4", 128, "float12").bits_per_element,
    ):
        with pytest.raises(UnknownPrecisionError, match=r"float12|int9"):
            call()


def test_bytes_of_is_exact_for_numbers_and_columns() -> None:
    assert bytes_of(3, "int4") == 1.5
    assert bytes_of(7, "float32") == 28.0
    np.testing.assert_array_equal(bytes_of(np.array([1.0, 2.0**60]), "bfloat16"), [2.0, 2.0**61])


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (Format("int4", 128, "bfloat16"), 4 + 16 / 128),
        (Format("float4_e2m1fn", 32, "uint8"), 4.25),  # mxfp4: OCP MX 1.0, an 8-bit scale for 32 elements
        (Format("float4_e2m1fn", 16, "float8_e4m3fn"), 4.5),  # nvfp4
        (Format("int8", 1, "float32"), 40.0),
    ],
)
def test_format_counts_its_scale(block: Format, expected: float) -> None:
    assert block.bits_per_element == expected


@given(st.dictionaries(st.text(), json_values, max_size=6), st.randoms())
def test_canonical_json_does_not_depend_on_key_order(value: dict[str, object], random: object) -> None:
    keys = list(value)
    random.shuffle(keys)  # type: ignore[attr-defined]
    shuffled = {key: value[key] for key in keys}
    assert canonical_json(shuffled) == canonical_json(value)
    assert digest(shuffled) == digest(value)


@given(json_values)
def test_canonical_json_is_json_of_the_same_value(value: object) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert text.isascii()


def test_canonical_json_orders_nested_keys_and_refuses_nan() -> None:
    assert canonical_json({"b": {"d": 1, "c": [1, 2]}, "a": None}) == '{"a":null,"b":{"c":[1,2],"d":1}}'
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"a": float("nan")})


def test_digest_is_of_the_stated_length_and_distinguishes() -> None:
    assert len(digest({"a": 1})) == 16
    assert len(digest({"a": 1}, length=40)) == 40
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest({"a": 1}) != digest({"b": 1})
