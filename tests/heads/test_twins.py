import numpy as np
import pytest

from heads import twins
from heads.twins import find_twins
from store.merging import unite


def vectors(n=300, d=24, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def found(X, unit=None):
    alike = find_twins(X, np.arange(len(X)) if unit is None else np.asarray(unit))
    return alike, [tuple(pair) for pair in alike.pairs.tolist()]


def test_planted_duplicates_are_found_exact_before_near():
    X = vectors()
    X[200] = X[7]
    X[250] = X[9] + np.random.default_rng(1).normal(0, 0.05, 24)
    alike, pairs = found(X)
    assert pairs == [(7, 200), (9, 250)] and alike.is_exact.tolist() == [True, False]
    assert alike.similarity[0] == 1 and 1 > alike.similarity[1] > 0.99 > alike.threshold > 0.5


@pytest.mark.parametrize("d", [3, 24, 200])
def test_rows_drawn_apart_are_seldom_called_near(d):
    counts = [len(found(vectors(d=d, seed=seed))[1]) for seed in range(20)]
    assert sum(count > 0 for count in counts) <= 4  # one in twenty is the promise


def test_the_scale_of_a_column_does_not_matter():
    X = vectors()
    X[250] = X[9] + np.random.default_rng(1).normal(0, 0.05, 24)
    first = found(X)[1]
    X[:, 3] = 1000 * X[:, 3] + 7
    assert found(X)[1] == first == [(9, 250)]


def test_pairs_of_one_unit_are_no_news():
    X = vectors()
    X[200], X[201] = X[7], X[8]
    unit = np.arange(300)
    unit[200] = 7
    assert found(X, unit)[1] == [(8, 201)]


def test_few_rows_have_exact_duplicates_alone():
    X = vectors(n=10)
    X[4], X[6] = X[2], X[3] + 1e-4
    alike, pairs = found(X)
    assert pairs == [(2, 4)] and alike.threshold == 1


def test_a_constant_space_and_a_single_unit_do_not_fail():
    assert found(np.zeros((30, 4), np.float32))[0].is_exact.all()
    assert found(vectors(n=30), np.zeros(30, int))[1] == []


def test_a_family_larger_than_what_is_kept_per_row_hangs_together():
    X = vectors()
    X[20:40] = X[20] + np.random.default_rng(1).normal(0, 0.01, (20, 24))
    assert [list(family) for family in unite(found(X)[1])] == [list(range(20, 40))]


def test_tiles_give_what_all_similarities_at_once_give(monkeypatch):
    X, unit = vectors(n=90), np.arange(90) // 2
    Z = X / np.linalg.norm(X, axis=1, keepdims=True)
    similarity = np.where(unit[:, None] == unit, -np.inf, Z @ Z.T)
    expected = np.sort(np.argsort(-similarity, axis=1)[:, : twins.N_NEAREST], axis=1)
    for tile in (7, 16, 90, 1024):
        monkeypatch.setattr(twins, "TILE", tile)
        assert np.array_equal(np.sort(twins._nearest(Z, unit), axis=1), expected)


def test_a_row_without_enough_rows_of_other_units_says_so():
    Z = np.eye(6, dtype=np.float32)
    near = twins._nearest(Z, np.array([0, 0, 0, 0, 1, 2]))
    assert sorted(near[0].tolist()) == [-1, -1, -1, 4, 5] and sorted(near[4].tolist()) == [0, 1, 2, 3, 5]


def test_many_exact_copies_hang_together_across_tiles(monkeypatch):
    monkeypatch.setattr(twins, "TILE", 16)
    X = vectors()
    X[20:120] = X[20]
    assert [list(family) for family in unite(found(X)[1])] == [list(range(20, 120))]
