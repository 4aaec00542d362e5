"""One space on its way: batches that fit, chunks that are written, and what ends a run."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from extract import Failure, lane
from extract.lane import Clock, Lane
from store import FeatureStore, StoreError
from tests.extract.recorded import Recorder, embed, make_dataset


def test_what_an_encoder_without_a_network_does_is_its_own_work_not_decoding(tmp_path: Path) -> None:
    clock, store = Clock(), FeatureStore(tmp_path / "f.zarr")
    networked = Recorder()
    networked.runner = object()  # type: ignore[attr-defined]
    with ThreadPoolExecutor(1) as workers:
        for encoder, part in ((Recorder(), "forward"), (networked, "decode")):
            before = dict(clock.spent)
            lane = Lane(encoder, store, batch_size=1, clock=clock, workers=workers)
            assert lane.prepare(np.full((3, 4), 7, np.uint8), clock) == (7, 3)
            assert [part for part in before if clock.spent[part] > before[part]] == [part]
    waited = Clock()
    waited.divide(3.0, Clock({"decode": 0.1, "forward": 0.2, "store": 0.0}))
    waited.divide(5.0, Clock())
    assert waited.spent == pytest.approx({"decode": 1.0, "forward": 2.0, "store": 0.0})
    assert waited.bottleneck == "forward"


def test_batch_that_does_not_fit_is_halved(tmp_path: Path) -> None:
    dataset, encoder = make_dataset(tmp_path), Recorder(fits=3)
    assert embed(dataset, encoder, FeatureStore(tmp_path / "f.zarr"), batch_size=6).embedded == 6
    assert encoder.batches == [3, 3]


class OnGpu(Recorder):
    """An encoder whose device has room for so many rows, and takes a batch in the same time however long."""

    def __init__(self, name: str = "gpu", *, fits: int) -> None:
        super().__init__(name, fits=fits)
        self.runner = SimpleNamespace(  # type: ignore[assignment]
            resolve_device=lambda: "cuda", describe=lambda: ("cuda", "torch"), note="", expected=None
        )
        self.batch_size = 2

    def encode(self, batch: list[tuple[float, float]]) -> np.ndarray:
        time.sleep(0.02)
        return super().encode(batch)


def test_batch_size_is_found_on_a_gpu_unless_given(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, n_images=60)
    free, fixed = OnGpu(fits=9), OnGpu("fixed", fits=9)
    embed(dataset, free, FeatureStore(tmp_path / "f.zarr"))
    assert free.batches[:4] == [2] * 4 and 4 in free.batches
    assert max(free.batches) == 8 and sum(free.batches) == 60
    embed(dataset, fixed, FeatureStore(tmp_path / "f.zarr"), batch_size=3)
    assert set(fixed.batches) == {3}
    keys = dataset.images["bf"].keys()
    store = FeatureStore(tmp_path / "f.zarr")
    assert np.array_equal(store.read(free.space, keys), store.read(fixed.space, keys))


def test_vector_that_is_not_finite_is_a_failed_row(tmp_path: Path) -> None:
    class Overflowing(Recorder):
        def encode(self, batch: list[tuple[float, float]]) -> np.ndarray:
            return np.array([(mean, np.nan if rows == 42 else rows) for mean, rows in batch], dtype=np.float32)

    report = embed(make_dataset(tmp_path), Overflowing(), FeatureStore(tmp_path / "f.zarr"))
    assert (report.embedded, report.failures) == (5, (Failure("row2", "file", "2.png", "its vector is not finite"),))


def test_one_row_that_does_not_fit_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        embed(make_dataset(tmp_path), Recorder(fits=0), FeatureStore(tmp_path / "f.zarr"))


def test_interrupt_keeps_what_is_finished(tmp_path: Path) -> None:
    dataset, store = make_dataset(tmp_path), FeatureStore(tmp_path / "f.zarr")
    with pytest.raises(KeyboardInterrupt):
        embed(dataset, Recorder(stop_after=2), store, batch_size=2)
    keys = dataset.images["bf"].keys()
    assert store.present(Recorder().space, keys).tolist() == [True] * 4 + [False] * 2
    assert embed(dataset, Recorder(), store).embedded == 2


def test_full_store_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise StoreError("no space left")

    store = FeatureStore(tmp_path / "f.zarr")
    monkeypatch.setattr(store, "write", refuse)
    with pytest.raises(StoreError, match="no space left"):
        embed(make_dataset(tmp_path), Recorder(), store)


def test_rows_are_written_a_chunk_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "WRITE_ROWS", 2)
    store, written = FeatureStore(tmp_path / "f.zarr"), []
    real = store.write
    monkeypatch.setattr(
        store, "write", lambda space, keys, *a, **k: written.append(len(keys)) or real(space, keys, *a, **k)
    )
    embed(make_dataset(tmp_path), Recorder(), store, batch_size=1)
    assert written == [2, 2, 2]
