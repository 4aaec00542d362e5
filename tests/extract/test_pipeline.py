"""From a dataset to vectors in the store: each image decoded once, each content embedded once."""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract import Failure, pipeline, preparation
from extract.encoder import make_encoders
from extract.network import Options
from extract.pipeline import extract_features
from extract.preparation import probe_images
from store import CONVERSIONS, FeatureSpace, FeatureStore, ImageRef, InputError, load_dataset, with_variants
from tests.extract.made import WithoutNetwork, make_encoder
from tests.extract.recorded import N_IMAGES, Recorder, embed, make_dataset


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
