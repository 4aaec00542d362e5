import numpy as np
import pytest
from sklearn import metrics as reference

from heads.metrics import Scored, estimate
from heads.per_class import RATES, class_rates, confusion

P = np.eye(4) * 0.7 + 0.075


def scored(y, predicted, *, unit=None):
    y, predicted = np.array(y), np.array(predicted)
    unit = np.arange(len(y)) if unit is None else np.array(unit)
    return Scored("classification", y, P[predicted], np.zeros(len(y), int), unit, np.ones(1))


# class 0: 3 rows, 2 found, 1 false alarm; class 1: 2 rows, 1 found; class 2: 1 row, never predicted; class 3: not there
SIX = scored([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 0, 1])


def values(found):
    return {name: [found[name].interval(j)["value"] for j in range(len(found[name].value))] for name in RATES}


def test_rates_are_those_worked_out_by_hand():
    found = values(class_rates(SIX, seed=0))
    assert found["precision"] == [
        pytest.approx(2 / 3),
        pytest.approx(1 / 3),
        0.0,
        None,
        pytest.approx(1 / 3),
        pytest.approx(8 / 18),
    ]
    assert found["recall"] == [pytest.approx(2 / 3), 0.5, 0.0, None, pytest.approx(7 / 18), 0.5]
    assert found["f1"] == [pytest.approx(2 / 3), 0.4, 0.0, None, pytest.approx(16 / 45), pytest.approx(2.8 / 6)]


def test_rates_and_means_are_scikit_learns():
    rng = np.random.default_rng(0)
    y, predicted = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    found = class_rates(scored(y, predicted), seed=0)
    expected = reference.classification_report(y, predicted, output_dict=True)
    names = ["0", "1", "2", "3", "macro avg", "weighted avg"]
    for rate, key in zip(RATES, ("precision", "recall", "f1-score"), strict=True):
        assert values(found)[rate] == pytest.approx([expected[name][key] for name in names])


def test_means_are_the_metrics_of_entries_resample_by_resample():
    rng = np.random.default_rng(1)
    one = scored(rng.integers(0, 4, 40), rng.integers(0, 4, 40), unit=np.arange(40) // 2)
    found, whole = class_rates(one, seed=0), estimate(one, seed=0)
    assert np.allclose(found["f1"].samples[:, 4], whole["macro_f1"].samples[:, 0])
    assert np.allclose(found["recall"].samples[:, 4], whole["balanced_accuracy"].samples[:, 0])
    assert np.allclose(found["recall"].samples[:, 5], whole["accuracy"].samples[:, 0])


def test_one_group_has_no_intervals():
    found = class_rates(scored([0, 1], [0, 1], unit=[0, 0]), seed=0)
    assert found["f1"].interval(0) == {"value": 1.0, "low": None, "high": None}


def test_lines_of_the_confusion_are_labels():
    assert confusion(SIX).tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
