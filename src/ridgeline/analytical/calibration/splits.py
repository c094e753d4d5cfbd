"""Leaving out: which rows a model may learn from, and which it is judged on.

Rows that belong together are left out together: every measurement of one weight shape, of one head configuration, of one
device, of one architecture. A random split leaves neighbours of every left-out row behind and flatters any model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

ARCHITECTURES: dict[str, tuple[str, ...]] = {
    "ampere": ("ampere",),
    "ada": ("ada",),
    "hopper": ("hopper",),
    "blackwell": ("blackwell",),
    "blackwell-workstation": ("blackwell-workstation",),
    "xe2": ("xe2",),
}
"""Groups of the headline split, by the catalogue's ``architecture``: near twins (H100 and H200) are never apart."""


def group_ids(*columns: Any) -> Any:
    """A number for each distinct combination of the columns' values, an int column."""
    stacked = np.stack([np.unique(np.asarray(c), return_inverse=True)[1] for c in columns], axis=1)
    return np.unique(stacked, axis=0, return_inverse=True)[1].ravel()


def group_folds(groups: Any, folds: int, seed: int) -> Iterator[tuple[Any, Any]]:
    """Boolean columns (train, test) of ``folds`` folds; each group is tested in exactly one of them.

    Raises:
        ValueError: for fewer groups than folds.
    """
    groups = np.asarray(groups)
    distinct = np.unique(groups)
    if len(distinct) < folds:
        raise ValueError(f"{len(distinct)} groups cannot make {folds} folds")
    order = np.random.default_rng(seed).permutation(distinct)
    fold_of = {group: index % folds for index, group in enumerate(order)}
    fold = np.array([fold_of[g] for g in groups])
    for index in range(folds):
        test = fold == index
        yield ~test, test


def leave_one_out(labels: Sequence[str] | Any) -> Iterator[tuple[str, Any, Any]]:
    """(label, train, test) for each distinct label, in alphabetical order."""
    column = np.asarray(labels)
    for label in np.unique(column):
        test = column == label
        yield str(label), ~test, test
