"""Text encoders: BERT, RoBERTa, DistilBERT."""

from __future__ import annotations

from ridgeline.analytical.architectures.architecture import Architecture
from ridgeline.analytical.architectures.assembly import activation, layer_norm
from ridgeline.analytical.architectures.config import Config
from ridgeline.analytical.architectures.mixers import Attention
from ridgeline.analytical.architectures.parts import Embedding, Linear, Mlp, Residual
from ridgeline.analytical.architectures.registry import family
from ridgeline.analytical.architectures.stack import Block, Part, Run, Stack


def encoder_attention(config: Config, width: int, heads: int, *, bias: bool = True) -> Attention:
    """Every token sees every token."""
    head_dim = config.divide("hidden_size", width, "num_attention_heads", heads)
    return Attention(
        width=width,
        q_heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        value_dim=head_dim,
        causal=False,
        q_bias=bias,
        k_bias=bias,
        v_bias=bias,
        o_bias=True,
    )


def _post_norm(width: int, attention: Attention, mlp: Mlp) -> Block:
    norm, add = layer_norm(width), Residual(width=width)
    return Block(name="block", parts=(attention, add, norm, mlp, add, norm))


def _encoder(config: Config, width: int, inputs: list[Part], block: Block, layers: int, pooler: bool) -> Architecture:
    head = [name for name in config.classes if "For" in name]
    if head:
        config.notes.append(
            f"the head of {head[0]} is not counted: the encoder{' and its pooler' if pooler else ''} alone"
        )
    outputs = (Linear(name="pooler", inputs=width, outputs=width, bias=True, rows="sequence"),) if pooler else ()
    stack = Stack(
        name="encoder", width=width, inputs=tuple(inputs), runs=(Run(block=block, count=layers),), outputs=outputs
    )
    return Architecture(
        name=config.family,
        family=config.family,
        encoder=stack,
        max_length=config.optional_integer("max_position_embeddings"),
    )


@family("bert", "roberta", "xlm-roberta", "BertModel", "RobertaModel", "XLMRobertaModel")
def bert(config: Config) -> Architecture:
    """BERT and RoBERTa: norms after the sums, three embeddings, a pooler."""
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    kind = activation(config, "hidden_act", default="gelu")
    mlp = Mlp(width=width, intermediate=config.integer("intermediate_size"), gated=False, activation=kind, bias=True)
    attention = encoder_attention(config, width, config.integer("num_attention_heads"))
    inputs: list[Part] = [
        Embedding(name="embedding", entries=config.integer("vocab_size"), width=width),
        Embedding(name="position_embedding", entries=config.integer("max_position_embeddings"), width=width),
        Embedding(name="type_embedding", entries=config.integer("type_vocab_size"), width=width),
        layer_norm(width),
    ]
    return _encoder(config, width, inputs, _post_norm(width, attention, mlp), layers, pooler=True)


@family("distilbert", "DistilBertModel")
def distilbert(config: Config) -> Architecture:
    """DistilBERT: BERT without types and pooler."""
    width, layers = config.integer("dim"), config.integer("n_layers")
    mlp = Mlp(
        width=width,
        intermediate=config.integer("hidden_dim"),
        gated=False,
        activation=activation(config, "activation", default="gelu"),
        bias=True,
    )
    attention = encoder_attention(config, width, config.integer("n_heads"))
    inputs: list[Part] = [
        Embedding(name="embedding", entries=config.integer("vocab_size"), width=width),
        Embedding(name="position_embedding", entries=config.integer("max_position_embeddings"), width=width),
        layer_norm(width),
    ]
    return _encoder(config, width, inputs, _post_norm(width, attention, mlp), layers, pooler=False)
