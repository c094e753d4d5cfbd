"""A decoder with random weights that generates greedily with a KV cache: products by our flat GEMM, attention by SDPA."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ridgeline.analytical.operators import Attention, Gemm, WeightOnlyGemm
from ridgeline.kernels.gemm.native import MOST_ROWS, flat, flat_panels
from ridgeline.kernels.gemm.panels import unpack
from ridgeline.kernels.registry import Context, Run, Unsupported, get_implementation, get_operator
from ridgeline.kernels.weight_only_gemm.native import flat_int8, flat_int8_panels
from ridgeline.workloads.runnable.sizes import DecoderSize, RunnableError, check_precision


class Linear:
    """Y = X W for X [m, k] and a random W [k, n] such that Y varies as much as X, by the flat GEMM.

    W is packed once, for every m. torch's product in its place packs a float32 W in every call from two rows on, so that
    three tokens of a prompt took twice as long as one.

    Raises:
        RunnableError: where the C++ cannot be built.
    """

    def __init__(self, n: int, k: int, precision: str, generator: torch.Generator, threads: int) -> None:
        self._n, self._k, self._precision, self._threads = n, k, precision, threads
        self._runs: dict[int, Run] = {}
        operator = get_operator("gemm" if precision == "float32" else "weight_only_gemm")
        constants = operator.make_constants(self._problem(1), generator)
        try:
            if precision == "float32":
                self._panels = flat_panels(constants["b"].mul_(1.0 / math.sqrt(k)))
                self._scale = torch.ones(1)
            else:
                self._panels = flat_int8_panels(constants["q"])
                self._scale = constants["scale"].reshape(-1)
        except Unsupported as error:
            raise RunnableError(f"the model's products are C++: {error}") from None

    def _problem(self, m: int) -> Gemm | WeightOnlyGemm:
        if self._precision == "float32":
            return Gemm(m=m, n=self._n, k=self._k, precision="float32")
        return WeightOnlyGemm(m=m, n=self._n, k=self._k, weight="int8", group=self._k, precision="float32")

    def _run(self, m: int) -> Run:
        found = self._runs.get(m)
        if found is None:
            problem = self._problem(m)
            if isinstance(problem, Gemm):
                found = flat(problem, self._panels, self._threads)
            else:
                found = flat_int8(problem, self._panels, self._scale, self._threads)
            self._runs[m] = found
        return found

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[m, n] float32 from [m, k] float32; more rows than the kernel takes go through it in even shares."""
        out = torch.empty(len(x), self._n)
        shares = -(-len(x) // MOST_ROWS)
        for rows, y in zip(x.tensor_split(shares), out.tensor_split(shares), strict=True):
            self._run(len(rows))({"a": rows, "x": rows}, y)
        return out

    def matrix(self) -> torch.Tensor:
        """W [k, n] in float64, as the kernel means it."""
        return unpack(self._panels, self._n).double() * self._scale.double()


@dataclass(frozen=True)
class Block:
    """Weights of one layer."""

    qkv: Linear
    out: Linear
    gate_up: Linear
    down: Linear
    attention_norm: torch.Tensor
    """[hidden]"""
    ffn_norm: torch.Tensor
    """[hidden]"""


class Cache:
    """Keys and values of every layer, [layers, batch, kv_heads, capacity, head_dim] each."""

    def __init__(self, size: DecoderSize, batch: int, capacity: int) -> None:
        shape = (size.layers, batch, size.kv_heads, capacity, size.head_dim)
        self.keys, self.values = torch.empty(shape), torch.empty(shape)
        self.length = 0
        self.capacity = capacity


class Decoder:
    """The model on this CPU. The kernels must be loaded (:func:`ridgeline.kernels.registry.load`).

    Args:
        size: its dimensions.
        precision: of :data:`~ridgeline.workloads.runnable.sizes.PRECISIONS`.
        threads: that its kernels may use.
        seed: of its weights.

    Raises:
        RunnableError: for another precision, or where the C++ of its products cannot be built.
    """

    def __init__(self, size: DecoderSize, precision: str, threads: int, seed: int = 0) -> None:
        check_precision(precision)
        self.size, self.precision, self.threads = size, precision, threads
        g = torch.Generator().manual_seed(seed)
        h, kv = size.hidden, size.kv_heads * size.head_dim

        def linear(n: int, k: int) -> Linear:
            return Linear(n, k, precision, g, threads)

        def norm() -> torch.Tensor:
            return torch.rand(h, generator=g) + 0.5

        self.blocks = [
            Block(linear(h + 2 * kv, h), linear(h, h), linear(2 * size.ffn, h), linear(h, size.ffn), norm(), norm())
            for _ in range(size.layers)
        ]
        self.final_norm = norm()
        self.head = linear(size.vocabulary, h)
        self.embedding = self._embedding(g)
        self._attention = get_implementation("attention", "torch_sdpa")
        self._frequencies = size.rope_base ** (-torch.arange(0, size.head_dim, 2) / size.head_dim)

    def _embedding(self, generator: torch.Generator) -> torch.Tensor:
        """[vocabulary, hidden]. A tied int8 head keeps its own integers: the table is their float32 meaning."""
        if self.size.tied:
            return self.head.matrix().T.float().contiguous() * math.sqrt(self.size.hidden)
        return torch.randn(self.size.vocabulary, self.size.hidden, generator=generator)

    def cache(self, batch: int, capacity: int) -> Cache:
        """An empty cache for ``capacity`` tokens of each sequence."""
        return Cache(self.size, batch, capacity)

    def forward(self, tokens: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Logits [batch, vocabulary] after the last of ``tokens`` [batch, t]; the cache grows by t.

        Products run on the model's threads, the rest on one: torch's threads, which go on looking for work for a while,
        would take the processors from ours. With both, a decode step of the 125 M model took 18 ms instead of 12.

        Raises:
            RunnableError: where the cache is full, or several tokens follow a prompt (no chunked prefill here).
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self._forward(tokens, cache)
        finally:
            torch.set_num_threads(threads)

    def _forward(self, tokens: torch.Tensor, cache: Cache) -> torch.Tensor:
        size = self.size
        batch, t = tokens.shape
        s = cache.length + t
        if s > cache.capacity or (t > 1 and cache.length):
            raise RunnableError(f"{t} tokens after {cache.length} in a cache of {cache.capacity}")
        d, heads, kv = size.head_dim, size.q_heads, size.kv_heads
        angles = torch.arange(cache.length, s)[:, None] * self._frequencies
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]
        problem = Attention(
            batch=batch, q_heads=heads, kv_heads=kv, q_length=t, kv_length=s, head_dim=d, causal=True
        )  # fmt: skip
        attend = self._attention.prepare(problem, {}, Context("cpu", 1))
        x = self.embedding[tokens.reshape(-1)]
        for index, block in enumerate(self.blocks):
            qkv = block.qkv(self._norm(x, block.attention_norm)).view(batch, t, heads + 2 * kv, d)
            turned = rotate(qkv[:, :, : heads + kv], cos, sin)
            keys, values = cache.keys[index, :, :, :s], cache.values[index, :, :, :s]
            keys[:, :, cache.length :] = turned[:, :, heads:].transpose(1, 2)
            values[:, :, cache.length :] = qkv[:, :, heads + kv :].transpose(1, 2)
            mixed = torch.empty(batch, heads, t, d)
            attend({"q": turned[:, :, :heads].transpose(1, 2), "k": keys, "v": values}, mixed)
            x = x + block.out(mixed.transpose(1, 2).reshape(batch * t, size.hidden))
            gate, up = block.gate_up(self._norm(x, block.ffn_norm)).chunk(2, dim=1)
            x = x + block.down(torch.nn.functional.silu(gate) * up)
        cache.length = s
        last = x.view(batch, t, size.hidden)[:, -1]
        return self.head(self._norm(last, self.final_norm))

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.rms_norm(x, (self.size.hidden,), weight, self.size.norm_epsilon)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding of x [batch, t, heads, d] by angles [t, 1, d / 2]: halves, as in Llama."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


@torch.inference_mode()
def generate(
    decoder: Decoder, prompt: torch.Tensor, output_tokens: int, after_token: Callable[[], None] = lambda: None
) -> torch.Tensor:
    """Greedy continuation [batch, output_tokens] of ``prompt`` [batch, p]; ``after_token`` is called at each token."""
    batch, p = prompt.shape
    cache = decoder.cache(batch, p + output_tokens - 1)
    tokens, made = prompt, []
    for _ in range(output_tokens):
        tokens = decoder.forward(tokens, cache).argmax(dim=1, keepdim=True)
        made.append(tokens)
        after_token()
    return torch.cat(made, dim=1)
