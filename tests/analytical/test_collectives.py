"""Alpha-beta times of collectives: closed forms, limits, and the choice of a link."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.analytical.catalogue import catalogue
from ridgeline.analytical.ceilings import Link, Source
from ridgeline.analytical.collectives import (
    KINDS,
    CollectiveError,
    Kind,
    Transfer,
    bus_factor,
    collective_time,
    hierarchical_all_reduce_time,
    link_for,
    steps,
    transfer_time,
)

SOURCE = Source(title="made up for the test")
NEAR = Link(name="near", per_direction_bytes_per_s=450e9, latency_s=1e-6, domain_size=8, kind="assumed", source=SOURCE)
FAR = Link(name="far", per_direction_bytes_per_s=50e9, latency_s=5e-6, kind="assumed", source=SOURCE)
DEVICE = dataclasses.replace(catalogue()["nvidia-h100-sxm5-80gb"], links=(NEAR, FAR))


def test_an_all_reduce_by_hand() -> None:
    # 8 ranks, 64 MB: 14 messages of 1 us; 7/4 of 64 MB at 450 GB/s.
    assert collective_time("all_reduce", 64e6, 8, 450e9, 1e-6) == pytest.approx(14e-6 + 1.75 * 64e6 / 450e9)
    assert collective_time("all_reduce", 64e6, 8, 450e9, 1e-6, algorithm="tree") == pytest.approx(
        6e-6 + 1.75 * 64e6 / 450e9
    )


@pytest.mark.parametrize(
    ("kind", "factor", "ring", "tree"),
    [
        ("all_reduce", 1.75, 14, 6),
        ("all_gather", 0.875, 7, 3),
        ("reduce_scatter", 0.875, 7, 3),
        ("all_to_all", 0.875, 7, 7),
        ("broadcast", 1.0, 7, 3),
        ("send", 1.0, 1, 1),
    ],
)
def test_factors_and_steps_of_eight_ranks(kind: Kind, factor: float, ring: int, tree: int) -> None:
    assert (bus_factor(kind, 8), steps(kind, 8), steps(kind, 8, "tree")) == (factor, ring, tree)


@pytest.mark.parametrize("kind", KINDS)
def test_one_rank_has_nobody_to_talk_to(kind: Kind) -> None:
    assert collective_time(kind, 1e9, 1, 1e9, 1.0) == 0.0


@settings(max_examples=50)
@given(
    message=st.floats(1.0, 1e12), ranks=st.integers(2, 512), bandwidth=st.floats(1e9, 1e12), latency=st.floats(0, 1e-4)
)
def test_an_all_reduce_is_a_scatter_and_a_gather(message: float, ranks: int, bandwidth: float, latency: float) -> None:
    halves = sum(collective_time(kind, message, ranks, bandwidth, latency) for kind in ("reduce_scatter", "all_gather"))
    whole = collective_time("all_reduce", message, ranks, bandwidth, latency)
    assert whole == pytest.approx(halves)
    # No algorithm passes fewer bytes over a link; a tree only saves messages.
    assert (
        2 * message * (ranks - 1) / ranks / bandwidth
        <= collective_time("all_reduce", message, ranks, bandwidth, latency, algorithm="tree") * (1 + 1e-12)
        <= whole * (1 + 1e-9)
    )


def test_levels_of_one_node_are_a_ring() -> None:
    flat = collective_time("all_reduce", 1e8, 8, 450e9, 1e-6)
    assert hierarchical_all_reduce_time(
        1e8, 8, 8, 450e9, 50e9, inside_latency_s=1e-6, outside_latency_s=5e-6
    ) == pytest.approx(flat)


def test_levels_by_hand() -> None:
    # 2 nodes of 8: 7/8 of 80 MB twice at 450 GB/s, and all of 10 MB across at 50 GB/s.
    found = hierarchical_all_reduce_time(80e6, 16, 8, 450e9, 50e9)
    assert found == pytest.approx(2 * 70e6 / 450e9 + 10e6 / 50e9)
    assert found < collective_time("all_reduce", 80e6, 16, 50e9)
    with pytest.raises(CollectiveError, match="ranks_inside: 8 must divide 12 ranks"):
        hierarchical_all_reduce_time(1.0, 12, 8, 1.0, 1.0)


def test_the_fastest_link_that_reaches() -> None:
    assert link_for(DEVICE, 8).name == "near"
    assert link_for(DEVICE, 9).name == "far"
    with pytest.raises(CollectiveError, match="no link that joins 9 devices: near"):
        link_for(dataclasses.replace(DEVICE, links=(NEAR,)), 9)
    with pytest.raises(CollectiveError, match="states no link, and 2 devices have to talk"):
        link_for(dataclasses.replace(DEVICE, links=()), 2)


def test_a_transfer_takes_levels_where_its_ranks_fill_nodes() -> None:
    def seconds(ranks: int) -> float:
        return float(transfer_time(Transfer(kind="all_reduce", message_bytes=1e8, ranks=ranks), DEVICE))

    assert seconds(8) == pytest.approx(collective_time("all_reduce", 1e8, 8, 450e9, 1e-6))
    levels = hierarchical_all_reduce_time(1e8, 16, 8, 450e9, 50e9, inside_latency_s=1e-6, outside_latency_s=5e-6)
    assert seconds(16) == pytest.approx(levels)
    assert seconds(12) == pytest.approx(collective_time("all_reduce", 1e8, 12, 50e9, 5e-6))
    assert transfer_time(Transfer(kind="send", message_bytes=np.ones(2), ranks=1), DEVICE).tolist() == [0.0, 0.0]


def test_overlap_hides_its_share() -> None:
    whole = collective_time("all_reduce", 1e8, 8, 450e9)
    assert collective_time("all_reduce", 1e8, 8, 450e9, overlap=0.25) == pytest.approx(0.75 * whole)
    assert collective_time("all_reduce", 1e8, 8, 450e9, overlap=np.array([0.0, 1.0])).tolist() == [whole, 0.0]
    with pytest.raises(CollectiveError, match="overlap: must lie between 0 and 1"):
        collective_time("all_reduce", 1e8, 8, 450e9, overlap=1.5)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(CollectiveError, match="unknown collective 'gather'"):
        collective_time("gather", 1.0, 2, 1.0)  # type: ignore[arg-type]
    with pytest.raises(CollectiveError, match="unknown algorithm 'star': ring or tree"):
        collective_time("send", 1.0, 2, 1.0, algorithm="star")  # type: ignore[arg-type]
