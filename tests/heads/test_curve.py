from dataclasses import replace

import numpy as np
import pytest

from heads.curve import learning_curves
from heads.sweep import Sweep
from store import InputError, make_split
from tests.heads.made import classes, dataset, matrix, numbers, planted


def curve_of(task, X, *, groups=None, given=None, head="linear", n_folds=4):
    data = dataset(task, n=len(X), groups=groups, given=given)
    sweep = Sweep(data, matrix(data, image__bf_at_a=X), make_split(data, n_folds=n_folds), heads=[head])
    [found] = learning_curves(sweep, sweep.run())
    return found, sweep


def test_a_signal_spread_over_many_columns_asks_for_more_labels():
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(320) % 2)
    X = rng.normal(size=(320, 60)) + 0.15 * (2 * y - 1)[:, None] * rng.choice([-1, 1], 60)
    found, _ = curve_of(classes(y), X)
    assert [point["n_rows"] for point in found["points"]] == [15, 30, 60, 120, 240]
    values = [point["value"] for point in found["points"]]
    assert values[-1] > values[0] + 0.1 and found["words"].startswith("more labels would help")


def test_numbers_that_need_many_rows_ask_for_more_labels():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(240, 100))
    found, _ = curve_of(numbers(X @ rng.normal(size=100)), X)
    assert found["words"].startswith("more labels would help: from 90 to 180") and found["gain"]["low"] > 0
    errors = [point["value"] for point in found["points"]]
    assert errors == sorted(errors, reverse=True) and "(+ is less, so better)" in found["words"]


def test_an_easy_task_has_labels_enough():
    X, y, _ = planted(320, 6, n_classes=2, strength=6.0)
    found, _ = curve_of(classes(y), X)
    assert found["words"].startswith("no sign that more labels would help: from 120 to 240")


def test_shuffled_labels_stay_at_chance_whatever_their_number():
    X, y, _ = planted(320, 6, n_classes=2)
    found, _ = curve_of(classes(np.random.default_rng(1).permutation(y)), X)
    assert all(abs(point["value"] - 0.5) < 0.09 for point in found["points"])
    assert found["words"].startswith("no sign")


def test_the_last_point_is_the_entry_itself():
    X, y, _ = planted(160, 6, n_classes=2, strength=1.5)
    found, sweep = curve_of(classes(y), X, groups=np.arange(160) // 4)
    last = found["points"][-1]
    assert {key: last[key] for key in ("value", "low", "high")} == sweep.run()[-1]["metrics"]["accuracy"]


def test_subsets_hold_whole_groups_and_grow():
    from heads.curve import _draws

    X, y, _ = planted(160, 6, n_classes=2)
    groups = np.arange(160) // 4
    _, sweep = curve_of(classes(y), X, groups=groups)
    for share, parts in _draws(sweep, "kind"):
        for train, score in parts:
            assert not set(groups[train]) & set(groups[score])
            assert all((groups[train] == group).sum() == 4 for group in set(groups[train]))
            assert abs(len(train) - share * 120) <= 4


def test_few_rows_have_no_curve():
    X, y, _ = planted(24, 4, n_classes=2)
    found, _ = curve_of(classes(y), X, n_folds=3)
    assert len(found["points"]) == 1 and found["words"].startswith("too few labelled rows")


def half_moons(n=400, n_labelled=24, *, shuffled=False, seed=0):
    """Two long clusters, a few labels at one end of each: the unlabelled rows show how the clusters go on."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 2)
    X = rng.normal(size=(n, 12))
    X[:, 0] += 3 * (2 * y - 1)
    labels = rng.permutation(y) if shuffled else y
    labels = labels.copy()
    labels[rng.permutation(n)[n_labelled * 5 :]] = -1
    return X, labels


def test_rows_without_a_label_stand_beside_the_supervised_ones():
    X, y = half_moons()
    found, _ = curve_of(classes(y), X)
    own = found["self_training"]
    assert own["n_unlabelled"] == 280 and 100 < own["n_used"] < 280
    assert own["score"]["value"] >= found["points"][-1]["value"] - 0.03
    assert own["words"].startswith("280 rows without a label") and own["verdict"] in ("helps", "does not help")


def test_self_training_on_shuffled_labels_stays_at_chance():
    X, y = half_moons(shuffled=True)
    found, _ = curve_of(classes(y), X)
    assert abs(found["self_training"]["score"]["value"] - 0.5) < 0.15
    assert found["self_training"]["verdict"] == "does not help"


def two_rings(n=400, n_labelled=12):
    """A ring around another: no line parts them, and a label spreads along its own."""
    rng = np.random.default_rng(0)
    y, angle = rng.permutation(np.arange(n) % 2), rng.uniform(0, 2 * np.pi, n)
    X = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.where(y, 4, 1)[:, None] + rng.normal(0, 0.1, (n, 2))
    labels = np.where(rng.permutation(np.arange(n)) < n - 5 * n_labelled, -1, y)
    return X, labels


def test_labels_spread_along_clusters_that_no_line_parts():
    X, y = two_rings()
    found, _ = curve_of(classes(y), X)
    own = found["label_spreading"]
    assert found["points"][-1]["value"] < 0.8 < 0.97 < own["score"]["value"] and own["verdict"] == "helps"
    assert own["words"].endswith("label-spreading helps") and own["n_unlabelled"] == 340
    assert own["n_used"] == 255  # of 340, those of three folds in four


def test_labels_of_the_scored_fold_do_not_spread():
    y = np.random.default_rng(3).permutation(np.arange(200) % 2)
    y[:60] = -1
    found, _ = curve_of(classes(y), np.random.default_rng(4).normal(size=(200, 6)))
    assert abs(found["label_spreading"]["score"]["value"] - 0.5) < 0.15


def test_without_unlabelled_rows_there_is_no_such_row():
    X, y, _ = planted(100, 4, n_classes=2)
    assert "self_training" not in curve_of(classes(y), X)[0]
    assert "self_training" not in curve_of(numbers(np.where(np.arange(100) < 20, np.nan, y)), X)[0]


def test_rows_that_the_dataset_does_not_have_teach_as_its_own_without_a_label() -> None:
    X, y = two_rings()
    known = y >= 0
    inside, _ = curve_of(classes(y), X)
    data, extra = dataset(classes(y[known]), n=60), dataset(classes(y[~known]), n=340)
    more = matrix(extra, image__bf_at_a=X[~known])
    split = make_split(data, n_folds=4)
    sweep = Sweep(data, matrix(data, image__bf_at_a=X[known]), split, heads=["linear"])
    [alone], [found] = learning_curves(sweep, sweep.run()), learning_curves(sweep, sweep.run(), more=more)
    assert "label_spreading" not in alone and found["points"] == alone["points"]
    own = found["label_spreading"]
    assert (own["n_unlabelled"], own["n_used"]) == (340, 340) and own["verdict"] == "helps"
    assert own["score"]["value"] > 0.97 and inside["label_spreading"]["score"]["value"] > 0.97
    incomplete = replace(more, complete=np.arange(340) < 40)
    [found] = learning_curves(sweep, sweep.run(), more=incomplete)
    assert found["label_spreading"]["n_unlabelled"] == 40


def test_rows_without_a_label_come_beside_those_of_the_table_and_weights_stay() -> None:
    X, y = half_moons()
    data = dataset(replace(classes(y), sample_weight=np.where(y < 0, np.nan, 2.0)), n=400)
    sweep = Sweep(data, matrix(data, image__bf_at_a=X), make_split(data, n_folds=4), heads=["linear"])
    extra = dataset(classes(y[:9]), n=9)
    [found] = learning_curves(sweep, sweep.run(), more=matrix(extra, image__bf_at_a=X[:9]))
    assert found["self_training"]["n_unlabelled"] == found["label_spreading"]["n_unlabelled"] == 280 + 9
    assert 100 < found["self_training"]["n_used"] < 289


def test_numbers_alone_learn_nothing_from_rows_without_a_label() -> None:
    X, y, _ = planted(60, 4, n_classes=2)
    data = dataset(numbers(y.astype(float)), n=60)
    sweep = Sweep(data, matrix(data, image__bf_at_a=X), make_split(data, n_folds=3), heads=["linear"])
    with pytest.raises(InputError, match="teach classifications alone, and every task here is a regression"):
        learning_curves(sweep, sweep.run(), more=sweep.matrix)


def test_unlabelled_rows_of_the_scored_fold_teach_nothing():
    from heads.unlabelled import self_trained, unlabelled

    X, y = half_moons()
    data = dataset(classes(y), n=400, groups=np.arange(400) // 2)
    seen = []
    sweep = Sweep(data, matrix(data, image__bf_at_a=X), make_split(data, n_folds=4), heads=["linear"])
    plan = sweep.plan("kind", sweep.pairs)
    [heads] = sweep.fit([plan], ("image:bf@a",), "linear")

    class Spy:
        classes_ = np.arange(2)

        def predict_proba(self, part):
            seen.append(part)
            return np.full((len(part), 2), 0.5)

    spare = unlabelled(sweep, plan)
    self_trained(sweep, plan, [Spy()] * 4, sweep.columns(("image:bf@a",), plan.rows), spare=spare, head="linear")
    for part, (train, _) in zip(seen[:4], sweep.pairs, strict=True):
        rows = {tuple(row) for row in sweep.matrix.X[train[y[train] < 0]].tolist()}
        assert {tuple(row) for row in part.tolist()} == rows
    assert heads
