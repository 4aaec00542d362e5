"""The linear head against scikit-learn's tight, un-rotated solutions."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler

from heads import bulk
from heads.design import rank
from heads.head import Job, Standardiser
from heads.linear import LinearHead, fit_linear, inner_linear
from heads.strength import DEFAULT_STRENGTH, STRENGTHS

SIZES = [(60, 150), (150, 20), (120, 4)]  # rotated to its rows; as it is; so small that Hessians are solved whole


def matrix(n_rows, n_columns, seed=0):
    """Correlated columns, as embeddings have them, with unlike centres and scales."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n_rows, 12)) * np.exp(-np.arange(12) / 4)
    X = latent @ rng.standard_normal((12, n_columns)) + 0.3 * rng.standard_normal((n_rows, n_columns))
    return (X * np.linspace(0.1, 20, n_columns) + np.arange(n_columns)).astype(np.float32), latent


def classes(latent, n_classes, seed=0):
    rng = np.random.default_rng(seed)
    score = 2 * latent @ rng.standard_normal((12, n_classes)) + rng.gumbel(size=(len(latent), n_classes))
    y = score.argmax(axis=1)
    y[: 2 * n_classes] = np.repeat(np.arange(n_classes), 2)
    return y


def class_job(y, n_folds=3, **changes):
    inner = list(StratifiedKFold(n_folds, shuffle=True, random_state=0).split(y, y))
    return replace(Job("classification", y, int(y.max()) + 1, np.arange(len(y)), inner), **changes)


def targets(latent, n_outputs=3, seed=1):
    rng = np.random.default_rng(seed)
    Y = latent @ rng.standard_normal((12, n_outputs)) + 0.3 * rng.standard_normal((len(latent), n_outputs))
    return Y * [1, 100, 0.01][:n_outputs] + 5


def regression_job(y, n_folds=3, **changes):
    inner = list(KFold(n_folds, shuffle=True, random_state=0).split(y))
    return replace(Job("regression", y, 0, np.arange(len(y)), inner), **changes)


def at_strength(monkeypatch, X, job, strength):
    """The head that `fit_linear` makes when it has this strength only."""
    monkeypatch.setattr("heads.strength.STRENGTHS", np.array([strength]))
    return fit_linear(X, [job], seed=0)[0]


def tight(X, y, strength, weight=None):
    """scikit-learn on standardised columns, run to the end."""
    scaler = StandardScaler().fit(X.astype(np.float64), sample_weight=weight)
    model = LogisticRegression(C=strength, tol=1e-9, max_iter=100_000, solver="newton-cg")
    model.fit(scaler.transform(X.astype(np.float64)), y, sample_weight=weight)
    return lambda rows: model.predict_proba(scaler.transform(rows.astype(np.float64)))


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_probabilities_equal_a_tight_unrotated_solution(monkeypatch, size, n_classes, strength):
    X, latent = matrix(*size)
    y = classes(latent, n_classes)
    train = np.arange(0, len(y), 3).repeat(2)[: 2 * len(y) // 3] + np.arange(2 * len(y) // 3) % 2
    head = at_strength(monkeypatch, X, class_job(y, train=train, inner=[(train, train)]), strength)
    np.testing.assert_allclose(head.predict_proba(X), tight(X[train], y[train], strength)(X), atol=1e-4)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_all_strengths_solved_together_equal_each_alone(monkeypatch, size):
    X, latent = matrix(*size)
    job = class_job(classes(latent, 4))
    together = fit_linear(X, [job], seed=0)[0].inner_scores
    alone = [at_strength(monkeypatch, X, job, strength).inner_scores[0] for strength in STRENGTHS]
    np.testing.assert_allclose(together, alone, rtol=1e-4)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_chosen_strength_equals_brute_force_on_the_inner_folds(size):
    X, latent = matrix(*size)
    jobs = [class_job(classes(latent, c, seed=c)) for c in (2, 3, 5)]
    for job, head in zip(jobs, fit_linear(X, jobs, seed=0), strict=True):
        losses = [
            [log_loss(job.y[val], tight(X[fit], job.y[fit], c)(X[val])) for fit, val in job.inner] for c in STRENGTHS
        ]
        np.testing.assert_allclose(head.inner_scores, np.mean(losses, axis=1), rtol=1e-3)
        assert head.strength == STRENGTHS[np.mean(losses, axis=1).argmin()]


@pytest.mark.parametrize("strength", STRENGTHS[::2])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_ridge_equals_scikit_learn(monkeypatch, size, strength):
    X, latent = matrix(*size)
    Y = targets(latent)
    head = at_strength(monkeypatch, X, regression_job(Y), strength)
    scaler, scale = StandardScaler().fit(X.astype(np.float64)), Y.std(axis=0)
    model = Ridge(alpha=X.shape[1] / strength, solver="svd").fit(scaler.transform(X.astype(np.float64)), Y / scale)
    expected = model.predict(scaler.transform(X.astype(np.float64))) * scale
    np.testing.assert_allclose((head.predict(X) - expected) / scale, 0, atol=1e-6)


def test_ridge_strength_equals_brute_force_on_the_inner_folds():
    X, latent = matrix(60, 150)
    Y = targets(latent)
    weights = np.array([1.0, 0.0, 3.0])
    job = regression_job(Y, output_weights=weights)
    expected = np.zeros(len(STRENGTHS))
    for fit, val in job.inner:
        Z, scale = StandardScaler().fit(X[fit].astype(np.float64)), Y[fit].std(axis=0)
        for i, strength in enumerate(STRENGTHS):
            model = Ridge(alpha=150 / strength, solver="svd").fit(
                Z.transform(X[fit].astype(np.float64)), Y[fit] / scale
            )
            error = model.predict(Z.transform(X[val].astype(np.float64))) - Y[val] / scale
            expected[i] += np.average(np.mean(error**2, axis=0), weights=weights) / len(job.inner)
    head = fit_linear(X, [job], seed=0)[0]
    np.testing.assert_allclose(head.inner_scores, expected, rtol=1e-6)
    assert head.strength == STRENGTHS[expected.argmin()]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_weights_are_repetitions(size):
    X, latent = matrix(*size)
    X[3, 2] = np.nan
    n_rows = size[0]
    times = np.arange(n_rows) % 3
    repeated = np.repeat(np.arange(n_rows), times)
    for job in (class_job(classes(latent, 3)), regression_job(targets(latent))):
        weighted = fit_linear(X, [replace(job, sample_weight=times.astype(float))], seed=0)[0]
        again = [(np.repeat(fit, times[fit]), np.repeat(val, times[val])) for fit, val in job.inner]
        other = fit_linear(X, [replace(job, train=repeated, inner=again)], seed=0)[0]
        np.testing.assert_allclose(weighted.inner_scores, other.inner_scores, rtol=1e-3)
        assert weighted.strength == other.strength
        output = LinearHead.predict_proba if job.kind == "classification" else LinearHead.predict
        np.testing.assert_allclose(output(weighted, X), output(other, X), atol=1e-4, rtol=1e-4)


def test_shuffled_labels_score_at_chance():
    X, latent = matrix(90, 150)
    y = np.random.default_rng(3).permutation(classes(latent, 3))
    train, test = np.arange(60), np.arange(60, 90)
    inner = [(train[fit], train[val]) for fit, val in StratifiedKFold(3).split(train, y[train])]
    head = fit_linear(X, [class_job(y, train=train, inner=inner)], seed=0)[0]
    prior = np.bincount(y[train], minlength=3) / len(train)
    assert log_loss(y[test], head.predict_proba(X[test]), labels=[0, 1, 2]) > 0.95 * -np.log(prior[y[test]]).mean()
    assert (head.predict(X[test]) == y[test]).mean() < 0.6


def test_planted_signal_is_found():
    X, latent = matrix(120, 200)
    y = (latent[:, 0] > 0).astype(int)
    train, test = np.arange(80), np.arange(80, 120)
    inner = [(train[fit], train[val]) for fit, val in StratifiedKFold(3).split(train, y[train])]
    Y = latent[:, :2]
    jobs = [class_job(y, train=train, inner=inner), regression_job(Y, train=train, inner=inner)]
    classifier, regressor = fit_linear(X, jobs, seed=0)
    assert (classifier.predict(X[test]) == y[test]).mean() > 0.9
    assert ((regressor.predict(X[test]) - Y[test]) ** 2).mean() < 0.2 * Y[test].var()


def test_absent_class_gets_next_to_no_probability_and_a_finite_loss():
    X, latent = matrix(60, 150)
    y = classes(latent, 4)
    train = np.flatnonzero(y != 2)
    inner = [(train[::2], np.arange(1, 60, 2)), (train[1::2], np.arange(0, 60, 2))]
    head = fit_linear(X, [class_job(y, train=train, inner=inner)], seed=0)[0]
    P = head.predict_proba(X)
    assert P.shape == (60, 4)
    np.testing.assert_allclose(P.sum(axis=1), 1, rtol=1e-12)
    assert (P[:, 2] < 1e-5).all() and (P[:, 2] > 0).all()
    assert np.isfinite(head.inner_scores).all()
    np.testing.assert_allclose(P, np.insert(tight(X[train], y[train], head.strength)(X), 2, 0, axis=1), atol=1e-4)


def test_fold_of_one_class_predicts_that_class():
    X, latent = matrix(40, 50)
    y = classes(latent, 2)
    train = np.flatnonzero(y == 1)
    head = fit_linear(X, [class_job(y, train=train, inner=[(train[:5], train[5:])])], seed=0)[0]
    assert (head.predict(X) == 1).all()
    np.testing.assert_allclose(head.predict_proba(X), [[1e-6, 1 - 1e-6]] * 40, rtol=1e-9)


def test_one_class_inner_fold_beside_usable_ones():
    X, latent = matrix(60, 30)
    y = classes(latent, 2)
    first = np.flatnonzero(y == 0)[:10]
    job = class_job(y)
    job = replace(job, inner=[*job.inner, (first, np.setdiff1d(np.arange(60), first))])
    assert np.isfinite(fit_linear(X, [job], seed=0)[0].inner_scores).all()


def test_without_inner_folds_the_default_strength_is_used():
    X, latent = matrix(20, 30)
    head = fit_linear(X, [class_job(classes(latent, 2), inner=[])], seed=0)[0]
    assert head.strength == DEFAULT_STRENGTH
    assert np.isnan(head.inner_scores).all()


def test_constant_and_empty_columns_change_nothing():
    X, latent = matrix(60, 50)
    jobs = [class_job(classes(latent, 3)), regression_job(targets(latent))]
    more = np.hstack([X, np.full((60, 1), 7, np.float32), np.full((60, 1), np.nan, np.float32)])
    without, extended = fit_linear(X, jobs, seed=0), fit_linear(more, jobs, seed=0)
    np.testing.assert_allclose(extended[0].predict_proba(more), without[0].predict_proba(X), atol=1e-5)
    more[:, -2:] = 1e6
    np.testing.assert_allclose(extended[0].predict_proba(more), without[0].predict_proba(X), atol=1e-5)
    assert np.isfinite(extended[1].predict(more)).all()


def test_missing_value_counts_as_the_training_mean():
    X, latent = matrix(60, 50)
    X[::4, 3] = np.nan
    train = np.arange(40)
    head = fit_linear(X, [class_job(classes(latent, 3), train=train, inner=[(train[:25], train[25:])])], seed=0)[0]
    filled = X.astype(np.float64)
    filled[::4, 3] = np.nanmean(filled[train, 3])
    np.testing.assert_allclose(head.predict_proba(X), head.predict_proba(filled), atol=1e-9)


def test_rows_outside_the_job_change_nothing():
    X, latent = matrix(60, 50)
    y = classes(latent, 3)
    train = np.arange(40)
    job = class_job(y, train=train, inner=[(train[:25], train[25:])])
    before = fit_linear(X, [job], seed=0)[0]
    Y, other = np.where(np.arange(60) < 40, y, -1), X.copy()
    other[40:] = 1e3
    after = fit_linear(other, [replace(job, y=Y)], seed=0)[0]
    np.testing.assert_allclose(after.predict_proba(X), before.predict_proba(X), atol=1e-5)


def test_constant_target_is_predicted():
    X, _ = matrix(30, 40)
    head = fit_linear(X, [regression_job(np.full((30, 2), [3.0, 0.0]))], seed=0)[0]
    np.testing.assert_allclose(head.predict(X), np.full((30, 2), [3.0, 0.0]), atol=1e-9)


def test_matrix_without_any_varying_column_gives_the_prior():
    y = np.array([0, 0, 1] * 10)
    head = fit_linear(np.ones((30, 4), np.float32), [class_job(y)], seed=0)[0]
    np.testing.assert_allclose(head.predict_proba(np.ones((2, 4))), [[2 / 3, 1 / 3]] * 2, atol=1e-4)


def test_jobs_solved_together_equal_each_alone_and_any_seed_gives_the_same():
    X, latent = matrix(60, 150)
    jobs = [class_job(classes(latent, c, seed=c)) for c in (2, 4, 4)] + [regression_job(targets(latent))]
    together = fit_linear(X, jobs, seed=0)
    for one, other in zip(together, fit_linear(X, jobs, seed=1), strict=True):
        assert np.array_equal(one.coef, other.coef) and one.strength == other.strength
    for one, job in zip(together, jobs, strict=True):
        alone = fit_linear(X, [job], seed=0)[0]
        assert one.strength == alone.strength
        np.testing.assert_allclose(one.inner_scores, alone.inner_scores, rtol=1e-4)


def test_many_windows_and_batches_equal_one(monkeypatch):
    X, latent = matrix(60, 50)
    jobs = [class_job(classes(latent, 3)), regression_job(targets(latent))]
    whole = fit_linear(X, jobs, seed=0)
    monkeypatch.setattr("heads.bulk.WINDOW_CELLS", 1)
    monkeypatch.setattr("heads.bulk.BATCH_CELLS", 1)
    monkeypatch.setattr("heads.bulk.LOGIT_CELLS", 1)
    for one, other in zip(fit_linear(X, jobs, seed=0), whole, strict=True):
        np.testing.assert_allclose(one.inner_scores, other.inner_scores, rtol=1e-4)


def test_folds_read_in_many_parts_still_agree_with_the_tight_solution(monkeypatch):
    monkeypatch.setattr("heads.curvature.CHUNK", 32)
    X, latent = matrix(200, 20)
    y = classes(latent, 4)
    for strength in STRENGTHS[::4]:
        head = at_strength(monkeypatch, X, class_job(y, inner=[(np.arange(200), np.arange(200))]), strength)
        np.testing.assert_allclose(head.predict_proba(X), tight(X, y, strength)(X), atol=1e-4)


def test_large_ridge_folds_in_float32_agree(monkeypatch):
    X, latent = matrix(200, 20)
    whole = fit_linear(X, [regression_job(targets(latent))], seed=0)[0]
    monkeypatch.setattr("heads.design.FLOAT64_CELLS", 0)
    rounded = fit_linear(X, [regression_job(targets(latent))], seed=0)[0]
    np.testing.assert_allclose(rounded.coef, whole.coef, rtol=1e-3, atol=1e-5)


def test_folds_that_share_a_matrix_score_as_each_alone(monkeypatch):
    X, latent = matrix(150, 30)
    X[:, 3] = np.where(np.arange(150) == 5, 1e3, X[:, 3])  # one fold has an outlier that the others do not
    X[:, 4] = np.arange(150) == 5  # and a column that does not vary in the fold without that row
    weight = np.linspace(0.2, 3, 150)
    jobs = [class_job(classes(latent, c, seed=c), sample_weight=weight) for c in (2, 4)]
    together = fit_linear(X, jobs, seed=0)
    monkeypatch.setattr("heads.bulk.MAX_UNION", 0)
    for one, other in zip(together, fit_linear(X, jobs, seed=0), strict=True):
        np.testing.assert_allclose(one.inner_scores, other.inner_scores, rtol=1e-4)
        np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), atol=1e-5)


def test_folds_with_gaps_take_their_own_means():
    X, latent = matrix(150, 30)
    X[::7, 3] = np.nan
    job = class_job(classes(latent, 3))
    head = fit_linear(X, [job], seed=0)[0]
    losses = np.zeros(len(STRENGTHS))
    for fit, val in job.inner:
        filled = np.where(np.isnan(X), np.nanmean(X[fit].astype(np.float64), axis=0), X)
        losses += [log_loss(job.y[val], tight(filled[fit], job.y[fit], c)(filled[val])) / 3 for c in STRENGTHS]
    np.testing.assert_allclose(head.inner_scores, losses, rtol=1e-3)


def test_folds_of_unlike_rows_do_not_share(monkeypatch):
    monkeypatch.setattr("heads.logistic.SMALL", 0)
    shared = []
    original = bulk.share_designs
    monkeypatch.setattr(
        bulk, "share_designs", lambda X, folds, *rest: shared.append(len(folds)) or original(X, folds, *rest)
    )
    X, latent = matrix(200, 20)
    y = classes(latent, 3)
    few, many = np.arange(30), np.arange(30, 200)
    fit_linear(X, [class_job(y, train=rows, inner=[(rows, rows[::2])] * 2) for rows in (few, many)], seed=0)
    assert sorted(shared) == [1, 1, 1, 1]


@pytest.mark.parametrize("could_win", [1.15, 0.0], ids=["in one pass", "in a second pass"])
@pytest.mark.parametrize("size", SIZES[:2], ids=str)
def test_leaving_clear_losers_unfinished_changes_neither_choice_nor_head(monkeypatch, size, could_win):
    X, latent = matrix(*size)
    jobs = [class_job(classes(latent, c, seed=c)) for c in (3, 5)]
    whole = fit_linear(X, jobs, seed=0)
    monkeypatch.setattr("heads.logistic.CHEAP_WORK", 0)
    monkeypatch.setattr("heads.logistic.SMALL", 0)
    monkeypatch.setattr("heads.strength.COULD_WIN", could_win)
    for head, other in zip(fit_linear(X, jobs, seed=0), whole, strict=True):
        assert other.inner_exact.all() and not head.inner_exact.all()
        assert head.strength == other.strength
        np.testing.assert_allclose(head.coef, other.coef, atol=1e-6)
        np.testing.assert_allclose(head.inner_scores[head.inner_exact], other.inner_scores[head.inner_exact], rtol=1e-3)
        assert (head.inner_scores[~head.inner_exact] > 1.05 * other.inner_scores.min()).all()


def test_without_room_for_blocks_the_answer_is_the_same(monkeypatch):
    X, latent = matrix(60, 150)
    jobs = [class_job(classes(latent, c, seed=c)) for c in (2, 4)]
    whole = fit_linear(X, jobs, seed=0)
    monkeypatch.setattr("heads.logistic.BLOCK_CELLS", 0)
    monkeypatch.setattr("heads.strength.COULD_WIN", np.inf)
    for head, other in zip(fit_linear(X, jobs, seed=0), whole, strict=True):
        np.testing.assert_allclose(head.inner_scores, other.inner_scores, rtol=1e-3)


@pytest.mark.parametrize("could_win", [1.15, 0.0], ids=["kept", "fitted again"])
def test_predictions_for_inner_folds_are_those_of_models_without_them(monkeypatch, could_win):
    monkeypatch.setattr("heads.strength.COULD_WIN", could_win)
    X, latent = matrix(60, 150)
    y = classes(latent, 3)
    jobs = [class_job(y), class_job(y, sample_weight=np.r_[np.zeros(5), np.ones(55)]), regression_job(targets(latent))]
    heads = fit_linear(X, jobs, seed=0)
    assert [bool(head.held_out) for head in heads] == ([True, False, True] if could_win else [False] * 3)
    for job, head, folds in zip(jobs, heads, inner_linear(X, jobs, heads), strict=True):
        is_class = job.kind == "classification"
        for (fit, score), (rows, found) in zip(job.inner, folds, strict=True):
            scaled = job.weight(np.arange(len(X))) * head.strength
            [alone] = fit_linear(X, [replace(job, train=fit, inner=[], sample_weight=scaled)], seed=0)
            expected = alone.predict_proba(X[score]) if is_class else alone.predict(X[score])
            np.testing.assert_array_equal(rows, score)
            np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_head_restored_from_its_state_predicts_the_same(kind):
    X, latent = matrix(40, 30)
    job = class_job(classes(latent, 3)) if kind == "classification" else regression_job(targets(latent))
    head = fit_linear(X, [job], seed=0)[0]
    copy = LinearHead.from_state(*head.state())
    assert np.array_equal(copy.predict(X), head.predict(X))
    assert copy.strength == head.strength and isinstance(copy.standard, Standardiser)
    assert np.array_equal(copy.classes_, head.classes_)


def test_no_rows_give_no_predictions():
    X, latent = matrix(40, 30)
    heads = fit_linear(X, [class_job(classes(latent, 3)), regression_job(targets(latent))], seed=0)
    assert heads[0].predict_proba(X[:0]).shape == (0, 3)
    assert heads[1].predict(X[:0]).shape == (0, 3)


def test_fewer_rows_than_columns_are_rotated_to_as_many_dimensions(monkeypatch):
    X, latent = matrix(80, 60)
    job = class_job(classes(latent, 3))  # inner folds of 53 or 54 rows, all of them of 80
    shared = []
    original = bulk.share_designs
    monkeypatch.setattr(
        bulk, "share_designs", lambda X, folds, *_: shared.append(len(folds[0][0])) or original(X, folds, *_)
    )
    fit_linear(X, [job], seed=0)
    assert shared == [80]


def test_clear_losers_stay_unfinished_from_hundreds_of_rows_and_columns_on():
    X, latent = matrix(600, 240)
    job = class_job(classes(latent, 3))
    [head] = fit_linear(X, [job], seed=0)
    chosen = np.flatnonzero(head.strength == STRENGTHS)[0]
    assert head.inner_exact[chosen] and not head.inner_exact.all()


def test_many_rows_of_few_different_ones_are_rotated_to_their_few_dimensions(monkeypatch):
    kinds, latent = matrix(12, 60)
    which = np.arange(150) % 12
    y = classes(latent, 3)[which]
    y[::7] = (y[::7] + 1) % 3
    job = class_job(y, inner=[(np.arange(150), np.arange(150))])
    monkeypatch.setattr(bulk, "share_designs", lambda *_: pytest.fail("60 columns for 11 dimensions"))
    for strength in (1e-2, 1.0, 1e2):
        head = at_strength(monkeypatch, kinds[which], job, strength)
        np.testing.assert_allclose(head.predict_proba(kinds), tight(kinds[which], y, strength)(kinds), atol=1e-4)


@pytest.mark.parametrize(("n_rows", "n_kinds", "expected"), [(50, 50, 19), (50, 7, 6), (10, 10, 9)])
def test_rank_is_the_number_of_dimensions_that_standardised_rows_lie_in(n_rows, n_kinds, expected):
    X, _ = matrix(n_kinds, 20)
    assert rank(X[np.arange(n_rows) % n_kinds], np.arange(n_rows)) == expected
