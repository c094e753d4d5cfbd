"""Mixers: what lets the tokens of a sequence see one another: attention of several kinds, and recurrences."""

from __future__ import annotations

from dataclasses import dataclass

from ridgeline.analytical.architectures.parts import Norm


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Softmax attention with ``kv_heads`` of ``q_heads`` (equal: MHA, one: MQA, between: GQA)."""

    width: int
    q_heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    causal: bool = True
    window: int | None = None
    """Keys that a query sees at most, itself included; ``None`` for all."""
    rope_dim: int = 0
    """Dimensions of a head that are rotated."""
    q_bias: bool = False
    k_bias: bool = False
    v_bias: bool = False
    o_bias: bool = False
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    cross: bool = False
    """Keys and values come from the encoder's output."""
    source_width: int | None = None
    """Width of the encoder's output where it differs."""
    output_gate: bool = False
    """The query projection is twice as wide; its other half gates the output (Qwen3-Next)."""
    sinks: bool = False
    """One learned logit per query head (gpt-oss)."""
    relative: bool = False
    """A projection of relative positions and two biases per head (Transformer-XL, as Conformer uses it)."""

    @property
    def kind(self) -> str:
        """MHA, GQA or MQA."""
        if self.kv_heads == self.q_heads:
            return "MHA"
        return "MQA" if self.kv_heads == 1 else "GQA"

    @property
    def q_outputs(self) -> int:
        """Columns of the query projection, gate included."""
        return self.q_heads * self.head_dim * (2 if self.output_gate else 1)

    @property
    def kv_elements_per_token(self) -> int:
        """Elements of keys and values that one token leaves in the cache."""
        return self.kv_heads * (self.head_dim + self.value_dim)

    @property
    def parameter_count(self) -> int:
        """The four projections with their biases, norms, sinks and relative positions."""
        source = self.source_width or self.width
        q, k, v = self.q_outputs, self.kv_heads * self.head_dim, self.kv_heads * self.value_dim
        count = self.width * q + source * (k + v) + self.q_heads * self.value_dim * self.width
        count += q * self.q_bias + k * self.k_bias + v * self.v_bias + self.width * self.o_bias
        count += sum(norm.parameter_count for norm in (self.q_norm, self.k_norm) if norm is not None)
        count += self.q_heads * self.sinks
        return count + self.relative * (self.width * self.q_heads * self.head_dim + 2 * self.q_heads * self.head_dim)


@dataclass(frozen=True, kw_only=True)
class Indexer:
    """The lightning indexer of sparse attention (DeepSeek-V3.2): scores every key cheaply, keeps ``top_k``."""

    heads: int
    head_dim: int
    top_k: int


@dataclass(frozen=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention (MLA): DeepSeek-V2, arXiv 2405.04434, section 2.1."""

    width: int
    heads: int
    q_rank: int | None
    """Rank of the query's down-projection; ``None`` where the query is projected at once."""
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    bias: bool = False
    causal: bool = True
    indexer: Indexer | None = None

    kind = "MLA"

    @property
    def kv_elements_per_token(self) -> int:
        """The latent and the shared rotated key of one token; an indexer keeps one key more."""
        return self.kv_rank + self.rope_dim + (self.indexer.head_dim if self.indexer else 0)

    @property
    def parameter_count(self) -> int:
        """Down- and up-projections with their norms, the output projection, the indexer."""
        query = self.heads * (self.nope_dim + self.rope_dim)
        if self.q_rank is None:
            count = self.width * query
        else:
            count = self.width * self.q_rank + self.q_rank + self.q_rank * query + self.q_rank * self.bias
        count += self.width * (self.kv_rank + self.rope_dim) + self.kv_rank
        count += self.kv_rank * self.heads * (self.nope_dim + self.value_dim)
        count += self.heads * self.value_dim * self.width
        count += (self.kv_rank + self.rope_dim + self.width) * self.bias
        if self.indexer is not None:
            keys = self.indexer.heads * self.indexer.head_dim
            count += (self.q_rank or self.width) * keys + self.width * self.indexer.head_dim
            count += 2 * self.indexer.head_dim + self.width * self.indexer.heads
        return count


@dataclass(frozen=True, kw_only=True)
class SelectiveScan:
    """The mixer of Mamba (Gu & Dao, arXiv 2312.00752, algorithm 2)."""

    width: int
    inner: int
    state: int
    conv: int
    dt_rank: int
    bias: bool = False
    conv_bias: bool = True
    inner_norms: bool = False
    """RMS norms on dt, B and C (Jamba)."""

    kind = "SSM"

    @property
    def state_elements(self) -> int:
        """Elements of recurrent state that one sequence keeps."""
        return self.inner * self.state

    @property
    def conv_state_elements(self) -> int:
        """Elements that the causal convolution keeps of one sequence."""
        return self.inner * self.conv

    @property
    def parameter_count(self) -> int:
        """Projections in and out, the convolution, dt, A, D and the norms."""
        count = self.width * 2 * self.inner + self.inner * self.conv + self.inner * self.conv_bias
        count += self.inner * (self.dt_rank + 2 * self.state) + self.dt_rank * self.inner + self.inner
        count += self.inner * self.state + self.inner + self.inner * self.width
        count += (2 * self.inner + self.width) * self.bias
        return count + self.inner_norms * (self.dt_rank + 2 * self.state)


@dataclass(frozen=True, kw_only=True)
class StateSpaceDuality:
    """The mixer of Mamba-2 (Dao & Gu, arXiv 2405.21060, section 7)."""

    width: int
    heads: int
    head_dim: int
    state: int
    groups: int
    conv: int
    bias: bool = False
    conv_bias: bool = True
    norm: bool = True
    """A gated RMS norm before the output projection."""

    kind = "SSM"

    @property
    def inner(self) -> int:
        """Width of all heads together."""
        return self.heads * self.head_dim

    @property
    def conv_channels(self) -> int:
        """Channels of the convolution: x, B and C."""
        return self.inner + 2 * self.groups * self.state

    @property
    def in_outputs(self) -> int:
        """Columns of the input projection: z, x, B, C and dt."""
        return self.inner + self.conv_channels + self.heads

    @property
    def state_elements(self) -> int:
        """Elements of recurrent state that one sequence keeps."""
        return self.inner * self.state

    @property
    def conv_state_elements(self) -> int:
        """Elements that the causal convolution keeps of one sequence."""
        return self.conv_channels * self.conv

    @property
    def parameter_count(self) -> int:
        """Projections in and out, the convolution, dt, A, D and the norm."""
        count = self.width * self.in_outputs + self.conv_channels * (self.conv + self.conv_bias)
        count += 3 * self.heads + self.inner * self.norm + self.inner * self.width
        return count + (self.in_outputs + self.width) * self.bias


@dataclass(frozen=True, kw_only=True)
class GatedDelta:
    """Linear attention by the gated delta rule (Yang et al., arXiv 2412.06464), as Qwen3-Next lays it out."""

    width: int
    key_heads: int
    key_dim: int
    value_heads: int
    value_dim: int
    conv: int

    kind = "linear"

    @property
    def conv_channels(self) -> int:
        """Channels of the convolution: queries, keys and values."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    @property
    def in_outputs(self) -> int:
        """Columns of the input projections: queries, keys, values, z, and b and a of each value head."""
        return self.conv_channels + self.value_heads * self.value_dim + 2 * self.value_heads

    @property
    def state_elements(self) -> int:
        """Elements of recurrent state that one sequence keeps."""
        return self.value_heads * self.key_dim * self.value_dim

    @property
    def conv_state_elements(self) -> int:
        """Elements that the causal convolution keeps of one sequence."""
        return self.conv_channels * self.conv

    @property
    def parameter_count(self) -> int:
        """Projections in and out, the convolution, dt, A and the norm of a head."""
        count = self.width * self.in_outputs + self.conv_channels * self.conv
        return count + 2 * self.value_heads + self.value_dim + self.value_heads * self.value_dim * self.width


Recurrent = SelectiveScan | StateSpaceDuality | GatedDelta
Mixer = Attention | LatentAttention | SelectiveScan | StateSpaceDuality | GatedDelta
