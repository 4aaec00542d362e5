"""Jobs, class weights and standardisation inside the fold."""

import warnings

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from heads.head import Job, balanced_weights, standardise, standardise_folds


def matrix(n_rows=30, n_columns=7, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n_rows, n_columns)) * np.logspace(-3, 3, n_columns) + 5).astype(np.float32)


@pytest.mark.parametrize("with_gaps", [False, True])
def test_standardise_equals_scikit_learn_on_the_training_rows(with_gaps):
    X = matrix()
    if with_gaps:
        X[::3, 2] = np.nan
    rows = np.arange(4, 25)
    reference = StandardScaler().fit(X[rows].astype(np.float64))
    standard = standardise(X, rows)
    np.testing.assert_allclose(standard.mean, reference.mean_, rtol=1e-12)
    np.testing.assert_allclose(standard.scale, reference.scale_, rtol=1e-9)
    np.testing.assert_allclose(standard.apply(X), np.nan_to_num(reference.transform(X.astype(np.float64))), atol=1e-8)


def test_rows_outside_the_fold_change_nothing():
    X = matrix()
    rows = np.arange(20)
    before = standardise(X, rows)
    X[20:] = 1e6
    after = standardise(X, rows)
    np.testing.assert_allclose(after.mean, before.mean, rtol=1e-6)
    np.testing.assert_allclose(after.scale, before.scale, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e7])
def test_constant_column_becomes_zero_even_on_other_rows(value):
    X = matrix()
    X[:20, 3] = value
    Z = standardise(X, np.arange(20)).apply(X)
    assert (Z[:, 3] == 0).all()


def test_column_without_any_value_becomes_zero_without_a_warning():
    X = matrix()
    X[:20, 1] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        standard = standardise(X, np.arange(20))
    assert standard.mean[1] == 0
    assert (standard.apply(X)[:, 1] == 0).all()


def test_weights_are_repetitions():
    X = matrix()
    X[3, 2] = np.nan
    rows, weight = np.arange(10), np.arange(10) % 3 + 1
    weighted = standardise(X, rows, weight)
    repeated = standardise(X, np.repeat(rows, weight))
    np.testing.assert_allclose(weighted.mean, repeated.mean, rtol=1e-12)
    np.testing.assert_allclose(weighted.scale, repeated.scale, rtol=1e-12)


def test_many_folds_in_one_pass_equal_one_at_a_time(monkeypatch):
    X = matrix()
    X[5, 4] = np.nan
    folds = [(np.arange(15), np.ones(15)), (np.arange(8, 30), np.linspace(0.5, 2, 22))]
    alone = [standardise(X, *fold) for fold in folds]
    monkeypatch.setattr("heads.head.CHUNK_BYTES", 8 * 7 * 4)
    for one, other in zip(standardise_folds(X, folds), alone, strict=True):
        np.testing.assert_allclose(one.mean, other.mean, rtol=1e-12)
        np.testing.assert_allclose(one.scale, other.scale, rtol=1e-12)


def test_balanced_weights_equal_scikit_learn():
    y = np.array([0, 0, 0, 1, 2, 2, -1])
    rows = np.arange(6)
    expected = compute_sample_weight("balanced", y[rows])
    np.testing.assert_allclose(balanced_weights(y, rows), [*expected, 0])


def test_job_weights_are_ones_unless_given():
    y = np.array([0, 1, 1])
    job = Job("classification", y, 2, np.arange(3), [])
    assert job.weight(np.array([0, 2])).tolist() == [1, 1]
    job = Job("classification", y, 2, np.arange(3), [], sample_weight=np.array([1.0, 2.0, 3.0]))
    assert job.weight(np.array([0, 2])).tolist() == [1, 3]
