"""What a run says of each space: counts, failures, seconds, notes and names."""

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract.encoder import make_encoders
from extract.network import Options
from extract.pipeline import extract_features
from extract.preparation import probe_images
from store import USUAL_CONVERSION, FeatureStore, block_spaces, load_dataset, with_variants
from tests.extract.recorded import Recorder, embed, make_dataset


def test_equal_content_is_embedded_once(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, files=["0.png", "0.png", "1.png"])
    report = embed(dataset, Recorder(), FeatureStore(tmp_path / "f.zarr"))
    assert (report.rows, report.embedded, report.shared, report.present, report.failed) == (3, 2, 1, 0, 0)
    report = embed(dataset, Recorder(), FeatureStore(tmp_path / "f.zarr"))
    assert (report.rows, report.embedded, report.shared, report.present, report.failed) == (3, 0, 0, 3, 0)


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
