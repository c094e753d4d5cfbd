"""Gemma 1, 2 and 3: tied embeddings, wide heads, windows on most layers."""

from __future__ import annotations

from ridgeline.analytical.architectures.architecture import Architecture
from ridgeline.analytical.architectures.assembly import (
    activation,
    decoder_only,
    grouped_attention,
    layer_windows,
    pre_norm_block,
    rms,
)
from ridgeline.analytical.architectures.config import Config
from ridgeline.analytical.architectures.mixers import Attention
from ridgeline.analytical.architectures.parts import Mlp, Residual
from ridgeline.analytical.architectures.registry import family
from ridgeline.analytical.architectures.stack import Block


def _mlp(config: Config, width: int) -> Mlp:
    # Gemma's configs write the activation under either key; transformers reads hidden_activation first.
    kind = activation(config, "hidden_activation", "hidden_act", default="gelu_pytorch_tanh")
    return Mlp(width=width, intermediate=config.integer("intermediate_size"), activation=kind)


def _sandwich(width: int, attention: Attention, mlp: Mlp) -> Block:
    """Norms before and after attention and MLP."""
    norm, add = rms(width), Residual(width=width)
    return Block(name="block", parts=(norm, attention, norm, add, norm, mlp, norm, add))


@family("gemma", "GemmaForCausalLM")
def gemma(config: Config) -> Architecture:
    """Gemma 1."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    attention = grouped_attention(
        config, width, bias=config.flag("attention_bias", default=False), head_dim=config.integer("head_dim")
    )
    blocks = [pre_norm_block("block", rms(width), attention, _mlp(config, width))] * layers
    tied = config.flag("tie_word_embeddings", default=True)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied)


@family("gemma2", "Gemma2ForCausalLM")
def gemma2(config: Config) -> Architecture:
    """Gemma 2: every second layer sees a window of 4,096; norms on both sides."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    bias = config.flag("attention_bias", default=False)
    config.integer("sliding_window")
    mlp, head_dim = _mlp(config, width), config.integer("head_dim")
    blocks = [
        _sandwich(width, grouped_attention(config, width, bias=bias, window=window, head_dim=head_dim), mlp)
        for window in layer_windows(config, layers, every=2)
    ]
    tied = config.flag("tie_word_embeddings", default=True)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied)


@family("gemma3_text", "Gemma3ForCausalLM")
def gemma3_text(config: Config) -> Architecture:
    """Gemma 3, text: five windowed layers for each full one, norms on queries and keys."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    bias = config.flag("attention_bias", default=False)
    every = config.integer("sliding_window_pattern", "_sliding_window_pattern", default=6)
    vocabulary = config.integer("vocab_size", default=262208)
    config.integer("sliding_window")
    # The 4B's config leaves these to the class: Gemma3TextConfig of transformers.
    config.assume(num_attention_heads=8, num_key_value_heads=4, head_dim=256)
    mlp, head_dim = _mlp(config, width), config.integer("head_dim")
    blocks = [
        _sandwich(
            width, grouped_attention(config, width, bias=bias, window=window, head_dim=head_dim, qk_norm=True), mlp
        )
        for window in layer_windows(config, layers, every=every)
    ]
    tied = config.flag("tie_word_embeddings", default=True)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied, vocabulary=vocabulary)
