"""A store in a bucket, over real HTTP."""

import errno
import hashlib
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tensorstore

from store import FeatureSpace, FeatureStore, InputError, StoreError
from store.exchange import export_vectors
from store.vectors import remote
from store.vectors.remote import RemoteFiles

DIM = 6
SPACE = FeatureSpace("image", "texture", DIM, "v1", convert="percentile_stretch")
FOLDER = SPACE.fingerprint[:16]


def make_keys(n: int) -> list[str]:
    return [hashlib.sha256(str(i).encode()).hexdigest() for i in range(n)]


def vectors_of(keys: list[str]) -> np.ndarray:
    seeds = np.array([int(key[:8], 16) for key in keys], np.float64)
    return np.sin(seeds[:, None] * 1e-4 + np.arange(DIM)).astype(np.float32)


@pytest.fixture
def url(bucket: str) -> str:
    return f"{bucket}/deep/features.zarr"


def test_a_bucket_serves_as_a_store(url: str, tmp_path: Path) -> None:
    store, keys = FeatureStore(url), make_keys(2500)
    assert store.spaces() == []
    assert store.missing(SPACE, keys) == keys
    assert store.write(SPACE, keys[:700], vectors_of(keys[:700]), provenance={"torch": "2.11"}) == 700
    other = FeatureStore(url)
    assert other.missing(SPACE, keys) == keys[700:]
    assert other.write(SPACE, keys, vectors_of(keys)) == 1800
    assert store.missing(SPACE, keys) == [], "an open store sees what others wrote"
    np.testing.assert_array_equal(store.read(SPACE, keys[::-1]), vectors_of(keys[::-1]))
    assert store.verify() == []
    info = store.info(SPACE)
    assert (info["rows"], info["provenance"]) == (2500, [{"torch": "2.11"}])
    assert info["bytes"] > 3 * 1024 * (DIM * 4 + 32)
    done = export_vectors(store, SPACE, ["a", "b"], keys=[keys[2000], keys[1]], to="npz", out=tmp_path / "x.npz")
    assert done["rows"] == 2
    with np.load(tmp_path / "x.npz") as arrays:
        np.testing.assert_array_equal(arrays["X"], vectors_of([keys[2000], keys[1]]))


def test_failed_rows_are_kept_in_a_bucket(url: str) -> None:
    keys = make_keys(3)
    FeatureStore(url).fail(SPACE, {keys[0]: "cut in half"})
    store = FeatureStore(url)
    assert store.missing(SPACE, keys) == keys[1:]
    store.write(SPACE, keys, vectors_of(keys))
    assert FeatureStore(url).failures(SPACE) == {}


@pytest.mark.parametrize("array", ["vectors", "keys"])
@pytest.mark.parametrize("kind", ["flipped", "cut", "deleted"])
def test_damage_in_a_bucket_is_named_dropped_and_filled_again(url: str, array: str, kind: str) -> None:
    import s3fs

    store, keys, files = FeatureStore(url), make_keys(2500), s3fs.S3FileSystem()
    store.write(SPACE, keys, vectors_of(keys))
    path = f"{url.removeprefix('s3://')}/{FOLDER}/{array}/c.1.0"
    data = bytearray(files.cat_file(path))
    data[100] ^= 4
    if kind == "deleted":
        files.rm(path)
    else:
        files.pipe_file(path, bytes(data) if kind == "flipped" else bytes(data[:100]))
    reader = FeatureStore(url)
    with pytest.raises(StoreError, match=rf"{array}/c\.1\.0 .*store repair"):
        reader.read(SPACE, keys)
    if array == "vectors" and kind != "flipped":
        with pytest.raises(StoreError, match=r"vectors/c\.1\.0 is (missing|cut short).*store repair"):
            FeatureStore(url).missing(SPACE, keys)
    assert [found["chunk"] for found in reader.verify()] == [f"{array}/c.1.0"]
    assert [found["chunk"] for found in reader.repair()] == [f"{array}/c.1.0"]
    assert reader.missing(SPACE, keys) == keys[1024:2048]
    assert reader.write(SPACE, keys, vectors_of(keys)) == 1024
    assert FeatureStore(url).verify() == []
    np.testing.assert_array_equal(FeatureStore(url).read(SPACE, keys), vectors_of(keys))


def test_lost_descriptions_in_a_bucket_are_written_again(url: str) -> None:
    import s3fs

    store, keys = FeatureStore(url), make_keys(5)
    store.write(SPACE, keys, vectors_of(keys))
    for name in ("zarr.json", f"{FOLDER}/zarr.json"):
        s3fs.S3FileSystem().rm(f"{url.removeprefix('s3://')}/{name}")
    with pytest.raises(StoreError, match=r"zarr\.json is missing; `store repair` mends that"):
        FeatureStore(url).missing(SPACE, keys)
    assert [found["chunk"] for found in FeatureStore(url).repair()] == ["zarr.json", "zarr.json"]
    assert FeatureStore(url).spaces() == [SPACE] and FeatureStore(url).verify() == []


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.slow
def test_a_writer_that_ends_in_any_of_its_requests_harms_nothing(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, write, left = make_keys(1100), RemoteFiles.write, 0

    def dying_write(self: RemoteFiles, name: str, *parts: object, sync: bool = False) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        write(self, name, *parts, sync=sync)

    monkeypatch.setattr(RemoteFiles, "write", dying_write)
    finished, n_steps = False, 0
    while not finished:
        url, left = f"{bucket}/{n_steps}.zarr", n_steps
        with suppress(Killed):
            for first in (0, 600):
                FeatureStore(url).write(SPACE, keys[first : first + 600], vectors_of(keys[first : first + 600]))
            finished = True
        reader, left = FeatureStore(url), 10**6
        assert reader.verify() == []
        found = [key for key, there in zip(keys, reader.present(SPACE, keys), strict=True) if there]
        np.testing.assert_array_equal(reader.read(SPACE, found), vectors_of(found))
        assert reader.write(SPACE, keys, vectors_of(keys)) == 1100 - len(found)
        np.testing.assert_array_equal(FeatureStore(url).read(SPACE, keys), vectors_of(keys))
        n_steps += 1
    assert n_steps >= 14


def test_writers_at_the_same_time_lose_no_row_in_a_bucket(url: str) -> None:
    keys, stored = make_keys(1500), []

    def work(offset: int) -> None:
        store, order = FeatureStore(url), keys[offset:] + keys[:offset]
        for first in range(0, 1500, 300):
            stored.append(store.write(SPACE, order[first : first + 300], vectors_of(order[first : first + 300])))

    threads = [threading.Thread(target=work, args=(offset,)) for offset in (0, 500, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(stored) == 1500 and len(stored) == 15
    store = FeatureStore(url)
    np.testing.assert_array_equal(store.read(SPACE, keys), vectors_of(keys))
    assert store.verify() == [] and store.info(SPACE)["rows"] == 1500
    assert not store._files.names(f"{FOLDER}/keys/.lock"), "given back"


@pytest.fixture
def left_lock(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a lock that another process holds, or left when it was killed."""
    FeatureStore(url).write(SPACE, make_keys(1), vectors_of(make_keys(1)))
    files = RemoteFiles(url, {})
    files.write(f"{FOLDER}/keys/.lock", b"node7, process 42, 0123abcd")
    monkeypatch.setattr(remote, "POLL_SECONDS", 0.01)
    return f"{FOLDER}/keys/.lock"


def test_a_lock_that_a_killed_process_left_is_taken_over(
    url: str, left_lock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "LEFT_SECONDS", 0.1)
    assert FeatureStore(url).write(SPACE, make_keys(3), vectors_of(make_keys(3))) == 2
    assert "keys" not in RemoteFiles(url, {}).names(left_lock)


def test_a_second_writer_is_told_who_writes(url: str, left_lock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WAIT_SECONDS", 0.1)
    with pytest.raises(StoreError, match=r"is being written to by node7, process 42, for .*run again when it has fin"):
        FeatureStore(url).write(SPACE, make_keys(3), vectors_of(make_keys(3)))
    assert RemoteFiles(url, {}).open(left_lock).read() == b"node7, process 42, 0123abcd", "it stays the other's"


WARNING = "warning: %s cannot lock the store: let only one process at a time write to it, or rows may be lost"


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == remote.__name__]


NO_CONDITIONS = [None, NotImplementedError(), TypeError("mode"), OSError(errno.ENOSYS, "not implemented")]


@pytest.mark.parametrize("error", NO_CONDITIONS, ids=lambda error: type(error).__name__)
def test_a_server_without_conditions_takes_one_writer_and_that_is_said_once(
    url: str, error: Exception | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import s3fs

    real = s3fs.S3FileSystem().pipe_file  # one instance for all that asks alike

    def refuse(path: str, data: bytes, **options: object) -> object:
        if options and error is not None:
            raise error
        return real(path, data)  # None: a server that takes no notice of the condition

    monkeypatch.setattr(s3fs.S3FileSystem(), "pipe_file", refuse)
    store, keys = FeatureStore(url), make_keys(5)
    assert store.write(SPACE, keys[:3], vectors_of(keys[:3])) == 3
    assert store.write(SPACE, keys, vectors_of(keys)) == 2
    np.testing.assert_array_equal(FeatureStore(url).read(SPACE, keys), vectors_of(keys))
    assert warnings_in(caplog) == [WARNING % url]


def test_a_server_with_conditions_gives_no_warning(url: str, caplog: pytest.LogCaptureFixture) -> None:
    FeatureStore(url).write(SPACE, make_keys(2), vectors_of(make_keys(2)))
    FeatureStore("memory://locks").write(SPACE, make_keys(2), vectors_of(make_keys(2)))
    assert warnings_in(caplog) == []


def test_a_file_system_that_looks_before_it_writes_has_no_locks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem
    from fsspec.spec import AbstractFileSystem

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", AbstractFileSystem.pipe_file)
    FeatureStore("memory://looks").write(SPACE, make_keys(2), vectors_of(make_keys(2)))
    assert warnings_in(caplog) == [WARNING % "memory://looks"]


def test_the_warning_is_one_line_on_stderr(tmp_path: Path) -> None:
    code = (
        "import sys; from fsspec.implementations.memory import MemoryFileSystem\n"
        "from fsspec.spec import AbstractFileSystem; from store import FeatureSpace, FeatureStore\n"
        "MemoryFileSystem.pipe_file = AbstractFileSystem.pipe_file\n"
        "FeatureStore('memory://x').write(FeatureSpace('image', 'texture', 1, 'v1'), ['f' * 64], [[1.0]])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", f"{WARNING % 'memory://x'}\n")


def test_a_dropped_space_is_gone_from_the_bucket(url: str) -> None:
    import s3fs

    store, keys = FeatureStore(url), make_keys(10)
    store.write(SPACE, keys, vectors_of(keys))
    assert store.gc(drop=["image@texture"])["dropped"] == ["image@texture"]
    assert FeatureStore(url).spaces() == []
    assert not s3fs.S3FileSystem().find(f"{url.removeprefix('s3://')}/{FOLDER}", refresh=True)


def test_another_implementation_reads_the_bucket(url: str, s3_server: str) -> None:
    store, keys = FeatureStore(url), make_keys(1500)
    store.write(SPACE, keys, vectors_of(keys))
    bucket, _, path = url.removeprefix("s3://").partition("/")
    place = {"driver": "s3", "bucket": bucket, "path": f"{path}/{FOLDER}/vectors/", "endpoint": s3_server}
    opened = tensorstore.open({"driver": "zarr3", "kvstore": place | {"aws_region": "us-east-1"}}, open=True).result()
    np.testing.assert_array_equal(np.asarray(opened[:1500].read().result()), vectors_of(keys))


def test_storage_options_stand_in_for_the_environment(
    url: str, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    store = FeatureStore(url, storage_options={"endpoint_url": s3_server, "key": "test", "secret": "test"})
    assert store.write(SPACE, make_keys(2), vectors_of(make_keys(2))) == 2


def refused(url: str, what: str, **options: object) -> None:
    store, keys = FeatureStore(url, storage_options=options), make_keys(2)
    for action in (
        store.spaces,
        lambda: store.missing(SPACE, keys),
        lambda: store.write(SPACE, keys, vectors_of(keys)),
    ):
        with pytest.raises(StoreError, match=what) as caught:
            action()
        assert "\n" not in str(caught.value)


def test_a_bucket_that_does_not_exist_is_named_before_anything_is_computed(bucket: str) -> None:
    refused(f"{bucket}-absent/features.zarr", r"no place: .*bucket does not exist\. Make the bucket, or .*--store")


def test_a_bucket_deleted_meanwhile_is_named(url: str) -> None:
    import s3fs

    store = FeatureStore(url)
    store.write(SPACE, make_keys(2), vectors_of(make_keys(2)))
    s3fs.S3FileSystem().rm(url.split("/deep")[0], recursive=True)
    with pytest.raises(StoreError, match=r"no place|keys/zarr\.json is missing"):
        store.write(SPACE, make_keys(5), vectors_of(make_keys(5)))


def test_a_server_out_of_reach_is_one_line(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    where = "http://127.0.0.1:9"
    what = rf"cannot list the store s3://.*{where}.*Check its address \(AWS_ENDPOINT_URL"
    refused(url, what, endpoint_url=where)


def test_missing_credentials_are_one_line(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    refused(url, r"Unable to locate credentials\. Give credentials .*AWS_ACCESS_KEY_ID", anon=False)


def test_a_refused_request_is_no_damage(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    store, keys = FeatureStore(url), make_keys(5)
    store.write(SPACE, keys, vectors_of(keys))

    def refuse(path: str) -> bytes:
        raise PermissionError("Access Denied")

    with monkeypatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem(), "cat_file", refuse)  # one instance for all that asks alike
        for action in (lambda: FeatureStore(url).read(SPACE, keys), store.verify, store.repair):
            with pytest.raises(StoreError, match=r"cannot read .*Access Denied\. Give credentials"):
                action()
    assert FeatureStore(url).verify() == []
    np.testing.assert_array_equal(FeatureStore(url).read(SPACE, keys), vectors_of(keys))


def test_a_bug_stays_a_traceback(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem(), "pipe_file", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        FeatureStore(url).write(SPACE, make_keys(1), vectors_of(make_keys(1)))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(InputError, match=r"pip install 'embedonce\[s3\]'"):
        FeatureStore("s3://bucket/features.zarr")
