"""Llama and its many relatives: RMS norms, rotary positions, grouped queries, a gated MLP."""

from __future__ import annotations

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
from ridgeline.analytical.architectures.mixers import Attention
from ridgeline.analytical.architectures.parts import Linear, Mlp, Residual
from ridgeline.analytical.architectures.registry import build, family
from ridgeline.analytical.architectures.stack import Block, Part


def llama_mlp(config: Config, width: int, *, bias: bool = False) -> Mlp:
    """gate, up and down of ``intermediate_size``."""
    return Mlp(
        width=width,
        intermediate=config.integer("intermediate_size"),
        activation=activation(config, "hidden_act", default="silu"),
        bias=bias,
    )


def _blocks(
    config: Config, width: int, windows: list[int | None], *, bias: bool, o_bias: bool, qk_norm: bool, mlp: Mlp
) -> list[Block]:
    return [
        pre_norm_block(
            "block",
            rms(width),
            grouped_attention(config, width, bias=bias, o_bias=o_bias, qk_norm=qk_norm, window=window),
            mlp,
        )
        for window in windows
    ]


@family("llama", "LlamaForCausalLM")
def llama(config: Config) -> Architecture:
    """Llama 1 to 3.x."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    bias = config.flag("attention_bias", default=False)
    mlp = llama_mlp(config, width, bias=config.flag("mlp_bias", default=False))
    blocks = _blocks(config, width, [None] * layers, bias=bias, o_bias=bias, qk_norm=False, mlp=mlp)
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied)


@family("mistral", "MistralForCausalLM")
def mistral(config: Config) -> Architecture:
    """Mistral: no biases; the first version slides a window over every layer."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    windows = layer_windows(config, layers)
    blocks = _blocks(config, width, windows, bias=False, o_bias=False, qk_norm=False, mlp=llama_mlp(config, width))
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied)


def qwen_windows(config: Config, layers: int) -> list[int | None]:
    """Qwen states a window and mostly switches it off; else layers from ``max_window_layers`` on have it."""
    if not config.flag("use_sliding_window", default=False):
        return [None] * layers
    if config.has("layer_types"):
        return layer_windows(config, layers)
    window, first = config.integer("sliding_window"), config.integer("max_window_layers", least=0)
    return [window if i >= first else None for i in range(layers)]


@family("qwen2", "mimo", "Qwen2ForCausalLM")
def qwen2(config: Config) -> Architecture:
    """Qwen 1.5, 2 and 2.5, and MiMo: biases on queries, keys and values."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    note_extra_prediction(config)
    windows = qwen_windows(config, layers)
    blocks = _blocks(config, width, windows, bias=True, o_bias=False, qk_norm=False, mlp=llama_mlp(config, width))
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied)


@family("qwen3", "qwen3_vl_text", "Qwen3ForCausalLM")
def qwen3(config: Config) -> Architecture:
    """Qwen 3, dense: no biases, an RMS norm on each head of queries and keys."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    bias = config.flag("attention_bias", default=False)
    windows = qwen_windows(config, layers)
    config.assume(head_dim=128)
    blocks = _blocks(config, width, windows, bias=bias, o_bias=bias, qk_norm=True, mlp=llama_mlp(config, width))
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied)


@family("phi3", "Phi3ForCausalLM")
def phi3(config: Config) -> Architecture:
    """Phi-3 and Phi-4: Llama with fused projections and, in some sizes, a window."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    share = config.number("partial_rotary_factor", default=1.0)
    mlp = llama_mlp(config, width)
    blocks = [
        pre_norm_block("block", rms(width), grouped_attention(config, width, window=window, rotary_share=share), mlp)
        for window in layer_windows(config, layers)
    ]
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied)


@family("nemotron", "NemotronForCausalLM")
def nemotron(config: Config) -> Architecture:
    """Nemotron-4 and Minitron: layer norms, half of a head rotated, a plain MLP with squared ReLU."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    bias = config.flag("attention_bias", default=False)
    share = config.number("partial_rotary_factor", "rope_percent", default=0.5)
    mlp = Mlp(
        width=width,
        intermediate=config.integer("intermediate_size"),
        gated=False,
        activation=activation(config, "hidden_act", default="relu2"),
        bias=config.flag("mlp_bias", default=False),
    )
    attention = grouped_attention(config, width, bias=bias, rotary_share=share)
    blocks = [pre_norm_block("block", layer_norm(width), attention, mlp)] * layers
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, blocks, norm=layer_norm(width), tied=tied)


@family("nemotron-nas", "DeciLMForCausalLM")
def nemotron_nas(config: Config) -> Architecture:
    """Llama-Nemotron: Llama whose layers a search thinned out, by ``block_configs``."""
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    layers = config.integer("num_hidden_layers")
    entries = config.sequence("block_configs")
    if len(entries) != layers:
        raise config.error(
            "block_configs", f"must describe {layers} layers, as num_hidden_layers says, not {len(entries)}"
        )
    head_dim = config.divide("hidden_size", width, "num_attention_heads", heads)
    blocks = []
    for i, entry in enumerate(entries):
        at = Config({"entry": entry}, f"{config.origin}: block_configs[{i}]").section("entry")
        blocks.append(_searched_block(at, config, width, heads, head_dim))
    tied = config.flag("tie_word_embeddings", default=False)
    return decoder_only(config, width, blocks, norm=rms(width), tied=tied)


def _searched_block(entry: Config, config: Config, width: int, heads: int, head_dim: int) -> Block:
    attention, ffn = entry.section("attention"), entry.section("ffn")
    parts: list[Part] = []
    if not attention.flag("no_op", default=False):
        if attention.flag("replace_with_linear", default=False):
            mixer: Part = Linear(name="attention_linear", inputs=width, outputs=width)
        else:
            kv_heads = heads // attention.integer("n_heads_in_group")
            mixer = Attention(
                width=width, q_heads=heads, kv_heads=kv_heads, head_dim=head_dim, value_dim=head_dim, rope_dim=head_dim
            )
        parts += [rms(width), mixer, Residual(width=width)]
    if not ffn.flag("no_op", default=False):
        if ffn.flag("replace_with_linear", default=False):
            feed_forward: Part = Linear(name="ffn_linear", inputs=width, outputs=width)
        else:
            # 2/3 of 4 x width x the multiplier, rounded up to 256: as Llama's own reference code sizes its MLP.
            wanted = int(2 * ffn.number("ffn_mult") * width / 3)
            feed_forward = Mlp(width=width, intermediate=-(-wanted // 256) * 256)
        parts += [rms(width), feed_forward, Residual(width=width)]
    return Block(name="block", parts=tuple(parts))


@family(
    "qwen3_vl",
    "qwen3_vl_moe",
    "qwen3_5",
    "qwen3_5_moe",
    "gemma3",
    "Gemma3ForConditionalGeneration",
    "llama4",
    "Llama4ForConditionalGeneration",
    "mistral3",
    "kimi_k25",
)
def text_model(config: Config) -> Architecture:
    """A model of text and images: its language model, by ``text_config``."""
    text = config.section("text_config")
    config.notes.append("the vision tower is not counted: text_config is the language model alone")
    if not text.has("tie_word_embeddings") and config.has("tie_word_embeddings"):
        text.assume_from(config, "tie_word_embeddings")
    return build(text)
