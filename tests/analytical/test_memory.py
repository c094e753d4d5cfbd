"""Memory of a model: worked out by hand, split over devices, and the largest batch at its edge."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.architectures import load_architecture
from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.layout import Layout, Precisions
from ridgeline.analytical.memory import fit, largest_batch, memory

BF16 = Precisions()
LLAMA = load_architecture("llama-3-8b")


def weights(name: str, precisions: Precisions = BF16, **layout: int) -> float:
    """Bytes of weights on the fullest device."""
    return float(memory(load_architecture(name), precisions, Layout(**layout)).weights_bytes)


def test_weights_of_one_device_are_all_of_them() -> None:
    for name in ("llama-3-8b", "gpt2", "deepseek-v3", "whisper-large-v3", "nemotron-h-8b", "vit-b-16"):
        assert weights(name) == 2 * load_architecture(name).parameter_count


def test_cache_by_hand() -> None:
    held = memory(LLAMA, sequences=32, length=2048)
    assert held.kv_bytes == 32 * 2048 * 131072
    # A page of 16 tokens is full or not at all.
    assert memory(LLAMA, sequences=1, length=2049).kv_bytes == (2048 + 16) * 131072
    assert memory(LLAMA, sequences=1, length=2049, page=1).kv_bytes == 2049 * 131072
    assert memory(LLAMA, Precisions(kv="int8"), sequences=1, length=2048).kv_bytes == 2048 * 131072 / 2


def test_a_window_and_a_state_do_not_grow() -> None:
    gemma = load_architecture("gemma-2-9b")
    per_layer = 2 * 8 * 256 * 2
    assert memory(gemma, sequences=1, length=65536).kv_bytes == 21 * per_layer * (65536 + 4096)
    mamba = load_architecture("mamba-2.8b")
    short, long = (memory(mamba, sequences=3, length=n).kv_bytes for n in (10, 100_000))
    assert short == long == 3 * 64 * 5120 * (16 * 4 + 4 * 2)


def test_an_encoders_output_is_kept_by_every_decoder_block() -> None:
    whisper = load_architecture("whisper-large-v3")
    alone = memory(whisper, sequences=2, length=448, page=1)
    with_source = memory(whisper, sequences=2, length=448, page=1, source_length=1500)
    assert with_source.kv_bytes - alone.kv_bytes == 2 * 32 * 1500 * 2 * 1280 * 2


def test_tensor_parallel_devices_share_matrices_and_heads() -> None:
    norms = 2 * 65 * 4096
    assert weights("llama-3-8b", tp=8) == pytest.approx((2 * LLAMA.parameter_count - norms) / 8 + norms)
    halves = [memory(LLAMA, layout=Layout(tp=tp), sequences=1, length=1024).kv_bytes for tp in (1, 8, 16)]
    # Eight KV heads: with sixteen devices each is kept twice.
    assert halves[0] == 8 * halves[1] == 8 * halves[2]
    latent = [memory(load_architecture("deepseek-v3"), layout=Layout(tp=tp), length=1024).kv_bytes for tp in (1, 8)]
    assert latent[0] == latent[1]


def test_experts_are_spread() -> None:
    model = load_architecture("mixtral-8x7b")
    experts = 2 * 32 * 8 * 3 * 4096 * 14336
    rest = 2 * model.parameter_count - experts
    assert weights("mixtral-8x7b", dp=8, ep=8) == pytest.approx(rest + experts / 8)
    assert weights("mixtral-8x7b", dp=8) == pytest.approx(rest + experts)
    assert weights("mixtral-8x7b", tp=8, ep=8) == pytest.approx(weights("mixtral-8x7b", tp=8))


def test_the_fullest_stage_counts() -> None:
    layer = (LLAMA.parameter_count - 2 * 128256 * 4096 - 4096) // 32
    assert weights("llama-3-8b", pp=4) == 2 * (8 * layer + 128256 * 4096 + 4096)
    tied = load_architecture("llama-3.2-1b")
    # The last stage needs a copy of the table that the first one holds.
    assert weights("llama-3.2-1b", pp=2) > tied.parameter_count
    assert memory(LLAMA, layout=Layout(pp=4), sequences=1, length=1024).kv_bytes == 1024 * 131072 / 4


def test_narrow_weights_with_scales() -> None:
    matrices = LLAMA.parameter_count - 65 * 4096
    assert weights("llama-3-8b", Precisions(weights="int4")) == matrices / 2 + 2 * 65 * 4096
    with_scales = weights("llama-3-8b", Precisions(weights="int4", group=128))
    assert with_scales == matrices * (0.5 + 2 / 128) + 2 * 65 * 4096
    kept = weights("llama-3-8b", Precisions(weights="int4", overrides={"lm_head": "bfloat16"}))
    assert kept - weights("llama-3-8b", Precisions(weights="int4")) == 1.5 * 128256 * 4096


def test_activations_grow_with_tokens_and_logits_with_sequences() -> None:
    few, many = (memory(LLAMA, sequences=1, length=8192, tokens=n).activations_bytes for n in (2048, 8192))
    # The stream, its normalised copy, and gate, up and their product.
    assert few == 2 * 2048 * (2 * 4096 + 3 * 14336)
    assert many == 4 * few
    assert memory(LLAMA, sequences=512, length=10).activations_bytes == 512 * (128256 * 4 + 4096 * 2)


@settings(max_examples=20)
@given(
    capacity=st.floats(17e9, 600e9),
    length=st.integers(1, 30_000),
    tp=st.sampled_from([1, 2, 4]),
    dp=st.sampled_from([1, 3]),
)
def test_the_largest_batch_fits_and_one_more_for_each_replica_does_not(
    capacity: float, length: int, tp: int, dp: int
) -> None:
    layout = Layout(tp=tp, dp=dp)
    most = largest_batch(LLAMA, capacity, BF16, layout, length=length)
    assert most % dp == 0
    if most:
        assert memory(LLAMA, BF16, layout, sequences=most, length=length).total_bytes <= capacity
    assert memory(LLAMA, BF16, layout, sequences=most + dp, length=length).total_bytes > capacity


def test_what_does_not_fit_says_by_how_much() -> None:
    h100 = catalogue()["nvidia-h100-sxm5-80gb"]
    found = fit(memory(load_architecture("llama-3-70b"), sequences=1, length=2048), h100)
    assert not found.fits
    assert found.reason == "does not fit: needs 141.8 GB, nvidia-h100-sxm5-80gb has 80.0 GB"
    assert largest_batch(load_architecture("llama-3-70b"), 80e9, length=2048) == 0
    fine = fit(memory(LLAMA, sequences=1, length=2048), h100, reserved_bytes=2e9, share=0.9)
    assert fine.fits
    assert (fine.reason, fine.has_bytes) == ("", 70e9)


def test_columns_and_numbers_agree() -> None:
    sequences, lengths = np.array([1.0, 10.0, 100.0]), np.array([100.0, 10_000.0, 3.0])
    for layout in (Layout(), Layout(tp=2, pp=2, dp=2)):
        column = memory(LLAMA, BF16, layout, sequences=sequences, length=lengths)
        for i in range(3):
            alone = memory(LLAMA, BF16, layout, sequences=sequences[i], length=lengths[i])
            for f in dataclasses.fields(alone):
                assert np.broadcast_to(getattr(column, f.name), 3)[i] == getattr(alone, f.name)
