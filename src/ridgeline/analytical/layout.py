"""How a model is laid out over devices, and what it is stored and computed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ridgeline.analytical.architectures.architecture import Architecture
from ridgeline.analytical.architectures.mixers import Attention, LatentAttention
from ridgeline.analytical.architectures.parts import Experts, Mlp
from ridgeline.analytical.quantities import UnknownPrecisionError, bits


class LayoutError(ValueError):
    """A layout that a model cannot have. One line: what is wrong, and which sizes would do."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Parallelism over ``tp * pp * dp`` devices.

    Tensor parallel: ``tp`` devices hold a slice of every matrix and add up after attention and after the feed-forward.
    Pipeline parallel: ``pp`` groups hold consecutive blocks. Data parallel: ``dp`` replicas of the attention share the
    sequences. Expert parallel: the experts of a block are spread over ``ep`` of the ``tp * dp`` devices of a stage; up
    to tp they lie inside a replica, beyond it they span replicas and tokens travel to them.
    """

    tp: int = 1
    pp: int = 1
    ep: int = 1
    dp: int = 1

    def __post_init__(self) -> None:
        for name in ("tp", "pp", "ep", "dp"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise LayoutError(f"{name}: must be a whole number of at least 1, not {value!r}")
        if not (self.tp % self.ep == 0 or (self.ep % self.tp == 0 and (self.tp * self.dp) % self.ep == 0)):
            raise LayoutError(
                f"ep: {self.ep} must divide tp = {self.tp}, or be a multiple of it that divides tp x dp = "
                f"{self.tp * self.dp}"
            )

    @property
    def devices(self) -> int:
        """All of them."""
        return self.tp * self.pp * self.dp

    @property
    def expert_tp(self) -> int:
        """Devices that share one expert's matrices."""
        return max(self.tp // self.ep, 1)

    @property
    def experts_span_replicas(self) -> bool:
        """Whether tokens have to travel to experts of other replicas."""
        return self.ep > self.tp

    def check(self, architecture: Architecture) -> None:
        """Refuse what does not divide.

        Raises:
            LayoutError: for heads, widths, experts or layers that cannot be split so.
        """
        for stack in architecture.stacks:
            if self.pp > stack.layer_count:
                raise LayoutError(
                    f"pp: {architecture.name} has {stack.layer_count} layers in its {stack.name}, {self.pp} stages do not fit"
                )
            for block, _ in stack.distinct:
                for part in block.parts:
                    if isinstance(part, Attention | LatentAttention):
                        heads = part.q_heads if isinstance(part, Attention) else part.heads
                        _divides(architecture, "tp", self.tp, "query heads", heads)
                    if isinstance(part, Attention) and part.kv_heads % self.tp and self.tp % part.kv_heads:
                        raise LayoutError(
                            f"tp: {architecture.name} has {part.kv_heads} KV heads: tp = {self.tp} must divide them or "
                            "be a multiple of them"
                        )
                    if isinstance(part, Mlp):
                        _divides(architecture, "tp", self.tp, "columns in its MLP", part.intermediate)
                    if isinstance(part, Experts):
                        _divides(architecture, "ep", self.ep, "experts", part.count)
                        _divides(architecture, "tp / ep", self.expert_tp, "columns in an expert", part.intermediate)
        if self.ep > 1 and not architecture.is_moe:
            raise LayoutError(f"ep: {architecture.name} has no experts; use tp, pp or dp")

    @property
    def label(self) -> str:
        """The sizes above 1, such as ``tp8 pp2``; ``1 device`` without any."""
        sizes = [f"{name}{value}" for name in ("tp", "pp", "ep", "dp") if (value := getattr(self, name)) > 1]
        return " ".join(sizes) or "1 device"


def _divides(architecture: Architecture, key: str, parts: int, what: str, count: int) -> None:
    if count % parts:
        raise LayoutError(f"{key}: {architecture.name} has {count} {what}, which {parts} devices do not divide")


@dataclass(frozen=True, kw_only=True)
class Precisions:
    """What a model's numbers are stored and computed in.

    ``weights`` is what the matrices, embedding and head are stored in; ``overrides`` names operators whose weights are
    kept otherwise (``{"lm_head": "bfloat16"}``). ``activations`` is what the matrix products compute in. Weights
    narrower than that are widened on the way (weight-only); the wider ones of ``overrides`` are computed in their own
    precision.
    The residual stream, norms, rotations, queries and products' results stay at 16 bits or more (:attr:`stream`).
    ``kv`` is what keys, values and latents are cached in. ``group`` is how many weights along the reduction share a
    16-bit scale where weights are narrower than the activations; ``None`` leaves scales out.
    """

    weights: str = "bfloat16"
    activations: str = "bfloat16"
    kv: str = "bfloat16"
    overrides: Mapping[str, str] = field(default_factory=dict)
    group: int | None = None

    def __post_init__(self) -> None:
        for key, name in (
            ("weights", self.weights),
            ("activations", self.activations),
            ("kv", self.kv),
            *self.overrides.items(),
        ):
            try:
                bits(name)
            except UnknownPrecisionError as error:
                raise LayoutError(f"{key}: {error}") from None
        if bits(self.weights) > bits(self.activations):
            raise LayoutError(
                f"activations: {self.activations} products need weights of as few bits, not {self.weights}; keep single "
                "operators wider by name"
            )

    @property
    def stream(self) -> str:
        """What activations are kept in between the products."""
        return self.activations if bits(self.activations) >= 16 else "bfloat16"

    def weights_of(self, operator: str) -> str:
        """What the weights of an operator are stored in."""
        return self.overrides.get(operator, self.weights)

    def operands_of(self, operator: str) -> str:
        """What the products of an operator compute in."""
        weights = self.weights_of(operator)
        return weights if bits(weights) > bits(self.activations) else self.activations

    @property
    def label(self) -> str:
        """``w int8 a bfloat16 kv bfloat16``, or the one precision of all."""
        if self.weights == self.activations == self.kv and not self.overrides:
            return self.weights
        label = f"w {self.weights} a {self.activations} kv {self.kv}"
        return label + "".join(f" {name} {precision}" for name, precision in self.overrides.items())


BFLOAT16 = Precisions()
"""Everything in bfloat16."""
ONE_DEVICE = Layout()
"""No parallelism."""
