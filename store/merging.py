"""Rows that show the same thing, put into one group, so that no split can part them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from store.dataset import Dataset

Families = tuple[tuple[str, ...], ...]
"""Ids of rows that belong together."""


def merge_groups(dataset: Dataset, families: Iterable[Sequence[str]]) -> Dataset:
    """Return the dataset with the groups of each family's rows made one; rows without a group are one each."""
    families = list(families)
    if not families:
        return dataset
    groups = (dataset.ids if dataset.groups is None else dataset.groups).astype(str)
    of_row = dict(zip(dataset.ids.tolist(), groups.tolist(), strict=True))
    name = {group: united[0] for united in unite([[of_row[i] for i in ids] for ids in families]) for group in united}
    return replace(dataset, groups=np.array([name.get(group, group) for group in groups.tolist()], dtype=np.str_))


def unite(families: Iterable[Sequence[str]]) -> Families:
    """Return families that share no member, members and families sorted."""
    united: list[set[str]] = []
    for family in families:
        touched = [other for other in united if other & set(family)]
        united = [other for other in united if other not in touched] + [set(family).union(*touched)]
    return tuple(sorted(tuple(sorted(family)) for family in united))
