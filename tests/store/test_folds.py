from typing import Any

import numpy as np
import pytest

from store.folds import assign_folds, inner_folds


@pytest.mark.parametrize("stratify", [True, False])
def test_inner_folds_divide_only_the_rows_given(stratify: bool) -> None:
    y = np.arange(120) % 3
    groups = np.arange(120) // 4
    rows = np.random.default_rng(0).permutation(np.flatnonzero(groups % 5 != 0))
    pairs = inner_folds(y, groups, rows, seed=1, stratify=stratify)
    assert len(pairs) == 4
    assert sorted(np.concatenate([val for _, val in pairs])) == sorted(rows)
    for fit, val in pairs:
        assert sorted([*fit, *val]) == sorted(rows)
        assert not set(groups[fit]) & set(groups[val])
    again = inner_folds(y, groups, rows, seed=1, stratify=stratify)
    assert all(np.array_equal(a, b) for p, q in zip(pairs, again, strict=True) for a, b in zip(p, q, strict=True))


def test_inner_folds_are_stratified_by_classes_and_by_values() -> None:
    rng = np.random.default_rng(0)
    rows = np.arange(0, 400, 2)
    y = rng.choice([-1, 0, 1, 2], p=[0.1, 0.7, 0.15, 0.05], size=400)
    for _, val in inner_folds(y, None, rows, seed=0, stratify=True):
        for c in range(3):
            assert abs((y[val] == c).sum() - (y[rows] == c).sum() / 4) < 1
    values = np.where(rng.random(400) < 0.1, np.nan, rng.lognormal(size=400))[:, None]
    top = values[:, 0] > np.nanquantile(values[rows, 0], 0.9)
    for _, val in inner_folds(values, None, rows, seed=0, stratify=True):
        assert 4 <= top[val].sum() <= 5


def test_inner_folds_are_as_many_as_the_groups_allow() -> None:
    y = np.arange(12) % 2
    assert len(inner_folds(y, np.arange(12) // 4, np.arange(12), seed=0, stratify=True)) == 3
    assert inner_folds(y, np.arange(12) // 4, np.arange(3), seed=0, stratify=True) == []


@pytest.mark.parametrize("groups", [None, np.repeat(np.arange(40), 3)])
def test_rows_with_the_same_labels_are_shared_out_equally(groups: Any) -> None:
    codes = np.tile([[0, 1], [1, 0], [1, 1]], (40, 1))
    folds = assign_folds(codes, groups, 4, seed=0)
    for labels in ([0, 1], [1, 0], [1, 1]):
        assert np.bincount(folds[(codes == labels).all(axis=1)]).tolist() == [10, 10, 10, 10]


def test_what_is_left_over_goes_where_it_is_wanted_most() -> None:
    codes = np.array([[0]] * 3 + [[1]] * 3 + [[2]] * 2)
    folds = assign_folds(codes, None, 4, seed=0)
    assert np.bincount(folds).tolist() == [2, 2, 2, 2]
    assert all(len(set(folds[codes[:, 0] == c])) == n for c, n in enumerate((3, 3, 2)))
