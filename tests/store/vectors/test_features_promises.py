"""What the feature store promises its writers, and attempts to break it."""

import fcntl
import random
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import store.vectors.features
import store.vectors.locks
from store import StoreError
from store.vectors.chunks import encode_chunk
from store.vectors.features import FeatureStore
from store.vectors.files import LocalFiles
from store.vectors.locks import file_lock
from tests.store.vectors.promises import (
    DIM,
    FOLDER,
    SPACE,
    WRITER,
    assert_true_rows,
    chunk,
    contents,
    filled,
    make_keys,
    start_writer,
    vectors_of,
)

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
