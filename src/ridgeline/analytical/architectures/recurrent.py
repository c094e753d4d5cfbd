"""Recurrent mixers and hybrids: Mamba, Mamba-2, Jamba, Nemotron-H, Qwen3-Next."""

from __future__ import annotations

import dataclasses
from math import ceil

from ridgeline.analytical.architectures.architecture import Architecture
from ridgeline.analytical.architectures.assembly import (
    activation,
    decoder_only,
    grouped_attention,
    note_extra_prediction,
    pre_norm_block,
    rms,
)
from ridgeline.analytical.architectures.config import Config
from ridgeline.analytical.architectures.dense import llama_mlp
from ridgeline.analytical.architectures.mixers import GatedDelta, SelectiveScan, StateSpaceDuality
from ridgeline.analytical.architectures.mixture import qwen_shared_experts
from ridgeline.analytical.architectures.parts import Experts, Mlp, Residual
from ridgeline.analytical.architectures.registry import family
from ridgeline.analytical.architectures.stack import Block, Part


@family("mamba", "falcon_mamba", "MambaForCausalLM", "FalconMambaForCausalLM")
def mamba(config: Config) -> Architecture:
    """Mamba as transformers writes it."""
    width, layers = config.integer("hidden_size", "d_model"), config.integer("num_hidden_layers", "n_layer")
    inner = config.integer("intermediate_size", "d_inner", default=2 * width)
    rank = config.values.get("time_step_rank")
    if rank == "auto":
        dt_rank = ceil(width / 16)
    else:
        dt_rank = config.integer("time_step_rank", default=ceil(width / 16))
    mixer = SelectiveScan(
        width=width,
        inner=inner,
        state=config.integer("state_size"),
        conv=config.integer("conv_kernel"),
        dt_rank=dt_rank,
        bias=config.flag("use_bias", default=False),
        conv_bias=config.flag("use_conv_bias", default=True),
    )
    blocks = [pre_norm_block("mamba_block", rms(width), mixer, None)] * layers
    tied = config.flag("tie_word_embeddings", "tie_embeddings", default=True)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied)


@family("mamba2", "Mamba2ForCausalLM")
def mamba2(config: Config) -> Architecture:
    """Mamba-2 as transformers writes it."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    heads, head_dim = config.integer("num_heads"), config.integer("head_dim")
    expand = config.number("expand", default=2.0)
    if heads * head_dim != int(expand * width):
        raise config.error("num_heads", f"num_heads x head_dim must be expand x hidden_size: {heads} x {head_dim}")
    mixer = StateSpaceDuality(
        width=width,
        heads=heads,
        head_dim=head_dim,
        state=config.integer("state_size"),
        groups=config.integer("n_groups"),
        conv=config.integer("conv_kernel"),
        bias=config.flag("use_bias", default=False),
        conv_bias=config.flag("use_conv_bias", default=True),
    )
    blocks = [pre_norm_block("mamba2_block", rms(width), mixer, None)] * layers
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied)


@family("jamba", "JambaForCausalLM")
def jamba(config: Config) -> Architecture:
    """Jamba (arXiv 2403.19887): one layer of eight attends, the others scan; every second has experts."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    rank = config.values.get("mamba_dt_rank")
    scan = SelectiveScan(
        width=width,
        inner=int(config.number("mamba_expand", default=2.0) * width),
        state=config.integer("mamba_d_state"),
        conv=config.integer("mamba_d_conv"),
        dt_rank=ceil(width / 16) if rank == "auto" else config.integer("mamba_dt_rank"),
        bias=config.flag("mamba_proj_bias", default=False),
        conv_bias=config.flag("mamba_conv_bias", default=True),
        inner_norms=True,
    )
    # Jamba has no positions: the scans know the order.
    attention = dataclasses.replace(grouped_attention(config, width), rope_dim=0)
    mlp = llama_mlp(config, width)
    experts: Part = mlp
    if config.integer("num_experts") > 1:
        experts = Experts(
            width=width,
            count=config.integer("num_experts"),
            top_k=config.integer("num_experts_per_tok"),
            intermediate=mlp.intermediate,
            activation=mlp.activation,
        )
    attends = config.integer("attn_layer_period"), config.integer("attn_layer_offset", least=0)
    routes = config.integer("expert_layer_period"), config.integer("expert_layer_offset", least=0)
    blocks = []
    for i in range(layers):
        is_attention, is_moe = i % attends[0] == attends[1], i % routes[0] == routes[1]
        name = ("attention" if is_attention else "mamba") + ("_moe_block" if is_moe else "_block")
        blocks.append(pre_norm_block(name, rms(width), attention if is_attention else scan, experts if is_moe else mlp))
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied)


def _pattern(config: Config) -> str:
    """A letter for each layer: M scans, * attends, - is an MLP, E has experts."""
    if config.has("layers_block_type"):
        letters = {"mamba": "M", "attention": "*", "mlp": "-", "moe": "E"}
        types = config.sequence("layers_block_type")
        unknown = set(types) - set(letters)
        if unknown:
            raise config.error("layers_block_type", f"unknown {sorted(map(str, unknown))}: one of {', '.join(letters)}")
        return "".join(letters[kind] for kind in types)
    layers, pattern = config.integer("num_hidden_layers"), config.text("hybrid_override_pattern")
    if len(pattern) != layers or set(pattern) - set("M-*E"):
        raise config.error("hybrid_override_pattern", f"must be {layers} of M, -, *, E, as num_hidden_layers says")
    return pattern


@family("nemotron_h", "NemotronHForCausalLM")
def nemotron_h(config: Config) -> Architecture:
    """Nemotron-H (arXiv 2504.03624) and Nemotron 3: every layer is a scan, attention, an MLP or experts, alone."""
    width, pattern = config.integer("hidden_size"), _pattern(config)
    mixers: dict[str, Part] = {
        "M": StateSpaceDuality(
            width=width,
            heads=config.integer("mamba_num_heads"),
            head_dim=config.integer("mamba_head_dim"),
            state=config.integer("ssm_state_size"),
            groups=config.integer("n_groups"),
            conv=config.integer("conv_kernel"),
            bias=config.flag("use_bias", "mamba_proj_bias", default=False),
            conv_bias=config.flag("use_conv_bias", default=True),
        )
    }
    kind = activation(config, "mlp_hidden_act", default="relu2")
    if "*" in pattern:
        head_dim = config.integer("head_dim", "attention_head_dim")
        bias = config.flag("attention_bias", default=False)
        # No positions here either.
        mixers["*"] = dataclasses.replace(grouped_attention(config, width, bias=bias, head_dim=head_dim), rope_dim=0)
    if "-" in pattern:
        bias = config.flag("mlp_bias", default=False)
        mixers["-"] = Mlp(
            width=width, intermediate=config.integer("intermediate_size"), gated=False, activation=kind, bias=bias
        )
    if "E" in pattern:
        shared = config.integer("moe_shared_expert_intermediate_size") * config.integer("n_shared_experts", default=1)
        mixers["E"] = Experts(
            width=width,
            count=config.integer("n_routed_experts"),
            top_k=config.integer("num_experts_per_tok"),
            intermediate=config.integer("moe_intermediate_size"),
            gated=False,
            activation=kind,
            router_bias=True,
            latent=config.optional_integer("moe_latent_size"),
            shared=Mlp(width=width, intermediate=shared, gated=False, activation=kind),
        )
    note_extra_prediction(config)
    names = {"M": "mamba2_block", "*": "attention_block", "-": "mlp_block", "E": "moe_block"}
    blocks = [
        Block(name=names[letter], parts=(rms(width), mixers[letter], Residual(width=width))) for letter in pattern
    ]
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied)


@family("qwen3_next", "Qwen3NextForCausalLM", "qwen3_5_moe_text", "qwen3_5_text")
def qwen3_next(config: Config) -> Architecture:
    """Qwen3-Next and Qwen3.5: three gated-delta layers for each attending one; experts beside a gated shared one."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    delta = GatedDelta(
        width=width,
        key_heads=config.integer("linear_num_key_heads"),
        key_dim=config.integer("linear_key_head_dim"),
        value_heads=config.integer("linear_num_value_heads"),
        value_dim=config.integer("linear_value_head_dim"),
        conv=config.integer("linear_conv_kernel_dim"),
    )
    bias = config.flag("attention_bias", default=False)
    share = config.number("partial_rotary_factor", default=0.25)
    attention = grouped_attention(
        config, width, bias=bias, qk_norm=True, head_dim=config.integer("head_dim"), rotary_share=share
    )
    attention = dataclasses.replace(attention, output_gate=True)
    feed_forward: Part
    if config.has("num_experts"):
        feed_forward = qwen_shared_experts(config, width)
    else:
        feed_forward = llama_mlp(config, width)
    note_extra_prediction(config)
    if config.has("layer_types"):
        linear = [kind == "linear_attention" for kind in config.sequence("layer_types")]
        if len(linear) != layers:
            raise config.error(
                "layer_types", f"must name {layers} layers, as num_hidden_layers says, not {len(linear)}"
            )
    else:
        every = config.integer("full_attention_interval", default=4)
        linear = [(i + 1) % every != 0 for i in range(layers)]
    blocks = [
        pre_norm_block("delta_block", rms(width), delta, feed_forward)
        if is_linear
        else pre_norm_block("attention_block", rms(width), attention, feed_forward)
        for is_linear in linear
    ]
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied)
