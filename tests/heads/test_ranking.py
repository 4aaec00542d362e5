"""Areas of drawn rows are those of the rows repeated, counted pair by pair and row by row within each fold."""

import numpy as np
import pytest

from heads.ranking import area, average_precision, rank


def drawn_rows(n=40, n_resamples=6, seed=0):
    """Scores with ties, a fold without the class and one without any other, and how often each row is drawn."""
    rng = np.random.default_rng(seed)
    score, fold, is_class = rng.integers(0, 8, n) / 8, rng.permutation(np.arange(n) % 4), rng.random(n) < 0.4
    is_class[fold == 1], is_class[fold == 2] = False, True
    return score, is_class, fold, rng.multinomial(n, np.full(n, 1 / n), size=n_resamples).T.astype(float)


def pairs_in_order(score, is_class, fold):
    found, n_pairs = 0.0, 0
    for i in np.flatnonzero(is_class):
        others = score[~is_class & (fold == fold[i])]
        found += (others < score[i]).sum() + (others == score[i]).sum() / 2
        n_pairs += len(others)
    return found / n_pairs


def mean_precision(score, is_class, fold):
    above = [is_class[(fold == fold[i]) & (score >= score[i])] for i in np.flatnonzero(is_class)]
    return np.mean([one.mean() for one in above])


@pytest.mark.parametrize(("measure", "slow"), [(area, pairs_in_order), (average_precision, mean_precision)])
def test_areas_of_drawn_rows_are_those_of_the_rows_repeated(measure, slow):
    score, is_class, fold, counts = drawn_rows()
    found = measure(rank(score, is_class, fold), counts)
    for column, value in zip(counts.T, found, strict=True):
        rows = np.repeat(np.arange(len(score)), column.astype(int))
        assert value == pytest.approx(slow(score[rows], is_class[rows], fold[rows]), abs=1e-12)


@pytest.mark.parametrize("measure", [area, average_precision])
def test_areas_of_a_class_without_rows_are_not_defined(measure):
    score, is_class, fold, counts = drawn_rows()
    assert np.isnan(measure(rank(score, np.zeros_like(is_class), fold), counts)).all()
