import json
from dataclasses import replace

import numpy as np
import pytest

from heads import boosted
from heads.boosted import BoostedHead, fit_boosted
from heads.head import Job
from store import inner_folds
from tests.heads.made import planted


def job(y, train, *, n_classes=3, kind="classification", n_inner=4, weight=None):
    folds = inner_folds([y] if kind == "classification" else [], None, train, n_folds=n_inner, seed=0)
    return Job(kind, y, n_classes, train, folds if n_inner else (), weight)


def test_planted_classes_are_found_at_a_hundred_rows():
    X, y, _ = planted(100, 30)
    [head] = fit_boosted(X, [job(y, np.arange(70))], seed=0)
    p = head.predict_proba(X[70:])
    assert (head.predict(X[70:]) == y[70:]).mean() > 0.8
    assert np.allclose(p.sum(1), 1)


def test_two_classes_have_two_columns():
    X, y, _ = planted(100, 10, n_classes=2)
    [head] = fit_boosted(X, [job(y, np.arange(70), n_classes=2)], seed=0)
    p = head.predict_proba(X[70:])
    assert p.shape == (30, 2) and np.allclose(p.sum(1), 1)
    assert (head.predict(X[70:]) == y[70:]).mean() > 0.8


def test_every_output_of_a_regression_is_fitted():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 6)).astype(np.float32)
    y = np.stack([X[:, 0] * 10, -X[:, 1]], axis=1).astype(np.float64)
    [head] = fit_boosted(X, [job(y, np.arange(110), n_classes=0, kind="regression")], seed=0)
    found = head.predict(X[110:])
    assert found.shape == (40, 2)
    assert np.corrcoef(found[:, 0], y[110:, 0])[0, 1] > 0.8
    assert np.corrcoef(found[:, 1], y[110:, 1])[0, 1] > 0.8


def test_state_gives_equal_predictions():
    X, y, _ = planted(80, 12)
    [head] = fit_boosted(X, [job(y, np.arange(60))], seed=0)
    meta, texts = head.state()
    again = BoostedHead.from_state(json.loads(json.dumps(meta)), texts)
    assert (again.predict_proba(X) == head.predict_proba(X)).all()
    assert all(isinstance(text, str) for text in texts.values())


def test_heads_do_not_depend_on_the_number_of_cores(monkeypatch):
    X, y, _ = planted(80, 12)
    jobs = [job(y, np.arange(60)), job(y, np.arange(20, 80))]
    many = fit_boosted(X, jobs, seed=0)
    monkeypatch.setattr(boosted, "usable_cores", lambda: [0])
    one = fit_boosted(X, jobs, seed=0)
    for a, b in zip(many, one, strict=True):
        assert (a.predict_proba(X) == b.predict_proba(X)).all()


def test_jobs_of_the_same_rows_share_bins_and_no_model_depends_on_the_others(monkeypatch):
    X, y, _ = planted(80, 12)
    jobs = [
        job(y, np.arange(60)),
        job((y == 1).astype(np.int64), np.arange(60), n_classes=2),
        job(y, np.arange(20, 80)),
    ]
    binned = []
    monkeypatch.setattr(
        boosted, "_bin", lambda X, rows, *more, real=boosted._bin: binned.append(rows) or real(X, rows, *more)
    )
    together = fit_boosted(X, jobs, seed=0)
    assert [(rows[0], len(rows)) for rows in sorted(binned, key=lambda rows: rows[0])] == [(0, 60), (20, 60)]
    for one, made in zip(together, jobs, strict=True):
        assert (one.predict_proba(X) == fit_boosted(X, [made], seed=0)[0].predict_proba(X)).all()


def test_the_order_of_training_rows_and_of_folds_rows_changes_nothing():
    X, y, _ = planted(80, 12)
    weight = np.linspace(0.2, 3, 80)
    made = job(y, np.arange(60), weight=weight)
    [head] = fit_boosted(X, [made], seed=0)
    turned = replace(made, train=made.train[::-1], inner=[(fit[::-1], stop[::-1]) for fit, stop in made.inner])
    [again] = fit_boosted(X, [turned], seed=0)
    assert (again.predict_proba(X) == head.predict_proba(X)).all() and again.rounds == head.rounds


def test_large_matrices_are_fitted_by_the_same_code(monkeypatch):
    X, y, _ = planted(80, 12)
    monkeypatch.setattr(boosted, "MAX_ROUNDS", 3)  # several threads on few rows are slow where cores are busy
    [small] = fit_boosted(X, [job(y, np.arange(60))], seed=0)
    monkeypatch.setattr(boosted, "LARGE_CELLS", 1)
    [large] = fit_boosted(X, [job(y, np.arange(60))], seed=0)
    assert np.allclose(large.predict_proba(X), small.predict_proba(X), atol=1e-6)


def test_rows_outside_the_training_rows_are_never_read():
    X, y, _ = planted(80, 12)
    [head] = fit_boosted(X, [job(y, np.arange(60))], seed=0)
    other = y.copy()
    other[60:] = -1
    changed = X.copy()
    changed[60:] = np.nan
    [again] = fit_boosted(changed, [job(other, np.arange(60))], seed=0)
    assert (again.predict_proba(X) == head.predict_proba(X)).all()


@pytest.mark.parametrize("n_inner", [0, 4])
def test_a_class_absent_from_training_is_no_class(n_inner):
    X, y, _ = planted(60, 8)
    train = np.flatnonzero(y != 1)
    [head] = fit_boosted(X, [job(y, train, n_inner=n_inner)], seed=0)
    assert head.classes_.tolist() == [0, 2]
    assert set(head.predict(X)) <= {0, 2}


def test_one_class_is_certain():
    X, y, _ = planted(30, 8)
    [head] = fit_boosted(X, [job(y, np.flatnonzero(y == 2))], seed=0)
    assert (head.predict(X) == 2).all() and (head.predict_proba(X) == 1).all()
    assert (BoostedHead.from_state(*head.state()).predict(X) == 2).all()


def test_missing_numbers_are_a_value_of_their_own():
    rng = np.random.default_rng(0)
    y = np.arange(100) % 2
    X = rng.normal(size=(100, 3)).astype(np.float32)
    X[y == 1, 1] = np.nan
    [head] = fit_boosted(X, [job(y, np.arange(60), n_classes=2)], seed=0)
    assert (head.predict(X[60:]) == y[60:]).all()


def test_a_rare_class_survives_inner_folds_without_it():
    X, y, _ = planted(60, 8, n_classes=2)
    y[:] = np.where(np.arange(60) == 5, 2, y)
    [head] = fit_boosted(X, [job(y, np.arange(60))], seed=0)
    assert head.classes_.tolist() == [0, 1, 2]
    assert head.predict_proba(X).shape == (60, 3)


def test_weights_move_the_fit():
    X, y, _ = planted(90, 6, strength=1.0)
    weight = np.where(y == 0, 20.0, 1.0)
    [plain] = fit_boosted(X, [job(y, np.arange(60))], seed=0)
    [heavy] = fit_boosted(X, [job(y, np.arange(60), weight=weight)], seed=0)
    assert heavy.predict_proba(X[60:])[:, 0].mean() > plain.predict_proba(X[60:])[:, 0].mean() + 0.1


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_output_only_rises_or_falls_with_a_monotone_column(kind, sign):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(160, 3)).astype(np.float32)
    wave = np.sin(3 * X[:, 0]) * 2 + sign * X[:, 0] + X[:, 1]
    y = (wave > 0).astype(np.int64) if kind == "classification" else wave[:, None].astype(np.float64)
    made = job(y, np.arange(160), n_classes=2 if kind == "classification" else 0, kind=kind)
    line = np.zeros((50, 3), np.float32)
    line[:, 0] = np.linspace(-3, 3, 50)
    [free] = fit_boosted(X, [made], seed=0)
    [bound] = fit_boosted(X, [replace(made, monotone=np.array([sign, 0, 0], np.int8))], seed=0)
    along = [
        (h.predict_proba(line)[:, 1] if kind == "classification" else h.predict(line)[:, 0]) for h in (free, bound)
    ]
    assert (sign * np.diff(along[0])).min() < -0.01
    assert (sign * np.diff(along[1])).min() >= -1e-12
    assert sign * (along[1][-1] - along[1][0]) > 0.2


def test_three_classes_have_no_order_that_a_column_could_raise():
    X, y, _ = planted(80, 12)
    made = job(y, np.arange(60))
    [free] = fit_boosted(X, [made], seed=0)
    [same] = fit_boosted(X, [replace(made, monotone=np.ones(12, np.int8))], seed=0)
    assert (free.predict_proba(X) == same.predict_proba(X)).all()
