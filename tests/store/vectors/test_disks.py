"""Stores of others, and disks that are full, read-only or fail."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from store import StoreError
from store.vectors.features import FeatureStore
from store.vectors.files import LocalFiles
from tests.store.vectors.promises import (
    FOLDER,
    SPACE,
    assert_true_rows,
    contents,
    filled,
    make_keys,
    vectors_of,
)

# --- foreign stores ---------------------------------------------------------------------------------------------------


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    url = tmp_path / "features.zarr"
    filled(url, 3)
    root = url / "zarr.json"
    root.write_text(root.read_text().replace('"embedonce_schema_version": 2', '"embedonce_schema_version": 3'))
    with pytest.raises(StoreError, match="schema version 3, expected 2: use the embedonce that wrote it"):
        FeatureStore(url).spaces()


def test_another_spaces_folder_under_this_name_is_refused(tmp_path: Path) -> None:
    url = tmp_path / "features.zarr"
    features, keys = filled(url, 3)
    other = replace(SPACE, weights_digest="v2")
    features.write(other, keys, vectors_of(keys))
    shutil.rmtree(url / FOLDER)
    shutil.copytree(url / other.fingerprint[:16], url / FOLDER)
    with pytest.raises(StoreError, match="was changed: its fields have the fingerprint"):
        FeatureStore(url).read(SPACE, keys)


def test_a_description_changed_by_hand_is_refused(tmp_path: Path) -> None:
    url = tmp_path / "features.zarr"
    _, keys = filled(url, 3)
    path = url / FOLDER / "zarr.json"
    path.write_text(path.read_text().replace('"encoder": "texture"', '"encoder": "ngrams"'))
    with pytest.raises(StoreError, match="was changed"):
        FeatureStore(url).read(SPACE, keys)


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for action in (FeatureStore(tmp_path).spaces, lambda: filled(tmp_path, 2)):
        with pytest.raises(StoreError, match="is no feature store"):
            action()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_in_place_of_the_store_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "features.zarr"
    file.write_text("mine")
    with pytest.raises(StoreError, match="is no feature store"):
        FeatureStore(file).spaces()


# --- disks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_clear_line_and_harms_nothing(small_disk: Path) -> None:
    url, keys = small_disk / "features.zarr", make_keys(9000)
    features = FeatureStore(url)
    with pytest.raises(StoreError, match=r"cannot write to the store .*: no space is left") as caught:
        features.write(SPACE, keys, vectors_of(keys))
    assert "\n" not in str(caught.value)
    found = assert_true_rows(FeatureStore(url), keys)
    assert found
    assert FeatureStore(url).verify() == []
    assert not list(url.rglob("*.partial"))
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert features.write(SPACE, keys, vectors_of(keys)) == 9000 - len(found)
    assert assert_true_rows(FeatureStore(url), keys) == keys


def test_a_read_only_disk_is_one_clear_line_and_can_be_read(small_disk: Path) -> None:
    url, keys = small_disk / "features.zarr", make_keys(20)
    FeatureStore(url).write(SPACE, keys[:10], vectors_of(keys[:10]))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    features = FeatureStore(url)
    for action in (
        lambda: features.write(SPACE, keys, vectors_of(keys)),
        lambda: features.fail(SPACE, {keys[11]: "empty"}),
        lambda: features.claim(SPACE, keys),
        lambda: features.gc(),
        lambda: features.gc(drop=["image@texture"]),
    ):
        with pytest.raises(StoreError, match=r"cannot write to the store .*: it is read-only"):
            action()
    assert features.missing(SPACE, keys) == keys[10:]
    np.testing.assert_array_equal(features.read(SPACE, keys[:10]), vectors_of(keys[:10]))


def test_a_disk_that_cannot_be_read_is_no_reason_to_drop_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = tmp_path / "features.zarr"
    _, keys = filled(url, 10)
    features, before, real_open = FeatureStore(url), contents(url), LocalFiles.open

    def fail(self: LocalFiles, name: str) -> object:
        if "vectors/c." in name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real_open(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "open", fail)
        for action in (lambda: features.read(SPACE, keys), features.verify, features.repair):
            with pytest.raises(
                StoreError, match=r"cannot read .*vectors/c\.0\.0 .*Input/output error.*Nothing was changed"
            ):
                action()
    assert contents(url) == before
    np.testing.assert_array_equal(features.read(SPACE, keys), vectors_of(keys))


@pytest.mark.parametrize("call", ["listdir", "scandir"])
def test_a_folder_that_cannot_be_listed_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    features, keys = filled(tmp_path / "features.zarr", 10)

    def refuse(path: Path) -> object:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    actions = {"listdir": [features.spaces, features.verify], "scandir": [lambda: features.missing(SPACE, keys)]}
    monkeypatch.setattr(os, call, refuse)
    for action in actions[call]:
        with pytest.raises(
            StoreError, match=r"^cannot read .*the store .*features\.zarr: Permission denied\. Nothing was"
        ):
            action()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_write_that_fails_on_its_way_to_the_disk_commits_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    features, _ = filled(tmp_path / "features.zarr", 10)
    more = make_keys(20)

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StoreError, match="no space is left on its disk: free some"):
            features.write(SPACE, more, vectors_of(more))
    assert not list((tmp_path / "features.zarr").rglob("*.partial"))
    assert features.missing(SPACE, more) == more[10:]
    assert features.write(SPACE, more, vectors_of(more)) == 10
    assert assert_true_rows(features, more) == more


def test_a_store_opened_read_only_is_never_written(tmp_path: Path) -> None:
    url = tmp_path / "features.zarr"
    _, keys = filled(url, 10)
    before = contents(url)
    features, more = FeatureStore(url, read_only=True), make_keys(20)
    for action in (
        lambda: features.write(SPACE, more, vectors_of(more)),
        lambda: features.fail(SPACE, {more[11]: "empty"}),
        features.repair,
        features.gc,
    ):
        with pytest.raises(StoreError, match="opened read-only"):
            action()
    assert contents(url) == before
    np.testing.assert_array_equal(features.read(SPACE, keys), vectors_of(keys))
