"""Processes that embed into one store at the same time share the work, and no row is left behind."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from PIL import Image

from extract import ahead, lane, rounds
from store import FeatureStore, load_dataset
from tests.extract.recorded import Recorder, embed, keys_of, make_dataset


def test_what_another_process_embedded_meanwhile_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "WRITE_ROWS", 1)
    monkeypatch.setattr(rounds, "MIN_RUN", 1)
    monkeypatch.setattr(ahead, "MAX_WORKERS", 1)
    monkeypatch.setattr(ahead, "AHEAD", 2)
    dataset, store = make_dataset(tmp_path), FeatureStore(tmp_path / "f.zarr")
    keys = dataset.images["bf"].keys()

    class Overtaken(Recorder):
        def encode(self, batch: list[tuple[float, float]]) -> np.ndarray:
            if not self.batches:
                FeatureStore(tmp_path / "f.zarr").write(self.space, keys[-1:], np.array([[1, 45]], np.float32))
            return super().encode(batch)

    encoder = Overtaken()
    report = embed(dataset, encoder, store, batch_size=1)
    assert (len(encoder.batches), report.embedded, report.present, report.failed) == (5, 5, 1, 0)
    assert store.read(encoder.space, keys)[:, 1].tolist() == [40, 41, 42, 43, 44, 45]


def test_only_what_was_stored_counts_as_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, store = make_dataset(tmp_path), FeatureStore(tmp_path / "f.zarr")
    keys = list(map(str, dataset.images["bf"].keys()))
    encoder = Recorder()
    monkeypatch.setattr(store, "missing", lambda space, keys, **_: list(keys))
    store.write(encoder.space, keys[:2], np.array([[1, 40], [1, 41]], np.float32))
    report = embed(dataset, encoder, store)
    assert (sum(encoder.batches), report.embedded, report.present) == (6, 4, 2)


class Slow(Recorder):
    """An encoder that takes 20 ms an image."""

    def encode(self, batch: list[tuple[float, float]]) -> np.ndarray:
        time.sleep(0.02 * len(batch))
        return super().encode(batch)


def _embed_slowly(folder: Path, barrier: Barrier) -> int:
    dataset, encoder = load_dataset(folder / "dataset.toml"), Slow()
    barrier.wait()
    report = embed(dataset, encoder, FeatureStore(folder / "f.zarr"), batch_size=2)
    assert (report.rows, report.failed, report.embedded) == (dataset.n_rows, 0, sum(encoder.batches))
    return sum(encoder.batches)


@pytest.mark.parametrize("n_processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_started_together_embed_each_image_once(tmp_path: Path, n_processes: int) -> None:
    n_images, context = 160, get_context("spawn")
    make_dataset(tmp_path)
    for index in range(n_images):
        Image.fromarray(np.full((8, 8), index // 2, np.uint8)[:, : 4 + index % 2]).save(
            tmp_path / f"images/{index}.png"
        )
    rows = [f"row{i},{i}.png,x,{'ab'[i % 2]}" for i in range(n_images)]
    (tmp_path / "labels.csv").write_text("\n".join(["id,file,notes,label", *rows]))
    with context.Manager() as manager, ProcessPoolExecutor(n_processes, mp_context=context) as pool:
        barrier = manager.Barrier(n_processes)
        counts = list(pool.map(_embed_slowly, [tmp_path] * n_processes, [barrier] * n_processes))
    assert sum(counts) == n_images
    assert max(counts) < 0.9 * n_images, counts
    assert FeatureStore(tmp_path / "f.zarr").verify() == []


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has claimed the first two images of the dataset, and does nothing more."""
    dataset = make_dataset(tmp_path)
    code = (
        "import sys, time; from store import FeatureSpace, FeatureStore\n"
        "space = FeatureSpace('image', 'recorder', 2, '0' * 64, convert='none')\n"
        "store = FeatureStore(sys.argv[1])\n"
        "print(len(store.claim(space, sys.argv[2:])[0]), flush=True)\n"
        "time.sleep(60)"
    )
    keys = keys_of(dataset)[:2]
    command = [sys.executable, "-c", code, str(tmp_path / "f.zarr"), *keys]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout is not None and process.stdout.readline() == "2\n"
    yield process
    process.kill()
    process.communicate()


def test_what_a_killed_process_had_claimed_is_embedded_by_another(
    tmp_path: Path, other_process: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []

    def wait(seconds: float) -> None:
        store = FeatureStore(tmp_path / "f.zarr")
        waits.append(len(store.missing(Recorder().space, keys_of(dataset))))
        if len(waits) == 3:
            other_process.kill()
            other_process.wait()

    dataset, encoder = load_dataset(tmp_path / "dataset.toml"), Recorder()
    monkeypatch.setattr(rounds.time, "sleep", wait)
    report = embed(dataset, encoder, FeatureStore(tmp_path / "f.zarr"))
    assert (report.embedded, encoder.batches) == (6, [4, 2])
    assert waits == [2, 2, 2], "the others were embedded first, then the process waited"


def test_a_process_that_stands_still_holds_nobody_up_for_ever(
    tmp_path: Path, other_process: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "PATIENCE_SECONDS", 0.3)
    encoder = Recorder()
    report = embed(load_dataset(tmp_path / "dataset.toml"), encoder, FeatureStore(tmp_path / "f.zarr"))
    assert (report.embedded, encoder.batches) == (6, [4, 2])
    assert other_process.poll() is None


def test_what_ends_early_is_claimed_no_longer(tmp_path: Path) -> None:
    dataset, store = make_dataset(tmp_path), FeatureStore(tmp_path / "f.zarr")
    with pytest.raises(KeyboardInterrupt):
        embed(dataset, Recorder(stop_after=1), store, batch_size=2)
    keys = keys_of(dataset)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        mine, done = pool.submit(_claim, tmp_path / "f.zarr", keys).result()
    assert (mine, done) == (keys[2:], keys[:2])


def _claim(url: Path, keys: list[str]) -> tuple[list[str], list[str]]:
    return FeatureStore(url).claim(Recorder().space, keys)
