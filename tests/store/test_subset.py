from dataclasses import replace

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


def test_a_subset_without_every_class_and_something_to_score_says_how_many_rows_it_takes():
    data = a_dataset()
    split = make_split(data)
    train, score = split.outer(data.ids)[0]
    with pytest.raises(InputError, match=r"--subset 3: give \d+ or more rows, with 3 of every class") as error:
        draw_subset(data, split, 3, held_out=True, seed=0)
    n_least = int(str(error.value).split()[3])
    rows = draw_subset(data, split, n_least, held_out=False, seed=0)
    kind = data.tasks["kind"].y
    assert len(rows) == n_least and 2 <= len(np.intersect1d(rows, score)) <= 4  # two of each task
    assert all((kind[np.intersect1d(rows, train)] == label).sum() >= 3 for label in (0, 1))
    with pytest.raises(InputError, match=f"give {n_least} or more rows"):
        draw_subset(data, split, n_least - 1, held_out=False, seed=0)


def test_labels_of_one_task_alone_take_fewer_rows():
    data = a_dataset()
    alone = replace(data, tasks={"value": next(t for t in data.tasks.values() if t.kind == "regression")})
    with pytest.raises(InputError, match="--subset 1: give 5 or more rows"):
        draw_subset(alone, make_split(alone), 1, held_out=True, seed=0)
