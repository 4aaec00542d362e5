import numpy as np

from heads.head import Job
from heads.prior import PriorHead, fit_prior

X = np.zeros((6, 0), np.float32)


def test_classes_have_their_training_frequencies():
    y = np.array([0, 0, 1, 2, 2, 2])
    [head] = fit_prior(X, [Job("classification", y, 4, np.array([0, 1, 2, 3]), [])], seed=0)
    assert head.classes_.tolist() == [0, 1, 2, 3]
    assert head.predict_proba(X)[5].tolist() == [0.5, 0.25, 0.25, 0.0]
    assert head.predict(X).tolist() == [0] * 6


def test_outputs_have_their_training_median():
    y = np.array([[0.0, 1.0], [1.0, 1.0], [5.0, 7.0], [100.0, 100.0]])
    [head] = fit_prior(X[:4], [Job("regression", y, 0, np.array([0, 1, 2]), [])], seed=0)
    assert head.predict(X[:2]).tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert not len(head.classes_)


def test_state_gives_the_same_head_back():
    y = np.array([0, 0, 1, 2, 2, 2])
    [head] = fit_prior(X, [Job("classification", y, 3, np.arange(6), [])], seed=0)
    again = PriorHead.from_state(*head.state())
    assert (again.predict_proba(X) == head.predict_proba(X)).all()
    assert (again.classes_ == head.classes_).all()
