"""Matrix operations of a step against torch's FlopCounterMode on eager models built by hand, on shapes without memory.

The counter counts masked pairs too, so causal prefill is compared with the masked ones added.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from ridgeline.analytical.architectures import Architecture, architecture_from_config  # noqa: E402
from ridgeline.analytical.architectures.operations import operations  # noqa: E402
from ridgeline.analytical.phases import Phase  # noqa: E402

B, T = 2, 24


def tensor(*shape: int) -> Any:
    """A shape without memory."""
    return torch.empty(*shape, device="meta")


def linear(x: Any, outputs: int) -> Any:
    """x W."""
    return torch.mm(x, tensor(x.shape[1], outputs))


def counted(run: Callable[[], None]) -> float:
    """Operations that torch counts."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def ours(architecture: Architecture, phase: Phase, *families: str) -> float:
    """Operations of the matrix unit in our list, of ``families`` or of all."""
    total = 0.0
    for each in operations(architecture, phase):
        if not families or each.family in families:
            matrix = sum(float(n) for key, n in each.work.operations.items() if key.unit == "matrix")
            total += matrix * each.count
    return total


def attend(queries: int, keys: int, heads: int, key_dim: int, value_dim: int) -> None:
    """Eager attention of all heads, each with its own copy of its keys."""
    scores = torch.bmm(tensor(B * heads, queries, key_dim), tensor(B * heads, key_dim, keys))
    torch.bmm(scores, tensor(B * heads, keys, value_dim))


def masked(length: int, heads: int, dims: int, layers: int) -> float:
    """Operations on pairs above the diagonal."""
    return 2.0 * dims * B * heads * layers * (length * length - length * (length + 1) / 2)


def model(**config: Any) -> Architecture:
    """An architecture of a tiny config."""
    return architecture_from_config(config, "tiny")


def llama_like(tokens: int, keys: int, sampled: int) -> None:
    for _ in range(3):
        x = tensor(B * tokens, 64)
        linear(x, 64)
        linear(x, 32)
        linear(x, 32)
        attend(tokens, keys, 4, 16, 16)
        linear(tensor(B * tokens, 64), 64)
        linear(x, 96)
        linear(x, 96)
        linear(tensor(B * tokens, 96), 64)
    linear(tensor(B * sampled, 64), 100)


LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
}  # fmt: skip


def test_llama() -> None:
    tiny = model(**LLAMA)
    prefill = counted(lambda: llama_like(T, T, 1))
    assert ours(tiny, Phase.prefill(B, T)) + masked(T, 4, 32, 3) == prefill
    assert ours(tiny, Phase.decode(B, T)) == counted(lambda: llama_like(1, T, 1))


def test_verifying_guesses_needs_logits_of_all() -> None:
    tiny = model(**LLAMA)
    found = ours(tiny, Phase.verify(B, 3, T))
    pairs_masked = 2.0 * 32 * B * 4 * 3 * (3 + 2 + 1)
    assert found + pairs_masked == counted(lambda: llama_like(4, T, 4))


def test_gpt2() -> None:
    tiny = model(model_type="gpt2", n_embd=48, n_layer=2, n_head=3, n_positions=64, vocab_size=90)

    def run() -> None:
        for _ in range(2):
            x = tensor(B, 48)
            linear(x, 144)
            attend(1, T, 3, 16, 16)
            linear(x, 48)
            linear(linear(x, 192), 48)
        linear(tensor(B, 48), 90)

    assert ours(tiny, Phase.decode(B, T)) == counted(run)


def test_mixture_of_experts() -> None:
    tiny = model(
        model_type="qwen2_moe", hidden_size=64, intermediate_size=96, moe_intermediate_size=40,
        shared_expert_intermediate_size=56, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        num_experts=6, num_experts_per_tok=2, vocab_size=100,
    )  # fmt: skip

    def run() -> None:
        for _ in range(2):
            x = tensor(B, 64)
            linear(x, 192)
            attend(1, T, 4, 16, 16)
            linear(x, 64)
            linear(x, 6)
            rows = tensor(B * 2, 64)
            linear(rows, 80)
            linear(tensor(B * 2, 40), 64)
            linear(x, 112)
            linear(tensor(B, 56), 64)
        linear(tensor(B, 64), 100)

    assert ours(tiny, Phase.decode(B, T)) == counted(run)


MLA = {
    "model_type": "deepseek_v2", "hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 40,
    "num_hidden_layers": 2, "num_attention_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 20, "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8, "v_head_dim": 12, "n_routed_experts": 6, "n_shared_experts": 1, "num_experts_per_tok": 2,
    "first_k_dense_replace": 2, "vocab_size": 100,
}  # fmt: skip


def latent(tokens: int, attention: Callable[[], None], sampled: int) -> None:
    for _ in range(2):
        x = tensor(B * tokens, 64)
        linear(linear(x, 24), 4 * 24)
        linear(x, 28)
        attention()
        linear(tensor(B * tokens, 48), 64)
        linear(x, 192)
        linear(tensor(B * tokens, 96), 64)
    linear(tensor(B * sampled, 64), 100)


def test_latent_attention_plain_in_prefill() -> None:
    def attention() -> None:
        linear(tensor(B * T, 20), 4 * (16 + 12))
        attend(T, T, 4, 24, 12)

    found = ours(model(**MLA), Phase.prefill(B, T)) + masked(T, 4, 24 + 12, 2)
    assert found == counted(lambda: latent(T, attention, 1))


def test_latent_attention_absorbed_in_decode() -> None:
    def attention() -> None:
        torch.bmm(tensor(4, B, 16), tensor(4, 16, 20))
        attend(1, T, 4, 28, 20)
        torch.bmm(tensor(4, B, 20), tensor(4, 20, 12))

    assert ours(model(**MLA), Phase.decode(B, T)) == counted(lambda: latent(1, attention, 1))


def test_bert_with_its_pooler() -> None:
    tiny = model(
        model_type="bert", hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        vocab_size=100, max_position_embeddings=64, type_vocab_size=2,
    )  # fmt: skip

    def run() -> None:
        for _ in range(2):
            x = tensor(B * T, 64)
            linear(x, 192)
            attend(T, T, 4, 16, 16)
            linear(x, 64)
            linear(linear(x, 96), 64)
        linear(tensor(B, 64), 64)

    assert ours(tiny, Phase.encoder(B, T)) == counted(run)


def test_vision_transformer_from_pixels() -> None:
    tiny = model(
        model_type="vit", hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        image_size=32, patch_size=8, num_channels=3, num_labels=10,
    )  # fmt: skip
    tokens = 4 * 4 + 1
    assert tiny.encoder_length == tokens

    def run() -> None:
        torch.conv2d(tensor(B, 3, 32, 32), tensor(64, 3, 8, 8), stride=8)
        for _ in range(2):
            x = tensor(B * tokens, 64)
            linear(x, 192)
            attend(tokens, tokens, 4, 16, 16)
            linear(x, 64)
            linear(linear(x, 96), 64)
        linear(tensor(B, 64), 10)

    assert ours(tiny, Phase.encoder(B, tokens)) == counted(run)


def test_convnext_at_each_resolution() -> None:
    tiny = model(
        model_type="convnext", hidden_sizes=[8, 16], depths=[2, 1], image_size=32, patch_size=4, num_channels=3,
        num_labels=10,
    )  # fmt: skip

    def run() -> None:
        torch.conv2d(tensor(B, 3, 32, 32), tensor(8, 3, 4, 4), stride=4)
        for width, side, depth in ((8, 8, 2), (16, 4, 1)):
            if width == 16:
                torch.conv2d(tensor(B, 8, 8, 8), tensor(16, 8, 2, 2), stride=2)
            for _ in range(depth):
                torch.conv2d(tensor(B, width, side, side), tensor(width, 1, 7, 7), padding=3, groups=width)
                linear(linear(tensor(B * side * side, width), 4 * width), width)
        linear(tensor(B, 16), 10)

    assert ours(tiny, Phase.encoder(B, 16)) == counted(run)


def test_whisper_encoder_and_decoder() -> None:
    tiny = model(
        model_type="whisper", d_model=64, encoder_layers=1, encoder_attention_heads=4, encoder_ffn_dim=96,
        decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=96, num_mel_bins=10, max_source_positions=12,
        max_target_positions=32, vocab_size=100,
    )  # fmt: skip

    def encoder() -> None:
        torch.conv1d(tensor(B, 10, 24), tensor(64, 10, 3), padding=1)
        torch.conv1d(tensor(B, 64, 24), tensor(64, 64, 3), padding=1, stride=2)
        x = tensor(B * 12, 64)
        linear(x, 192)
        attend(12, 12, 4, 16, 16)
        linear(x, 64)
        linear(linear(x, 96), 64)

    def decoder(tokens: int, first: bool) -> None:
        for _ in range(2):
            x = tensor(B * tokens, 64)
            linear(x, 192)
            attend(tokens, tokens if first else 20, 4, 16, 16)
            linear(x, 64)
            linear(x, 64)
            if first:
                linear(tensor(B * 12, 64), 128)
            attend(tokens, 12, 4, 16, 16)
            linear(x, 64)
            linear(linear(x, 96), 64)
        linear(tensor(B, 64), 100)

    assert ours(tiny, Phase.encoder(B, 12)) == counted(encoder)
    prefill = ours(tiny, Phase.prefill(B, 5, source_length=12))
    assert prefill + masked(5, 4, 32, 2) == counted(lambda: decoder(5, True))
    assert ours(tiny, Phase.decode(B, 20, source_length=12)) == counted(lambda: decoder(1, False))


def test_projections_of_recurrent_mixers() -> None:
    """The counter knows no scans: the matrix products around them are compared."""
    tiny = model(
        model_type="mamba", hidden_size=64, intermediate_size=128, num_hidden_layers=2, state_size=8, conv_kernel=4,
        time_step_rank=4, vocab_size=100,
    )  # fmt: skip

    def run() -> None:
        for _ in range(2):
            x = tensor(B * T, 128)
            linear(tensor(B * T, 64), 256)
            linear(x, 4 + 16)
            linear(tensor(B * T, 4), 128)
            linear(x, 64)
        linear(tensor(B, 64), 100)

    assert ours(tiny, Phase.prefill(B, T), "gemm") == counted(run)


def test_dit_modulates_once_a_picture() -> None:
    tiny = model(
        model_type="dit", num_attention_heads=4, attention_head_dim=16, num_layers=2, in_channels=4, out_channels=8,
        sample_size=8, patch_size=2, num_embeds_ada_norm=10,
    )  # fmt: skip

    def run() -> None:
        torch.conv2d(tensor(B, 4, 8, 8), tensor(64, 4, 2, 2), stride=2)
        linear(linear(tensor(B, 256), 64), 64)
        for _ in range(2):
            linear(tensor(B, 64), 384)
            x = tensor(B * 16, 64)
            linear(x, 192)
            attend(16, 16, 4, 16, 16)
            linear(x, 64)
            linear(linear(x, 256), 64)
        linear(tensor(B, 64), 128)
        linear(tensor(B * 16, 64), 32)

    assert ours(tiny, Phase.encoder(B, 16)) == counted(run)
