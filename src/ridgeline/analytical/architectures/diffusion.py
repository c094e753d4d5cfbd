"""Diffusion transformers: DiT. One pass of the encoder is one denoising step."""

from __future__ import annotations

from ridgeline.analytical.architectures.architecture import Architecture
from ridgeline.analytical.architectures.config import Config
from ridgeline.analytical.architectures.encoders import encoder_attention
from ridgeline.analytical.architectures.parts import Convolution, Embedding, Linear, Mlp, Norm, Residual, Tensor
from ridgeline.analytical.architectures.registry import family
from ridgeline.analytical.architectures.stack import Block, Part, Run, Stack

FREQUENCIES = 256
"""Sinusoids that encode the time step: DiT's code, models.py, TimestepEmbedder."""


@family("DiTTransformer2DModel", "dit")
def dit(config: Config) -> Architecture:
    """DiT (Peebles & Xie, arXiv 2212.09748) by the keys of diffusers' DiTTransformer2DModel.

    Counted as the paper's own model: one embedder of time step and class for all blocks, where diffusers gives each
    block its own. Every block has a linear layer that makes six modulations from them (adaLN-Zero).
    """
    heads, head_dim = config.integer("num_attention_heads"), config.integer("attention_head_dim")
    width, layers = heads * head_dim, config.integer("num_layers")
    channels, out = config.integer("in_channels"), config.integer("out_channels")
    side, patch = config.integer("sample_size"), config.integer("patch_size")
    if side % patch:
        raise config.error("patch_size", f"must divide sample_size: {side} / {patch} is no whole number")
    tokens = (side // patch) ** 2
    classes = config.integer("num_embeds_ada_norm")
    plain, add = Norm(width=width, kind="layer", weight=False), Residual(width=width)
    mlp = Mlp(width=width, intermediate=4 * width, gated=False, activation="gelu_tanh", bias=True)
    modulation = Linear(name="modulation", inputs=width, outputs=6 * width, bias=True, rows="sequence")
    attention = encoder_attention(config, width, heads)
    block = Block(name="block", parts=(modulation, plain, attention, add, plain, mlp, add))
    inputs: tuple[Part, ...] = (
        Convolution(
            name="patch_embedding",
            inputs=channels,
            outputs=width,
            kernel=(patch, patch),
            input_positions=float(patch * patch),
        ),
        Tensor(name="position_embedding", parameter_count=tokens * width),
        Linear(name="timestep_in", inputs=FREQUENCIES, outputs=width, bias=True, rows="sequence"),
        Linear(name="timestep_out", inputs=width, outputs=width, bias=True, rows="sequence"),
        Embedding(name="class_embedding", entries=classes + 1, width=width, rows="sequence"),
    )
    outputs: tuple[Part, ...] = (
        Linear(name="final_modulation", inputs=width, outputs=2 * width, bias=True, rows="sequence"),
        plain,
        Linear(name="unpatch", inputs=width, outputs=patch * patch * out, bias=True),
    )
    return Architecture(
        name=config.family,
        family=config.family,
        encoder=Stack(
            name="encoder", width=width, inputs=inputs, runs=(Run(block=block, count=layers),), outputs=outputs
        ),
        encoder_length=tokens,
    )
