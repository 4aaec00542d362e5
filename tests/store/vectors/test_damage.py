"""Damaged chunks are found, named, dropped and filled again."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from store import StoreError
from store.vectors.features import FeatureStore
from store.vectors.files import LocalFiles
from tests.store.vectors.promises import (
    SPACE,
    assert_true_rows,
    chunk,
    contents,
    filled,
    flip_bit,
    make_keys,
    vectors_of,
)


def flip_checksum(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_checksum(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped bit": (flip_bit, "fails its checksum"),
    "flipped checksum": (flip_checksum, "fails its checksum"),
    "truncated": (cut, "is cut short"),
    "without checksum": (cut_checksum, "has a wrong size"),
    "emptied": (empty, "is cut short"),
    "lengthened": (lengthen, "has a wrong size"),
    "deleted": (Path.unlink, "is missing"),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("array", ["vectors", "keys"])
@pytest.mark.parametrize("number", [1, 2])
def test_damage_is_named_dropped_and_filled_again(tmp_path: Path, kind: str, array: str, number: int) -> None:
    url = tmp_path / "features.zarr"
    _, keys = filled(url)
    sound = contents(url)
    do, reason = DAMAGE[kind]
    do(chunk(url, array, number))
    name = f"{array}/c.{number}.0"
    features = FeatureStore(url)
    with pytest.raises(StoreError, match=rf"image@texture.*{name} {reason}.*store repair.*extract"):
        features.read(SPACE, keys)
    if array == "vectors" and "flipped" in kind:
        assert features.missing(SPACE, keys) == [], "seen by reading the bytes only: by `verify` and by whoever reads"
    else:
        with pytest.raises(StoreError, match=rf"image@texture.*{name} {reason}.*store repair.*extract"):
            features.missing(SPACE, keys)
    assert [(d["space"], d["chunk"], d["reason"].split(" (")[0]) for d in features.verify()] == [
        ("image@texture", name, reason)
    ]
    assert [d["chunk"] for d in features.repair()] == [name]
    assert features.verify() == [] == features.repair()
    lost = keys[number * 1024 : (number + 1) * 1024]
    assert features.missing(SPACE, keys) == lost, "exactly the damaged chunk's rows are gone"
    untouched = {name: data for name, data in sound.items() if f"c.{number}.0" not in name}
    assert untouched.items() <= contents(url).items()
    assert features.write(SPACE, lost, vectors_of(lost)) == len(lost)
    assert contents(url) == sound


def test_all_that_a_listing_shows_is_counted(tmp_path: Path) -> None:
    features, keys = filled(tmp_path / "features.zarr", 3000)
    cut(chunk(tmp_path / "features.zarr", "vectors", 2))
    chunk(tmp_path / "features.zarr", "vectors", 0).unlink()
    with pytest.raises(
        StoreError, match=r"vectors/c\.0\.0 is missing \(and 1 more are missing or of a wrong size\); `st"
    ):
        features.missing(SPACE, keys)
    assert [found["chunk"] for found in features.repair()] == ["vectors/c.0.0", "vectors/c.2.0"]
    assert features.missing(SPACE, keys) == keys[:1024] + keys[2048:]


def test_a_chunk_that_a_repair_drops_meanwhile_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = tmp_path / "features.zarr"
    features, keys = filled(url, 2048)
    flip_bit(chunk(url, "vectors", 1))
    sizes = LocalFiles.sizes

    def repair_first(self: LocalFiles, folder: str) -> object:
        monkeypatch.setattr(LocalFiles, "sizes", sizes)
        FeatureStore(url).repair()
        return sizes(self, folder)

    monkeypatch.setattr(LocalFiles, "sizes", repair_first)
    assert features.missing(SPACE, keys) == keys[1024:]


def exchange(one: Path, other: Path) -> None:
    kept = one.read_bytes()
    shutil.copyfile(other, one)
    other.write_bytes(kept)


@pytest.mark.parametrize("array", ["vectors", "keys"])
def test_exchanged_files_are_named_dropped_and_filled_again(tmp_path: Path, array: str) -> None:
    url = tmp_path / "features.zarr"
    features, keys = filled(url, 3000)
    features.read(SPACE, keys[:2000])
    exchange(chunk(url, array, 0), chunk(url, array, 1))
    reason = r"image@texture.*vectors/c\.[01]\.0 holds other vectors than its keys'.*store repair.*extract"
    for asked in (keys[:2000], keys[5:7], keys[:1024], keys[1500:2040]):
        for opened in (features, FeatureStore(url)):
            with pytest.raises(StoreError, match=reason):
                opened.read(SPACE, asked)
    np.testing.assert_array_equal(features.read(SPACE, keys[2048:]), vectors_of(keys[2048:]))
    assert [found["chunk"] for found in features.verify()] == ["vectors/c.0.0", "vectors/c.1.0"]
    assert [found["chunk"] for found in features.repair()] == ["vectors/c.0.0", "vectors/c.1.0"]
    assert features.missing(SPACE, keys) == keys[:2048]
    assert features.write(SPACE, keys, vectors_of(keys)) == 2048
    assert assert_true_rows(FeatureStore(url), keys) == keys
    assert features.verify() == []


def test_a_file_of_another_space_is_noticed(tmp_path: Path) -> None:
    url = tmp_path / "features.zarr"
    features, keys = filled(url, 10)
    other = replace(SPACE, weights_digest="v2")
    features.write(other, keys, -vectors_of(keys))
    shutil.copyfile(url / other.fingerprint[:16] / "vectors" / "c.0.0", chunk(url, "vectors", 0))
    with pytest.raises(StoreError, match="holds other vectors than its keys'"):
        features.read(SPACE, keys)
    assert [found["chunk"] for found in features.verify()] == ["vectors/c.0.0"]


def test_an_open_store_notices_damage_done_later(tmp_path: Path) -> None:
    url = tmp_path / "features.zarr"
    features, keys = filled(url)
    np.testing.assert_array_equal(features.read(SPACE, keys), vectors_of(keys))
    flip_bit(chunk(url, "vectors", 0))
    with pytest.raises(StoreError, match=r"vectors/c\.0\.0 fails its checksum"):
        features.read(SPACE, keys[:1])
    np.testing.assert_array_equal(features.read(SPACE, keys[1024:]), vectors_of(keys[1024:]))


def test_new_rows_go_elsewhere_when_the_last_chunk_is_damaged(tmp_path: Path) -> None:
    url = tmp_path / "features.zarr"
    features, keys = filled(url, 100)
    flip_bit(chunk(url, "vectors", 0))
    more = make_keys(150)[100:]
    assert features.write(SPACE, more, vectors_of(more)) == 50
    np.testing.assert_array_equal(features.read(SPACE, more), vectors_of(more))
    assert [d["chunk"] for d in features.verify()] == ["vectors/c.0.0"]
    features.repair()
    assert features.missing(SPACE, make_keys(150)) == keys
