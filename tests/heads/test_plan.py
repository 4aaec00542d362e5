from dataclasses import replace

import numpy as np
import pytest

from heads.plan import make_plan
from heads.sweep import Sweep
from store import inner_folds, make_split
from tests.heads.made import classes, dataset, matrix, numbers

N = 96
GROUPS = np.arange(N) // 3


def made(*, missing=(), unreadable=()):
    """Four tasks: three labelled everywhere but in `missing`, the last without the first ten rows."""
    rng = np.random.default_rng(0)
    kind, grade = rng.integers(3, size=N), rng.integers(4, size=N)
    size, late = rng.normal(size=N), rng.integers(2, size=N)
    kind[list(missing)], grade[list(missing)], size[list(missing)], late[:10] = -1, -1, np.nan, -1
    tasks = classes(kind), classes(grade, name="grade"), numbers(size), classes(late, name="late")
    data = dataset(*tasks, n=N, groups=GROUPS)
    complete = ~np.isin(np.arange(N), unreadable)
    return data, matrix(data, image__bf_at_texture=rng.normal(size=(N, 6)), complete=complete)


def inner(data, features, name, *, seed=0):
    """Return (fit, val) dataset rows of each inner fold of each outer fold."""
    pairs = make_split(data, n_folds=3).outer(data.ids)
    plan = make_plan(data, features, data.tasks[name], pairs=pairs, seed=seed)
    return [[(plan.rows[fit].tolist(), plan.rows[val].tolist()) for fit, val in job.inner] for job in plan.jobs]


def held_out(folds):
    return [row for _, val in folds for row in val]


def test_tasks_labelled_on_the_same_rows_share_inner_folds_and_others_have_their_own():
    data, features = made(missing=[20, 50])
    kind, late = inner(data, features, "kind"), inner(data, features, "late")
    assert kind == inner(data, features, "grade") == inner(data, features, "size")
    for shared, own, (train, _) in zip(kind, late, make_split(data, n_folds=3).outer(data.ids), strict=True):
        assert sorted(held_out(shared)) == sorted(set(train) - {20, 50})
        assert sorted(held_out(own)) == sorted(set(train) - set(range(10)))
        rows = np.array(sorted(held_out(own)))
        alone = inner_folds([data.tasks["late"].y], data.groups, rows, seed=0)
        assert own == [(fit.tolist(), val.tolist()) for fit, val in alone]


def test_a_row_that_cannot_be_read_may_be_all_that_tasks_differ_in():
    data, features = made(unreadable=range(10))
    assert inner(data, features, "late") == inner(data, features, "kind")


def test_shared_inner_folds_hold_whole_groups_and_are_alike_in_every_task():
    data, features = made()
    for folds in inner(data, features, "kind"):
        assert len(folds) == 4
        rows = held_out(folds)
        for fit, val in folds:
            assert not set(GROUPS[fit]) & set(GROUPS[val])
            for name in ("kind", "grade"):
                y = data.tasks[name].y
                assert np.abs(np.bincount(y[val]) - np.bincount(y[rows]) / 4).max() < 3


def test_inner_folds_depend_on_the_seed_alone():
    data, features = made()
    assert inner(data, features, "kind") == inner(data, features, "kind")
    assert inner(data, features, "kind") != inner(data, features, "kind", seed=1)
    turned = replace(data, tasks=dict(reversed(data.tasks.items())))
    assert inner(turned, features, "kind") == inner(data, features, "kind")


@pytest.mark.parametrize("name", ["kind", "size", "late"])
def test_a_task_run_alone_gives_the_numbers_of_all_tasks(name):
    data, features = made()
    split = make_split(data, n_folds=3)
    every = Sweep(data, features, split, heads=["linear"]).run()
    alone = Sweep(data, features, split, heads=["linear"], tasks=[name]).run()
    for entry, other in zip(alone, [entry for entry in every if entry["task"] == name], strict=True):
        assert entry["identity"] == other["identity"] and entry["chosen"] == other["chosen"]
        for metric, found in entry["metrics"].items():
            assert found["value"] == pytest.approx(other["metrics"][metric]["value"], rel=1e-6)


def test_labels_of_a_task_on_the_same_rows_make_another_result():
    data, features = made()
    split = make_split(data, n_folds=3)

    def identities(data):
        entries = Sweep(data, features, split, heads=["prior"]).run()
        return {entry["task"]: entry["identity"] for entry in entries}

    grade = replace(data.tasks["grade"], y=data.tasks["grade"].y[::-1].copy())
    before, after = identities(data), identities(replace(data, tasks={**data.tasks, "grade": grade}))
    assert [name for name in before if before[name] == after[name]] == ["late"]
