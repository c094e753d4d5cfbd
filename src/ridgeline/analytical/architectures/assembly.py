"""Putting parts together the way most decoder-only families do."""

from __future__ import annotations

from collections.abc import Sequence

from ridgeline.analytical.architectures.architecture import Architecture
from ridgeline.analytical.architectures.config import Config
from ridgeline.analytical.architectures.mixers import Attention
from ridgeline.analytical.architectures.parts import Embedding, Linear, Norm, Residual
from ridgeline.analytical.architectures.stack import Block, Part, Stack, runs_of


def rms(width: int) -> Norm:
    """An RMS norm with its weight."""
    return Norm(width=width, kind="rms")


def layer_norm(width: int, bias: bool = True) -> Norm:
    """A layer norm with its weight, and a bias unless said otherwise."""
    return Norm(width=width, kind="layer", bias=bias)


def pre_norm_block(name: str, norm: Norm, mixer: Part, feed_forward: Part | None) -> Block:
    """x + mixer(norm(x)), then x + feed_forward(norm(x)) where there is one."""
    parts: list[Part] = [norm, mixer, Residual(width=norm.width)]
    if feed_forward is not None:
        parts += [norm, feed_forward, Residual(width=norm.width)]
    return Block(name=name, parts=tuple(parts))


def parallel_block(name: str, norms: Sequence[Norm], mixer: Part, feed_forward: Part) -> Block:
    """x + mixer(norm(x)) + feed_forward(norm(x)), with one norm for both or one for each (GPT-J, NeoX, Phi)."""
    width = norms[0].width
    return Block(name=name, parts=(*norms, mixer, feed_forward, Residual(width=width), Residual(width=width)))


def grouped_attention(
    config: Config,
    width: int,
    *,
    bias: bool = False,
    o_bias: bool | None = None,
    qk_norm: bool = False,
    window: int | None = None,
    head_dim: int | None = None,
    rotary_share: float = 1.0,
) -> Attention:
    """Attention by the keys that Llama gave the field: heads, KV heads, ``head_dim``.

    ``num_key_value_heads`` defaults to all heads and ``head_dim`` to width / heads, as these formats have it.
    """
    q_heads = config.integer("num_attention_heads")
    kv_heads = config.integer("num_key_value_heads", default=q_heads)
    if q_heads % kv_heads:
        raise config.error("num_key_value_heads", f"must divide num_attention_heads: {q_heads} heads, {kv_heads}")
    if head_dim is None:
        if not config.has("head_dim"):
            config.divide("hidden_size", width, "num_attention_heads", q_heads)
        head_dim = config.integer("head_dim", default=width // q_heads)
    return Attention(
        width=width,
        q_heads=q_heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        value_dim=head_dim,
        window=window,
        rope_dim=int(head_dim * rotary_share),
        q_bias=bias,
        k_bias=bias,
        v_bias=bias,
        o_bias=bias if o_bias is None else o_bias,
        q_norm=Norm(width=head_dim, groups=q_heads) if qk_norm else None,
        k_norm=Norm(width=head_dim, groups=kv_heads) if qk_norm else None,
    )


def layer_windows(config: Config, layers: int, *, every: int | None = None) -> list[int | None]:
    """The window of each layer: ``sliding_window`` where ``layer_types`` says so.

    ``every`` is the format's own rule where a config has no ``layer_types``: each ``every``-th layer attends fully and
    the others through the window; ``None`` gives every layer the window.
    """
    window = config.optional_integer("sliding_window")
    if config.has("layer_types"):
        types = config.sequence("layer_types")
        if len(types) != layers:
            raise config.error("layer_types", f"must name {layers} layers, as num_hidden_layers says, not {len(types)}")
        unknown = set(types) - {"full_attention", "sliding_attention"}
        if unknown:
            raise config.error("layer_types", f"unknown {sorted(map(str, unknown))}: full_attention, sliding_attention")
        if "sliding_attention" in types and window is None:
            raise config.error("sliding_window", "missing, and layer_types names sliding_attention: add the window")
        return [window if kind == "sliding_attention" else None for kind in types]
    if every is None:
        return [window] * layers
    return [None if (i + 1) % every == 0 else window for i in range(layers)]


def activation(config: Config, *keys: str, default: str) -> str:
    """The activation by our name for it."""
    name = config.text(*keys, default=default)
    known = {
        "silu": "silu",
        "swish": "silu",
        "swiglu": "silu",
        "gelu": "gelu",
        "gelu_new": "gelu_tanh",
        "gelu_fast": "gelu_tanh",
        "gelu_pytorch_tanh": "gelu_tanh",
        "quick_gelu": "quick_gelu",
        "relu": "relu",
        "relu2": "relu_squared",
    }
    if name not in known:
        raise config.error(keys[0], f"unknown activation {name!r}: one of {', '.join(known)}")
    return known[name]


def decoder_only(
    config: Config,
    width: int,
    blocks: list[Block],
    *,
    norm: Norm | None,
    tied: bool,
    vocabulary: int | None = None,
    head_bias: bool = False,
    positions: int | None = None,
    embedding_norm: Norm | None = None,
    embedding_width: int | None = None,
    max_length: int | None = None,
) -> Architecture:
    """A token embedding, blocks, a last norm and a head over the vocabulary.

    ``positions`` are the entries of a learned position table. An ``embedding_width`` that differs from ``width`` adds a
    projection on either end (OPT-350M).
    """
    vocabulary = vocabulary or config.integer("vocab_size")
    table = embedding_width or width
    inputs: list[Part] = [Embedding(name="embedding", entries=vocabulary, width=table)]
    outputs: list[Part] = [norm] if norm is not None else []
    if positions is not None:
        inputs.append(Embedding(name="position_embedding", entries=positions, width=width))
    if table != width:
        inputs.append(Linear(name="project_in", inputs=table, outputs=width))
        outputs.append(Linear(name="project_out", inputs=width, outputs=table))
    if embedding_norm is not None:
        inputs.append(embedding_norm)
    outputs.append(Linear(name="lm_head", inputs=table, outputs=vocabulary, bias=head_bias, rows="sampled", tied=tied))
    return Architecture(
        name=config.family,
        family=config.family,
        decoder=Stack(name="decoder", width=width, inputs=tuple(inputs), runs=runs_of(blocks), outputs=tuple(outputs)),
        max_length=max_length or config.optional_integer("max_position_embeddings", "n_positions"),
    )


def note_extra_prediction(config: Config) -> None:
    """Say that layers which predict further tokens are left out."""
    extra = config.values.get("num_nextn_predict_layers") or config.values.get("num_mtp_modules") or 0
    if extra:
        config.notes.append(f"{extra} multi-token-prediction layer{'s' if extra > 1 else ''} not counted")
