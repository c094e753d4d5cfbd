"""The process group of a placement of several ranks: gloo on CPUs, nccl on GPUs, through a file of this host."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from ridgeline.kernels.registry import Context, Unsupported

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
"""By torch device type."""


def join(store: Path, rank: int, ranks: int, device: str, timeout_s: float) -> None:
    """Make this process rank ``rank`` of ``ranks``; they meet at the file ``store``, which must not be there before.

    Args:
        store: a file in a private folder; no port is opened for the meeting.
        rank: from 0.
        ranks: processes of the group.
        device: torch device type.
        timeout_s: longest wait for the others, here and in every collective.

    Raises:
        RuntimeError: where the others do not come.
    """
    leave()
    # All ranks are on this host; without a name gloo asks for the address of the host's own name, which may have none.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    _start(dist.FileStore(str(store), ranks), rank, ranks, device, timeout_s)


def leave() -> None:
    """End the group of this process, if it has one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def require(ranks: int, context: Context) -> None:
    """Be sure that the group is there for a problem of ``ranks`` ranks. A process on its own makes a group of one.

    Raises:
        Unsupported: where the placement has another number of ranks, or torch was built without the backend.
    """
    if not dist.is_available():
        raise Unsupported("this torch was built without torch.distributed")
    if ranks != context.ranks:
        raise Unsupported(f"needs {ranks} ranks, the placement has {context.ranks}")
    if not dist.is_initialized() or dist.get_world_size() != ranks:
        if ranks != 1:
            raise Unsupported(f"needs a process group of {ranks} ranks, and this process is in none")
        leave()
        _start(dist.HashStore(), 0, 1, context.device, 60.0)


def _start(store: dist.Store, rank: int, ranks: int, device: str, timeout_s: float) -> None:
    timeout = timedelta(seconds=timeout_s)
    store.set_timeout(timeout)
    dist.init_process_group(BACKENDS[device], store=store, rank=rank, world_size=ranks, timeout=timeout)
