"""Repairing and sweeping out take what they are to take, whoever reads or writes meanwhile."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

import store.vectors.features
from store import StoreError
from store.vectors.features import FeatureStore
from tests.store.vectors.promises import FOLDER, SPACE, chunk, filled, flip_bit, make_keys, vectors_of


def test_a_repair_makes_no_store_of_another_folder(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "0123456789abcdef" / "vectors", shape=(4, 4), dtype="float32")
    before = sorted(tmp_path.rglob("*"))
    for action in (FeatureStore(tmp_path).verify, FeatureStore(tmp_path).repair):
        with pytest.raises(StoreError, match=r"is no feature store: expected a zarr\.json that says so\. Name another"):
            action()
    assert sorted(tmp_path.rglob("*")) == before


def test_what_never_became_a_space_goes_with_gc_and_a_lost_space_by_its_fingerprint(tmp_path: Path) -> None:
    url = tmp_path / "features.zarr"
    features, keys = filled(url, 5)
    features.write(replace(SPACE, weights_digest="v2"), keys, vectors_of(keys))
    claims = url / "0123456789abcdef" / "keys" / ".claims"
    claims.parent.mkdir(parents=True)
    claims.touch()
    (url / "zarr.json.0123.partial").write_text("{")
    (url / "others.partial").touch()
    (url / FOLDER / "zarr.json").unlink()
    features = FeatureStore(url)
    assert [one["fingerprint"] for one in features.verify()] == [FOLDER]
    done = features.gc()
    assert (done["dropped"], done["files"]) == ([], ["0123456789abcdef", "zarr.json.0123.partial"])
    assert (
        not claims.parent.parent.exists()
        and (url / FOLDER / "keys" / "c.0.0").exists()
        and (url / "others.partial").exists()
    )
    done = features.gc(drop=[FOLDER[:6]])
    assert done["dropped"] == ["a space without a description"] and done["bytes"] > 5 * 64 * 4
    assert features.verify() == [] and not (url / FOLDER).exists()
    assert features.missing(SPACE, keys) == keys and len(features.spaces()) == 1


@pytest.mark.parametrize("name", [FOLDER, SPACE.fingerprint])
def test_a_space_with_a_damaged_description_can_be_dropped(tmp_path: Path, name: str) -> None:
    features, _ = filled(tmp_path / "features.zarr", 5)
    (tmp_path / "features.zarr" / FOLDER / "zarr.json").write_text("{")
    assert features.gc(drop=[name])["dropped"] == ["a space without a description"]
    assert FeatureStore(tmp_path / "features.zarr").spaces() == []


def test_claims_and_locks_outlive_the_folder_they_lie_in(tmp_path: Path) -> None:
    features, keys = FeatureStore(tmp_path / "features.zarr"), make_keys(5)
    features.claim(SPACE, keys)
    features.release(SPACE, keys)
    FeatureStore(tmp_path / "features.zarr").gc()
    assert features.claim(SPACE, keys) == (keys, [])
    features.release(SPACE, keys)


def test_a_repair_never_makes_an_open_store_serve_another_rows_vector(tmp_path: Path) -> None:
    url = tmp_path / "features.zarr"
    reader, keys = filled(url, 1024)
    reader.read(SPACE, keys)
    flip_bit(chunk(url, "vectors", 0))
    writer, others = FeatureStore(url), make_keys(2048)[1024:]
    writer.repair()
    writer.write(SPACE, others, vectors_of(others))
    with pytest.raises(StoreError, match="no vector for 1024 of 1024"):
        reader.read(SPACE, keys)
    np.testing.assert_array_equal(reader.read(SPACE, others), vectors_of(others))


def test_rows_that_move_while_they_are_read_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = tmp_path / "features.zarr"
    reader, keys = filled(url, 1024)
    gather = store.vectors.features._gather

    def swap_then_gather(*arguments: object) -> object:
        monkeypatch.setattr(store.vectors.features, "_gather", gather)
        flip_bit(chunk(url, "vectors", 0))
        writer = FeatureStore(url)
        writer.repair()
        writer.write(SPACE, keys[::-1], vectors_of(keys[::-1]))
        return gather(*arguments)

    monkeypatch.setattr(store.vectors.features, "_gather", swap_then_gather)
    np.testing.assert_array_equal(reader.read(SPACE, keys), vectors_of(keys))
