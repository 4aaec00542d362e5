import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from extract import Failure, SpaceReport, ahead, lane, pipeline, preparation, rounds
from extract.ahead import in_order
from extract.encoder import Options, make_encoders
from extract.lane import Clock, Lane
from extract.pipeline import extract_features
from extract.preparation import probe_images
from store import (
    CONVERSIONS,
    USUAL_CONVERSION,
    Dataset,
    FeatureSpace,
    FeatureStore,
    ImageRef,
    InputError,
    StoreError,
    block_spaces,
    load_dataset,
    with_variants,
)
from tests.extract.made import WithoutNetwork, make_encoder

N_IMAGES = 6


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def make_dataset(folder: Path, *, files: list[str] | None = None, extra: str = "", n_images: int = N_IMAGES) -> Dataset:
    """Six different images in a folder, one row each; the texts differ in length."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for index in range(n_images):
        pixels = rng.integers(0, 256, (40 + index, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
    files = files or [f"{index}.png" for index in range(n_images)]
    rows = [f"row{i},{file},{'grain ' * (n_images - i)}end,{'ab'[i % 2]}" for i, file in enumerate(files)]
    (folder / "labels.csv").write_text("\n".join(["id,file,notes,label", *rows]))
    (folder / "dataset.toml").write_text(
        'name = "x"\ntable = "labels.csv"\nroot = "images"\nid = "id"\n'
        '[images.bf]\ncolumn = "file"\nconvert = "none"\n'
        '[texts.notes]\ncolumn = "notes"\n[tasks.label]\ncolumn = "label"\n' + extra
    )
    return load_dataset(folder / "dataset.toml")


class Recorder(WithoutNetwork):
    """An encoder that says what it saw: mean grey value and number of rows of pixels."""

    def __init__(self, name: str = "recorder", *, fits: int = 10_000, stop_after: int | None = None) -> None:
        self.space = FeatureSpace("image", name, 2, "0" * 64, convert="none")
        self.batches: list[int] = []
        self.fits, self.stop_after = fits, stop_after

    def prepare(self, pixels: np.ndarray) -> tuple[float, float]:
        return float(pixels.mean()), float(len(pixels))

    def encode(self, batch: list[tuple[float, float]]) -> np.ndarray:
        if len(batch) > self.fits:
            raise MemoryError
        if self.stop_after is not None and len(self.batches) >= self.stop_after:
            raise KeyboardInterrupt
        self.batches.append(len(batch))
        return np.array(batch, dtype=np.float32)


def embed(dataset: Dataset, encoder: object, store: FeatureStore, **options: object) -> SpaceReport:
    return extract_features(dataset, {"image:bf": [encoder]}, store, **options)[0]  # type: ignore[list-item,arg-type]


def keys_of(dataset: Dataset) -> list[str]:
    return list(filter(None, dataset.images["bf"].keys()))


def test_vectors_are_those_of_their_rows(tmp_path: Path) -> None:
    dataset, store, encoder = make_dataset(tmp_path), FeatureStore(tmp_path / "f.zarr"), Recorder()
    report = embed(dataset, encoder, store, batch_size=4)
    vectors = store.read(encoder.space, dataset.images["bf"].keys())
    assert vectors[:, 1].tolist() == [40, 41, 42, 43, 44, 45]
    assert sorted(encoder.batches) == [2, 4]
    assert (report.name, report.rows, report.embedded, report.present, report.failed) == (
        "image:bf@recorder",
        6,
        6,
        0,
        0,
    )
    assert report.bottleneck in ("decode", "forward", "store")
    assert report.rows_per_second > 0


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


def test_second_run_embeds_nothing_and_needs_no_engine(tmp_path: Path) -> None:
    dataset, store = make_dataset(tmp_path), FeatureStore(tmp_path / "f.zarr")
    options = Options(weights="random", engine="torch", device="cpu")
    first, _ = make_encoders(["test_resnet", "ngrams"], dataset, options)
    assert [r.embedded for r in extract_features(dataset, first, store)] == [6, 6]
    second, _ = make_encoders(["test_resnet", "ngrams"], dataset, options)
    start = time.perf_counter()
    image, text = extract_features(dataset, second, store)
    assert time.perf_counter() - start < 2
    assert (image.embedded, image.present, image.failed, image.seconds) == (0, 6, 0, 0)
    assert (image.engine, image.bottleneck, text.embedded) == ("none", "none", 0)


@pytest.mark.parametrize(
    ("name", "unneeded"),
    [("test_resnet", {"openvino", "transformers"}), ("texture", {"openvino", "transformers", "torch", "timm"})],
)
def test_a_run_with_nothing_to_do_imports_no_engine(tmp_path: Path, name: str, unneeded: set[str]) -> None:
    dataset = make_dataset(tmp_path)
    options = Options(weights="random", engine="torch", device="cpu")
    extract_features(dataset, make_encoders([name], dataset, options)[0], FeatureStore(tmp_path / "f.zarr"))
    code = (
        "import sys; from extract import Options, extract_features, make_encoders\n"
        "from store import FeatureStore, load_dataset; from pathlib import Path\n"
        "name, folder = sys.argv[1], Path(sys.argv[2]); dataset = load_dataset(folder / 'dataset.toml')\n"
        "encoders = make_encoders([name], dataset, Options(weights='random'))[0]\n"
        "[report] = extract_features(dataset, encoders, FeatureStore(folder / 'f.zarr'))\n"
        "print(report.present, *sys.modules)"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, name, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    n_present, *modules = found.stdout.split()
    assert n_present == "6" and not unneeded & set(modules)


def test_changed_pixels_embed_one_row_and_a_new_name_none(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "f.zarr")
    dataset = make_dataset(tmp_path)
    embed(dataset, Recorder(), store)
    (tmp_path / "images" / "0.png").rename(tmp_path / "images" / "other.png")
    renamed = ["other.png", *(f"{i}.png" for i in range(1, N_IMAGES))]
    table = (tmp_path / "labels.csv").read_text().replace("0.png", "other.png")
    (tmp_path / "labels.csv").write_text(table)
    assert renamed[0] in table
    assert embed(load_dataset(tmp_path / "dataset.toml"), Recorder(), store).embedded == 0
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "images" / "3.png")
    assert embed(load_dataset(tmp_path / "dataset.toml"), Recorder(), store).embedded == 1


def test_equal_content_is_embedded_once(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, files=["0.png", "0.png", "1.png"])
    report = embed(dataset, Recorder(), FeatureStore(tmp_path / "f.zarr"))
    assert (report.rows, report.embedded, report.shared, report.present, report.failed) == (3, 2, 1, 0, 0)
    report = embed(dataset, Recorder(), FeatureStore(tmp_path / "f.zarr"))
    assert (report.rows, report.embedded, report.shared, report.present, report.failed) == (3, 0, 0, 3, 0)


def test_image_is_decoded_once_for_all_encoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: Counter[str] = Counter()
    real = preparation.read_image
    monkeypatch.setattr(preparation, "read_image", lambda path, page: reads.update([path.name]) or real(path, page))
    dataset, store = make_dataset(tmp_path), FeatureStore(tmp_path / "f.zarr")
    texture = make_encoder("texture", dataset.images["bf"])
    extract_features(dataset, {"image:bf": [Recorder(), Recorder("two"), texture]}, store)
    assert set(reads.values()) == {1}
    assert len(reads) == N_IMAGES
    extract_features(dataset, {"image:bf": [Recorder(), Recorder("three")]}, store)
    assert set(reads.values()) == {2}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file is decoded."""
    counts: Counter[str] = Counter()
    real = preparation.read_image
    monkeypatch.setattr(preparation, "read_image", lambda path, page: counts.update([path.name]) or real(path, page))
    return counts


def test_twelve_conversions_for_two_encoders_come_from_one_decode(tmp_path: Path, reads: Counter[str]) -> None:
    names = [name for name in CONVERSIONS if name != "none"]
    dataset = with_variants(make_dataset(tmp_path), converts=names)
    options = Options(weights="random", engine="torch", device="cpu")
    encoders, _ = make_encoders(["texture", "test_resnet"], dataset, options)
    reports = extract_features(dataset, encoders, FeatureStore(tmp_path / "f.zarr"))
    assert [report.embedded for report in reports] == [6] * 24
    assert len({report.fingerprint for report in reports}) == 24
    assert set(reads.values()) == {1} and len(reads) == N_IMAGES


def test_a_conversion_of_8_bit_images_says_that_it_changes_nothing(tmp_path: Path) -> None:
    dataset, store = make_dataset(tmp_path), FeatureStore(tmp_path / "f.zarr")
    variants = with_variants(dataset, converts=["none", "log", USUAL_CONVERSION])
    encoders, _ = make_encoders(["texture"], variants)
    said = {one.name: one.note for one in extract_features(variants, encoders, store)}
    assert said.pop("image:bf.log@texture") == (
        "convert = 'log' changes nothing here: the images have 8 bits, and their vectors are the plain ones"
    )
    assert set(said.values()) == {""} and len(said) == 2
    assert {one.note for one in extract_features(variants, encoders, store)} == {""}, "nothing was embedded"
    deep = np.random.default_rng(0).integers(0, 4096, (40, 50), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "images" / "3.png")
    changed = with_variants(load_dataset(tmp_path / "dataset.toml"), converts=["log"])
    assert [one.note for one in extract_features(changed, make_encoders(["texture"], changed)[0], store)] == [""]


def test_images_smaller_than_their_tiles_are_counted(tmp_path: Path) -> None:
    dataset, store = make_dataset(tmp_path), FeatureStore(tmp_path / "f.zarr")  # 40 to 45 rows of 50 px
    said, vectors = {}, {}
    for tile_px in (40, 41, 42, 64):
        cut = with_variants(dataset, tile_px=tile_px)
        encoders, _ = make_encoders(["texture"], cut)
        for _ in range(2):
            [report] = extract_features(cut, encoders, store)
            said.setdefault(tile_px, []).append(report.note)
        [[encoder]] = encoders.values()
        vectors[tile_px] = store.read(encoder.space, dataset.images["bf"].keys())  # type: ignore[arg-type]
    after = "it is not cut, and an image with two such sides is embedded whole"
    assert said[40] == ["", ""]
    assert said[41] == [f"1 image has a side shorter than tile_px = 41: {after}", ""], (
        "nothing is embedded the second time"
    )
    assert said[42] == [f"2 images have a side shorter than tile_px = 42: {after}", ""]
    assert said[64][0].startswith("6 images have")
    [report] = extract_features(dataset, make_encoders(["texture"], dataset)[0], store)
    whole = store.read(
        next(one for one in store.spaces() if one.fingerprint == report.fingerprint), dataset.images["bf"].keys()
    )  # type: ignore[arg-type]
    assert (vectors[64] == whole).all() and not (vectors[40] == whole).all()


def test_spaces_that_would_have_one_name_are_told_apart(tmp_path: Path) -> None:
    dataset, store = make_dataset(tmp_path), FeatureStore(tmp_path / "f.zarr")
    options = [Options(weights="random", seed=seed, engine="torch", device="cpu") for seed in (0, 1)]
    networks = [make_encoders(["test_resnet"], dataset, each)[0]["image:bf"][0] for each in options]
    texture = make_encoders(["texture"], dataset)[0]["image:bf"][0]
    reports = extract_features(dataset, {"image:bf": [*networks, texture]}, store)
    alike = [f"image:bf@test_resnet#{one.space.fingerprint[:8]}" for one in networks]
    assert [one.name for one in reports] == [*alike, "image:bf@texture"]
    assert [store.find(name) for name in alike] == [one.space for one in networks]
    assert set(block_spaces(dataset, store)) == {*alike, "image:bf@texture"}


def test_a_changed_view_is_never_served_old_vectors(tmp_path: Path) -> None:
    dataset, store = make_dataset(tmp_path), FeatureStore(tmp_path / "f.zarr")
    changes: list[dict[str, object]] = [
        {},
        {"views": ["fourier"]},
        {"views": ["blur:1"]},
        {"views": ["blur:2"]},
        {"tiles": "2x2"},
        {"tiles": "2x2", "pool": "max"},
        {"tile_px": 16},
        {"turns": "flips"},
        {"turns": "d4"},
    ]
    found = []
    for change in changes:
        changed = with_variants(dataset, **change)  # type: ignore[arg-type]
        [(name, block)] = changed.images.items()
        encoders = {f"image:{name}": [make_encoder("texture", block)]}
        assert extract_features(changed, encoders, store)[0].embedded == N_IMAGES
        assert extract_features(changed, encoders, store)[0].present == N_IMAGES
        found.append(store.read(encoders[f"image:{name}"][0].space, block.keys()))
    assert len({vectors.tobytes() for vectors in found}) == len(changes)


def test_stack_and_its_parts_come_from_one_decode(tmp_path: Path, reads: Counter[str]) -> None:
    make_dataset(tmp_path)
    (tmp_path / "images" / "fl").mkdir()
    for index in range(N_IMAGES):
        pixels = np.asarray(Image.open(tmp_path / "images" / f"{index}.png"))[index == 1 :, :, 0]
        Image.fromarray(255 - pixels).save(tmp_path / "images" / "fl" / f"{index}.png")
    extra = '[images.fl]\ncolumn = "file"\nfolder = "fl"\n[images.both]\nstack = ["bf", "fl"]\nturns = "flips"\n'
    spec = tmp_path / "dataset.toml"
    spec.write_text(spec.read_text() + extra)
    dataset, store = load_dataset(spec), FeatureStore(tmp_path / "f.zarr")
    options = Options(weights="random", engine="torch", device="cpu")
    encoders, _ = make_encoders(["texture", "test_resnet"], dataset, options)
    *parts, both = extract_features(dataset, encoders, store)
    assert [report.embedded for report in parts] == [6] * 4
    assert (both.name, both.rows, both.embedded, both.failed) == ("image:both@test_resnet", 6, 5, 1)
    reason = "cannot be stacked: its images have 41 x 50 and 40 x 50 px after the crop; they are to be of one size"
    assert both.failures == (Failure("row1", "file", "1.png + fl/1.png", reason),)
    assert set(reads.values()) == {2} and len(reads) == N_IMAGES  # each name stands in two folders
    assert probe_images(dataset) == [("row1", "both", reason)]


def test_images_that_share_files_are_read_together() -> None:
    a, b, c = (ImageRef(name) for name in "abc")
    items = {"A": (a,), "B": (b,), "C": (c,), "AB": (a, b), "BA": (b, a), "BC": (b, c)}
    units = pipeline._sharing(items)
    assert sorted(map(sorted, units)) == [["A", "AB", "B", "BA"], ["BC", "C"]]
    assert pipeline._sharing({"A": (a,), "B": (b,)}) == [["A"], ["B"]]


def test_blocks_of_one_space_share_vectors(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, extra='[images.fl]\ncolumn = "file"\nconvert = "none"\n')
    store, encoder = FeatureStore(tmp_path / "f.zarr"), Recorder()
    first, second = extract_features(dataset, {"image:bf": [encoder], "image:fl": [Recorder()]}, store)
    assert (first.embedded, first.shared, second.embedded, second.shared, second.present) == (6, 0, 0, 6, 0)
    assert sum(encoder.batches) == 6


def test_unreadable_images_are_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    cut = tmp_path / "images" / "1.png"
    cut.write_bytes(cut.read_bytes()[:200])
    (tmp_path / "images" / "2.png").unlink()
    store, encoder = FeatureStore(tmp_path / "f.zarr"), Recorder()
    report = embed(dataset, encoder, store)
    assert (report.embedded, report.failed, report.rows) == (4, 2, 6)
    assert [(one.row, one.column, one.file) for one in report.failures] == [
        ("row1", "file", "1.png"),
        ("row2", "file", "2.png"),
    ]
    assert all(one.reason for one in report.failures)
    again = embed(dataset, encoder, store)
    assert (again.embedded, again.present, again.failed) == (0, 4, 2)
    keys = dataset.images["bf"].keys()
    assert store.failures(encoder.space).keys() == {keys[1]}
    assert [(row, block) for row, block, _ in probe_images(dataset)] == [("row1", "bf")]  # row2's file is not there


def test_failed_rows_are_tried_again_only_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, store, reads = make_dataset(tmp_path), FeatureStore(tmp_path / "f.zarr"), []
    cut = tmp_path / "images" / "1.png"
    cut.write_bytes(cut.read_bytes()[:200])
    embed(dataset, Recorder(), store)
    real = preparation.read_image
    monkeypatch.setattr(preparation, "read_image", lambda path, page: reads.append(path.name) or real(path, page))
    embed(dataset, Recorder(), store)
    assert reads == []
    embed(dataset, Recorder(), store, retry=True)
    assert reads == ["1.png"]


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


def test_seconds_of_a_pass_are_divided_by_work(tmp_path: Path) -> None:
    class Sleeper(Recorder):
        def encode(self, batch: list[tuple[float, float]]) -> np.ndarray:
            time.sleep(0.2)
            return super().encode(batch)

    dataset, begun = make_dataset(tmp_path), time.perf_counter()
    encoders = {"image:bf": [Recorder("quick"), Sleeper("slow")]}
    quick, slow = extract_features(dataset, encoders, FeatureStore(tmp_path / "f.zarr"), batch_size=3)
    assert 0.2 < quick.seconds + slow.seconds < time.perf_counter() - begun
    assert quick.seconds < slow.seconds / 2
    assert slow.rows_per_second == pytest.approx(6 / slow.seconds, rel=0.01)


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


def test_texts_go_from_short_to_long_and_rows_stay_theirs(tmp_path: Path) -> None:
    class Lengths(WithoutNetwork):
        space = FeatureSpace("text", "lengths", 1, "0" * 64)

        def __init__(self) -> None:
            self.seen: list[int] = []

        def prepare(self, text: str) -> str:
            return text

        def encode(self, batch: list[str]) -> np.ndarray:
            self.seen += [len(text) for text in batch]
            return np.array([[len(text)] for text in batch], dtype=np.float32)

    dataset, store, encoder = make_dataset(tmp_path), FeatureStore(tmp_path / "f.zarr"), Lengths()
    steps: list[tuple[int, int]] = []
    extract_features(dataset, {"text:notes": [encoder]}, store, batch_size=4, progress=lambda *x: steps.append(x))
    assert encoder.seen == sorted(encoder.seen)
    texts = dataset.texts["notes"].texts
    vectors = store.read(encoder.space, dataset.texts["notes"].keys())
    assert vectors[:, 0].tolist() == [len(text or "") for text in texts]
    assert steps == [(i + 1, 6) for i in range(6)]


def test_unknown_block_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"block 'image:fb' is needed.*image:bf, text:notes"):
        extract_features(make_dataset(tmp_path), {"image:fb": []}, FeatureStore(tmp_path / "f.zarr"))


def test_work_ahead_is_bounded() -> None:
    started: list[int] = []
    results = in_order((i, lambda i=i: started.append(i)) for i in range(5000))
    next(results)
    time.sleep(0.05)
    assert len(started) <= 16 * ahead.MAX_WORKERS
    results.close()
