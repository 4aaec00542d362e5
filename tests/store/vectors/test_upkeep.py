"""Damage is found, named, dropped and filled again; stores of earlier versions too."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import zarr

import store.vectors.features
import store.vectors.locks
from store import StoreError
from store.vectors.features import FeatureStore
from store.vectors.files import LocalFiles
from tests.store.vectors.promises import FOLDER, SPACE, assert_true_rows, chunk, contents, filled, make_keys, vectors_of

# --- damage -----------------------------------------------------------------------------------------------------------


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


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


# --- stores of earlier versions ---------------------------------------------------------------------------------------


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


def test_a_repair_makes_no_store_of_another_folder(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "0123456789abcdef" / "vectors", shape=(4, 4), dtype="float32")
    before = sorted(tmp_path.rglob("*"))
    for action in (FeatureStore(tmp_path).verify, FeatureStore(tmp_path).repair):
        with pytest.raises(StoreError, match=r"is no feature store: expected a zarr\.json that says so\. Name another"):
            action()
    assert sorted(tmp_path.rglob("*")) == before


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


def test_claims_and_locks_outlive_the_folder_they_lie_in(tmp_path: Path) -> None:
    features, keys = FeatureStore(tmp_path / "features.zarr"), make_keys(5)
    features.claim(SPACE, keys)
    features.release(SPACE, keys)
    FeatureStore(tmp_path / "features.zarr").gc()
    assert features.claim(SPACE, keys) == (keys, [])
    features.release(SPACE, keys)


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
