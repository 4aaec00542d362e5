import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from extract import extract_features, make_encoders
from extract.convert import to_8bit
from extract.decode import read_image
from extract.infobar import FINDERS, find_info_bar
from store import INFO_BAR, FeatureSpace, FeatureStore, InputError, StoreError, load_dataset, prediction_dataset

Image8 = NDArray[np.uint8]
REAL_BARS = {
    "1b3c6536a3": 50, "245e1a4826": 39, "2bc87a8698": 25, "31f17306c8": 32, "37ce835fb2": 46, "39b0dc1f52": 48,
    "4628753cd8": 49, "724248a877": 27, "8d7fc4c578": 32, "a4027c076c": 49, "e59a1a493e": 44, "ef6bbe7612": 31,
}  # fmt: skip
"""Rows of bars in EMPS, read off the picture by eye: Zeiss (white and black), FEI, Hitachi, JEOL."""


def picture(height: int = 400, width: int = 600, seed: int = 0) -> Image8:
    """Blobs on a noisy grey ground."""
    rng = np.random.default_rng(seed)
    blobs = cv2.GaussianBlur(rng.normal(0, 1, (height, width)), (0, 0), 12)
    noisy = 110 + 50 * blobs / blobs.std() + rng.normal(0, 12, (height, width))
    pixels: Image8 = np.clip(noisy, 1, 254).astype(np.uint8)
    return pixels


def bar(width: int, rows: int, *, ground: int = 0) -> Image8:
    drawn = np.full((rows, width), ground, np.uint8)
    ink = 255 if ground < 128 else 0
    place, face = (width // 50, int(0.7 * rows)), cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(drawn, "HV 15.00 kV  WD 5.1 mm  mag 20 000 x", place, face, rows / 70, ink, 1, cv2.LINE_AA)
    cv2.line(drawn, (int(width * 0.8), rows // 2), (int(width * 0.95), rows // 2), ink, max(1, rows // 20))
    return drawn


def with_bar(pixels: Image8, rows: int, *, ground: int = 0, border: int = 0) -> Image8:
    line = np.full((border, pixels.shape[1]), 255 - ground, np.uint8)
    return np.vstack([pixels, line, bar(pixels.shape[1], rows - border, ground=ground)])


@pytest.mark.parametrize("ground", [0, 30, 128, 220, 255])
@pytest.mark.parametrize("rows", [15, 30, 60, 100])
def test_a_bar_is_found_to_the_row(ground: int, rows: int) -> None:
    assert find_info_bar(with_bar(picture(), rows, ground=ground)) == rows


def test_a_line_above_the_bar_belongs_to_it() -> None:
    assert find_info_bar(with_bar(picture(), 40, border=2)) == 40


@pytest.mark.parametrize("rows", [0, 40])
def test_every_kind_of_pixels_gives_the_same_rows(rows: int) -> None:
    grey = with_bar(picture(), rows) if rows else picture()
    kinds: list[NDArray[Any]] = [
        grey,
        np.stack([grey] * 3, axis=-1),
        grey.astype(np.uint16) * 257,
        grey.astype(np.float32) / 255,
    ]
    assert [find_info_bar(pixels) for pixels in kinds] == [rows] * 4


def test_a_white_bar_below_dark_12_bit_pixels_is_found_and_no_longer_spoils_the_percentiles() -> None:
    dark = picture().astype(np.uint16) * 4
    white = np.where(bar(600, 40, ground=255) == 255, 65535, 0).astype(np.uint16)
    whole = np.vstack([dark, white])
    assert find_info_bar(whole) == 40
    bright = to_8bit(whole[: -find_info_bar(whole)], "percentile_stretch")
    assert np.array_equal(bright, to_8bit(dark, "percentile_stretch"))


@pytest.mark.parametrize("quality", [75, 90])
def test_a_bar_is_found_through_jpeg(quality: int) -> None:
    code = cv2.imencode(".jpg", with_bar(picture(), 40), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    assert abs(find_info_bar(np.asarray(cv2.imdecode(code, cv2.IMREAD_GRAYSCALE), np.uint8)) - 40) <= 1


def ramp() -> Image8:
    return np.repeat(np.linspace(0, 255, 400).astype(np.uint8)[:, None], 600, axis=1)


def text_in_the_picture() -> Image8:
    pixels = picture()
    cv2.putText(pixels, "SU8010 5.0kV 9.2mm x600", (20, 390), cv2.FONT_HERSHEY_SIMPLEX, 1, 255, 2)
    return pixels


def partial_bar() -> Image8:
    pixels = picture()
    pixels[-40:, :300] = bar(300, 40)
    return pixels


def on_its_own_ground() -> Image8:
    """A black bar below a picture whose own ground is just as black: nobody can say where it begins."""
    return with_bar(np.where(picture() > 150, picture(), 0).astype(np.uint8), 40)


NO_BAR: dict[str, Callable[[], NDArray[Any]]] = {
    "picture": picture,
    "black": lambda: np.zeros((400, 600), np.uint8),
    "white": lambda: np.full((400, 600, 3), 255, np.uint8),
    "margin without text": lambda: np.vstack([picture(), np.full((40, 600), 255, np.uint8)]),
    "margins all around": lambda: np.pad(picture(), 30, constant_values=255),
    "ramp": ramp,
    "text in the picture": text_in_the_picture,
    "a bar of half the width": partial_bar,
    "black picture": on_its_own_ground,
    "too high": lambda: with_bar(picture(), 200),
    "too low": lambda: with_bar(picture(), 4),
    "at the top": lambda: np.vstack([bar(600, 40), picture()]),
    "noise": lambda: np.random.default_rng(0).integers(0, 256, (400, 600)).astype(np.uint8),
    "12 bit noise": lambda: np.random.default_rng(0).integers(0, 4096, (400, 600)).astype(np.uint16),
    "tiny": lambda: np.zeros((3, 5), np.uint8),
    "one pixel": lambda: np.zeros((1, 1, 3), np.uint16),
}


@pytest.mark.parametrize("name", NO_BAR)
def test_nothing_is_cut_where_there_is_no_bar_or_it_is_in_doubt(name: str) -> None:
    assert find_info_bar(NO_BAR[name]()) == 0


def test_real_bars_are_found_and_photographs_left_whole(shared: Path) -> None:
    """EMPS are figures of papers, resampled and compressed, so that edges are blurred over two or three rows."""
    folder = shared / "data" / "emps" / "images"
    found = {name: find_info_bar(read_image(folder / f"{name}.png")) for name in REAL_BARS}
    assert {name: rows for name, rows in found.items() if abs(rows - REAL_BARS[name]) > 2} == {}
    photos = sorted((shared / "data" / "trashnet" / "images").rglob("*.jpg"))[::10]
    assert photos and not any(find_info_bar(read_image(path)) for path in photos)


def test_bars_drawn_below_real_micrographs_are_found(shared: Path) -> None:
    paths = sorted((shared / "data" / "emps" / "images").iterdir())[::5]
    plain = [pixels for path in paths if not find_info_bar(pixels := read_image(path))]
    drawn = [(20 + 7 * k % 60, [0, 255, 128, 40, 200][k % 5]) for k in range(len(plain))]
    images = [with_bar(pixels, rows, ground=ground) for pixels, (rows, ground) in zip(plain, drawn, strict=True)]
    near = [abs(find_info_bar(image) - rows) <= 2 for image, (rows, _) in zip(images, drawn, strict=True)]
    assert len(near) > 70 and np.mean(near) >= 0.95


# --- in the spec, the space and the pipeline ---


def auto_spec(make_dataset: Callable[..., Path], folder: Path, value: str = '"auto"') -> Path:
    spec = make_dataset(folder=folder)
    spec.write_text(spec.read_text().replace('column = "file"', f'column = "file"\ncrop_bottom_px = {value}'))
    return spec


def test_the_version_of_the_search_is_recorded(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    dataset = load_dataset(auto_spec(make_dataset, tmp_path))
    assert dataset.images["bf"].crop_bottom_px == INFO_BAR and INFO_BAR in FINDERS
    encoders, _ = make_encoders(["texture"], dataset)
    space = encoders["image:bf"][0].space
    assert space.crop_bottom_px == INFO_BAR
    assert FeatureSpace.from_json(space.to_json()) == space
    assert prediction_dataset(dataset.spec, tmp_path / "images").images["bf"].crop_bottom_px == INFO_BAR


def test_another_version_of_the_search_is_refused() -> None:
    text = FeatureSpace("image", "texture", 3, "v", crop_bottom_px=INFO_BAR).to_json().replace(INFO_BAR, "auto-99")
    with pytest.raises(StoreError, match="'auto-99' is not 'auto-1': use the version that wrote it"):
        FeatureSpace.from_json(text)


@pytest.mark.parametrize("value", ["-1", '"automatic"', "1.5", "true"])
def test_other_values_are_refused_in_one_message(make_dataset: Callable[..., Path], tmp_path: Path, value: str) -> None:
    with pytest.raises(InputError, match="needs a number of rows from 0 on, or 'auto'") as caught:
        load_dataset(auto_spec(make_dataset, tmp_path, value))
    assert str(caught.value).count("crop_bottom_px") == 1


def test_vectors_are_those_of_the_picture_without_its_bar(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    with_it, without = tmp_path / "with", tmp_path / "without"
    vectors = []
    for folder, value in ((with_it, '"auto"'), (without, "0")):
        folder.mkdir()
        dataset = load_dataset(auto_spec(make_dataset, folder, value))
        shutil.rmtree(folder / "images")
        (folder / "images").mkdir()
        for k, ref in enumerate(dataset.images["bf"].refs):
            assert ref is not None
            pixels = picture(seed=k)
            cv2.imwrite(str(ref.path), with_bar(pixels, 40, ground=255) if folder is with_it else pixels)
        encoders, _ = make_encoders(["texture"], dataset)
        store = FeatureStore(folder / "features.zarr")
        extract_features(dataset, encoders, store)
        keys = list(filter(None, dataset.images["bf"].keys()))
        vectors.append(store.read(encoders["image:bf"][0].space, keys))
    assert np.array_equal(vectors[0], vectors[1])
