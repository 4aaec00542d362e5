"""Stores of schema version 1 are read, filled up and repaired."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from store.vectors.features import FeatureStore
from tests.store.vectors.promises import FOLDER, SPACE, assert_true_rows, chunk, flip_bit, make_keys, vectors_of


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    """A store of 30 rows and a failure, as schema version 1 wrote it."""
    shutil.unpack_archive(Path(__file__).with_name("version_1.zip"), tmp_path / "old.zarr")
    return tmp_path / "old.zarr"


def test_a_store_of_version_1_is_read_verified_and_filled_up(version_1: Path) -> None:
    features, keys = FeatureStore(version_1), make_keys(1500)
    assert features.failures(SPACE) == {keys[30]: "empty"}
    assert assert_true_rows(features, keys) == keys[:30]
    assert features.write(SPACE, keys, vectors_of(keys)) == 1470
    assert assert_true_rows(FeatureStore(version_1), keys) == keys
    assert chunk(version_1, "keys", 1).stat().st_size == 1024 * 32 + 4, "its layout stays"
    assert FeatureStore(version_1).verify() == []
    flip_bit(chunk(version_1, "vectors", 1))
    assert [found["chunk"] for found in FeatureStore(version_1).repair()] == ["vectors/c.1.0"]
    assert FeatureStore(version_1).missing(SPACE, keys) == keys[1024:]


@pytest.mark.parametrize("text", ["", "{}", '{"shape": [1024, 36]}'])
def test_a_damaged_description_of_version_1_is_repaired_without_losing_a_row(version_1: Path, text: str) -> None:
    path = version_1 / FOLDER / "keys" / "zarr.json"
    before = path.read_bytes()
    path.write_text(text)
    assert [found["chunk"] for found in FeatureStore(version_1).verify()] == ["keys/zarr.json"]
    assert [found["chunk"] for found in FeatureStore(version_1).repair()] == ["keys/zarr.json"]
    assert path.read_bytes() == before
    assert assert_true_rows(FeatureStore(version_1), make_keys(30)) == make_keys(30)


def test_a_new_space_in_a_store_of_version_1_is_told_apart_by_its_sums(version_1: Path) -> None:
    features, keys, other = FeatureStore(version_1), make_keys(30), replace(SPACE, weights_digest="v2")
    root = version_1 / "zarr.json"
    assert '"embedonce_schema_version": 1' in root.read_text()
    features.write(other, keys, vectors_of(keys))
    assert '"embedonce_schema_version": 2' in root.read_text(), "an earlier embedonce refuses it"
    assert (version_1 / other.fingerprint[:16] / "keys" / "c.0.0").stat().st_size == 1024 * 36 + 4
    for space in (SPACE, other):
        np.testing.assert_array_equal(FeatureStore(version_1).read(space, keys), vectors_of(keys))
    assert FeatureStore(version_1).verify() == []
