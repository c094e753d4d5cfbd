"""DeepSeek V2 and V3 and those built like them (Kimi K2, GLM-5): latent attention, fine-grained experts."""

from __future__ import annotations

from ridgeline.analytical.architectures.architecture import Architecture
from ridgeline.analytical.architectures.assembly import (
    activation,
    decoder_only,
    note_extra_prediction,
    pre_norm_block,
    rms,
)
from ridgeline.analytical.architectures.config import Config
from ridgeline.analytical.architectures.dense import llama_mlp
from ridgeline.analytical.architectures.mixers import Indexer, LatentAttention
from ridgeline.analytical.architectures.parts import Experts, Mlp
from ridgeline.analytical.architectures.registry import family


def _latent_attention(config: Config, width: int) -> LatentAttention:
    if "q_lora_rank" not in config.values:
        raise config.error("q_lora_rank", "missing; null means that the query is projected at once: state which")
    indexer = None
    if config.has("index_topk"):
        indexer = Indexer(
            heads=config.integer("index_n_heads"),
            head_dim=config.integer("index_head_dim"),
            top_k=config.integer("index_topk"),
        )
    return LatentAttention(
        width=width,
        heads=config.integer("num_attention_heads"),
        q_rank=config.optional_integer("q_lora_rank"),
        kv_rank=config.integer("kv_lora_rank"),
        nope_dim=config.integer("qk_nope_head_dim"),
        rope_dim=config.integer("qk_rope_head_dim"),
        value_dim=config.integer("v_head_dim"),
        bias=config.flag("attention_bias", default=False),
        indexer=indexer,
    )


def _experts(config: Config, width: int, *, router_bias: bool) -> Experts:
    if "n_shared_experts" not in config.values:
        raise config.error("n_shared_experts", "missing; null means that there are none: state which")
    inner, kind = config.integer("moe_intermediate_size"), activation(config, "hidden_act", default="silu")
    shared = config.optional_integer("n_shared_experts")
    return Experts(
        width=width,
        count=config.integer("n_routed_experts"),
        top_k=config.integer("num_experts_per_tok"),
        intermediate=inner,
        activation=kind,
        router_bias=router_bias,
        shared=Mlp(width=width, intermediate=inner * shared, activation=kind) if shared else None,
    )


def _deepseek(config: Config, *, router_bias: bool) -> Architecture:
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    attention = _latent_attention(config, width)
    dense, every = config.integer("first_k_dense_replace", least=0), config.integer("moe_layer_freq", default=1)
    experts = _experts(config, width, router_bias=router_bias)
    note_extra_prediction(config)
    blocks = [
        pre_norm_block("moe_block", rms(width), attention, experts)
        if i >= dense and i % every == 0
        else pre_norm_block("block", rms(width), attention, llama_mlp(config, width))
        for i in range(layers)
    ]
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied)


@family("deepseek_v2", "DeepseekV2ForCausalLM")
def deepseek_v2(config: Config) -> Architecture:
    """DeepSeek-V2 and V2-Lite (arXiv 2405.04434)."""
    return _deepseek(config, router_bias=False)


@family(
    "deepseek_v3",
    "DeepseekV3ForCausalLM",
    "deepseek_v32",
    "DeepseekV32ForCausalLM",
    "kimi_k2",
    "glm4_moe_lite",
    "Glm4MoeLiteForCausalLM",
    "glm_moe_dsa",
    "GlmMoeDsaForCausalLM",
)
def deepseek_v3(config: Config) -> Architecture:
    """DeepSeek-V3 (arXiv 2412.19437): the router's balance is kept by a correction term for each expert."""
    return _deepseek(config, router_bias=True)
