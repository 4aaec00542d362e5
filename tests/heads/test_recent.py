"""Linear heads are fitted once for the same values and jobs."""

from dataclasses import replace

import numpy as np
import pytest

from heads import recent
from heads.head import Job
from heads.recent import fit_once


@pytest.fixture
def fits(monkeypatch):
    """How many jobs each true fit had."""
    calls = []
    original = recent.fit_linear
    monkeypatch.setattr(
        recent, "fit_linear", lambda X, jobs, *, seed: calls.append(len(jobs)) or original(X, jobs, seed=seed)
    )
    recent._recent.clear()
    return calls


def make_job(X):
    half = np.arange(len(X)) < len(X) // 2
    return Job(
        "classification",
        (X[:, 0] > 0).astype(int),
        2,
        np.arange(len(X)),
        [(np.flatnonzero(half), np.flatnonzero(~half))],
    )


def test_the_same_values_and_jobs_are_fitted_once(fits):
    X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    job = make_job(X)
    first = fit_once(X[:, :3], [job], seed=0)
    assert fit_once(X[:, :3].copy(), [replace(job, monotone=np.ones(3, np.int8))], seed=1)[0] is first[0]
    assert fits == [1]


def test_anything_that_a_fit_looks_at_makes_another(fits):
    X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    job = make_job(X)
    others = [
        replace(job, y=1 - job.y),
        replace(job, n_classes=3),
        replace(job, train=job.train[:-1]),
        replace(job, inner=[job.inner[0][::-1]]),
        replace(job, inner=[]),
        replace(job, sample_weight=np.ones(40)),
    ]
    for one in [job, *others]:
        fit_once(X, [one], seed=0)
    fit_once(X + 1, [job], seed=0)
    fit_once(X[:, :5], [job], seed=0)
    assert fits == [1] * 9


def test_the_oldest_are_forgotten_where_they_take_too_much_memory(fits, monkeypatch):
    X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    job = make_job(X)
    [head] = fit_once(X, [job], seed=0)
    own = head.coef.nbytes + sum(p.nbytes for _, p in head.held_out)
    monkeypatch.setattr(recent, "KEPT_BYTES", 2 * own)
    for shift in (1, 0, 2, 1):
        fit_once(X + np.float32(shift), [job], seed=0)
    assert len(fits) == 4  # 0 is found again, 1 is not


def test_how_values_lie_in_memory_changes_nothing():
    X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    found = []
    for layout in (X, np.asfortranarray(X)):
        recent._recent.clear()
        [head] = fit_once(layout, [make_job(X)], seed=0)
        found.append(head.coef.tolist())
    assert found[0] == found[1]
