import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store.errors import InputError
from store.folds import inner_folds, label_codes
from store.split import make_split
from store.split_file import open_split
from tests.store.splits import correlated, dataset, deviation, folds_of, shuffled, task


@pytest.mark.parametrize("seed", range(5))
def test_one_task_is_divided_as_evenly_as_whole_rows_allow(seed: int) -> None:
    y = np.random.default_rng(seed).choice(4, p=[0.6, 0.25, 0.1, 0.05], size=101)
    folds = folds_of(make_split(data := dataset(task("a", y)), seed=seed), data)
    assert deviation(y, folds) < 1
    assert sorted(np.bincount(folds)) == [20, 20, 20, 20, 21]


@pytest.mark.parametrize("seed", range(5))
def test_all_tasks_are_stratified_at_once(seed: int) -> None:
    data = dataset(*correlated(400, seed=seed))
    folds = folds_of(make_split(data, seed=seed), data)
    naive = np.random.default_rng(seed).permutation(400) % 5
    worst = [deviation(data.tasks[name].y, folds) for name in ("t0", "t1", "t2", "t3")]
    assert max(worst) <= 5  # of 80 rows a fold
    assert max(worst) < max(deviation(data.tasks[name].y, naive) for name in ("t0", "t1", "t2", "t3")) / 2
    assert np.ptp(np.bincount(folds)) <= 2


def test_regression_targets_are_alike_in_every_fold() -> None:
    y = np.random.default_rng(1).lognormal(size=(300, 2))
    y[:7, 0] = np.nan
    data = dataset(task("r", y))
    folds = folds_of(make_split(data), data)
    bins = label_codes(y, data.tasks["r"].labelled, 5)
    assert (bins[:7] == -1).all() and bins.max() == 9
    for column in bins.T:
        assert deviation(column, folds) <= 2


def test_a_row_without_the_condition_has_no_label_to_stratify_by() -> None:
    y = np.tile([0, 1], 50)
    applies = np.arange(100) < 50
    data = dataset(replace(task("a", y), applies=applies))
    folds = folds_of(make_split(data), data)
    assert deviation(np.where(applies, y, -1), folds) == 0


@pytest.mark.parametrize("seed", range(5))
def test_group_is_in_exactly_one_fold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = np.floor(40 * rng.random(300) ** 1.5).astype(int)
    data = dataset(*correlated(300, seed=seed), groups=groups)
    folds = folds_of(make_split(data, seed=seed), data)
    assert all(len(set(folds[groups == group])) == 1 for group in groups)
    worst, *naive = (
        sum(deviation(data.tasks[f"t{i}"].y, f) for i in range(4))
        for f in [folds, *((np.arange(40) % 5)[rng.permutation(40)][groups] for _ in range(20))]
    )
    assert worst < 0.7 * np.mean(naive) and worst < np.quantile(naive, 0.1)
    assert np.ptp(np.bincount(folds)) <= 6  # of 60 rows a fold


def test_another_seed_divides_the_groups_otherwise() -> None:
    groups = np.floor(40 * np.random.default_rng(0).random(300) ** 1.5).astype(int)
    data = dataset(*correlated(300, seed=0), groups=groups)
    together = [folds[:, None] == folds for folds in (folds_of(make_split(data, seed=seed), data) for seed in (0, 1))]
    assert (together[0] & together[1]).sum() < together[0].sum() / 2


def test_no_fold_is_empty_with_as_many_groups_as_folds() -> None:
    groups = [0] * 90 + [1] * 7 + [2, 3, 4]
    data = dataset(task("a", np.arange(100) % 3), groups=groups)
    assert set(folds_of(make_split(data), data)) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("groups", [None, np.arange(200) // 3])
def test_the_row_order_changes_nothing(groups: Any) -> None:
    data = dataset(*correlated(200, seed=3), groups=groups)
    split = make_split(data, seed=7)
    again = make_split(shuffled(data), seed=7)
    assert again == split and again.fingerprint == split.fingerprint
    other = make_split(data, seed=8)
    assert other.roles != split.roles and other.fingerprint != split.fingerprint


def test_roles_stay_what_they_were_in_the_first_version() -> None:
    data = dataset(*correlated(30, seed=0), groups=np.arange(30) // 2)
    assert "".join(make_split(data).roles.values()) == "441122110000224433443322003311"


def test_global_randomness_is_left_alone() -> None:
    before = np.random.get_state()[1].tobytes()  # type: ignore[index]  # noqa: NPY002
    make_split(dataset(*correlated(50, seed=0)))
    assert np.random.get_state()[1].tobytes() == before  # type: ignore[index]  # noqa: NPY002


def test_outer_pairs_cover_every_row_once() -> None:
    data = dataset(*correlated(103, seed=0), given=["train"] * 80 + ["test"] * 13 + ["ood"] * 10)
    split = make_split(data, n_folds=4)
    pairs = split.outer(data.ids)
    assert len(pairs) == 4
    assert sorted(np.concatenate([score for _, score in pairs])) == list(range(80))
    for train, score in pairs:
        assert sorted([*train, *score]) == list(range(80))
    assert list(split.fitting(data.ids)) == list(range(80))
    assert list(split.held_out(data.ids)) == list(range(80, 93))
    assert list(split.held_out(data.ids, "ood")) == list(range(93, 103))
    assert split.held_out_names == ["test", "ood"]
    pairs = split.held_out_pairs(data.ids)
    assert {name: list(rows) for name, (_, rows) in pairs.items()} == {
        "test": list(range(80, 93)),
        "ood": list(range(93, 103)),
    }
    assert all(list(fitted) == list(split.fitting(data.ids)) for fitted, _ in pairs.values())
    assert len(split.held_out(data.ids, "absent")) == len(split.held_out(data.ids, "0")) == 0


def test_positions_follow_the_ids_asked_for() -> None:
    data = dataset(task("a", np.arange(20) % 2), given=["test"] + ["train"] * 19)
    split = make_split(data, n_folds=2)
    ids = data.ids[::-1][:7]
    for (train, score), fold in zip(split.outer(ids), "01", strict=True):
        assert [split.roles[id_] for id_ in ids[score]] == [fold] * len(score)
        assert all(split.roles[id_] != fold for id_ in ids[train]) and len(train) + len(score) == 7
    assert list(split.held_out(data.ids[::-1])) == [19]


def test_a_given_val_set_is_kept_and_is_the_only_pair() -> None:
    data = dataset(task("a", np.arange(6) % 2), given=["val", "train", "test", "train", "val", "ood"])
    split = make_split(data)
    assert list(split.roles.values()) == data.given_split.tolist()  # type: ignore[union-attr]
    assert split.n_folds == 0
    [(train, score)] = split.outer(data.ids)
    assert list(train) == [1, 3] and list(score) == [0, 4]
    assert list(split.fitting(data.ids)) == [0, 1, 3, 4]
    assert make_split(data, seed=5).fingerprint == split.fingerprint


def test_a_class_with_one_member_does_no_harm() -> None:
    y = np.array([0] * 30 + [1])
    folds = folds_of(make_split(data := dataset(task("a", y))), data)
    assert sorted(np.bincount(folds)) == [6, 6, 6, 6, 7]


def test_rows_without_any_task_are_divided_too() -> None:
    folds = folds_of(make_split(data := dataset(n=23)), data)
    assert sorted(np.bincount(folds)) == [4, 4, 5, 5, 5]


def test_a_given_split_that_cuts_groups_is_refused() -> None:
    groups = [f"g{i // 2}" for i in range(14)]
    given = ["train", "test"] * 7
    with pytest.raises(InputError, match=r"cuts 7 groups \('g0', 'g1', 'g2', 'g3', 'g4', …; 'g0' is in test, train\)"):
        make_split(dataset(n=14, groups=groups, given=given))


def test_a_held_out_set_named_like_a_fold_is_refused() -> None:
    with pytest.raises(InputError, match="split '1' is no name for a held-out set"):
        make_split(dataset(n=4, given=["train", "train", "1", "1"]))


def test_a_given_split_without_train_is_refused() -> None:
    with pytest.raises(InputError, match="no row is 'train' in the split, only 'test', 'val'"):
        make_split(dataset(n=4, given=["val", "val", "test", "test"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"n_folds": 5},
            "5 folds, the default, need as many groups, and there are only 4; use 4 or fewer .heads --folds.",
        ),
        ({"n_folds": 1}, "1 folds cannot be both fitted and scored; use at least 2"),
        ({"n_folds": 4, "seed": -1}, "seed -1 is negative"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_split(dataset(n=12, groups=np.arange(12) // 3), **options)


def test_more_folds_than_rows_are_refused() -> None:
    with pytest.raises(InputError, match="2 folds need as many rows, and there are only 1; add rows"):
        make_split(dataset(n=3, given=["train", "test", "test"]), n_folds=2)


def test_185_rows_take_milliseconds() -> None:
    data = dataset(*correlated(185, seed=0))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        make_split(data)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("n_groups", [None, 60_000])
def test_200_000_rows_take_seconds(tmp_path: Path, n_groups: int | None) -> None:
    groups = None if n_groups is None else np.random.default_rng(0).integers(n_groups, size=200_000)
    data = dataset(*correlated(200_000, seed=0), groups=groups, folder=tmp_path)
    start = time.perf_counter()
    split = open_split(data)
    made = time.perf_counter()
    assert open_split(data) == split
    opened = time.perf_counter()
    folds = folds_of(split, data)
    assert np.ptp(np.bincount(folds)) <= 5
    assert max(deviation(data.tasks[name].y, folds) for name in ("t0", "t1", "t2", "t3")) <= 5
    assert made - start < 20 and opened - made < 10
    task = data.tasks["t3"]
    inner = inner_folds([task.y], data.groups, split.outer(data.ids)[0][0], seed=0)
    assert len(inner) == 4 and time.perf_counter() - opened < 10
