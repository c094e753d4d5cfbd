"""Image encoders: ViT, DeiT, ConvNeXt."""

from __future__ import annotations

from ridgeline.analytical.architectures.architecture import Architecture
from ridgeline.analytical.architectures.assembly import activation, layer_norm
from ridgeline.analytical.architectures.config import Config
from ridgeline.analytical.architectures.encoders import encoder_attention
from ridgeline.analytical.architectures.parts import Convolution, Embedding, Linear, Mlp, Norm, Residual, Tensor
from ridgeline.analytical.architectures.registry import family
from ridgeline.analytical.architectures.stack import Block, Part, Run, Stack


def _classes(config: Config) -> int:
    """Outputs of the classifier: as many as ``id2label`` names; transformers' own default is 2."""
    if config.has("id2label"):
        return len(config.section("id2label").values)
    return config.integer("num_labels", "num_classes")


def _patches(config: Config, image: int, patch: int) -> int:
    if image % patch:
        raise config.error("patch_size", f"must divide image_size: {image} / {patch} is no whole number")
    return (image // patch) ** 2


def _vision_transformer(config: Config, special_tokens: int, classifiers: int) -> Architecture:
    width, layers = config.integer("hidden_size"), config.integer("num_hidden_layers")
    image, patch = config.integer("image_size"), config.integer("patch_size")
    channels, patches = config.integer("num_channels", default=3), _patches(config, image, patch)
    bias = config.flag("qkv_bias", default=True)
    attention = encoder_attention(config, width, config.integer("num_attention_heads"), bias=bias)
    kind = activation(config, "hidden_act", default="gelu")
    mlp = Mlp(width=width, intermediate=config.integer("intermediate_size"), gated=False, activation=kind, bias=True)
    norm, add = layer_norm(width), Residual(width=width)
    outputs: list[Part] = [norm]
    for i in range(classifiers):
        name = "classifier" if i == 0 else "distillation_classifier"
        outputs.append(Linear(name=name, inputs=width, outputs=_classes(config), bias=True, rows="sequence"))
    inputs: tuple[Part, ...] = (
        Convolution(
            name="patch_embedding",
            inputs=channels,
            outputs=width,
            kernel=(patch, patch),
            input_positions=float(patch * patch),
            skipped_tokens=special_tokens,
        ),
        Tensor(name="class_token", parameter_count=special_tokens * width),
        Embedding(name="position_embedding", entries=patches + special_tokens, width=width),
    )
    block = Block(name="block", parts=(norm, attention, add, norm, mlp, add))
    return Architecture(
        name=config.family,
        family=config.family,
        encoder=Stack(
            name="encoder",
            width=width,
            inputs=inputs,
            runs=(Run(block=block, count=layers),),
            outputs=tuple(outputs),
        ),
        max_length=patches + special_tokens,
        encoder_length=patches + special_tokens,
    )


@family("vit", "ViTForImageClassification")
def vit(config: Config) -> Architecture:
    """ViT (arXiv 2010.11929) with its classifier; DeiT without distillation is the same."""
    return _vision_transformer(config, special_tokens=1, classifiers=1)


@family("deit")
def deit(config: Config) -> Architecture:
    """DeiT (arXiv 2012.12877) with its distillation token, and with its second classifier where the class has one."""
    with_teacher = any("WithTeacher" in name for name in config.classes)
    return _vision_transformer(config, special_tokens=2, classifiers=2 if with_teacher else 1)


@family("convnext", "ConvNextForImageClassification")
def convnext(config: Config) -> Architecture:
    """ConvNeXt (arXiv 2201.03545): four stages of depthwise convolutions; a token is a position of the last stage."""
    widths = [int(w) for w in config.sequence("hidden_sizes")]
    depths = [int(d) for d in config.sequence("depths")]
    if len(widths) != len(depths):
        raise config.error("depths", f"must have as many stages as hidden_sizes: {len(depths)}, {len(widths)}")
    image, patch = config.integer("image_size", default=224), config.integer("patch_size", default=4)
    channels = config.integer("num_channels", default=3)
    scaled = config.number("layer_scale_init_value", default=1e-6) > 0
    kind = activation(config, "hidden_act", default="gelu")
    stages = len(widths)

    def positions(stage: int) -> float:
        return float(4 ** (stages - 1 - stage))

    stem = Block(
        name="stem",
        positions=positions(0),
        parts=(
            Convolution(
                name="patch_embedding",
                inputs=channels,
                outputs=widths[0],
                kernel=(patch, patch),
                input_positions=float(patch * patch),
            ),
            layer_norm(widths[0]),
        ),
    )
    runs = [Run(block=stem, count=1)]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        if stage:
            before = widths[stage - 1]
            shrink = Block(
                name=f"downsample_{stage + 1}",
                positions=positions(stage - 1),
                parts=(
                    layer_norm(before),
                    Convolution(name="downsample", inputs=before, outputs=width, kernel=(2, 2), output_positions=0.25),
                ),
            )
            runs.append(Run(block=shrink, count=1))
        parts: list[Part] = [
            Convolution(name="depthwise", inputs=width, outputs=width, kernel=(7, 7), groups=width),
            layer_norm(width),
            Mlp(width=width, intermediate=4 * width, gated=False, activation=kind, bias=True),
            *([Tensor(name="layer_scale", parameter_count=width)] if scaled else []),
            Residual(width=width),
        ]
        block = Block(name=f"stage_{stage + 1}", positions=positions(stage), parts=tuple(parts))
        runs.append(Run(block=block, count=depth))
    last = widths[-1]
    outputs = (
        Norm(width=last, kind="layer", bias=True, rows="sequence"),
        Linear(name="classifier", inputs=last, outputs=_classes(config), bias=True, rows="sequence"),
    )
    reduction = patch * 2 ** (stages - 1)
    if image % reduction:
        raise config.error(
            "image_size", f"must be a multiple of {reduction}: patch_size times 2 for each further stage"
        )
    return Architecture(
        name=config.family,
        family=config.family,
        encoder=Stack(name="encoder", width=last, inputs=(), runs=tuple(runs), outputs=outputs),
        encoder_length=(image // reduction) ** 2,
    )
