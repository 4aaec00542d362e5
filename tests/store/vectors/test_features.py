"""The feature store: what goes in comes out, by space and by key."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import tensorstore
import zarr

from store import FeatureSpace, InputError, StoreError
from store.vectors.features import FeatureStore

DIM = 6
SPACE = FeatureSpace("image", "texture", DIM, "v1", {"size_px": 256}, convert="percentile_stretch")


def make_keys(n: int, *, start: int = 0) -> list[str]:
    return [hashlib.sha256(str(i).encode()).hexdigest() for i in range(start, start + n)]


def vectors_of(keys: list[str], dim: int = DIM) -> np.ndarray:
    """The vector that belongs to a key, so that a wrong one is seen: float32, (n, dim)."""
    seeds = np.array([int(key[:8], 16) for key in keys], np.float64)
    return np.sin(seeds[:, None] * 1e-4 + np.arange(dim)).astype(np.float32)


@pytest.fixture
def url(tmp_path: Path) -> Path:
    return tmp_path / "features.zarr"


@pytest.fixture
def store(url: Path) -> FeatureStore:
    return FeatureStore(url)


def folder(url: Path, space: FeatureSpace = SPACE) -> Path:
    return url / space.fingerprint[:16]


def test_rows_come_back_in_the_order_of_the_keys_with_repeats(store: FeatureStore) -> None:
    keys = make_keys(3000)
    assert store.write(SPACE, keys, vectors_of(keys)) == 3000
    asked = [keys[i] for i in np.random.default_rng(0).integers(0, 3000, 5000)]
    found = store.read(SPACE, asked)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, vectors_of(asked))
    np.testing.assert_array_equal(store.read(SPACE, keys), vectors_of(keys))
    np.testing.assert_array_equal(store.read(SPACE, keys[::-1]), vectors_of(keys[::-1]))
    np.testing.assert_array_equal(store.read(SPACE, keys[100:2500]), vectors_of(keys[100:2500]))
    assert store.read(SPACE, []).shape == (0, DIM)


def test_another_process_opens_what_was_written(store: FeatureStore, url: Path) -> None:
    keys = make_keys(1500)
    store.write(SPACE, keys, vectors_of(keys))
    other = FeatureStore(str(url), read_only=True)
    assert other.spaces() == [SPACE]
    np.testing.assert_array_equal(other.read(SPACE, keys), vectors_of(keys))


def test_nothing_is_made_before_the_first_write(store: FeatureStore, url: Path) -> None:
    keys = make_keys(2)
    assert store.spaces() == []
    assert store.missing(SPACE, keys) == keys
    assert store.failures(SPACE) == {}
    assert store.verify() == [] == store.repair()
    assert store.info(SPACE)["rows"] == 0
    with pytest.raises(InputError, match=r"no feature store at .*features\.zarr: correct --store, or run extract"):
        store.gc()
    with pytest.raises(StoreError, match="no vector for 2 of 2 keys"):
        store.read(SPACE, keys)
    assert not url.exists()


def test_missing_gives_distinct_keys_in_first_seen_order(store: FeatureStore) -> None:
    keys = make_keys(10)
    store.write(SPACE, keys[::2], vectors_of(keys[::2]))
    asked = [keys[9], keys[0], keys[3], keys[9], keys[1]]
    assert store.missing(SPACE, asked) == [keys[9], keys[3], keys[1]]
    assert store.present(SPACE, asked).tolist() == [False, True, False, False, False]


def test_a_key_is_stored_once_and_keeps_its_first_vector(store: FeatureStore) -> None:
    keys = make_keys(5)
    first = vectors_of(keys)
    assert store.write(SPACE, [*keys, *keys], np.concatenate([first, first + 1])) == 5
    assert store.write(SPACE, keys, first + 2) == 0
    np.testing.assert_array_equal(store.read(SPACE, keys), first)
    assert store.info(SPACE)["rows"] == 5


def test_small_writes_fill_the_chunk_that_is_there(store: FeatureStore, url: Path) -> None:
    keys = make_keys(1025)
    for start in range(0, 1025, 205):
        store.write(SPACE, keys[start : start + 205], vectors_of(keys[start : start + 205]))
    chunks = sorted(path.name for path in (folder(url) / "vectors").glob("c.*"))
    assert chunks == ["c.0.0", "c.1.0"]
    np.testing.assert_array_equal(store.read(SPACE, keys), vectors_of(keys))


def test_two_open_stores_see_each_others_rows(url: Path) -> None:
    first, second = FeatureStore(url), FeatureStore(url)
    keys = make_keys(2100)
    for start in range(0, 2100, 300):
        part = keys[start : start + 300]
        writer, reader = (first, second) if start % 600 else (second, first)
        assert writer.write(SPACE, part, vectors_of(part)) == 300
        np.testing.assert_array_equal(reader.read(SPACE, part), vectors_of(part))
    assert first.info(SPACE)["rows"] == second.info(SPACE)["rows"] == 2100


def test_keys_that_only_look_like_hashes_are_found(store: FeatureStore) -> None:
    keys = [f"{i:064x}" for i in range(1, 2000)] + [f"{i:x}".ljust(64, "0") for i in range(1, 2000)]
    keys = list(dict.fromkeys(keys))
    store.write(SPACE, keys, vectors_of(keys))
    np.testing.assert_array_equal(store.read(SPACE, keys[::-1]), vectors_of(keys[::-1]))
    assert store.missing(SPACE, [f"{2000:064x}"]) == [f"{2000:064x}"]


@pytest.mark.parametrize("key", ["", "0" * 63, "x" * 64, "0" * 64, "ab " + "0" * 61])
def test_what_is_no_content_key_is_refused(store: FeatureStore, key: str) -> None:
    with pytest.raises(ValueError, match="content key"):
        store.missing(SPACE, [key])


def test_every_change_of_the_space_is_another_space(store: FeatureStore) -> None:
    keys = make_keys(4)
    store.write(SPACE, keys, vectors_of(keys))
    changes = [
        {"weights_digest": "v2"},
        {"preprocess": {"size_px": 224}},
        {"convert": "fixed"},
        {"crop_bottom_px": 10},
        {"view": "fourier"},
        {"precision": "bfloat16"},
        {"pooling": "mean"},
        {"encoder": "other"},
        {"dtype": "float16"},
    ]
    for change in changes:
        other = replace(SPACE, **change)
        assert store.missing(other, keys) == keys, change
        with pytest.raises(StoreError, match="no vector"):
            store.read(other, keys)
    changed_file = make_keys(1, start=99)
    assert store.missing(SPACE, changed_file) == changed_file


def test_float16_is_half_the_bytes_and_reads_as_float32(store: FeatureStore) -> None:
    half, keys = replace(SPACE, dtype="float16"), make_keys(1100)
    store.write(half, keys, vectors_of(keys))
    found = store.read(half, keys)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, vectors_of(keys).astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_a_vector_that_cannot_be_stored_is_refused(store: FeatureStore, value: float) -> None:
    half, keys = replace(SPACE, dtype="float16"), make_keys(3)
    vectors = vectors_of(keys)
    vectors[1, 2] = value
    with pytest.raises(InputError, match="1 of 3 vectors are not finite as float16"):
        store.write(half, keys, vectors)
    assert store.missing(half, keys) == keys


def test_vectors_of_another_shape_are_a_bug(store: FeatureStore) -> None:
    with pytest.raises(ValueError, match="expected \\(2, 6\\)"):
        store.write(SPACE, make_keys(2), np.zeros((2, 5)))


def test_a_failed_key_is_missing_only_on_retry_and_forgotten_once_it_has_a_vector(store: FeatureStore) -> None:
    keys = make_keys(4)
    store.fail(SPACE, {keys[0]: "cut in half"})
    store.fail(SPACE, {keys[1]: "empty"})
    assert store.failures(SPACE) == {keys[0]: "cut in half", keys[1]: "empty"}
    assert store.missing(SPACE, keys) == keys[2:]
    assert store.missing(SPACE, keys, retry=True) == keys
    store.write(SPACE, keys[1:], vectors_of(keys[1:]))
    assert store.failures(SPACE) == {keys[0]: "cut in half"}
    store.fail(SPACE, {keys[2]: "too late"})
    assert store.failures(SPACE) == {keys[0]: "cut in half"}


def test_info_says_who_wrote(store: FeatureStore) -> None:
    keys = make_keys(2)
    store.write(SPACE, keys[:1], vectors_of(keys[:1]), provenance={"torch": "2.11"})
    store.write(SPACE, keys[1:], vectors_of(keys[1:]), provenance={"torch": "2.11"})
    store.write(SPACE, keys[1:], vectors_of(keys[1:]), provenance={"torch": "2.12"})
    info = store.info(SPACE)
    assert info["provenance"] == [{"torch": "2.11"}, {"torch": "2.12"}]
    assert (info["rows"], info["dim"], info["name"]) == (2, DIM, "image@texture")
    assert info["bytes"] > 1024 * (DIM * 4 + 32)
    json.dumps(info, allow_nan=False)


def test_a_space_is_found_by_name_or_fingerprint(store: FeatureStore) -> None:
    keys = make_keys(1)
    other = replace(SPACE, weights_digest="v2")
    for space in (SPACE, other, replace(SPACE, encoder="resnet18")):
        store.write(space, keys, vectors_of(keys))
    assert store.find("image@resnet18").encoder == "resnet18"
    assert store.find(other.fingerprint[:8]) == other
    with pytest.raises(InputError, match=r"is 2 spaces: .*or the first letters"):
        store.find("image@texture")
    with pytest.raises(InputError, match="Did you mean 'image@resnet18'"):
        store.find("image@resnet1")


def test_spaces_that_are_seen_otherwise_are_found_by_what_differs(store: FeatureStore) -> None:
    keys = make_keys(1)
    log, blurred = replace(SPACE, convert="log"), replace(SPACE, convert="log", view="blur:2")
    store.write(blurred, keys, vectors_of(keys))
    for name in ("image@texture", "image:bf@texture", "image.log.blur-2@texture", "image:bf.log.blur-2@texture"):
        assert store.find(name) == blurred
    for name in ("image.log@texture", "image:bf.log@texture", "text@texture", "image@textures"):
        with pytest.raises(InputError, match=rf"no space '{name}'.* It holds: image\.log\.blur-2@texture"):
            store.find(name)
    for space in (SPACE, log):
        store.write(space, keys, vectors_of(keys))
    assert store.find("image@texture") == SPACE
    assert store.find("image:bf.log@texture") == log
    with pytest.raises(
        InputError, match=r"'image:bf@texture' is 3 spaces: image.*image\.log@texture.*Give one of these"
    ):
        store.find("image:bf@texture")


def test_a_dropped_space_is_gone_and_can_be_written_again(store: FeatureStore, url: Path) -> None:
    keys = make_keys(1030)
    store.write(SPACE, keys, vectors_of(keys))
    watcher = FeatureStore(url)
    watcher.read(SPACE, keys)
    done = store.gc(drop=["image@texture"])
    assert done["dropped"] == ["image@texture"]
    assert done["bytes"] > 0
    assert store.spaces() == []
    assert store.missing(SPACE, keys) == keys
    store.write(SPACE, keys[:3], vectors_of(keys[:3]))
    assert watcher.missing(SPACE, keys) == keys[3:]


def test_gc_removes_what_killed_writers_left_and_nothing_else(store: FeatureStore, url: Path) -> None:
    keys = make_keys(10)
    store.write(SPACE, keys, vectors_of(keys))
    left = folder(url) / "vectors" / "c.0.0.0123.partial"
    left.write_bytes(b"half a chunk")
    np.testing.assert_array_equal(store.read(SPACE, keys), vectors_of(keys))
    assert store.gc() == {"dropped": [], "files": [str(left.relative_to(url))], "bytes": 12}
    assert store.gc()["files"] == []
    np.testing.assert_array_equal(store.read(SPACE, keys), vectors_of(keys))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_tensorstore_and_zarr_see_the_same_rows(store: FeatureStore, url: Path, dtype: str) -> None:
    space, keys = replace(SPACE, dtype=dtype), make_keys(1500)
    store.write(space, keys, vectors_of(keys))
    raw = {}
    for array in ("vectors", "keys"):
        path = folder(url, space) / array
        opened = tensorstore.open(
            {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}, open=True
        ).result()
        raw[array] = np.asarray(opened.read().result())
        np.testing.assert_array_equal(zarr.open_array(path, mode="r")[:], raw[array])
    committed = raw["keys"].any(axis=1)
    assert [bytes(row[:32]).hex() for row in raw["keys"][committed]] == keys
    sums = [int.from_bytes(bytes(row[32:]), "little") for row in raw["keys"][committed]]
    assert sums == [google_crc32c.value(row.tobytes()) for row in raw["vectors"][committed]]
    np.testing.assert_array_equal(raw["vectors"][committed].astype(np.float32), store.read(space, keys))
    assert raw["vectors"].dtype == dtype


def test_zarr_lists_the_store_without_a_warning(store: FeatureStore, url: Path) -> None:
    keys = make_keys(2)
    store.write(SPACE, keys[:1], vectors_of(keys[:1]))
    store.fail(SPACE, {keys[1]: "empty"})
    group = zarr.open_group(url, mode="r")
    name = SPACE.fingerprint[:16]
    assert sorted(dict(group.members(max_depth=None))) == [
        name,
        f"{name}/failures",
        f"{name}/keys",
        f"{name}/vectors",
    ]
    assert group[name].attrs["fingerprint"] == SPACE.fingerprint
    assert FeatureSpace.from_json(json.dumps(group[name].attrs["space"])) == SPACE


def test_a_memory_url_serves_as_a_store() -> None:
    store, keys = FeatureStore("memory://embedonce-test"), make_keys(1500)
    assert store.missing(SPACE, keys) == keys
    assert store.write(SPACE, keys[:700], vectors_of(keys[:700])) == 700
    assert store.write(SPACE, keys, vectors_of(keys)) == 800
    other = FeatureStore("memory://embedonce-test")
    np.testing.assert_array_equal(other.read(SPACE, keys[::-1]), vectors_of(keys[::-1]))
    assert other.verify() == []
    assert other.info(SPACE)["bytes"] > 0
    other.gc(drop=["image@texture"])
    assert other.spaces() == []


def test_a_url_nobody_serves_is_refused() -> None:
    with pytest.raises(InputError, match="nosuch"):
        FeatureStore("nosuch://bucket/features.zarr")
