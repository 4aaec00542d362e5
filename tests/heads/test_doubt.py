import numpy as np
import pytest

from heads.audit import audit_labels
from heads.doubt import class_thresholds, doubtful_labels
from heads.metrics import Scored
from heads.predictions import Predictions
from heads.sweep import Sweep
from store import make_split
from tests.heads.made import classes, dataset, matrix, numbers, planted


def audited(task, X, *, groups=None, given=None):
    data = dataset(task, n=len(X), groups=groups, given=given)
    sweep = Sweep(data, matrix(data, image__bf_at_a=X), make_split(data, n_folds=4), heads=["linear"])
    predictions = Predictions()
    return audit_labels(sweep, sweep.run(predictions=predictions), predictions)[task.name]


def ids(rows):
    return {f"r{row:03d}" for row in rows}


def test_planted_flips_are_ranked_on_top():
    X, y, _ = planted(480, 8, strength=7.0)
    flipped = np.random.default_rng(3).choice(480, 12, replace=False)
    y[flipped] = (y[flipped] + 1) % 3
    found = audited(classes(y), X)
    top = found["labels"][:12]
    assert {row["id"] for row in top} == ids(flipped)
    assert all(row["p_suggested"] > row["p_label"] for row in top) and len(found["labels"]) < 25
    assert found["n_rows"] == 480 and found["beats_baseline"]
    by_id = {f"r{row:03d}": "abc"[(y[row] - 1) % 3] for row in flipped}
    assert all(row["suggested"] == by_id[row["id"]] for row in top)


def test_the_least_probable_label_leads_whatever_the_other_classes_share() -> None:
    p = np.array([[0.05, 0.50, 0.45], [0.10, 0.90, 0.00], [0.90, 0.05, 0.05], [0.20, 0.50, 0.30]])
    y, row = np.array([0, 0, 0, 2]), np.arange(4)
    scored = Scored("classification", y, p, row, row, np.ones(1), row)
    found = doubtful_labels(classes(y), scored, np.array(["near", "far", "sure", "other"]))
    assert [row["id"] for row in found["labels"]] == ["near", "far", "other"]


def test_the_classes_that_annotators_confuse_lead_the_table():
    X, y, _ = planted(240, 8, strength=6.0)
    some = np.flatnonzero(y == 0)[:10]
    y[some] = 2  # an a that was written down as c
    [first, *_] = audited(classes(y), X)["confusions"]
    assert (first["label"], first["suggested"], first["count"]) == ("c", "a", 10)
    assert first["share"] == pytest.approx(10 / (y == 2).sum())


def test_clean_separable_labels_are_hardly_doubted():
    X, y, _ = planted(240, 8, strength=8.0)
    assert len(audited(classes(y), X)["labels"]) <= 5


def test_shuffled_labels_come_with_a_model_that_is_not_to_be_believed():
    X, y, _ = planted(240, 8)
    assert not audited(classes(np.random.default_rng(1).permutation(y)), X)["beats_baseline"]


def test_a_wrong_number_is_ranked_on_top():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 6))
    y = np.stack([X[:, 0], X[:, 1]], 1) + rng.normal(0, 0.1, (150, 2))
    y[17, 1] += 4
    found = audited(numbers(y, columns=("uv", "blue")), X)["labels"]
    assert (found[0]["id"], found[0]["column"]) == ("r017", "blue") and found[0]["score"] > 10
    assert found[0]["suggested"] == pytest.approx(y[17, 1] - 4, abs=0.5) and len(found) < 6


def test_held_out_rows_are_not_looked_at():
    X, y, _ = planted(240, 8, strength=5.0)
    given = np.where(np.arange(240) < 60, "test", "train")
    y[:30] = (y[:30] + 1) % 3
    found = audited(classes(y), X, given=given)
    assert found["n_rows"] == 180 and not {row["id"] for row in found["labels"]} & ids(range(60))


def test_a_class_s_own_mean_is_its_threshold():
    y = np.array([0, 0, 1, 1])
    p = np.array([[0.9, 0.1, 0.0], [0.3, 0.7, 0.0], [0.2, 0.8, 0.0], [0.4, 0.6, 0.0]])
    np.testing.assert_allclose(class_thresholds(y, p), [0.6, 0.7, np.inf])  # nobody is ever sure of the third
