"""Sets and intervals hold the truth as often as they say."""

import numpy as np
import pytest
from scipy.stats import binom

from heads.conformal import COVERAGE, coverage_entry, fit_limits, half_widths, in_set
from heads.metrics import Scored
from heads.sweep import Sweep
from store import make_split
from tests.heads.made import classes, dataset, matrix, numbers


def bounds(n):
    """Shares of n independent rows that chance allows, one time in ten thousand more or less."""
    return binom.ppf([5e-5, 1 - 5e-5], n, COVERAGE) / n


def test_the_limit_is_the_textbook_order_statistic():
    residual = np.random.default_rng(0).permutation(np.arange(1, 20) / 10.0)
    [limit] = fit_limits("regression", residual[:, None], np.zeros((19, 1)), np.arange(19))
    assert limit == pytest.approx(1.8)  # the ceil(0.9 * 20) = 18th smallest of 19
    assert fit_limits("regression", residual[:8, None], np.zeros((8, 1)), np.arange(8)) == (None,)  # 9 are needed
    assert fit_limits("regression", residual[:9, None], np.zeros((9, 1)), np.arange(9)) == (residual[:9].max(),)


def test_groups_weigh_the_same_however_large():
    residual = np.r_[np.full(1000, 0.1), np.arange(1, 30) / 10]
    unit = np.r_[np.zeros(1000, int), np.arange(1, 30)]
    [limit] = fit_limits("regression", residual[:, None], np.zeros((1029, 1)), unit)
    assert limit == pytest.approx(2.7)  # weight 1/31 each: the 28th group of 30
    p = np.c_[1 - residual / 10, residual / 10]
    [same] = fit_limits("classification", p, np.zeros(1029, int), unit)
    assert same == pytest.approx(0.27)


def test_a_set_is_never_empty_and_without_a_limit_whole():
    p = np.array([[0.5, 0.3, 0.2], [0.4, 0.35, 0.25]])
    assert in_set(p, [(0.1,)] * 2).tolist() == [[True, False, False]] * 2
    assert in_set(p, [(0.66,), (None,)]).tolist() == [[True, False, False], [True] * 3]
    assert half_widths((None, 2.0)).tolist() == [np.inf, 2.0]


@pytest.mark.parametrize("seed", range(3))
def test_a_new_group_is_covered_as_stated(seed):
    rng = np.random.default_rng(seed)
    covered = []
    for _ in range(400):
        shift = rng.normal(0, 1, 31)  # rows of a group err together
        residual = np.repeat(shift, 5) + rng.normal(0, 0.2, 155)
        unit = np.repeat(np.arange(31), 5)
        old = unit < 30
        [limit] = fit_limits("regression", residual[old, None], np.zeros((150, 1)), unit[old])
        covered.append((np.abs(residual[~old]) <= limit).mean())
    assert abs(np.mean(covered) - COVERAGE) < 0.04


def test_coverage_counts_groups_alike_and_has_an_interval():
    y = np.zeros((12, 1))
    predicted = np.r_[np.full(10, 0.5), 2.0, 0.1][:, None]
    unit = np.r_[np.zeros(10, int), 1, 2]
    scored = Scored("regression", y, predicted, np.zeros(12, int), unit, np.ones(1))
    entry = coverage_entry(scored, [(1.0,)], ["size"], seed=0)
    assert entry["coverage"]["value"] == pytest.approx(2 / 3) and entry["coverage"]["low"] < 2 / 3
    assert entry["mean_width"] == 2.0 and entry["stated"] == 0.9 and entry["unbounded_folds"] == 0
    open_ended = coverage_entry(scored, [(None,)], ["size"], seed=0)
    assert open_ended["coverage"]["value"] == 1 and open_ended["mean_width"] is None
    assert open_ended["unbounded_folds"] == 1


def noisy(n, groups=None, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 6)).astype(np.float32)
    shared = np.zeros(n) if groups is None else rng.normal(0, 0.7, groups.max() + 1)[groups]
    size = np.stack([X[:, 0] * 2 + rng.normal(0, 1, n) + shared, X[:, 1] + rng.normal(0, 3, n)], axis=1)
    kind = np.argmax(X[:, :3] + 0.6 * rng.gumbel(size=(n, 3)), axis=1)
    return X, size, kind


def entries_of(n, groups, head, seed=0):
    X, size, kind = noisy(n, groups, seed)
    data = dataset(classes(kind), numbers(size, columns=("w", "h")), n=n, groups=groups)
    found = Sweep(data, matrix(data, image__bf_at_a=X), make_split(data, n_folds=4), heads=[head]).run()
    return {(e["task"], e["head"]): e for e in found}


@pytest.mark.parametrize("head", ["linear", "lightgbm"])
def test_sweeps_cover_as_stated(head):
    low, high = bounds(600)
    found = entries_of(600, None, head)
    kind, size = found["kind", head]["conformal"], found["size", head]["conformal"]
    assert low < kind["coverage"]["value"] < high + 0.02 and 1 < kind["mean_set_size"] < 3
    for name in ("w", "h"):
        assert low < size["outputs"][name]["coverage"]["value"] < high
    assert size["outputs"]["h"]["mean_width"] > 2 * size["outputs"]["w"]["mean_width"]
    baseline = found["size", "prior"]["conformal"]["outputs"]["w"]["mean_width"]
    assert size["outputs"]["w"]["mean_width"] < 0.8 * baseline  # what the features are worth


def test_new_groups_are_covered_as_stated():
    values = []
    for seed in range(3):
        entry = entries_of(480, np.arange(480) // 8, "linear", seed)["size", "linear"]
        values.append(entry["conformal"]["outputs"]["w"]["coverage"]["value"])
    low, high = bounds(3 * 60)  # as if a group were one row: they err together
    assert low < np.mean(values) < high


def test_too_few_groups_exclude_nothing():
    found = entries_of(60, np.arange(60) % 6, "linear")
    kind = found["kind", "linear"]["conformal"]
    assert kind["mean_set_size"] == 3 and kind["coverage"]["value"] == 1 and kind["unbounded_folds"] == 4
    assert found["size", "linear"]["conformal"]["outputs"]["w"]["mean_width"] is None
