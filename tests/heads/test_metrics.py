import numpy as np
import pytest
from sklearn import metrics as reference

from heads.metrics import (
    HEADLINE,
    METRICS,
    N_RESAMPLES,
    Scored,
    difference,
    estimate,
    metric_names,
    resamples,
    side_of_zero,
)


def classified(n_classes=3, n=60, n_folds=1, n_units=None, seed=0):
    rng = np.random.default_rng(seed)
    p = np.round(rng.dirichlet(np.ones(n_classes), n), 1) + 0.05  # rounded: ties
    p /= p.sum(1, keepdims=True)
    y = rng.integers(0, n_classes, n)
    unit = np.arange(n) if n_units is None else rng.permutation(np.arange(n) % n_units)
    return Scored("classification", y, p, np.arange(n) % n_folds, unit, np.ones(1))


def regressed(n=50, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.normal(5, 2, (n, 2))
    predicted = y + rng.normal(0, [1, 3], (n, 2))
    return Scored("regression", y, predicted, np.zeros(n, int), np.arange(n), np.array([1.0, 3.0]))


def written_out_ece(y, p):
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    edges = zip(np.arange(15) / 15, np.arange(1, 16) / 15, strict=True)
    bins = [(confidence > low) & (confidence <= high) for low, high in edges]
    return sum(here.mean() * abs(right[here].mean() - confidence[here].mean()) for here in bins if here.any())


REFERENCE = {
    "accuracy": lambda y, p: reference.accuracy_score(y, p.argmax(1)),
    "balanced_accuracy": lambda y, p: reference.balanced_accuracy_score(y, p.argmax(1)),
    "macro_f1": lambda y, p: reference.f1_score(y, p.argmax(1), average="macro"),
    "log_loss": lambda y, p: reference.log_loss(y, p, labels=range(p.shape[1])),
    "roc_auc": lambda y, p: (
        reference.roc_auc_score(y, p[:, 1]) if p.shape[1] == 2 else reference.roc_auc_score(y, p, multi_class="ovr")
    ),
    "pr_auc": lambda y, p: (
        reference.average_precision_score(y, p[:, 1])
        if p.shape[1] == 2
        else reference.average_precision_score(y, p, average="macro")
    ),
    "brier": lambda y, p: reference.brier_score_loss(y, p, scale_by_half=False, labels=range(p.shape[1])),
    "ece": lambda y, p: written_out_ece(y, p),
    "mae": lambda y, p: reference.mean_absolute_error(y, p, multioutput=[0.25, 0.75]),
    "rmse": lambda y, p: reference.root_mean_squared_error(y, p, multioutput=[0.25, 0.75]),
    "r2": lambda y, p: reference.r2_score(y, p, multioutput=[0.25, 0.75]),
    "mape": lambda y, p: reference.mean_absolute_percentage_error(y, p, multioutput=[0.25, 0.75]),
    "median_ae": lambda y, p: reference.median_absolute_error(y, p, multioutput=[0.25, 0.75]),
}


def test_design_names_are_the_registry():
    assert metric_names("classification") == [
        "accuracy",
        "balanced_accuracy",
        "macro_f1",
        "log_loss",
        "roc_auc",
        "pr_auc",
        "brier",
        "ece",
    ]
    assert metric_names("regression") == ["mae", "rmse", "r2", "mape", "median_ae"]
    assert all(METRICS[HEADLINE[kind]].kind == kind for kind in HEADLINE)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("n_classes", [2, 4])
def test_value_equals_scikit_learn(name, n_classes):
    scored = classified(n_classes) if METRICS[name].kind == "classification" else regressed()
    found = estimate(scored, seed=0)[name].mean.interval()
    assert found["value"] == pytest.approx(REFERENCE[name](scored.y, scored.predicted), abs=1e-9)
    if METRICS[name].has_interval:
        assert found["low"] <= found["value"] <= found["high"]
    else:
        assert found["low"] is None and found["high"] is None


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].has_interval])
def test_resamples_equal_a_slow_loop(name):
    scored = classified(n_units=20) if METRICS[name].kind == "classification" else regressed()
    n_units = scored.unit.max() + 1
    rng = np.random.default_rng(7)
    counts = rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=N_RESAMPLES)
    samples = estimate(scored, seed=7)[name].mean.samples[:, 0]
    for i in range(10):
        rows = np.repeat(np.arange(len(scored.y)), counts[i][scored.unit])
        assert samples[i] == pytest.approx(REFERENCE[name](scored.y[rows], scored.predicted[rows]), abs=1e-9)


def test_a_calibration_error_has_no_interval_since_resamples_of_it_lie_above_its_value():
    """Of calibrated predictions, 60 rows: the percentile interval leaves out the value itself, and the truth, 0."""
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 60)
    y = (rng.random(60) > p).astype(int)
    scored = Scored("classification", y, np.stack([p, 1 - p], 1), np.zeros(60, int), np.arange(60), np.ones(1))
    counts = np.concatenate(list(resamples(scored.unit, seed=0)))
    value, resampled = (METRICS["ece"].score(scored, c) for c in (np.ones((1, 60)), counts))
    assert value[0] < np.median(resampled) and value[0] > 0.05
    assert estimate(scored, seed=0)["ece"].interval() == {"value": value[0], "low": None, "high": None}


@pytest.mark.parametrize(
    ("low", "high", "side"), [(0.1, 0.2, 1), (-0.2, -0.1, -1), (-0.1, 0.1, 0), (0.0, 0.1, 0), (None, None, None)]
)
def test_one_function_says_on_which_side_of_0_a_difference_is(low, high, side):
    assert side_of_zero({"value": 0.1, "low": low, "high": high}) == side


def test_auc_compares_within_folds_only():
    y = np.tile([0, 1, 1, 0, 0, 1, 0, 0], 3)
    fold = np.repeat([0, 1, 2], 8)
    p = np.take([0.2, 0.5, 0.9], fold)  # a model that knows only its fold
    scored = Scored("classification", y, np.stack([1 - p, p], 1), fold, np.arange(24), np.ones(1))
    assert estimate(scored, seed=0)["roc_auc"].interval() == {"value": 0.5, "low": 0.5, "high": 0.5}


def test_auc_pools_pairs_of_folds():
    scored = classified(2, n_folds=3)
    p, y, fold = scored.predicted[:, 1], scored.y, scored.fold
    pairs = [(y[fold == f] == 1).sum() * (y[fold == f] == 0).sum() for f in range(3)]
    areas = [reference.roc_auc_score(y[fold == f], p[fold == f]) for f in range(3)]
    assert estimate(scored, seed=0)["roc_auc"].value[0] == pytest.approx(np.average(areas, weights=pairs))


def test_average_precision_of_folds_is_the_mean_over_their_positives():
    scored = classified(2, n_folds=3)
    p, y, fold = scored.predicted[:, 1], scored.y, scored.fold
    positives = [(y[fold == f] == 1).sum() for f in range(3)]
    means = [reference.average_precision_score(y[fold == f], p[fold == f]) for f in range(3)]
    assert estimate(scored, seed=0)["pr_auc"].value[0] == pytest.approx(np.average(means, weights=positives))
    assert len(set(positives)) > 1 and len(set(np.round(means, 6))) == 3


def test_average_precision_of_a_model_that_sees_nothing_is_the_share_of_the_class():
    y = np.tile([0, 1, 0, 0], 6)
    scored = Scored("classification", y, np.full((24, 2), 0.5), np.zeros(24, int), np.arange(24), np.ones(1))
    assert estimate(scored, seed=0)["pr_auc"].value[0] == 0.25


def test_class_absent_from_the_scored_rows_is_left_out():
    scored = classified(4)
    keep = scored.y != 2
    part = Scored(
        "classification", scored.y[keep], scored.predicted[keep], scored.fold[keep], np.arange(keep.sum()), np.ones(1)
    )
    found = estimate(part, seed=0)
    areas = [reference.roc_auc_score(part.y == c, part.predicted[:, c]) for c in (0, 1, 3)]
    assert found["roc_auc"].value[0] == pytest.approx(np.mean(areas))
    precisions = [reference.average_precision_score(part.y == c, part.predicted[:, c]) for c in (0, 1, 3)]
    assert found["pr_auc"].value[0] == pytest.approx(np.mean(precisions))
    recalls = [(part.predicted[part.y == c].argmax(1) == c).mean() for c in (0, 1, 3)]
    assert found["balanced_accuracy"].value[0] == pytest.approx(np.mean(recalls))


def test_undefined_is_none_not_nan():
    n = 8
    scored = Scored(
        "classification", np.zeros(n, int), np.full((n, 2), 0.5), np.zeros(n, int), np.arange(n), np.ones(1)
    )
    found = estimate(scored, seed=0)
    for name in ("roc_auc", "pr_auc"):
        assert found[name].interval() == {"value": None, "low": None, "high": None}


def test_one_group_has_no_interval():
    found = estimate(classified(n_units=1), seed=0)
    for name in found:
        interval = found[name].interval()
        assert interval["value"] is not None
        assert interval["low"] is None and interval["high"] is None


def test_mape_leaves_zero_truth_aside():
    scored = Scored(
        "regression",
        np.array([[0.0], [2.0], [4.0]]),
        np.array([[1.0], [3.0], [4.0]]),
        np.zeros(3, int),
        np.arange(3),
        np.ones(1),
    )
    assert estimate(scored, seed=0)["mape"].value[0] == 0.25


def test_groups_widen_the_interval():
    rng = np.random.default_rng(0)
    unit = np.repeat(np.arange(10), 30)
    y = np.repeat(rng.integers(0, 2, 10), 30)  # one label per group
    p = np.where(np.repeat(rng.random(10) < 0.7, 30) == (y == 1), 0.9, 0.1)
    by_group = Scored("classification", y, np.stack([1 - p, p], 1), np.zeros(300, int), unit, np.ones(1))
    by_row = Scored("classification", y, by_group.predicted, by_group.fold, np.arange(300), np.ones(1))
    group, row = (estimate(s, seed=0)["accuracy"].interval() for s in (by_group, by_row))
    assert group["high"] - group["low"] > 3 * (row["high"] - row["low"])


def test_difference_is_paired_and_positive_is_better():
    good, bad = classified(seed=1), classified(seed=1)
    noisy = Scored("classification", bad.y, np.roll(bad.predicted, 1, axis=1), bad.fold, bad.unit, bad.weights)
    mine, other = estimate(good, seed=3), estimate(noisy, seed=3)
    gap = difference(mine["log_loss"], other["log_loss"], is_better_higher=False)
    assert gap.value[0] == pytest.approx(other["log_loss"].value[0] - mine["log_loss"].value[0])
    same = difference(mine["accuracy"], mine["accuracy"], is_better_higher=True)
    assert same.interval() == {"value": 0.0, "low": 0.0, "high": 0.0}
