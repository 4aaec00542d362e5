"""What the feature store promises, and attempts to break it."""

import errno
import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import store.vectors.features
import store.vectors.locks
from store import FeatureSpace, StoreError
from store.vectors.chunks import encode_chunk
from store.vectors.features import FeatureStore
from store.vectors.files import LocalFiles
from store.vectors.locks import file_lock

WRITER = Path(__file__).with_name("store_writer.py")
DIM = 64
SPACE = FeatureSpace("image", "texture", DIM, "v1")
FOLDER = SPACE.fingerprint[:16]

sys.path.insert(0, str(WRITER.parent))
from store_writer import make_keys, vectors_of  # noqa: E402

sys.path.remove(str(WRITER.parent))


def start_writer(url: Path, go: Path, *, n_rows: int, batch: int, start: int = 0) -> subprocess.Popen[str]:
    """A writer that has imported everything and waits for `go` to appear."""
    command = [sys.executable, str(WRITER), str(url), str(n_rows), str(batch), str(start), str(go)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def contents(url: Path) -> dict[str, bytes]:
    """Every chunk and description of a store's only space, byte by byte; not the time it was made."""
    files = [p for p in (url / FOLDER).rglob("*") if p.is_file() and p.suffix != ".partial" and p.name != ".lock"]
    return {str(p.relative_to(url)): p.read_bytes() for p in files if p.parent.name != FOLDER}


def filled(url: Path, n: int = 2500) -> tuple[FeatureStore, list[str]]:
    features, keys = FeatureStore(url), make_keys(n)
    features.write(SPACE, keys, vectors_of(keys))
    return features, keys


def chunk(url: Path, array: str, number: int) -> Path:
    return url / FOLDER / array / f"c.{number}.0"


def assert_true_rows(features: FeatureStore, keys: list[str]) -> list[str]:
    """All that is there is right; return the keys that are there."""
    found = [key for key, there in zip(keys, features.present(SPACE, keys), strict=True) if there]
    np.testing.assert_array_equal(features.read(SPACE, found), vectors_of(found))
    return found


# --- killed writers ---------------------------------------------------------------------------------------------------


def kill_writers(folder: Path, n_kills: int, rng: random.Random) -> int:
    """Fill a store, killing the writer up to `n_kills` times at random moments; return how often it was hit."""
    n_rows, batch, kills = 6000, 150, 0
    url, go, log = folder / "features.zarr", folder / "go", folder / "computed.txt"
    keys, done = make_keys(n_rows), set[str]()
    log.touch()
    while len(done) < n_rows:
        before = len(log.read_text().split())
        go.unlink(missing_ok=True)
        writer = start_writer(url, go, n_rows=n_rows, batch=batch)
        go.touch()
        if kills < n_kills:
            with suppress(subprocess.TimeoutExpired):
                writer.wait(rng.uniform(0, 0.25))
        else:
            writer.wait(60)
        kills += writer.poll() is None
        writer.kill()
        writer.communicate()
        computed = log.read_text().split()[before:]
        assert not done & set(computed), "a committed row was computed again"
        found = set(assert_true_rows(FeatureStore(url, read_only=True), keys))
        assert done <= found, "a committed row was lost"
        assert FeatureStore(url).verify() == []
        done = found
    return kills


def check_killed_runs(tmp_path: Path, n_kills: int) -> None:
    unbroken = tmp_path / "unbroken.zarr"
    features, keys = FeatureStore(unbroken), make_keys(6000)
    for first in range(0, 6000, 150):
        features.write(SPACE, keys[first : first + 150], vectors_of(keys[first : first + 150]))
    kills, rng = 0, random.Random(n_kills)
    while kills < n_kills:
        folder = tmp_path / str(kills)
        folder.mkdir()
        hit = kill_writers(folder, n_kills - kills, rng)
        assert contents(folder / "features.zarr") == contents(unbroken)
        shutil.rmtree(folder)
        kills += hit


def test_a_run_killed_at_random_moments_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    check_killed_runs(tmp_path, 5)


@pytest.mark.slow
def test_a_run_killed_at_50_random_moments_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    check_killed_runs(tmp_path, 50)


class Killed(BaseException):
    """The process ends here."""


def test_a_writer_that_ends_in_any_of_its_steps_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = make_keys(1100)
    write, steps = LocalFiles.write, iter(())

    def dying_write(self: LocalFiles, name: str, *parts: object, sync: bool = False) -> None:
        if next(steps, None) == "die":
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f"{path.name}.0.partial").write_bytes(b"".join(bytes(p) for p in parts)[:100])
            raise Killed
        write(self, name, *parts, sync=sync)

    def run(url: Path, survives: int) -> bool:
        nonlocal steps
        steps = iter(["live"] * survives + ["die"])
        features = FeatureStore(url)
        with suppress(Killed):
            for first in range(0, 1100, 400):
                features.write(SPACE, keys[first : first + 400], vectors_of(keys[first : first + 400]))
            return True
        return False

    monkeypatch.setattr(LocalFiles, "write", dying_write)
    n_steps = 0
    while True:
        url = tmp_path / f"{n_steps}.zarr"
        finished = run(url, n_steps)
        reader = FeatureStore(url, read_only=True)
        assert len(assert_true_rows(reader, keys)) % 400 in {0, 1024 % 400, 1100 % 400}
        assert reader.verify() == []
        assert run(url, 10**6)
        assert assert_true_rows(FeatureStore(url), keys) == keys
        if finished:
            break
        FeatureStore(url).gc()
        assert not list(url.rglob("c*.partial"))
        n_steps += 1
    assert n_steps >= 14  # three writes, two chunks: every rename was the last one once


def test_what_a_killed_writer_left_in_a_chunk_is_wiped(tmp_path: Path) -> None:
    url = tmp_path / "features.zarr"
    features, _ = filled(url, 10)
    left = np.fromfile(chunk(url, "vectors", 0), "<f4", 1024 * DIM).reshape(1024, DIM)
    left[10:200] = 7
    chunk(url, "vectors", 0).write_bytes(b"".join(bytes(part) for part in encode_chunk(left)))
    more = make_keys(20)
    features.write(SPACE, more, vectors_of(more))
    rows = np.fromfile(chunk(url, "vectors", 0), "<f4", 1024 * DIM).reshape(1024, DIM)
    np.testing.assert_array_equal(rows[:20], vectors_of(more))
    assert not rows[20:].any()


# --- several writers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_writers", [2, 4])
def test_writers_at_the_same_time_store_each_row_once(tmp_path: Path, n_writers: int) -> None:
    n_rows, url, go = 5000, tmp_path / "features.zarr", tmp_path / "go"
    writers = [
        start_writer(url, go, n_rows=n_rows, batch=130 + 40 * number, start=number * 700) for number in range(n_writers)
    ]
    go.touch()
    reader, keys, n_looks = FeatureStore(url, read_only=True), make_keys(n_rows), 0
    while any(writer.poll() is None for writer in writers):
        assert_true_rows(reader, keys)
        assert reader.verify() == []
        n_looks += 1
    stored = [int(writer.communicate()[0]) for writer in writers]
    assert sum(stored) == n_rows
    assert assert_true_rows(reader, keys) == keys
    rows = np.concatenate([np.fromfile(chunk(url, "keys", c), np.uint8, 1024 * 36) for c in range(5)]).reshape(-1, 36)[
        :, :32
    ]
    committed = [bytes(row).hex() for row in rows if row.any()]
    assert sorted(committed) == sorted(keys), "each row exactly once"
    assert n_looks > 0


def test_threads_share_one_open_store(tmp_path: Path) -> None:
    features, keys, counts = FeatureStore(tmp_path / "features.zarr"), make_keys(3000), []

    def work(offset: int) -> None:
        order, n = keys[offset:] + keys[:offset], 0
        for first in range(0, 3000, 250):
            part = order[first : first + 250]
            n += features.write(SPACE, part, vectors_of(part))
            np.testing.assert_array_equal(features.read(SPACE, part), vectors_of(part))
        counts.append(n)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in (0, 1000, 2000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 3000
    assert len(counts) == 3


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    features, _ = filled(tmp_path / "features.zarr", 10)
    lock = tmp_path / "features.zarr" / FOLDER / "keys" / ".lock"
    code = (
        "import fcntl, sys, time\n"
        "held = open(sys.argv[1], 'r+')\n"
        "fcntl.flock(held, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    done: list[int] = []
    more = make_keys(20)
    writer = threading.Thread(target=lambda: done.append(features.write(SPACE, more, vectors_of(more))))
    writer.start()
    writer.join(0.3)
    assert done == [], "a living holder is waited for"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    writer.join(10)
    assert done == [10]


def claim_elsewhere(url: Path, keys: list[str]) -> list[str]:
    """What another process gets of these keys; it has ended since."""
    code = (
        "import sys; from store import FeatureStore; from store.space import FeatureSpace\n"
        "mine, done = FeatureStore(sys.argv[1]).claim(FeatureSpace.from_json(sys.argv[2]), sys.argv[3:])\n"
        "print(*mine)"
    )
    command = [sys.executable, "-c", code, str(url), SPACE.to_json(), *keys]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=WRITER.parents[3])
    return done.stdout.split()


def test_a_key_is_claimed_by_one_process_until_it_is_released(tmp_path: Path) -> None:
    url, keys = tmp_path / "features.zarr", make_keys(10)
    features = FeatureStore(url)
    assert features.claim(SPACE, keys[:4]) == (keys[:4], [])
    assert claim_elsewhere(url, keys) == keys[4:]
    features.write(SPACE, keys[:2], vectors_of(keys[:2]))
    assert claim_elsewhere(url, keys[:2]) == [], "still claimed"
    features.release(SPACE, keys[:3])
    assert claim_elsewhere(url, keys) == [keys[2], *keys[4:]], "what was written meanwhile is nobody's work"
    assert features.claim(SPACE, keys) == (keys[2:], keys[:2])
    features.release(SPACE, keys)


def test_a_claim_writes_nothing(tmp_path: Path) -> None:
    features = FeatureStore(tmp_path / "features.zarr")
    features.claim(SPACE, make_keys(3))
    features.release(SPACE, make_keys(3))
    assert features.spaces() == [] == FeatureStore(tmp_path / "features.zarr").verify()
    assert not FeatureStore(tmp_path / "features.zarr").present(SPACE, make_keys(3)).any()
    with pytest.raises(StoreError, match="opened read-only"):
        FeatureStore(tmp_path / "features.zarr", read_only=True).claim(SPACE, make_keys(3))


def test_a_lock_that_is_never_given_back_is_named(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        locked = file_lock(path, timeout_seconds=0.05)
        with pytest.raises(StoreError, match=r"\.lock has been locked by another process.*End it"):
            locked.__enter__()


def test_a_lock_on_a_file_deleted_meanwhile_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, lock = tmp_path / ".lock", store.vectors.locks._lock

    def lock_too_late(descriptor: int) -> bool:
        monkeypatch.setattr(store.vectors.locks, "_lock", lock)
        path.unlink()
        return lock(descriptor)

    monkeypatch.setattr(store.vectors.locks, "_lock", lock_too_late)
    with file_lock(path, timeout_seconds=1), pytest.raises(StoreError, match="locked by another process"):
        file_lock(path, timeout_seconds=0.05).__enter__()


def test_rows_are_seen_even_if_a_replaced_file_looks_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commits within a tick of the file system's clock may leave one inode, time and size."""
    stamps = LocalFiles.stamps
    monkeypatch.setattr(LocalFiles, "stamps", lambda self, folder: dict.fromkeys(stamps(self, folder), (1, 2, 3)))
    url = tmp_path / "features.zarr"
    first, keys = filled(url, 10)
    assert first.missing(SPACE, keys) == []
    filled(url, 30)
    assert first.missing(SPACE, make_keys(30)) == []
    more = make_keys(40)
    assert first.write(SPACE, more, vectors_of(more)) == 10
    assert assert_true_rows(FeatureStore(url), more) == more


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
