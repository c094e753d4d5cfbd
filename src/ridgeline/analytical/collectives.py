"""Time of collectives by the alpha-beta model: a latency for each step, and bytes over a bandwidth.

Message sizes S are those of nccl-tests (doc/PERFORMANCE.md): of all_reduce, all_to_all, broadcast and send one rank's
buffer; of all_gather and reduce_scatter the whole. Costs are those of Thakur, Rabenseifner, Gropp, "Optimization of
Collective Communication Operations in MPICH", IJHPCA 19(1), 2005, sections 3 and 4, for rings and recursive doubling;
the double binary tree is Sanders, Speck, Traeff, "Two-tree algorithms for full bandwidth broadcast, reduction and
scan", Parallel Computing 35, 2009. Every argument may be a float64 column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ridgeline.analytical.ceilings import Link
from ridgeline.analytical.device import Device

Kind = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send"]
Algorithm = Literal["ring", "tree"]
KINDS: tuple[Kind, ...] = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send")


class CollectiveError(ValueError):
    """A collective that cannot be timed. One line."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """One collective of a step: ``message_bytes`` over ``ranks`` ranks."""

    kind: Kind
    message_bytes: Any
    ranks: int


def bus_factor(kind: Kind, ranks: Any) -> Any:
    """``busbw`` over ``algbw`` (= S / t): the share of the message that each rank passes over its link."""
    n = 1.0 * ranks
    if kind == "all_reduce":
        return 2.0 * (n - 1.0) / n
    if kind in ("all_gather", "reduce_scatter", "all_to_all"):
        return (n - 1.0) / n
    if kind in ("broadcast", "send"):
        return np.where(n > 1.0, 1.0, 0.0)[()]
    raise CollectiveError(f"unknown collective {kind!r}: one of {', '.join(KINDS)}")


def steps(kind: Kind, ranks: Any, algorithm: Algorithm = "ring") -> Any:
    """Messages that follow one another, each of which pays the latency once.

    ring: n - 1 for each pass around it, two passes in an all-reduce. tree: ceil(log2 n) for each way, up and down in an
    all-reduce; gathers and scatters by recursive doubling. all_to_all has no tree here: it sends to n - 1 ranks.
    """
    n = np.asarray(ranks, dtype=np.float64)
    if algorithm not in ("ring", "tree"):
        raise CollectiveError(f"unknown algorithm {algorithm!r}: ring or tree")
    bus_factor(kind, n)
    if kind == "send":
        return np.where(n > 1.0, 1.0, 0.0)[()]
    one_way = n - 1.0 if algorithm == "ring" or kind == "all_to_all" else np.ceil(np.log2(n))
    return ((2.0 if kind == "all_reduce" else 1.0) * one_way)[()]


def collective_time(
    kind: Kind,
    message_bytes: Any,
    ranks: Any,
    bytes_per_s: Any,
    latency_s: Any = 0.0,
    *,
    algorithm: Algorithm = "ring",
    overlap: Any = 0.0,
) -> Any:
    """Seconds: steps x latency + bus factor x S / bandwidth, of which ``overlap`` hides behind other work.

    Both algorithms move as few bytes as ranks that do all the work can (a pipelined double tree reaches the ring's
    bandwidth); a switch that adds up in the network moves fewer and is not modelled.

    Args:
        bytes_per_s: of one rank's links together, in one direction.
        latency_s: of one message. The default leaves it out: the result is then a bound only.
        overlap: share of the time that does not show, 0 to 1.

    Raises:
        CollectiveError: for an unknown kind or algorithm, or an overlap outside 0 to 1.
    """
    seconds = steps(kind, ranks, algorithm) * latency_s + bus_factor(kind, ranks) * message_bytes / bytes_per_s
    return seconds * exposed_share(overlap)


def exposed_share(overlap: Any) -> Any:
    """What of a time still shows when ``overlap`` of it hides.

    Raises:
        CollectiveError: for a share outside 0 to 1.
    """
    if np.any((np.asarray(overlap) < 0.0) | (np.asarray(overlap) > 1.0)):
        raise CollectiveError(f"overlap: must lie between 0 and 1, not {overlap}")
    return 1.0 - overlap


def hierarchical_all_reduce_time(
    message_bytes: Any,
    ranks: Any,
    ranks_inside: Any,
    inside_bytes_per_s: Any,
    outside_bytes_per_s: Any,
    *,
    inside_latency_s: Any = 0.0,
    outside_latency_s: Any = 0.0,
    algorithm: Algorithm = "ring",
    overlap: Any = 0.0,
) -> Any:
    """All-reduce over nodes: reduce-scatter inside, all-reduce of the parts across nodes, all-gather inside.

    Each of the ``ranks_inside`` ranks of a node sends its own part across at ``outside_bytes_per_s`` of its own.

    Raises:
        CollectiveError: where ``ranks_inside`` does not divide ``ranks``.
    """
    if np.any(np.asarray(ranks) % np.asarray(ranks_inside) != 0):
        raise CollectiveError(f"ranks_inside: {ranks_inside} must divide {ranks} ranks")
    part, nodes = 1.0 * message_bytes / ranks_inside, 1.0 * ranks / ranks_inside
    inside = 2.0 * collective_time(
        "all_gather", message_bytes, ranks_inside, inside_bytes_per_s, inside_latency_s, algorithm=algorithm
    )
    across = collective_time("all_reduce", part, nodes, outside_bytes_per_s, outside_latency_s, algorithm=algorithm)
    return (inside + across) * exposed_share(overlap)


def link_for(device: Device, ranks: int) -> Link:
    """The fastest link of ``device`` that joins ``ranks`` devices; one that states no domain joins any number.

    Raises:
        CollectiveError: where the device states no link, or none that reaches so far.
    """
    if not device.links:
        raise CollectiveError(
            f"{device.id} states no link, and {ranks} devices have to talk: add [[links]] to a device file"
        )
    reaching = [link for link in device.links if link.domain_size is None or link.domain_size >= ranks]
    if not reaching:
        names = ", ".join(f"{link.name} ({link.domain_size})" for link in device.links)
        raise CollectiveError(f"{device.id} has no link that joins {ranks} devices: {names}; use a smaller layout")
    return max(reaching, key=lambda link: link.per_direction_bytes_per_s)


def transfer_time(transfer: Transfer, device: Device, *, algorithm: Algorithm = "ring", overlap: Any = 0.0) -> Any:
    """Seconds of a transfer over the fastest link of ``device`` that joins its ranks, or its levels where none does.

    A link that states no latency is taken without: the result is then a bound only.
    """
    if transfer.ranks == 1:
        return 0.0 * transfer.message_bytes
    if transfer.kind == "all_reduce":
        near = [link for link in device.links if link.domain_size is not None and link.domain_size < transfer.ranks]
        inside = max(near, key=lambda link: link.per_direction_bytes_per_s, default=None)
        outside = link_for(device, transfer.ranks)
        faster = inside is not None and inside.per_direction_bytes_per_s > outside.per_direction_bytes_per_s
        if inside is not None and faster and inside.domain_size and transfer.ranks % inside.domain_size == 0:
            return hierarchical_all_reduce_time(
                transfer.message_bytes,
                transfer.ranks,
                inside.domain_size,
                inside.per_direction_bytes_per_s,
                outside.per_direction_bytes_per_s,
                inside_latency_s=inside.latency_s or 0.0,
                outside_latency_s=outside.latency_s or 0.0,
                algorithm=algorithm,
                overlap=overlap,
            )
    link = link_for(device, transfer.ranks)
    return collective_time(
        transfer.kind,
        transfer.message_bytes,
        transfer.ranks,
        link.per_direction_bytes_per_s,
        link.latency_s or 0.0,
        algorithm=algorithm,
        overlap=overlap,
    )
