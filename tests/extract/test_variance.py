"""Shares of variance: known mixtures, chance, and what cannot be told."""

import numpy as np
import pytest

from extract.variance import share_between, share_between_groups

RNG = np.random.default_rng(0)
CLASSES = np.arange(600) % 3
ONE_HOT = np.eye(3)[CLASSES]
GROUPS = np.arange(600) // 50


def test_classes_that_differ_explain_their_share() -> None:
    values = CLASSES + RNG.normal(0, 1, 600)  # classes at 0, 1, 2 have variance 2/3 beside 1
    assert share_between(values, ONE_HOT) == pytest.approx(0.4, abs=0.06)
    assert share_between(CLASSES.astype(float), ONE_HOT) == pytest.approx(1)


def test_chance_explains_nothing_however_many_groups_there_are() -> None:
    shares = [share_between_groups(RNG.normal(size=120), np.arange(120) // 2) for _ in range(40)]
    assert np.mean(shares) < 0.1  # without the adjustment it would be 0.5
    labels = np.eye(30)[np.arange(120) % 30]
    assert np.mean([share_between(RNG.normal(size=120), labels) for _ in range(40)]) < 0.08


def test_numbers_explain_what_a_straight_line_does() -> None:
    x = RNG.normal(size=600)
    assert share_between(3 * x + RNG.normal(0, 3, 600), x[:, None]) == pytest.approx(0.5, abs=0.07)
    assert share_between(x, x[:, None]) == pytest.approx(1)


def test_a_difference_of_groups_alone_is_gone_within_groups() -> None:
    ill = (GROUPS % 2 == 0) ^ (RNG.uniform(size=600) < 0.2)
    labels, lamp = np.eye(2)[ill.astype(int)], 5.0 * (GROUPS % 2) + RNG.normal(size=600)
    assert share_between(lamp, labels) > 0.2
    assert share_between(lamp, labels, GROUPS) == pytest.approx(0, abs=0.02)
    assert share_between_groups(lamp, GROUPS) == pytest.approx(6.25 / 7.25, abs=0.03)
    assert share_between(lamp + 3.0 * ill, labels, GROUPS) > 0.4


def test_what_cannot_be_told_is_none() -> None:
    values = RNG.normal(size=600)
    assert share_between(values, np.eye(12)[GROUPS], GROUPS) is None  # a label per group
    assert share_between(values, 0.1 * GROUPS[:, None], GROUPS) is None  # and rounding leaves something of it
    assert share_between(values, np.ones((600, 1))) is None
    assert share_between(np.ones(600), ONE_HOT) is None
    assert share_between(values[:0], ONE_HOT[:0]) is None
    assert share_between_groups(values, np.arange(600)) is None
    assert share_between_groups(values[:1], GROUPS[:1]) is None
