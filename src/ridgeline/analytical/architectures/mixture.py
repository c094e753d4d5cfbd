"""Mixtures of experts over ordinary attention: Mixtral, Qwen-MoE, Phi-MoE, gpt-oss, GLM-4 MoE, MiniMax-M2, Llama 4."""

from __future__ import annotations

import dataclasses

from ridgeline.analytical.architectures.architecture import Architecture
from ridgeline.analytical.architectures.assembly import (
    activation,
    decoder_only,
    grouped_attention,
    layer_norm,
    layer_windows,
    note_extra_prediction,
    pre_norm_block,
    rms,
)
from ridgeline.analytical.architectures.config import Config
from ridgeline.analytical.architectures.dense import llama_mlp, qwen_windows
from ridgeline.analytical.architectures.parts import Experts, Mlp, Norm
from ridgeline.analytical.architectures.registry import family


def _mixtral_experts(config: Config, width: int) -> Experts:
    """Experts as large as a dense MLP."""
    return Experts(
        width=width,
        count=config.integer("num_local_experts"),
        top_k=config.integer("num_experts_per_tok"),
        intermediate=config.integer("intermediate_size"),
        activation=activation(config, "hidden_act", default="silu"),
    )


def qwen_shared_experts(config: Config, width: int) -> Experts:
    """Qwen's small experts beside a shared one behind a gate."""
    kind = activation(config, "hidden_act", default="silu")
    return Experts(
        width=width,
        count=config.integer("num_experts"),
        top_k=config.integer("num_experts_per_tok"),
        intermediate=config.integer("moe_intermediate_size"),
        activation=kind,
        shared=Mlp(width=width, intermediate=config.integer("shared_expert_intermediate_size"), activation=kind),
        shared_gate=True,
    )


@family("mixtral", "MixtralForCausalLM")
def mixtral(config: Config) -> Architecture:
    """Mixtral: Mistral with experts in place of the MLP."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    experts = _mixtral_experts(config, width)
    blocks = [
        pre_norm_block("moe_block", rms(width), grouped_attention(config, width, window=window), experts)
        for window in layer_windows(config, layers)
    ]
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied)


@family("phimoe", "PhiMoEForCausalLM", "PhimoeForCausalLM")
def phimoe(config: Config) -> Architecture:
    """Phi-3.5-MoE: Mixtral with layer norms and biases."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    experts = _mixtral_experts(config, width)
    bias = config.flag("attention_bias", default=False)
    blocks = [
        pre_norm_block(
            "moe_block", layer_norm(width), grouped_attention(config, width, bias=bias, window=window), experts
        )
        for window in layer_windows(config, layers)
    ]
    head_bias = config.flag("lm_head_bias", default=False)
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, blocks, norm=layer_norm(width), tied=tied, head_bias=head_bias)


def _sparse_layers(config: Config, layers: int) -> list[bool]:
    """Which layers have experts: Qwen's rule."""
    step = config.integer("decoder_sparse_step", default=1)
    plain = set(config.sequence("mlp_only_layers")) if config.has("mlp_only_layers") else set()
    return [i not in plain and (i + 1) % step == 0 for i in range(layers)]


@family("qwen2_moe", "Qwen2MoeForCausalLM")
def qwen2_moe(config: Config) -> Architecture:
    """Qwen 1.5 and 2 MoE: small experts beside one gated shared expert."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    experts = qwen_shared_experts(config, width)
    attention = grouped_attention(config, width, bias=True, o_bias=False)
    blocks = [
        pre_norm_block("moe_block", rms(width), attention, experts)
        if sparse
        else pre_norm_block("block", rms(width), attention, llama_mlp(config, width))
        for sparse in _sparse_layers(config, layers)
    ]
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied)


@family("qwen3_moe", "qwen3_vl_moe_text", "Qwen3MoeForCausalLM")
def qwen3_moe(config: Config) -> Architecture:
    """Qwen 3 MoE: no shared expert."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    experts = Experts(
        width=width,
        count=config.integer("num_experts", "num_local_experts"),
        top_k=config.integer("num_experts_per_tok"),
        intermediate=config.integer("moe_intermediate_size"),
        activation=activation(config, "hidden_act", default="silu"),
    )
    bias = config.flag("attention_bias", default=False)
    windows = qwen_windows(config, layers)
    blocks = []
    for sparse, window in zip(_sparse_layers(config, layers), windows, strict=True):
        attention = grouped_attention(config, width, bias=bias, qk_norm=True, window=window)
        feed_forward = experts if sparse else llama_mlp(config, width)
        blocks.append(pre_norm_block("moe_block" if sparse else "block", rms(width), attention, feed_forward))
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied)


@family("gpt_oss", "GptOssForCausalLM")
def gpt_oss(config: Config) -> Architecture:
    """gpt-oss: biases on projections, experts and router; sinks; every second layer windowed."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    config.assume(head_dim=64)
    experts = Experts(
        width=width,
        count=config.integer("num_local_experts", "num_experts"),
        top_k=config.integer("num_experts_per_tok", "experts_per_token"),
        intermediate=config.integer("intermediate_size"),
        bias=True,
        router_bias=True,
    )
    bias = config.flag("attention_bias", default=True)
    blocks = []
    for window in layer_windows(config, layers, every=2):
        attention = dataclasses.replace(grouped_attention(config, width, bias=bias, window=window), sinks=True)
        blocks.append(pre_norm_block("moe_block", rms(width), attention, experts))
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied)


@family("glm4_moe", "Glm4MoeForCausalLM")
def glm4_moe(config: Config) -> Architecture:
    """GLM-4.5 to 4.7: a few dense layers, then experts beside a shared one, balanced by a correction of the router."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    inner = config.integer("moe_intermediate_size")
    kind = activation(config, "hidden_act", default="silu")
    experts = Experts(
        width=width,
        count=config.integer("n_routed_experts"),
        top_k=config.integer("num_experts_per_tok"),
        intermediate=inner,
        activation=kind,
        router_bias=True,
        shared=Mlp(width=width, intermediate=inner * config.integer("n_shared_experts"), activation=kind),
    )
    attention = grouped_attention(
        config,
        width,
        bias=config.flag("attention_bias", default=False),
        o_bias=False,
        qk_norm=config.flag("use_qk_norm", default=False),
        rotary_share=config.number("partial_rotary_factor", default=0.5),
    )
    dense = config.integer("first_k_dense_replace", least=0)
    note_extra_prediction(config)
    blocks = [
        pre_norm_block("block", rms(width), attention, llama_mlp(config, width))
        if i < dense
        else pre_norm_block("moe_block", rms(width), attention, experts)
        for i in range(layers)
    ]
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied)


@family("minimax_m2", "MiniMaxM2ForCausalLM")
def minimax_m2(config: Config) -> Architecture:
    """MiniMax-M2: one RMS norm over all query heads together and one over all keys; no shared expert."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    router_bias = config.flag("use_routing_bias", default=True)
    experts = dataclasses.replace(_mixtral_experts(config, width), router_bias=router_bias)
    attention = grouped_attention(config, width)
    if config.flag("use_qk_norm", default=True):
        attention = dataclasses.replace(
            attention,
            q_norm=Norm(width=attention.q_heads * attention.head_dim),
            k_norm=Norm(width=attention.kv_heads * attention.head_dim),
        )
    if config.has("rotary_dim"):
        attention = dataclasses.replace(attention, rope_dim=config.integer("rotary_dim"))
    note_extra_prediction(config)
    blocks = [pre_norm_block("moe_block", rms(width), attention, experts)] * layers
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied)


@family("llama4_text", "Llama4ForCausalLM")
def llama4_text(config: Config) -> Architecture:
    """Llama 4: one of every ``interleave_moe_layer_step`` layers has experts beside a shared one; chunked attention."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    kind = activation(config, "hidden_act", default="silu")
    inner = config.integer("intermediate_size")
    experts = Experts(
        width=width,
        count=config.integer("num_local_experts"),
        top_k=config.integer("num_experts_per_tok"),
        intermediate=inner,
        activation=kind,
        shared=Mlp(width=width, intermediate=inner, activation=kind),
    )
    dense = Mlp(width=width, intermediate=config.integer("intermediate_size_mlp"), activation=kind)
    step = config.integer("interleave_moe_layer_step")
    bias = config.flag("attention_bias", default=False)
    chunk = config.optional_integer("attention_chunk_size")
    if chunk is not None:
        config.notes.append(f"attention in chunks of {chunk} is counted as a window of as many keys: at most twice it")
    blocks = []
    for i in range(layers):
        full = (i + 1) % 4 == 0
        attention = grouped_attention(config, width, bias=bias, window=None if full else chunk)
        if full:
            attention = dataclasses.replace(attention, rope_dim=0)
        sparse = (i + 1) % step == 0
        name = "moe_block" if sparse else "block"
        blocks.append(pre_norm_block(name, rms(width), attention, experts if sparse else dense))
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied)
