import numpy as np
import pytest

from heads.gap import ROLE, folded, group_gap
from heads.leaderboard import Leaderboard, may_choose
from heads.predictions import Predictions
from heads.sweep import Sweep
from store import make_split
from tests.heads.made import classes, dataset, matrix, numbers


def gap_of(task, X, groups, *, given=None, board=None, predictions=None):
    data = dataset(task, n=len(X), groups=groups, given=given)
    sweep = Sweep(data, matrix(data, image__bf_at_a=X), make_split(data, n_folds=4), heads=["linear"])
    predictions = predictions or Predictions()
    return group_gap(sweep, sweep.run(board, predictions=predictions), board, predictions)


def powders(*, n_powders=38, n_tiles=8, seed=0, d=60):
    """Tiles that look like their powder, and labels drawn for each powder at random."""
    rng = np.random.default_rng(seed)
    powder = np.repeat(np.arange(n_powders), n_tiles)
    X = rng.normal(size=(n_powders, d))[powder] + rng.normal(0, 0.3, (len(powder), d))
    return X, powder, rng


def test_the_powder_trap_is_told_plainly():
    X, powder, rng = powders()
    y = rng.permutation(np.arange(38) % 2)[powder]
    [line] = gap_of(classes(y), X, powder)
    assert line["random"]["value"] > 0.95 and line["grouped"]["value"] < 0.75
    assert line["value"] == pytest.approx(line["random"]["value"] - line["grouped"]["value"])
    assert line["low"] > 0.2 and line["one_label_per_group"] and line["n_groups"] == 38
    assert "of it is recognising the group, not predicting kind" in line["words"]
    assert "for a new group nothing is left that is told apart from the baseline" in line["words"]
    assert "a random split measures recognition of the group" in line["words"]


def test_the_powder_trap_of_a_regression_with_several_outputs():
    X, powder, rng = powders()
    y = rng.normal(size=(38, 3))[powder]
    [line] = gap_of(numbers(y, columns=("uv", "blue", "green")), X, powder)
    assert line["random"]["value"] < 0.6 * line["grouped"]["value"]  # errors
    assert line["low"] > 0 and line["one_label_per_group"] and "is recognising the group" in line["words"]


def test_groups_that_mean_nothing_give_no_gap():
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(200) % 2)
    X = rng.normal(size=(200, 8))
    X[:, 0] += 2 * y
    [line] = gap_of(classes(y), X, rng.permutation(np.arange(200) % 50))
    assert abs(line["value"]) < 0.05 and line["low"] <= 0 and not line["one_label_per_group"]
    assert line["words"].startswith("group gap of the best entry: none found")


def test_shuffled_labels_have_no_gap():
    X, powder, rng = powders(n_tiles=5)
    values = []
    for _ in range(4):
        [line] = gap_of(classes(rng.permutation(np.arange(len(X)) % 2)), X, powder)
        values += [line["random"]["value"], line["grouped"]["value"]]
    assert abs(np.mean(values) - 0.5) < 0.06


def test_a_signal_that_new_groups_have_too_leaves_something():
    X, powder, _ = powders(d=4)
    y = (X[:, 0] > 0).astype(int)
    [line] = gap_of(classes(y), X, powder)
    assert line["grouped"]["value"] > 0.8 and "nothing is left" not in line["words"]


def test_without_groups_there_is_no_gap():
    X, powder, _ = powders(n_tiles=2)
    y = powder % 2
    assert gap_of(classes(y), X, None) == [] and gap_of(classes(y), X, np.arange(len(X))) == []


def test_held_out_rows_stay_out_and_given_train_and_val_become_folds():
    X, powder, rng = powders()
    given = np.array(["train", "val", "test"])[np.where(powder < 24, 0, np.where(powder < 31, 1, 2))]
    task = classes(rng.permutation(np.arange(38) % 2)[powder])
    [line] = gap_of(task, X, powder, given=given)
    X[given == "test"], task.y[given == "test"] = 99.0, 0
    assert [line] == gap_of(task, X, powder, given=given)
    assert line["n_groups"] == 31


def test_entries_of_the_random_split_are_kept_and_never_chosen_by(tmp_path):
    X, powder, _ = powders(n_tiles=3)
    board, folder = Leaderboard(tmp_path / "leaderboard.jsonl"), tmp_path / "predictions"
    first = gap_of(classes(powder % 2), X, powder, board=board, predictions=Predictions(folder))
    n_entries = len(board.entries())
    assert [e["split"] for e in board.entries()].count(ROLE) == 1 and not may_choose({"split": ROLE})
    again = gap_of(classes(powder % 2), X, powder, board=board, predictions=Predictions(folder))
    assert again == first and len(board.entries()) == n_entries


def test_train_and_val_become_folds_and_held_out_rows_do_not():
    X, powder, rng = powders(n_powders=20, n_tiles=4)
    given = np.array(["train", "val", "train", "test"])[np.arange(20) % 4].repeat(4)
    data = dataset(classes(rng.integers(0, 2, 80)), n=80, groups=powder, given=given)
    sweep = Sweep(data, matrix(data, image__bf_at_a=X), make_split(data), heads=["linear"])
    own = folded(sweep)
    scored = np.concatenate([score for _, score in own.pairs])
    assert sorted(scored.tolist()) == np.flatnonzero(given != "test").tolist() and folded(own) is own
    assert all(not set(powder[train]) & set(powder[score]) for train, score in own.pairs)
