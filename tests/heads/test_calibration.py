"""Temperatures: planted over-confidence is found, and what comes out means what it says."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from heads.calibration import (
    CalibratedHead,
    Calibration,
    _best_temperature,
    calibrate,
    calibrated,
    calibration_entry,
    fit_temperature,
    reliability,
    temper,
)
from heads.head import Job, balanced_weights
from heads.held_out import predicted
from heads.metrics import METRICS, N_BINS, P_MIN, Scored
from heads.prior import PriorHead
from heads.registry import HEADS
from heads.sweep import Sweep
from store import make_split
from tests.heads.made import classes, dataset, matrix, numbers, planted


def softmax(logits):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def honest(n=3000, c=3, seed=0):
    """Probabilities, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    p = softmax(rng.normal(0, 1.5, (n, c)))
    return p, (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1)


def scored(p, y):
    n = len(y)
    return Scored("classification", y, p, np.zeros(n, np.int64), np.arange(n), np.ones(1))


def measure(name, p, y):
    return float(METRICS[name].score(scored(p, y), np.ones((1, len(y))))[0])


@pytest.mark.parametrize("planted_temperature", [0.4, 2.5])
def test_a_planted_temperature_is_recovered(planted_temperature):
    p, y = honest()
    wrong = softmax(np.log(p) / planted_temperature)
    found = fit_temperature(wrong, y, np.arange(len(y)) % 4)
    assert found == pytest.approx(1 / planted_temperature, rel=0.1)
    np.testing.assert_allclose(temper(wrong, 1 / planted_temperature), p, atol=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_the_temperature_is_that_of_a_bounded_search(seed):
    """Few rows and many, sharp and flat, right and wrong, with probabilities of 0 and losses that are cut off."""
    rng = np.random.default_rng(seed)
    y = rng.integers(4, size=20 * (seed + 1))
    p = softmax((rng.normal(size=(len(y), 4)) + 2 * rng.random() * np.eye(4)[y]) * 1.7 ** (seed - 4))
    p[p < 1e-9 * (seed % 3)] = 0

    def loss(log):
        of_truth = temper(p, np.exp(log))[np.arange(len(y)), y]
        return -np.log(np.clip(of_truth, P_MIN, 1)).sum()

    found = minimize_scalar(loss, bounds=np.log([0.05, 20]), method="bounded", options={"xatol": 1e-7})
    assert _best_temperature(p, y) == pytest.approx(np.exp(found.x), rel=1e-4)


def test_overconfidence_is_measured_and_mended():
    p, y = honest()
    sure = softmax(np.log(p) * 3)
    mended = temper(sure, fit_temperature(sure, y, np.arange(len(y)) % 4))
    assert measure("ece", sure, y) > 0.15 and measure("ece", mended, y) < 0.03
    assert measure("log_loss", mended, y) < measure("log_loss", sure, y)
    assert measure("brier", mended, y) < measure("brier", sure, y)
    assert (mended.argmax(axis=1) == sure.argmax(axis=1)).all()


def test_what_does_not_help_on_other_folds_is_not_done():
    right = np.tile(np.eye(2) * 0.6 + 0.2, (20, 1))
    y, fold = np.tile([0, 1], 20), np.arange(40) // 20
    y[fold == 1] = np.where(np.arange(20) % 3, y[fold == 1], 1 - y[fold == 1])  # the folds contradict each other
    assert fit_temperature(right, y, fold) == 1.0
    assert fit_temperature(right, y, np.zeros(40)) == 1.0  # one fold says nothing of another


def test_rows_that_are_all_right_do_not_make_probabilities_sharper():
    y = np.arange(60) % 2
    p = np.where(np.eye(2)[y] == 1, 0.7, 0.3)
    assert fit_temperature(p, y, np.arange(60) % 4) == pytest.approx(1, abs=1e-4)
    p[0] = p[0, ::-1]  # one of them wrong: there is a best temperature again
    assert 0.1 < fit_temperature(p, y, np.arange(60) % 4) < 0.5


def test_zero_stays_zero_and_one_temperature_changes_nothing():
    p = np.array([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]])
    assert temper(p, 1.0) is p
    hot = temper(p, 3.0)
    assert (hot[p == 0] == 0).all() and hot.sum(axis=1) == pytest.approx(1) and 0.25 < hot[0, 1] < 0.5


def test_ece_and_brier_are_the_written_out_sums():
    p, y = honest(200)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    ece = 0.0
    for low in np.arange(15) / 15:
        here = (confidence > low) & (confidence <= low + 1 / 15)
        if here.any():
            ece += here.mean() * abs(right[here].mean() - confidence[here].mean())
    assert measure("ece", p, y) == pytest.approx(ece)
    assert measure("brier", p, y) == pytest.approx(np.mean([((p[i] - np.eye(3)[y[i]]) ** 2).sum() for i in range(200)]))


def test_the_reliability_table_counts_every_row():
    p, y = honest(500)
    table = reliability(scored(p, y))
    assert len(table) == N_BINS and sum(row["n"] for row in table) == 500
    for row in table:
        assert (row["n"] == 0) == (row["accuracy"] is None)
        assert row["confidence"] is None or row["low"] < row["confidence"] <= row["high"]
    assert sum(row["n"] * (row["accuracy"] or 0) for row in table) == pytest.approx((p.argmax(axis=1) == y).sum())


def a_job(X, y, *, n_inner=4, kind="classification", weight=None):
    rows = np.arange(len(y))
    inner = [(rows[rows % n_inner != j], rows[rows % n_inner == j]) for j in range(n_inner)]
    return Job(kind, y, int(y.max()) + 1 if kind == "classification" else 0, rows, inner, weight)


@pytest.mark.parametrize("weighted", [False, True])
def test_held_out_predictions_of_the_linear_head_are_those_it_was_chosen_by(weighted):
    X, y, _ = planted(90, 12, strength=1.0)
    weight = balanced_weights(y, np.arange(90)) * np.linspace(0.5, 2, 90) if weighted else None
    job = a_job(X, y, weight=weight)
    target = replace(a_job(X, X[:, :2] * 3.0 + 1, kind="regression", weight=weight), output_weights=None)
    heads = HEADS["linear"].fit(X, [job, target], seed=0)
    of_classes, of_numbers = HEADS["linear"].predict_inner(X, [job, target], heads)
    loss = [-np.average(np.log(p[np.arange(len(s)), y[s]]), weights=job.weight(s)) for s, p in of_classes]
    assert np.mean(loss) == pytest.approx(heads[0].inner_scores.min(), rel=1e-4)
    assert [s.tolist() for s, _ in of_numbers] == [s.tolist() for _, s in target.inner]
    for (fit, score), (_, values) in zip(target.inner, of_numbers, strict=True):
        Z, T = X[fit].astype(float), target.y[fit]
        w = target.weight(fit)
        mean, centre = np.average(Z, axis=0, weights=w), np.average(T, axis=0, weights=w)
        scale = np.sqrt(np.average((Z - mean) ** 2, axis=0, weights=w))
        Z = (Z - mean) / scale
        inverse = np.linalg.inv(Z.T @ (w[:, None] * Z) + 12 / heads[1].strength * np.eye(12))
        expected = ((X[score] - mean) / scale) @ inverse @ Z.T @ (w[:, None] * (T - centre)) + centre
        np.testing.assert_allclose(values, expected, atol=1e-8)


@pytest.mark.parametrize("head", HEADS)
def test_no_row_is_predicted_by_a_model_that_saw_it(head):
    X, y, _ = planted(80, 12, strength=0.0)
    y = np.random.default_rng(0).permutation(y)
    job = a_job(X, y)
    family = HEADS[head]
    [held_out] = family.predict_inner(X, [job], family.fit(X, [job], seed=0))
    assert sorted(np.concatenate([rows for rows, _ in held_out])) == list(range(80))
    right = np.concatenate([p.argmax(axis=1) == y[rows] for rows, p in held_out])
    assert right.mean() < 0.5  # noise: the rows it was fitted on would be known by heart
    changed = y.copy()
    first = held_out[0][0]
    changed[first] = (changed[first] + 1) % 3
    if head != "lightgbm":  # there the stopping rows say when to stop, though no tree sees them
        fitted = family.fit(X, [job], seed=0)
        [again] = family.predict_inner(X, [replace(job, y=changed)], fitted)
        np.testing.assert_allclose(again[0][1], held_out[0][1], atol=1e-12)


def test_a_head_without_inner_folds_is_left_as_it_is():
    y = np.arange(6) % 2
    job = Job("classification", y, 2, np.arange(6), ())
    found = calibrate(PriorHead(np.arange(2), np.full(2, 0.5)), job, [], None)
    assert found.calibration == Calibration(1.0, (None,))
    numbers = replace(job, kind="regression", y=np.ones((6, 2)), n_classes=0)
    assert calibrate(found.head, numbers, [], None).calibration == Calibration(1.0, (None, None))


def test_a_calibrated_head_answers_as_a_head():
    head = PriorHead(np.arange(3), np.array([0.2, 0.3, 0.5]))
    hot = CalibratedHead(head, Calibration(2.0, (0.9,)))
    X = np.zeros((4, 2), np.float32)
    assert (hot.predict(X) == 2).all() and hot.classes_.tolist() == [0, 1, 2]
    np.testing.assert_allclose(hot.predict_proba(X)[0], np.sqrt([0.2, 0.3, 0.5]) / np.sqrt([0.2, 0.3, 0.5]).sum())
    assert hot.state()[1].keys() == head.state()[1].keys()
    assert (predicted(hot, X, "classification", 5)[:, 3:] == 0).all()


def test_each_fold_s_own_temperature_is_used():
    p, y = honest(60)
    raw = replace(scored(p, y), fold=np.repeat([0, 1], 30))
    calibrations = [Calibration(t, (0.5,)) for t in (1.0, 4.0)]
    after = calibrated(raw, calibrations)
    np.testing.assert_allclose(after.predicted[:30], p[:30], atol=1e-15)
    np.testing.assert_allclose(after.predicted[30:], temper(p[30:], 4.0))
    entry = calibration_entry(raw, after, calibrations)
    assert entry["temperature"] == [1.0, 4.0]
    assert entry["before"]["log_loss"] == pytest.approx(-np.log(np.clip(p[np.arange(60), y], P_MIN, 1)).mean())


def a_sweep(task, X, **options):
    data = dataset(task, n=len(X))
    return Sweep(data, matrix(data, image__bf_at_a=X), make_split(data, n_folds=4), **options)


@pytest.mark.parametrize("head", ["linear", "lightgbm"])
def test_an_entry_s_scores_are_calibrated_ones(head):
    X, y, _ = planted(160, 12, strength=1.0)
    prior, entry = a_sweep(classes(y), X, heads=[head]).run()
    after = entry["calibration"]["after"]
    assert all(entry["metrics"][name]["value"] == pytest.approx(after[name]) for name in after)
    assert after["log_loss"] <= entry["calibration"]["before"]["log_loss"] + 0.02
    assert len(entry["calibration"]["temperature"]) == 4 and len(prior["calibration"]["reliability"]) == N_BINS
    [_, of_numbers] = a_sweep(numbers(X[:, 0]), X, heads=[head]).run()
    assert of_numbers["calibration"] is None


@pytest.mark.parametrize("head", ["linear", "lightgbm"])
def test_labels_that_are_scored_move_no_temperature_and_no_limit(head):
    X, y, _ = planted(120, 12, strength=1.0)
    sweep = a_sweep(classes(y), X, heads=[head])
    train, score = sweep.pairs[0]
    [[before]] = sweep.fit([sweep.plan("kind", [(train, score)])], ("image:bf@a",), head)
    sweep.dataset.tasks["kind"].y[score] = 0
    [[after]] = sweep.fit([sweep.plan("kind", [(train, score)])], ("image:bf@a",), head)
    assert before.calibration == after.calibration


def test_rows_of_a_group_are_one_witness():
    rng = np.random.default_rng(3)
    p, y = honest(40)
    few = softmax(np.log(p) * 1.6)
    copies = np.repeat(np.arange(40), 25)
    fold = np.arange(40) % 4
    alone = fit_temperature(few, y, fold)
    together = fit_temperature(few[copies], y[copies], fold[copies], copies)
    assert alone == pytest.approx(together, rel=1e-3)
    noise = [fit_temperature(*honest(150, seed=s), rng.integers(4, size=150)) for s in range(30)]
    assert np.mean(np.array(noise) == 1) > 0.7  # calibrated ones are left alone
