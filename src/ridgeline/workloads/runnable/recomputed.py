"""The decoder computed anew over all tokens in float64, without cache and kernels: what its logits are checked against."""

from __future__ import annotations

import math

import torch

from ridgeline.workloads.runnable.decoder import Decoder, generate

TOLERANCE = 1e-4
"""||logits - recomputed|| / ||recomputed||, at either precision: int8 weights are exact in float32."""


@torch.inference_mode()
def recomputed_logits(decoder: Decoder, tokens: torch.Tensor) -> torch.Tensor:
    """[batch, t, vocabulary] in float64: logits after each of ``tokens`` [batch, t]."""
    size = decoder.size
    batch, t = tokens.shape
    d, heads, kv = size.head_dim, size.q_heads, size.kv_heads

    def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + size.norm_epsilon) * weight.double()

    # A rotation is a product of complex numbers: another formulation than the decoder's.
    frequencies = size.rope_base ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    turn = torch.polar(torch.ones(t, d // 2, dtype=torch.float64), torch.arange(t)[:, None] * frequencies)

    def rotated(x: torch.Tensor) -> torch.Tensor:  # [batch, heads, t, d]
        y = torch.complex(x[..., : d // 2], x[..., d // 2 :]) * turn
        return torch.cat((y.real, y.imag), dim=-1)

    hidden_keys = torch.ones(t, t, dtype=torch.bool).triu(1)
    x = decoder.embedding[tokens].double()
    for block in decoder.blocks:
        qkv = (norm(x, block.attention_norm) @ block.qkv.matrix()).view(batch, t, heads + 2 * kv, d).transpose(1, 2)
        q, k = rotated(qkv[:, :heads]), rotated(qkv[:, heads : heads + kv])
        k, v = (y.repeat_interleave(heads // kv, dim=1) for y in (k, qkv[:, heads + kv :]))
        scores = (q @ k.transpose(2, 3) / math.sqrt(d)).masked_fill(hidden_keys, -math.inf)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, t, size.hidden)
        x = x + mixed @ block.out.matrix()
        gate, up = (norm(x, block.ffn_norm) @ block.gate_up.matrix()).chunk(2, dim=-1)
        x = x + (gate * torch.sigmoid(gate) * up) @ block.down.matrix()
    return norm(x, decoder.final_norm) @ decoder.head.matrix()


@torch.inference_mode()
def relative_error(decoder: Decoder, prompt_tokens: int = 4, output_tokens: int = 3, batch: int = 1) -> float:
    """||logits - recomputed|| / ||recomputed|| over a prefill and the steps after it, on a random prompt."""
    prompt = torch.randint(
        decoder.size.vocabulary, (batch, prompt_tokens), generator=torch.Generator().manual_seed(1)
    )  # fmt: skip
    made = generate(decoder, prompt, output_tokens)
    cache = decoder.cache(batch, prompt_tokens + output_tokens - 1)
    pieces = [prompt, *made[:, :-1].split(1, dim=1)]
    logits = torch.stack([decoder.forward(piece, cache) for piece in pieces], dim=1).double()
    right = recomputed_logits(decoder, torch.cat((prompt, made[:, :-1]), dim=1))[:, prompt_tokens - 1 :]
    return float(torch.linalg.vector_norm(logits - right) / torch.linalg.vector_norm(right))
