"""Index of Double Sparsity (Yang et al. 2024): which channels stand for a key, and the cache of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LabelCache:
    """The label channels of every key, and what they are."""

    channels: torch.Tensor
    """int32 [H_kv, r]."""
    labels: torch.Tensor
    """[B, H_kv, S, r] in the cache's precision."""
    scale: torch.Tensor | None = None
    """float32 [H_kv, r] of an int8 cache: a key's channel is scale * (label - zero)."""
    zero: torch.Tensor | None = None
    """float32 [H_kv, r]. Takes no part in a choice: it adds the same to every token's score."""

    @property
    def bytes(self) -> int:
        """Bytes that a selection reads of it."""
        own = self.labels.numel() * self.labels.element_size()
        return own + (0 if self.scale is None else 4 * self.scale.numel())


def label_channels(q: torch.Tensor, k: torch.Tensor, count: int) -> torch.Tensor:
    """The ``count`` channels of each KV head with the largest E|q_c k_c|, in order; int32 [H_kv, count].

    Over calibration data: ``q`` [B, H, T, d] and ``k`` [B, H_kv, S, d], the mean over all pairs of a query and a key.
    It is E|q_c| E|k_c|, as every query meets every key.
    """
    kv_heads, d = k.shape[1], k.shape[-1]
    of_queries = q.abs().float().mean((0, 2)).view(kv_heads, -1, d).mean(1)
    of_keys = k.abs().float().mean((0, 2))
    return (of_queries * of_keys).topk(count, dim=-1).indices.sort(-1).values.to(torch.int32)


def label_cache(k: torch.Tensor, channels: torch.Tensor, precision: str = "float32") -> LabelCache:
    """The cache of ``k`` [B, H_kv, S, d] in ``precision``; int8 has a scale and a zero point a channel.

    An int8 channel's range is that of these keys; later ones are clamped to it.
    """
    b, _, s, _ = k.shape
    wanted = channels.long()[None, :, None, :].expand(b, -1, s, -1)
    labels = k.gather(-1, wanted).float()
    if precision != "int8":
        return LabelCache(channels, labels.to(getattr(torch, precision)))
    least, most = labels.amin((0, 2)), labels.amax((0, 2))
    scale = ((most - least) / 254.0).clamp_min(torch.finfo(torch.float32).tiny)
    zero = -127.0 - least / scale
    levels = (labels / scale[None, :, None] + zero[None, :, None]).round_().clamp_(-127.0, 127.0)
    return LabelCache(channels, levels.to(torch.int8), scale, zero)
