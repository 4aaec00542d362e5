import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store.dataset import Dataset
from store.errors import InputError
from store.merging import merge_groups
from store.split_file import open_split, remake_split
from tests.store.splits import correlated, dataset, shuffled, task


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
