"""The generation before Llama: layer norms, biases, plain MLPs, learned or ALiBi positions, parallel blocks."""

from __future__ import annotations

from ridgeline.analytical.architectures.architecture import Architecture
from ridgeline.analytical.architectures.assembly import (
    activation,
    decoder_only,
    grouped_attention,
    layer_norm,
    parallel_block,
    pre_norm_block,
)
from ridgeline.analytical.architectures.config import Config
from ridgeline.analytical.architectures.mixers import Attention
from ridgeline.analytical.architectures.parts import Mlp, Residual
from ridgeline.analytical.architectures.registry import family
from ridgeline.analytical.architectures.stack import Block


def _full_attention(config: Config, width: int, heads: int, *, bias: bool, rope_dim: int = 0) -> Attention:
    head_dim = config.divide("hidden_size", width, "num_attention_heads", heads)
    return Attention(
        width=width,
        q_heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        value_dim=head_dim,
        rope_dim=rope_dim,
        q_bias=bias,
        k_bias=bias,
        v_bias=bias,
        o_bias=bias,
    )


def _plain_mlp(config: Config, width: int, intermediate: int, *keys: str, default: str, bias: bool = True) -> Mlp:
    kind = activation(config, *keys, default=default)
    return Mlp(width=width, intermediate=intermediate, gated=False, activation=kind, bias=bias)


@family("gpt2", "GPT2LMHeadModel")
def gpt2(config: Config) -> Architecture:
    """GPT-2: learned positions, tied embeddings; ``n_inner`` null means four times the width."""
    width, layers = config.integer("n_embd", "hidden_size"), config.integer("n_layer", "num_hidden_layers")
    heads, positions = config.integer("n_head", "num_attention_heads"), config.integer("n_positions", "n_ctx")
    inner = config.optional_integer("n_inner") or 4 * width
    mlp = _plain_mlp(config, width, inner, "activation_function", default="gelu_new")
    block = pre_norm_block("block", layer_norm(width), _full_attention(config, width, heads, bias=True), mlp)
    tied = config.flag("tie_word_embeddings", default=True)
    return decoder_only(
        config, width, [block] * layers, norm=layer_norm(width), tied=tied, positions=positions, max_length=positions
    )


@family("gptj", "GPTJForCausalLM")
def gptj(config: Config) -> Architecture:
    """GPT-J: one norm for attention and MLP, which run side by side; biases in the MLP and the head only."""
    width, layers = config.integer("n_embd", "hidden_size"), config.integer("n_layer", "num_hidden_layers")
    heads, inner = config.integer("n_head", "num_attention_heads"), config.optional_integer("n_inner") or 4 * width
    rotary = config.integer("rotary_dim")
    mlp = _plain_mlp(config, width, inner, "activation_function", default="gelu_new")
    attention = _full_attention(config, width, heads, bias=False, rope_dim=rotary)
    block = parallel_block("block", [layer_norm(width)], attention, mlp)
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, [block] * layers, norm=layer_norm(width), tied=tied, head_bias=True)


@family("gpt_neox", "GPTNeoXForCausalLM")
def gpt_neox(config: Config) -> Architecture:
    """GPT-NeoX and Pythia: attention and MLP side by side, each with its norm; a quarter of a head rotated."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    heads = config.integer("num_attention_heads")
    mlp = _plain_mlp(config, width, config.integer("intermediate_size"), "hidden_act", default="gelu")
    bias = config.flag("attention_bias", default=True)
    rotary = int(config.number("rotary_pct", default=0.25) * width / heads)
    attention = _full_attention(config, width, heads, bias=bias, rope_dim=rotary)
    if config.flag("use_parallel_residual", default=True):
        block = parallel_block("block", [layer_norm(width), layer_norm(width)], attention, mlp)
    else:
        block = pre_norm_block("block", layer_norm(width), attention, mlp)
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, [block] * layers, norm=layer_norm(width), tied=tied)


@family("opt", "OPTForCausalLM")
def opt(config: Config) -> Architecture:
    """OPT: learned positions with two more entries than the longest sequence, ReLU, tied embeddings."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    heads, positions = config.integer("num_attention_heads"), config.integer("max_position_embeddings")
    bias = config.flag("enable_bias", default=True)
    affine = config.flag("layer_norm_elementwise_affine", default=True)
    before = config.flag("do_layer_norm_before", default=True)
    if not affine:
        raise config.error("layer_norm_elementwise_affine", "false is not supported: norms without weights")
    mlp = _plain_mlp(config, width, config.integer("ffn_dim"), "activation_function", default="relu", bias=bias)
    attention = _full_attention(config, width, heads, bias=bias)
    block = pre_norm_block("block", layer_norm(width), attention, mlp)
    if not before:
        add = Residual(width=width)
        block = Block(name="block", parts=(attention, add, layer_norm(width), mlp, add, layer_norm(width)))
    last = before and not config.flag("_remove_final_layer_norm", default=False)
    return decoder_only(
        config,
        width,
        [block] * layers,
        norm=layer_norm(width) if last else None,
        tied=config.flag("tie_word_embeddings", default=True),
        positions=positions + 2,
        embedding_width=config.integer("word_embed_proj_dim", default=width),
    )


@family("bloom", "BloomForCausalLM")
def bloom(config: Config) -> Architecture:
    """BLOOM: ALiBi instead of positions, a norm on the embedding, tied embeddings."""
    width, layers = config.integer("hidden_size", "n_embed"), config.integer("n_layer", "num_hidden_layers")
    heads = config.integer("n_head", "num_attention_heads")
    mlp = Mlp(width=width, intermediate=4 * width, gated=False, activation="gelu_tanh", bias=True)
    block = pre_norm_block("block", layer_norm(width), _full_attention(config, width, heads, bias=True), mlp)
    return decoder_only(
        config,
        width,
        [block] * layers,
        norm=layer_norm(width),
        tied=config.flag("tie_word_embeddings", default=True),
        embedding_norm=layer_norm(width),
        max_length=config.optional_integer("seq_length"),
    )


@family("phi", "PhiForCausalLM")
def phi(config: Config) -> Architecture:
    """Phi-1, 1.5 and 2: one norm for attention and MLP side by side, biases everywhere."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    if config.flag("qk_layernorm", default=False):
        raise config.error("qk_layernorm", "true is not supported for phi")
    share = config.number("partial_rotary_factor", default=0.5)
    mlp = _plain_mlp(config, width, config.integer("intermediate_size"), "hidden_act", default="gelu_new")
    attention = grouped_attention(config, width, bias=True, rotary_share=share)
    block = parallel_block("block", [layer_norm(width)], attention, mlp)
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, [block] * layers, norm=layer_norm(width), tied=tied, head_bias=True)
