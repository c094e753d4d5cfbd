"""Polynomials of a step: they are the formulas, on every row, on every device, in numpy and numba."""

from __future__ import annotations

import dataclasses
from typing import Any

import llama_layer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.architectures import load_architecture
from ridgeline.analytical.architectures.operations import operations
from ridgeline.analytical.architectures.step import step_time
from ridgeline.analytical.calibration.three_parameters import ThreeParameters
from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.layout import Layout, Precisions
from ridgeline.analytical.limits import LimitError, limits
from ridgeline.analytical.phases import Phase
from ridgeline.analytical.step_form import Points, StepForm, basis_for, decay, step_form
from ridgeline.analytical.step_table import on_device

H100 = catalogue()["nvidia-h100-sxm5-80gb"]
A100 = catalogue()["nvidia-a100-sxm4-80gb"]
OWN = ThreeParameters(overhead_s=4e-6, compute_share=0.7, memory_share=0.8)
ATTENTION = ThreeParameters(overhead_s=9e-6, compute_share=0.5, memory_share=1.2)
PARAMETERS = {"": OWN, "attention": ATTENTION}
IDEAL = {"": ThreeParameters(overhead_s=0.0, compute_share=1.0, memory_share=1.0)}


def points(kind: str, rows: int, seed: int = 0) -> Points:
    rng = np.random.default_rng(seed)
    sequences, lengths = (rng.integers(1, high, rows).astype(float) for high in (257, 9000))
    if kind == "decode":
        return Points(sequences, np.ones(rows), lengths)
    if kind == "prefill":
        return Points(sequences, lengths, lengths)
    return Points(sequences, lengths, lengths + rng.integers(0, 9000, rows))


def llama(kind: str, rows: int = 300, seed: int = 0) -> tuple[Points, StepForm]:
    at = points(kind, rows, seed)
    decays = (decay(llama_layer.VOCABULARY),)
    return at, step_form(llama_layer.operations_of, llama_layer.memory_bytes_of, at, decays)


def by_the_formulas(at: Points, device: Any, listed: Any) -> tuple[Any, Any]:
    bound: Any = 0.0
    predicted: Any = 0.0
    for operation in listed:
        terms = limits(operation.work, device)
        own = PARAMETERS.get(operation.family, OWN)
        slowed = np.maximum(terms.product_s / own.compute_share, terms.of("memory") / own.memory_share)
        predicted += operation.count * (np.maximum(slowed, terms.overlapped_s) + own.overhead_s)
        if not operation.fusible:
            bound += operation.count * terms.overlapped_s
    return bound, predicted


@pytest.mark.parametrize("kind", ["decode", "prefill", "chunk"])
@pytest.mark.parametrize("engine", ["numpy", "numba"])
def test_every_row_is_what_the_formulas_say(kind: str, engine: Any) -> None:
    if engine == "numba":
        pytest.importorskip("numba")
    at, form = llama(kind)
    assert form.opaque == ()
    for device in (H100, A100):
        found = on_device(form, device, PARAMETERS).columns(at, engine)
        bound, predicted = by_the_formulas(at, device, llama_layer.operations_of(*at.columns))
        assert found.bound_s == pytest.approx(bound, rel=1e-9)
        assert found.predicted_s == pytest.approx(predicted, rel=1e-9)
        held = llama_layer.memory_bytes_of(*at.columns)
        assert found.memory_bytes == pytest.approx(held, rel=1e-12)
        assert np.array_equal(found.fits, held <= 80e9)
        assert np.all(found.bound_s <= found.predicted_s)


def test_numba_and_numpy_agree_on_more_rows_than_a_chunk() -> None:
    pytest.importorskip("numba")
    at, form = llama("decode", 50_001, seed=3)
    step = on_device(form, H100, PARAMETERS)
    alone, together = step.columns(at, "numpy"), step.columns(at, "numba")
    # pytest.approx takes seconds for so many rows.
    assert np.allclose(alone.predicted_s, together.predicted_s, rtol=1e-13, atol=0.0)
    assert np.allclose(alone.bound_s, together.bound_s, rtol=1e-13, atol=0.0)


counts = st.integers(0, 10**6).map(float)


@given(counts, counts, counts, counts, st.integers(0, 99))
@settings(max_examples=30)
def test_coefficients_are_those_of_the_polynomial(a: float, b: float, c: float, d: float, seed: int) -> None:
    def polynomial(at: Points) -> Any:
        s, q, kv = at.columns
        return a + b * s * q + c * s * kv + d * s * (q * kv - q * (q - 1.0) / 2.0)

    at = points("chunk", 50, seed)
    basis = basis_for(at)
    found = basis.coefficients(polynomial(basis.nodes)) @ basis.monomials(at)
    assert found == pytest.approx(polynomial(at), rel=1e-11)


def test_what_is_no_polynomial_is_left_to_its_formula() -> None:
    """A window that some rows reach."""
    at = points("decode", 400)

    def windowed(sequences: Any, q_length: Any, kv_length: Any) -> Any:
        listed = llama_layer.operations_of(sequences, q_length, np.minimum(kv_length, 4096.0))
        return [dataclasses.replace(o, work=o.work) for o in listed]

    form = step_form(windowed, llama_layer.memory_bytes_of, at, (decay(llama_layer.VOCABULARY),))
    assert [windowed(*at.columns)[i].name for i in form.opaque] == ["attention"]
    found = on_device(form, H100, PARAMETERS).columns(at, "numpy")
    bound, predicted = by_the_formulas(at, H100, windowed(*at.columns))
    assert found.bound_s == pytest.approx(bound, rel=1e-9)
    assert found.predicted_s == pytest.approx(predicted, rel=1e-9)
    beyond = at.rows(at.kv_length > 4096.0)
    assert step_form(windowed, llama_layer.memory_bytes_of, beyond, (decay(llama_layer.VOCABULARY),)).opaque == ()


@pytest.mark.parametrize(
    ("model", "layout"),
    [("llama-3-8b", Layout()), ("llama-3-8b", Layout(tp=4)), ("mixtral-8x7b", Layout(tp=2))],
)
def test_a_model_of_ours_takes_its_step_time(model: str, layout: Layout) -> None:
    architecture, precisions = load_architecture(model), Precisions()
    at = points("decode", 200)

    def listed(sequences: Any, q_length: Any, kv_length: Any) -> Any:
        return operations(architecture, Phase.decode(sequences, kv_length), precisions, layout)

    form = step_form(listed, llama_layer.memory_bytes_of, at)
    found = on_device(form, H100, IDEAL).columns(at, "numpy")
    for fused, seconds in ((True, found.bound_s), (False, found.predicted_s)):
        expected = step_time(
            architecture, Phase.decode(at.sequences, at.kv_length), precisions, layout, H100, fused=fused
        )
        assert seconds == pytest.approx(expected, rel=1e-9)


def test_by_hand() -> None:
    """peers-analytical.md, section 2: the ideal of Llama-3-8B, which leaves embedding and activations out."""
    _, form = llama("decode")
    found = on_device(form, H100, IDEAL).columns(
        Points(*(np.array(c) for c in ([1.0, 32.0], [1.0, 1.0], [2048.0] * 2)))
    )
    assert 1e3 * found.bound_s == pytest.approx([4.56, 7.04], rel=0.01)
    assert found.fits.tolist() == [True, True]


def test_a_precision_that_the_device_lacks_is_refused() -> None:
    at = points("decode", 50)
    form = step_form(
        lambda *columns: llama_layer.operations_of(*columns, precision="float8_e4m3fn"),
        llama_layer.memory_bytes_of,
        at,
        (decay(llama_layer.VOCABULARY),),
    )
    on_device(form, H100, PARAMETERS)
    with pytest.raises(LimitError, match="has no matrix float8_e4m3fn rate"):
        on_device(form, A100, PARAMETERS)


def test_a_fourth_constant_counts_the_items_of_attention() -> None:
    at, form = llama("decode", 50)
    per_item = {**PARAMETERS, "attention": dataclasses.replace(ATTENTION, item_s=1e-6)}
    more = (
        on_device(form, H100, per_item).columns(at).predicted_s
        - on_device(form, H100, PARAMETERS).columns(at).predicted_s
    )
    assert H100.unit_count == 132
    items = llama_layer.LAYERS * llama_layer.KV_HEADS * at.sequences / 132
    assert more == pytest.approx(1e-6 * items, rel=1e-6)
    listed = next(o for o in llama_layer.operations_of(*at.columns) if o.name == "attention")
    one = load_architecture("llama-3-8b")
    own = [o for o in operations(one, Phase.decode(at.sequences, at.kv_length)) if o.name == "attention"]
    assert np.array_equal(own[0].items, listed.items)


def test_a_share_of_arithmetic_is_one_of_the_matrix_units() -> None:
    """Softmax's exponentials run beside the products: half of the matrix rate is not half of theirs."""
    at, form = llama("prefill", 50)
    found = on_device(form, H100, PARAMETERS).columns(at)
    attention = next(o for o in llama_layer.operations_of(*at.columns) if o.name == "attention")
    terms = limits(attention.work, H100)
    assert np.all(terms.of("unit") >= terms.product_s)
    _, predicted = by_the_formulas(at, H100, llama_layer.operations_of(*at.columns))
    assert found.predicted_s == pytest.approx(predicted, rel=1e-9)
