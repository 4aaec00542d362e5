"""Lost and damaged descriptions of a store and its spaces are written again, and cost no row."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import zarr

from store import StoreError
from store.vectors.features import FeatureStore
from tests.store.vectors.promises import FOLDER, SPACE, chunk, contents, filled, flip_bit, make_keys, vectors_of


@pytest.mark.parametrize("name", ["keys/zarr.json", "vectors/zarr.json", "zarr.json", "failures/zarr.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"attributes": {}, "shape": [0, 3]}'])
def test_a_damaged_description_is_repaired_without_losing_a_row(tmp_path: Path, name: str, text: str) -> None:
    url = tmp_path / "features.zarr"
    features, keys = filled(url)
    features.fail(SPACE, {make_keys(2501)[-1]: "empty"})
    before = contents(url)
    (url / FOLDER / name).write_text(text)
    features = FeatureStore(url)
    assert [d["chunk"] for d in features.verify()] == [name]
    assert [d["chunk"] for d in features.repair()] == [name]
    assert features.write(SPACE, keys, vectors_of(keys)) == 0
    np.testing.assert_array_equal(features.read(SPACE, keys), vectors_of(keys))
    assert features.verify() == []
    assert features.spaces() == [SPACE]
    chunks = {name: data for name, data in before.items() if "/c." in name}
    assert chunks.items() <= contents(url).items()


def forget_the_copy(url: Path) -> None:
    """Make a store's space one of an earlier embedonce, which had no copy of the description."""
    path = url / FOLDER / "vectors" / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"attributes": {}}))


def assert_others_read(url: Path, keys: list[str]) -> None:
    """Zarr and tensorstore see the store's groups and vectors."""
    group = zarr.open_group(url, mode="r")
    assert sorted(dict(group.members(max_depth=None))) == [FOLDER, f"{FOLDER}/keys", f"{FOLDER}/vectors"]
    np.testing.assert_array_equal(group[f"{FOLDER}/vectors"][: len(keys)], vectors_of(keys))
    place = {"driver": "file", "path": str(url / FOLDER / "vectors")}
    opened = tensorstore.open({"driver": "zarr3", "kvstore": place}, open=True).result()
    np.testing.assert_array_equal(np.asarray(opened[: len(keys)].read().result()), vectors_of(keys))


GROUP = '{"zarr_format": 3, "node_type": "group", "attributes": %s}'


LOST: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "cut": lambda path: path.write_text("{"),
    "made by others": lambda path: path.write_text(GROUP % '{"mine": 1}'),
}


@pytest.mark.parametrize("kind", LOST)
def test_a_lost_description_of_a_space_is_written_again_from_its_copy(tmp_path: Path, kind: str) -> None:
    url, keys = tmp_path / "features.zarr", make_keys(1100)
    features = FeatureStore(url)
    for torch in ("2.11", "2.12"):
        features.write(SPACE, keys, vectors_of(keys), provenance={"torch": torch})
    description = url / FOLDER / "zarr.json"
    before, info = description.read_bytes(), features.info(SPACE)
    LOST[kind](description)
    features = FeatureStore(url)
    assert (features.spaces(), features.lost()) == ([], [FOLDER])
    if kind != "missing":  # then whoever knows the space writes it
        with pytest.raises(
            StoreError, match=rf"space {FOLDER}: zarr\.json .*; `store repair` mends that, then `extract`"
        ):
            features.missing(SPACE, keys)
    for found in (features.verify(), features.repair()):
        assert [(one["space"], one["chunk"]) for one in found] == [("image@texture", "zarr.json")]
    assert description.read_bytes() == before
    assert FeatureStore(url).info(SPACE) == info
    assert [entry["torch"] for entry in info["provenance"]] == ["2.11", "2.12"]
    assert FeatureStore(url).verify() == []
    assert_others_read(url, keys)


def test_who_knows_a_space_writes_its_lost_description_with_all_that_it_said(tmp_path: Path) -> None:
    url, keys = tmp_path / "features.zarr", make_keys(5)
    FeatureStore(url).write(SPACE, keys, vectors_of(keys), provenance={"torch": "2.11"})
    info = FeatureStore(url).info(SPACE)
    (url / FOLDER / "zarr.json").unlink()
    assert FeatureStore(url).missing(SPACE, keys) == []
    assert FeatureStore(url).info(SPACE) == info


def test_a_damaged_description_of_the_vectors_gets_its_copy_back(tmp_path: Path) -> None:
    url = tmp_path / "features.zarr"
    _, keys = filled(url, 5)
    path = url / FOLDER / "vectors" / "zarr.json"
    before = json.loads(path.read_text())
    path.write_text("{")
    assert [found["chunk"] for found in FeatureStore(url).repair()] == ["vectors/zarr.json"]
    assert json.loads(path.read_text()) == before
    (url / FOLDER / "zarr.json").unlink()
    FeatureStore(url).repair()
    assert FeatureStore(url).spaces() == [SPACE]
    assert_others_read(url, keys)


def test_a_space_of_an_earlier_embedonce_gets_a_copy_when_its_description_is_next_written(tmp_path: Path) -> None:
    url = tmp_path / "features.zarr"
    _, keys = filled(url, 5)
    forget_the_copy(url)
    assert FeatureStore(url).verify() == [], "none is no damage"
    FeatureStore(url).write(SPACE, keys, vectors_of(keys), provenance={"torch": "2.12"})
    (url / FOLDER / "zarr.json").unlink()
    FeatureStore(url).repair()
    assert FeatureStore(url).info(SPACE)["provenance"] == [{"torch": "2.12"}]


@pytest.mark.parametrize("kind", LOST)
@pytest.mark.parametrize("space_too", [False, True])
def test_a_lost_description_of_the_store_is_written_again(tmp_path: Path, kind: str, space_too: bool) -> None:
    url = tmp_path / "features.zarr"
    _, keys = filled(url)
    sound = contents(url)
    LOST[kind](url / "zarr.json")
    if space_too:
        (url / FOLDER / "zarr.json").unlink()
    features = FeatureStore(url)
    for action in (
        features.spaces,
        lambda: features.missing(SPACE, keys),
        lambda: features.read(SPACE, keys),
        lambda: features.write(SPACE, keys, vectors_of(keys)),
        lambda: features.claim(SPACE, keys),
        features.gc,
    ):
        with pytest.raises(
            StoreError, match=r"the store .*features\.zarr: zarr\.json .*; `store repair` mends that, then"
        ):
            action()
    for found in (features.verify(), features.repair()):
        assert [(one["space"], one["fingerprint"], one["chunk"]) for one in found] == [
            ("the store", "", "zarr.json"),
            *([("image@texture", FOLDER, "zarr.json")] if space_too else []),
        ]
    assert features.verify() == [] == FeatureStore(url).verify()
    assert FeatureStore(url).missing(SPACE, keys) == []
    assert contents(url) == sound
    assert_others_read(url, keys)
    if kind == "made by others":
        assert zarr.open_group(url, mode="r").attrs["mine"] == 1


@pytest.mark.parametrize("do", [lambda path: path.write_text("{"), Path.unlink], ids=["damaged", "missing"])
def test_what_lies_behind_a_lost_description_is_looked_at_and_kept(tmp_path: Path, do: Callable[[Path], None]) -> None:
    url = tmp_path / "features.zarr"
    _, keys = filled(url)
    do(url / FOLDER / "zarr.json")
    forget_the_copy(url)
    flip_bit(chunk(url, "vectors", 1))
    features = FeatureStore(url)
    found = features.verify()
    assert [one["chunk"] for one in found] == ["zarr.json", "vectors/c.1.0"]
    remedy = f"the next `extract` of its encoder writes it again, `store gc --drop {FOLDER}` deletes the space"
    assert found[0]["reason"].endswith(remedy) and found[0]["fingerprint"] == FOLDER
    assert [one["chunk"] for one in features.repair()] == ["zarr.json", "vectors/c.1.0"]
    assert [(one["chunk"], one["reason"]) for one in features.verify()] == [("zarr.json", f"is missing: {remedy}")]
    assert features.missing(SPACE, keys) == keys[1024:2048], "who knows the space brings it back"
    assert features.verify() == [] and features.spaces() == [SPACE]


def test_a_damaged_description_disables_no_other_space(tmp_path: Path) -> None:
    features, keys = filled(tmp_path / "features.zarr", 5)
    other = replace(SPACE, encoder="other")
    features.write(other, keys, vectors_of(keys))
    assert features.lost() == []
    (tmp_path / "features.zarr" / FOLDER / "zarr.json").write_text("{")
    features = FeatureStore(tmp_path / "features.zarr")
    assert (features.spaces(), features.lost(), features.find("image@other")) == ([other], [FOLDER], other)
    (tmp_path / "features.zarr" / FOLDER / "zarr.json").unlink()
    assert features.lost() == [FOLDER]


def test_rows_behind_two_lost_descriptions_are_kept(tmp_path: Path) -> None:
    url = tmp_path / "features.zarr"
    _, keys = filled(url)
    for name in ("zarr.json", "keys/zarr.json"):
        (url / FOLDER / name).unlink()
    assert FeatureStore(url).missing(SPACE, keys) == []


def test_a_reader_of_a_lost_space_writes_nothing(tmp_path: Path) -> None:
    url = tmp_path / "features.zarr"
    _, keys = filled(url, 5)
    (url / FOLDER / "zarr.json").unlink()
    np.testing.assert_array_equal(FeatureStore(url, read_only=True).read(SPACE, keys), vectors_of(keys))
    assert not (url / FOLDER / "zarr.json").exists()
