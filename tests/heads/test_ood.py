import numpy as np
import pytest

from heads import ood
from heads.ood import Reference, make_reference


def drawn(n, d=30, seed=0, shift=0.0):
    return (np.random.default_rng(seed).normal(size=(n, d)) * np.linspace(1, 50, d) + shift).astype(np.float32)


def test_rows_like_the_training_rows_lie_about_one_in_twenty_above_one():
    X = drawn(400)
    far = make_reference(X, np.arange(400), groups=None, seed=0).distance(drawn(2000, seed=1))
    assert 0.02 < (far > 1).mean() < 0.10
    assert 0.5 < np.median(far) < 1


def test_rows_elsewhere_lie_far_above_one():
    reference = make_reference(drawn(200), np.arange(200), groups=None, seed=0)
    assert (reference.distance(drawn(50, seed=1, shift=300.0)) > 2).all()


def test_distance_equals_a_slow_loop():
    X, new = drawn(40, 5), drawn(7, 5, seed=1)
    reference = make_reference(X, np.arange(30), groups=None, seed=0)
    mean, scale = X[:30].mean(0), X[:30].std(0)
    Z, N = (X[:30] - mean) / scale, (new - mean) / scale
    kth = np.sort(np.linalg.norm(N[:, None] - Z, axis=2), axis=1)[:, 4]
    within = np.sort(np.linalg.norm(Z[:, None] - Z, axis=2), axis=1)[:, 5]  # the first is the row itself
    assert np.allclose(reference.distance(new), kth / np.percentile(within, 95), rtol=1e-4)


def test_a_group_is_not_its_own_neighbour():
    centres = drawn(20, 8)
    X = np.repeat(centres, 10, axis=0) + 0.001 * drawn(200, 8, seed=1)
    groups = np.repeat(np.arange(20), 10)
    new = drawn(300, 8, seed=2)  # rows of groups never seen
    kept = make_reference(X, np.arange(200), groups=groups, seed=0).distance(new)
    leaked = make_reference(X, np.arange(200), groups=None, seed=0).distance(new)
    assert np.median(kept) < 1.2 and np.median(leaked) > 100


def test_missing_numbers_and_constant_columns_are_no_distance():
    X = drawn(50, 4)
    X[:, 2] = 7.0
    reference = make_reference(X, np.arange(50), groups=None, seed=0)
    row = X[:1].copy()
    other = row.copy()
    other[0, 2] = 9.0
    assert reference.distance(other) == reference.distance(row)
    other[0, 1] = np.nan
    assert np.isfinite(reference.distance(other)).all()


def test_few_references_stand_for_many_rows(monkeypatch):
    monkeypatch.setattr(ood, "N_REFERENCES", 100)
    X = drawn(3000)
    reference = make_reference(X, np.arange(3000), groups=None, seed=0)
    assert len(reference.points) == 100
    assert 0.03 < (reference.distance(drawn(2000, seed=1)) > 1).mean() < 0.08


@pytest.mark.parametrize("n", [1, 2, 3])
def test_hardly_any_training_rows(n):
    reference = make_reference(drawn(5, 3), np.arange(n), groups=None, seed=0)
    assert np.isfinite(reference.distance(drawn(4, 3, seed=1))).all()


def test_arrays_give_the_same_reference_back():
    reference = make_reference(drawn(50), np.arange(50), groups=None, seed=0)
    again = Reference.from_arrays(reference.arrays())
    assert (again.distance(drawn(9, seed=1)) == reference.distance(drawn(9, seed=1))).all()


def test_nearest_rows_equal_a_slow_loop():
    X, new = drawn(40, 5), drawn(7, 5, seed=1)
    reference = make_reference(X, np.arange(40), groups=None, seed=0)
    Z, N = (reference.standard.apply(part) for part in (X, new))
    slow = np.linalg.norm(N[:, None] - Z, axis=2)
    rows, distances = reference.nearest(new, X, 4)
    assert rows.tolist() == np.argsort(slow, axis=1)[:, :4].tolist()
    assert np.allclose(distances, np.sort(slow, axis=1)[:, :4] / reference.unit, rtol=1e-5)
