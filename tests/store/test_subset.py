import numpy as np
import pytest

from store import InputError, draw_subset, make_split
from tests.heads.made import classes, dataset, numbers


def a_dataset(n=200):
    rng = np.random.default_rng(0)
    rare = (np.arange(n) % 40 == 0).astype(np.int64)  # 5 of 200
    given = np.where(np.arange(n) < 20, "test", "train")
    return dataset(classes(rare), numbers(rng.normal(size=n)), n=n, given=given)


def test_rows_are_drawn_by_seed_and_held_out_rows_stay_where_they_are_scored():
    data = a_dataset()
    split = make_split(data)
    rows = draw_subset(data, split, 30, held_out=True, seed=1)
    assert (np.diff(rows) > 0).all() and len(rows) == 30 + 20
    assert set(range(20)) <= set(rows.tolist())
    assert rows.tolist() == draw_subset(data, split, 30, held_out=True, seed=1).tolist()
    assert rows.tolist() != draw_subset(data, split, 30, held_out=True, seed=2).tolist()
    assert len(draw_subset(data, split, 1000, held_out=True, seed=0)) == 200
    assert rows[20:].tolist() == draw_subset(data, split, 30, held_out=False, seed=1).tolist()  # unless they are scored


def test_rare_classes_stay_in_the_training_part():
    data = a_dataset()
    split = make_split(data)
    train, _ = split.outer(data.ids)[0]
    for seed in range(5):
        rows = draw_subset(data, split, 10, held_out=True, seed=seed)
        kept = np.intersect1d(rows, train)
        assert (data.tasks["kind"].y[kept] == 1).sum() >= min(3, (data.tasks["kind"].y[train] == 1).sum())


def test_one_row_is_no_subset():
    with pytest.raises(InputError, match="--subset 1: give 2 or more rows"):
        draw_subset(a_dataset(), make_split(a_dataset()), 1, held_out=True, seed=0)
