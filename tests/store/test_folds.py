from typing import Any

import numpy as np
import pytest

from store.folds import assign_folds, inner_folds


@pytest.mark.parametrize("labels", [[], [np.arange(120) % 3], [np.arange(120) % 3, np.arange(120.0)[:, None]]])
def test_inner_folds_divide_only_the_rows_given(labels: list[Any]) -> None:
    groups = np.arange(120) // 4
    rows = np.random.default_rng(0).permutation(np.flatnonzero(groups % 5 != 0))
    pairs = inner_folds(labels, groups, rows, seed=1)
    assert len(pairs) == 4
    assert sorted(np.concatenate([val for _, val in pairs])) == sorted(rows)
    for fit, val in pairs:
        assert sorted([*fit, *val]) == sorted(rows)
        assert not set(groups[fit]) & set(groups[val])
    again = inner_folds(labels, groups, rows, seed=1)
    assert all(np.array_equal(a, b) for p, q in zip(pairs, again, strict=True) for a, b in zip(p, q, strict=True))


def test_inner_folds_are_stratified_by_classes_and_by_values() -> None:
    rng = np.random.default_rng(0)
    rows = np.arange(0, 400, 2)
    y = rng.choice([-1, 0, 1, 2], p=[0.1, 0.7, 0.15, 0.05], size=400)
    for _, val in inner_folds([y], None, rows, seed=0):
        for c in range(3):
            assert abs((y[val] == c).sum() - (y[rows] == c).sum() / 4) < 1
    values = np.where(rng.random(400) < 0.1, np.nan, rng.lognormal(size=400))[:, None]
    top = values[:, 0] > np.nanquantile(values[rows, 0], 0.9)
    for _, val in inner_folds([values], None, rows, seed=0):
        assert 4 <= top[val].sum() <= 5


def test_inner_folds_are_as_many_as_the_groups_allow() -> None:
    y = np.arange(12) % 2
    assert len(inner_folds([y], np.arange(12) // 4, np.arange(12), seed=0)) == 3
    assert inner_folds([y], np.arange(12) // 4, np.arange(3), seed=0) == []


def five_tasks(seed: int, *, n: int = 185, n_groups: int = 38) -> tuple[list[Any], Any]:
    """Labels of five tasks with rare classes, and groups whose rows are alike."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(n_groups, size=n)
    tasks = []
    for c in (2, 3, 4, 5, 6):
        own = rng.dirichlet(3 * rng.dirichlet(np.full(c, 0.7)) + 0.05, size=n_groups)
        tasks.append(np.array([rng.choice(c, p=own[g]) for g in groups]))
    return tasks, groups


def excess(y: Any, folds: list[Any]) -> float:
    """Mean of (count - expected)^2 / expected over the classes of one task and the folds."""
    counts = np.array([np.bincount(y[val], minlength=y.max() + 1) for _, val in folds])
    counts = counts[:, counts.any(axis=0)]
    expected = counts.mean(axis=0)
    return float(((counts - expected) ** 2 / expected).mean())


def test_folds_for_five_tasks_are_as_alike_as_those_dealt_out_for_each_alone() -> None:
    shared, alone = [], []
    for seed in range(6):
        tasks, groups = five_tasks(seed)
        folds = inner_folds(tasks, groups, np.arange(185), seed=0)
        for y in tasks:
            dealt = assign_folds(y[:, None], groups, 4, seed=0)
            shared.append(excess(y, folds))
            alone.append(excess(y, [(dealt != fold, dealt == fold) for fold in range(4)]))
            spread = [c for c in np.unique(y) if len(np.unique(groups[y == c])) > 1]
            assert all(set(spread) <= set(y[fit]) for fit, _ in folds)  # no class is kept from a model
    assert np.mean(shared) < 1.5 * np.mean(alone)


def test_no_exchange_of_two_rows_makes_folds_more_alike() -> None:
    tasks = [y[:60] for y in five_tasks(0)[0]]
    folds = np.full(60, -1)
    for number, (_, val) in enumerate(inner_folds(tasks, None, np.arange(60), seed=0)):
        folds[val] = number

    def unlike(folds: Any) -> float:
        sets = [(np.arange(60) != -1, 5.0), *((y == c, 1.0) for y in tasks for c in np.unique(y))]
        return sum(w * (np.bincount(folds[rows], minlength=4) ** 2).sum() / rows.sum() for rows, w in sets)

    least = unlike(folds)
    for one, other in np.ndindex(60, 60):
        exchanged, moved = folds.copy(), folds.copy()
        exchanged[[one, other]] = exchanged[[other, one]]
        moved[one] = other % 4
        assert min(unlike(exchanged), unlike(moved)) > least - 1e-6


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
