"""Encoder-decoder models of speech: Whisper, and Canary with its FastConformer encoder."""

from __future__ import annotations

from ridgeline.analytical.architectures.architecture import Architecture
from ridgeline.analytical.architectures.assembly import activation, layer_norm
from ridgeline.analytical.architectures.config import Config
from ridgeline.analytical.architectures.mixers import Attention
from ridgeline.analytical.architectures.parts import Convolution, Embedding, Linear, Mlp, Norm, Residual
from ridgeline.analytical.architectures.registry import family
from ridgeline.analytical.architectures.stack import Block, Part, Run, Stack


def _attention(config: Config, width: int, heads: int, *, causal: bool, k_bias: bool, cross: bool = False) -> Attention:
    head_dim = config.divide("d_model", width, "attention_heads", heads)
    return Attention(
        width=width,
        q_heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        value_dim=head_dim,
        causal=causal,
        cross=cross,
        q_bias=True,
        k_bias=k_bias,
        v_bias=True,
        o_bias=True,
    )


def _decoder(
    width: int, layers: int, self_attention: Attention, cross: Attention, mlp: Mlp, inputs: list[Part], vocabulary: int,
    *, head_bias: bool, tied: bool
) -> Stack:  # fmt: skip
    norm, add = layer_norm(width), Residual(width=width)
    block = Block(name="block", parts=(norm, self_attention, add, norm, cross, add, norm, mlp, add))
    head = Linear(name="lm_head", inputs=width, outputs=vocabulary, bias=head_bias, rows="sampled", tied=tied)
    return Stack(
        name="decoder", width=width, inputs=tuple(inputs), runs=(Run(block=block, count=layers),), outputs=(norm, head)
    )


@family("whisper", "WhisperForConditionalGeneration")
def whisper(config: Config) -> Architecture:
    """Whisper (arXiv 2212.04356): two convolutions, the second of stride 2; keys have no bias; tied embeddings."""
    width, vocabulary = config.integer("d_model"), config.integer("vocab_size")
    mels, source = config.integer("num_mel_bins"), config.integer("max_source_positions")
    target = config.integer("max_target_positions")
    kind = activation(config, "activation_function", default="gelu")
    heads = config.integer("encoder_attention_heads")
    norm, add = layer_norm(width), Residual(width=width)
    mlp = Mlp(width=width, intermediate=config.integer("encoder_ffn_dim"), gated=False, activation=kind, bias=True)
    attention = _attention(config, width, heads, causal=False, k_bias=False)
    encoder = Stack(
        name="encoder",
        width=width,
        inputs=(
            Convolution(
                name="conv1", inputs=mels, outputs=width, kernel=(3,), input_positions=2.0, output_positions=2.0
            ),
            Convolution(name="conv2", inputs=width, outputs=width, kernel=(3,), input_positions=2.0),
            Embedding(name="position_embedding", entries=source, width=width),
        ),
        runs=(
            Run(
                block=Block(name="block", parts=(norm, attention, add, norm, mlp, add)),
                count=config.integer("encoder_layers"),
            ),
        ),
        outputs=(norm,),
    )
    heads = config.integer("decoder_attention_heads")
    decoder = _decoder(
        width,
        config.integer("decoder_layers"),
        _attention(config, width, heads, causal=True, k_bias=False),
        _attention(config, width, heads, causal=False, k_bias=False, cross=True),
        Mlp(width=width, intermediate=config.integer("decoder_ffn_dim"), gated=False, activation=kind, bias=True),
        [
            Embedding(name="embedding", entries=vocabulary, width=width),
            Embedding(name="position_embedding", entries=target, width=width),
        ],
        vocabulary,
        head_bias=False,
        tied=config.flag("tie_word_embeddings", default=True),
    )
    return Architecture(
        name=config.family,
        family=config.family,
        encoder=encoder,
        decoder=decoder,
        max_length=target,
        encoder_length=source,
    )


def _conformer_block(width: int, intermediate: int, heads: int, head_dim: int, kernel: int, bias: bool) -> Block:
    """Half an MLP, attention with relative positions, a convolution module, half an MLP (arXiv 2005.08100)."""
    norm, add = layer_norm(width), Residual(width=width)
    mlp = Mlp(width=width, intermediate=intermediate, gated=False, activation="silu", bias=bias)
    attention = Attention(
        width=width,
        q_heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        value_dim=head_dim,
        causal=False,
        relative=True,
        q_bias=bias,
        k_bias=bias,
        v_bias=bias,
        o_bias=bias,
    )
    convolution: tuple[Part, ...] = (
        norm,
        Linear(name="pointwise_in", inputs=width, outputs=2 * width, bias=bias),
        Convolution(name="depthwise", inputs=width, outputs=width, kernel=(kernel,), groups=width, bias=bias),
        Norm(width=width, kind="batch", bias=True),
        Linear(name="pointwise_out", inputs=width, outputs=width, bias=bias),
        add,
    )
    return Block(
        name="conformer_block", parts=(norm, mlp, add, norm, attention, add, *convolution, norm, mlp, add, norm)
    )


@family("canary")
def canary(config: Config) -> Architecture:
    """Canary: a FastConformer encoder (arXiv 2305.05084) that shortens time eightfold, and a Transformer decoder.

    NeMo keeps its models in YAML, not in a config.json. The keys are those of transformers' ParakeetEncoderConfig in a
    section ``encoder``, and of Whisper's decoder in a section ``decoder``.
    """
    enc, dec = config.section("encoder"), config.section("decoder")
    width, heads = enc.integer("hidden_size"), enc.integer("num_attention_heads")
    channels, mels = enc.integer("subsampling_conv_channels"), enc.integer("num_mel_bins")
    factor, kernel = enc.integer("subsampling_factor"), enc.integer("subsampling_conv_kernel_size")
    halvings = factor.bit_length() - 1
    if 2**halvings != factor:
        raise enc.error("subsampling_factor", f"must be a power of two, not {factor}")
    # Convolutions over time and frequency, each of stride 2 in both: one dense, the others depthwise and pointwise.
    inputs: list[Part] = []
    for i in range(halvings):
        frequencies = mels / 2 ** (i + 1)
        after = factor / 2 ** (i + 1) * frequencies
        square = (kernel, kernel)
        if i == 0:
            inputs.append(
                Convolution(name="subsample_1", inputs=1, outputs=channels, kernel=square,
                            input_positions=float(factor * mels), output_positions=after)
            )  # fmt: skip
        else:
            inputs.append(
                Convolution(name=f"subsample_{i + 1}", inputs=channels, outputs=channels, kernel=square,
                            groups=channels, input_positions=4 * after, output_positions=after)
            )  # fmt: skip
            inputs.append(
                Convolution(name=f"subsample_{i + 1}_pointwise", inputs=channels, outputs=channels, kernel=(1, 1),
                            input_positions=after, output_positions=after)
            )  # fmt: skip
    inputs.append(Linear(name="subsample_out", inputs=channels * (mels // factor), outputs=width, bias=True))
    head_dim = enc.divide("hidden_size", width, "num_attention_heads", heads)
    block = _conformer_block(
        width,
        enc.integer("intermediate_size"),
        heads,
        head_dim,
        enc.integer("conv_kernel_size"),
        enc.flag("attention_bias", default=True),
    )
    encoder = Stack(
        name="encoder",
        width=width,
        inputs=tuple(inputs),
        runs=(Run(block=block, count=enc.integer("num_hidden_layers")),),
    )
    inner, vocabulary = dec.integer("d_model"), dec.integer("vocab_size")
    heads = dec.integer("decoder_attention_heads")
    kind = activation(dec, "activation_function", default="relu")
    decoder = _decoder(
        inner,
        dec.integer("decoder_layers"),
        _attention(dec, inner, heads, causal=True, k_bias=True),
        _attention(dec, inner, heads, causal=False, k_bias=True, cross=True),
        Mlp(width=inner, intermediate=dec.integer("decoder_ffn_dim"), gated=False, activation=kind, bias=True),
        [Embedding(name="embedding", entries=vocabulary, width=inner), layer_norm(inner)],
        vocabulary,
        head_bias=True,
        tied=dec.flag("tie_word_embeddings"),
    )
    return Architecture(
        name=config.family,
        family=config.family,
        encoder=encoder,
        decoder=decoder,
        max_length=dec.optional_integer("max_target_positions"),
    )
