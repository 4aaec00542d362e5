import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store.dataset import Dataset
from store.errors import InputError
from store.folds import assign_folds, inner_folds, label_codes
from store.merging import merge_groups
from store.spec import parse_spec
from store.split import Split, make_split, open_split, remake_split
from store.task import Task

SPEC = parse_spec({"name": "made", "table": "labels.csv"}, "test")


def task(name: str, y: Any) -> Task:
    y = np.asarray(y)
    whole = np.issubdtype(y.dtype, np.integer)
    y = y if whole or y.ndim == 2 else y[:, None]
    n_columns = 1 if whole else y.shape[1]
    classes = tuple(f"c{c}" for c in range(int(y.max()) + 1)) if whole else ()
    kind: Any = "classification" if whole else "regression"
    columns = tuple(f"{name}{i}" for i in range(n_columns))
    return Task(name, kind, columns, classes, y, None, np.ones(len(y), dtype=bool), np.ones(n_columns))


def dataset(
    *tasks: Task, groups: Any = None, given: Any = None, n: int | None = None, folder: Path = Path()
) -> Dataset:
    n = len(tasks[0].y) if n is None else n
    ids = np.array([f"row{i:06d}" for i in range(n)])
    text = [None if x is None else np.asarray(x).astype(str) for x in (groups, given)]
    return Dataset(SPEC, folder, ids, text[0], {}, {}, {}, {t.name: t for t in tasks}, text[1])


def shuffled(data: Dataset, seed: int = 0) -> Dataset:
    order = np.random.default_rng(seed).permutation(data.n_rows)
    tasks = {n: replace(t, y=t.y[order], applies=t.applies[order]) for n, t in reversed(list(data.tasks.items()))}
    groups, given = (None if x is None else x[order] for x in (data.groups, data.given_split))
    return replace(data, ids=data.ids[order], tasks=tasks, groups=groups, given_split=given)


def correlated(n: int, *, seed: int, n_tasks: int = 5, missing: float = 0.1) -> list[Task]:
    """Unbalanced, correlated classifications, as real tables have them, and the last task a regression."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=n)
    tasks = []
    for i in range(n_tasks - 1):
        score = latent / 2 + rng.normal(size=n)
        y = np.searchsorted(np.quantile(score, np.sort(rng.random(1 + i))), score)
        tasks.append(task(f"t{i}", np.where(rng.random(n) < missing, -1, y)))
    return [*tasks, task("size", np.where(rng.random(n) < missing, np.nan, np.exp(latent)))]


def folds_of(split: Split, data: Dataset) -> np.ndarray[Any, Any]:
    return np.array([int(split.roles[id_]) for id_ in data.ids])


def deviation(y: np.ndarray[Any, Any], folds: np.ndarray[Any, Any], n_folds: int = 5) -> float:
    """The largest distance of a class's count in a fold from its share."""
    table = np.zeros((int(y.max()) + 1, n_folds))
    np.add.at(table, (y[y >= 0], folds[y >= 0]), 1)
    return float(np.abs(table - table.sum(axis=1, keepdims=True) / n_folds).max())


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
    assert split.held_out_names == ["ood", "test"]
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
        ({"n_folds": 5}, "5 folds asked for, but there are only 4 groups to divide; use 4 folds or fewer"),
        ({"n_folds": 1}, "1 folds asked for; use at least 2"),
        ({"n_folds": 4, "seed": -1}, "seed -1 is negative"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_split(dataset(n=12, groups=np.arange(12) // 3), **options)


def test_more_folds_than_rows_are_refused() -> None:
    with pytest.raises(InputError, match="only 1 rows to divide; add rows"):
        make_split(dataset(n=3, given=["train", "test", "test"]), n_folds=2)


def test_the_file_is_made_once_and_reused(tmp_path: Path) -> None:
    data = dataset(*correlated(60, seed=0), groups=np.arange(60) // 2, folder=tmp_path)
    split = open_split(data, n_folds=3, seed=4)
    written = (tmp_path / "splits.json").read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["splits.json"]
    assert json.loads(written)["schema_version"] == 2
    assert open_split(shuffled(data)) == open_split(data, n_folds=3, seed=4) == split
    assert (tmp_path / "splits.json").read_bytes() == written
    assert split.n_folds == 3 and split.seed == 4


def test_new_labels_leave_the_split_as_it_is(tmp_path: Path) -> None:
    split = open_split(dataset(task("a", np.arange(20) % 2), folder=tmp_path))
    assert open_split(dataset(task("a", np.arange(20) % 3), folder=tmp_path)) == split


def test_another_number_of_folds_than_the_file_was_made_with_is_refused(tmp_path: Path) -> None:
    data = dataset(n=20, folder=tmp_path)
    open_split(data)
    with pytest.raises(InputError, match=r"made with 5 folds, not 3; leave the option out, or delete splits\.json"):
        open_split(data, n_folds=3)


def test_a_seed_is_for_a_new_split_only(tmp_path: Path) -> None:
    data = dataset(n=20, folder=tmp_path)
    first = open_split(data, seed=3)
    assert first.seed == 3 and open_split(data, seed=4) == first


def test_looking_at_a_split_leaves_the_folder_as_it_is(tmp_path: Path) -> None:
    data = dataset(n=20, folder=tmp_path)
    seen = open_split(data, keep=False)
    assert not (tmp_path / "splits.json").exists() and open_split(data) == seen


def test_folds_asked_for_beside_a_val_set_are_refused_and_a_seed_is_not(tmp_path: Path) -> None:
    data = dataset(n=3, given=["train", "val", "test"], folder=tmp_path)
    with pytest.raises(InputError, match="3 folds asked for, but the table gives 'train' and 'val'"):
        open_split(data, n_folds=3)
    assert not list(tmp_path.iterdir())
    assert open_split(data, seed=1) == open_split(data, seed=2)


def changed(tmp_path: Path) -> list[tuple[Dataset, str]]:
    groups = np.array([f"g{i // 2}" for i in range(20)])
    data = dataset(n=20, groups=groups, folder=tmp_path)
    more = dataset(n=28, groups=[f"g{i // 2}" for i in range(28)], folder=tmp_path)
    fewer = replace(data, ids=data.ids[1:], groups=groups[1:])
    renamed = replace(data, ids=np.where(data.ids == "row000003", "x", data.ids))
    moved = replace(data, groups=np.where(groups == "g4", "g5", groups))
    return [
        (more, r"8 rows new \('row000020', 'row000021', 'row000022', 'row000023', 'row000024', …\)"),
        (fewer, r"1 row gone \('row000000'\)"),
        (renamed, r"1 row new \('x'\), 1 row gone \('row000003'\)"),
        (moved, r"2 rows of another group \('row000008', 'row000009'\)"),
        (replace(data, groups=None), "the group column is gone"),
        (replace(data, given_split=np.array(["train"] * 20)), "the given split column is new"),
    ]


@pytest.mark.parametrize("case", range(6))
def test_changed_rows_or_groups_are_refused(tmp_path: Path, case: int) -> None:
    open_split(dataset(n=20, groups=[f"g{i // 2}" for i in range(20)], folder=tmp_path))
    before = (tmp_path / "splits.json").read_bytes()
    data, message = changed(tmp_path)[case]
    with pytest.raises(InputError, match=f"no longer fits the dataset: {message}; correct the table, or delete splits"):
        open_split(data)
    assert (tmp_path / "splits.json").read_bytes() == before


def test_a_changed_given_split_is_refused(tmp_path: Path) -> None:
    open_split(dataset(n=12, given=["train"] * 10 + ["test"] * 2, folder=tmp_path))
    with pytest.raises(InputError, match=r"1 row of another given split \('row000009'\)"):
        open_split(dataset(n=12, given=["train"] * 9 + ["test"] * 3, folder=tmp_path))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["roles"].__setitem__(0, str(1 - int(c["roles"][0]))), "is damaged or was changed by hand"),
        (lambda c: c["ids"].pop(), "is damaged or was changed by hand"),
        (lambda c: c.update(schema_version=3), "is no split of this version \\(schema_version"),
        (lambda c: c.pop("roles"), "is no split of this version \\(roles: Field required"),
        (lambda c: c.update(digest="0"), "no longer fits the dataset: the file is damaged"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, edit: Any, message: str) -> None:
    data = dataset(n=10, folder=tmp_path)
    open_split(data, n_folds=2)
    content = json.loads((tmp_path / "splits.json").read_text())
    edit(content)
    (tmp_path / "splits.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        open_split(data)


@pytest.mark.parametrize("content", [b"", b'{"schema_version": 1', b"\xff\xfe"])
def test_a_file_cut_short_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "splits.json").write_bytes(content)
    with pytest.raises(InputError, match="is no split of this version"):
        open_split(dataset(n=10, folder=tmp_path))


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may write anywhere, so a mode would prove nothing
    with pytest.raises(InputError, match=r"splits.json: cannot be written \(permission denied\); make its folder") as e:
        open_split(dataset(n=10, folder=tmp_path))
    assert "\n" not in str(e.value)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write into a read-only folder")
def test_a_read_only_folder_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(InputError, match="cannot be written"):
        open_split(dataset(n=10, folder=tmp_path))


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="no space left on device"):
        open_split(dataset(n=10, folder=tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stratify", [True, False])
def test_inner_folds_divide_only_the_rows_given(stratify: bool) -> None:
    y = np.arange(120) % 3
    groups = np.arange(120) // 4
    rows = np.random.default_rng(0).permutation(np.flatnonzero(groups % 5 != 0))
    pairs = inner_folds(y, groups, rows, seed=1, stratify=stratify)
    assert len(pairs) == 4
    assert sorted(np.concatenate([val for _, val in pairs])) == sorted(rows)
    for fit, val in pairs:
        assert sorted([*fit, *val]) == sorted(rows)
        assert not set(groups[fit]) & set(groups[val])
    again = inner_folds(y, groups, rows, seed=1, stratify=stratify)
    assert all(np.array_equal(a, b) for p, q in zip(pairs, again, strict=True) for a, b in zip(p, q, strict=True))


def test_inner_folds_are_stratified_by_classes_and_by_values() -> None:
    rng = np.random.default_rng(0)
    rows = np.arange(0, 400, 2)
    y = rng.choice([-1, 0, 1, 2], p=[0.1, 0.7, 0.15, 0.05], size=400)
    for _, val in inner_folds(y, None, rows, seed=0, stratify=True):
        for c in range(3):
            assert abs((y[val] == c).sum() - (y[rows] == c).sum() / 4) < 1
    values = np.where(rng.random(400) < 0.1, np.nan, rng.lognormal(size=400))[:, None]
    top = values[:, 0] > np.nanquantile(values[rows, 0], 0.9)
    for _, val in inner_folds(values, None, rows, seed=0, stratify=True):
        assert 4 <= top[val].sum() <= 5


def test_inner_folds_are_as_many_as_the_groups_allow() -> None:
    y = np.arange(12) % 2
    assert len(inner_folds(y, np.arange(12) // 4, np.arange(12), seed=0, stratify=True)) == 3
    assert inner_folds(y, np.arange(12) // 4, np.arange(3), seed=0, stratify=True) == []


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
    inner = inner_folds(task.y, data.groups, split.outer(data.ids)[0][0], seed=0, stratify=True)
    assert len(inner) == 4 and time.perf_counter() - opened < 10


@pytest.mark.parametrize("groups", [None, np.repeat(np.arange(40), 3)])
def test_rows_with_the_same_labels_are_shared_out_equally(groups: Any) -> None:
    codes = np.tile([[0, 1], [1, 0], [1, 1]], (40, 1))
    folds = assign_folds(codes, groups, 4, seed=0)
    for labels in ([0, 1], [1, 0], [1, 1]):
        assert np.bincount(folds[(codes == labels).all(axis=1)]).tolist() == [10, 10, 10, 10]


def test_what_is_left_over_goes_where_it_is_wanted_most() -> None:
    codes = np.array([[0]] * 3 + [[1]] * 3 + [[2]] * 2)
    folds = assign_folds(codes, None, 4, seed=0)
    assert np.bincount(folds).tolist() == [2, 2, 2, 2]
    assert all(len(set(folds[codes[:, 0] == c])) == n for c, n in enumerate((3, 3, 2)))


def test_a_file_of_the_first_version_is_read(tmp_path: Path) -> None:
    data = dataset(task("a", np.arange(40) % 2), folder=tmp_path)
    split = open_split(data)
    content = json.loads((tmp_path / "splits.json").read_text())
    del content["merged"]
    (tmp_path / "splits.json").write_text(json.dumps(content | {"schema_version": 1}))
    assert open_split(data) == split and not split.merged


@pytest.mark.parametrize("grouped", [False, True])
def test_merged_rows_stand_in_one_fold_with_all_of_their_groups(tmp_path: Path, grouped: bool) -> None:
    data = dataset(task("a", np.arange(60) % 2), groups=np.arange(60) // 2 if grouped else None, folder=tmp_path)
    before = open_split(data)
    ids = data.ids.tolist()
    split = remake_split(data, [(ids[2], ids[40]), (ids[40], ids[51])])
    assert split.merged == ((ids[2], ids[40], ids[51]),) and split.fingerprint != before.fingerprint
    together = [2, 3, 40, 41, 50, 51] if grouped else [2, 40, 51]
    assert len({split.roles[ids[row]] for row in together}) == 1
    assert open_split(data) == split
    merged = merge_groups(data, split.merged).groups
    assert merged is not None and len(set(merged[together])) == 1 and len(set(merged)) == (28 if grouped else 58)


def test_families_merged_later_join_the_earlier_ones(tmp_path: Path) -> None:
    data = dataset(task("a", np.arange(60) % 2), folder=tmp_path)
    ids = data.ids.tolist()
    remake_split(data, [(ids[2], ids[40])])
    assert remake_split(data, [(ids[9], ids[2]), (ids[7], ids[8])]).merged == (
        (ids[2], ids[9], ids[40]),
        (ids[7], ids[8]),
    )


def test_a_family_across_a_given_split_is_an_input_error(tmp_path: Path) -> None:
    given = np.where(np.arange(60) < 40, "train", "test")
    data = dataset(task("a", np.arange(60) % 2), given=given, folder=tmp_path)
    with pytest.raises(InputError, match="the given split cuts 1 group"):
        remake_split(data, [(data.ids[3], data.ids[50])])


def test_merging_nothing_changes_nothing() -> None:
    data = dataset(task("a", np.arange(60) % 2))
    assert merge_groups(data, ()) is data
