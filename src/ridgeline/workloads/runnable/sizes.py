"""Dimensions of the runnable decoders."""

from __future__ import annotations

from dataclasses import dataclass

PRECISIONS = ("float32", "int8")
"""Stored precision of the weights that are multiplied; norms, attention and embeddings are float32 in both."""


class RunnableError(ValueError):
    """A model that cannot be run as asked. One line: what is wrong, what there is."""


@dataclass(frozen=True, kw_only=True)
class DecoderSize:
    """A decoder of RMSNorm, rotary grouped-query attention and SwiGLU; no biases."""

    name: str
    layers: int
    hidden: int
    q_heads: int
    kv_heads: int
    ffn: int
    vocabulary: int
    tied: bool
    """Whether the output projection is the embedding."""
    source: str
    """Where the dimensions are from."""
    rope_base: float = 10000.0
    norm_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if self.hidden % self.q_heads or self.q_heads % self.kv_heads or self.head_dim % 2:
            raise RunnableError(
                f"{self.name}: hidden={self.hidden} must be heads of even width, and q_heads={self.q_heads} "
                f"a multiple of kv_heads={self.kv_heads}"
            )

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.hidden // self.q_heads

    @property
    def parameter_count(self) -> int:
        """All weights, a tied embedding once."""
        attention = 2 * self.hidden**2 + 2 * self.hidden * self.kv_heads * self.head_dim
        block = attention + 3 * self.hidden * self.ffn + 2 * self.hidden
        return self.layers * block + (1 if self.tied else 2) * self.vocabulary * self.hidden + self.hidden

    def config(self) -> dict[str, object]:
        """The same dimensions as a Hugging Face ``config.json`` of a Llama has them."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": self.ffn,
            "num_attention_heads": self.q_heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "tie_word_embeddings": self.tied,
            "vocab_size": self.vocabulary,
        }


SIZES = {
    size.name: size
    for size in (
        DecoderSize(
            name="decoder-125m",
            layers=12,
            hidden=768,
            q_heads=12,
            kv_heads=12,
            ffn=2048,
            vocabulary=50272,
            tied=True,
            source="our own: depth, width and vocabulary of OPT-125M (recalled, not looked up), with SwiGLU",
        ),
        DecoderSize(
            name="geb-1.3b",
            layers=24,
            hidden=2048,
            q_heads=16,
            kv_heads=4,
            ffn=5632,
            vocabulary=64896,
            tied=False,
            source="GEB-1.3B (arXiv 2406.09900): recalled, not looked up; its 1.3 B parameters are met within 5 %",
        ),
    )
}


def find_size(name: str) -> DecoderSize:
    """A size by name.

    Raises:
        RunnableError: naming what there is.
    """
    try:
        return SIZES[name]
    except KeyError:
        raise RunnableError(f"no runnable model {name!r}: one of {', '.join(SIZES)}") from None


def check_precision(precision: str) -> None:
    """Refuse a precision that no runnable decoder has.

    Raises:
        RunnableError: naming those there are.
    """
    if precision not in PRECISIONS:
        raise RunnableError(f"precision {precision!r}: a runnable decoder has {' or '.join(PRECISIONS)} weights")
