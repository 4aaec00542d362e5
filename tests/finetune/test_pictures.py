from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extract import ImageError, prepare_image, read_image
from extract.convert import FUNCTIONS as CONVERT
from extract.spectrum import spectrum_image
from extract.view import render
from finetune.augment import augmented, draw, draw_conversion
from finetune.pictures import Change, ImageInput
from finetune.settings import AugmentSettings
from store import Dataset, ImageBlock, InputError, view_settings
from tests.finetune.small import AS_IT_IS, PREPROCESS, make_dataset

BF = '[images.bf]\ncolumn = "file"\n'
TWICE = BF + '[images.fl]\ncolumn = "file"\n'
FOURIER = BF + '[images.spectrum]\ncolumn = "file"\nview = "fourier"\n'
SMOOTH = FOURIER.replace('"file"', '"file"\nview = "blur:4"', 1)
GEOMETRY = AugmentSettings(
    hflip=0.5, vflip=0.5, rotate_deg=30, translate=0.1, scale=0.2, shear_deg=5, crop_scale=0.5, noise=0.05, blur=1
)
COLOURS = GEOMETRY.model_copy(update={"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1})


def made(dataset: Dataset, *names: str, change: Change | None = None, **preprocess: Any) -> ImageInput:
    blocks = [dataset.images[name] for name in names]
    return ImageInput(blocks, {**PREPROCESS, **preprocess}, change or Change())


def look(given: ImageInput, row: int, epoch: int = 0) -> np.ndarray:
    return given.finish(given.begin(row), epoch=epoch, row=row)


def extracted(block: ImageBlock, row: int, preprocess: Mapping[str, Any] = PREPROCESS) -> np.ndarray:
    """What extraction feeds a backbone."""
    refs = block.sources[row]
    assert refs is not None
    images = [read_image(ref.path, ref.page) for ref in refs]
    return prepare_image(render(images, view_settings(block)), preprocess)


@pytest.mark.parametrize("depth", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(
    "how",
    [
        "",
        'convert = "log"\n',
        'convert = "percentile_clip+gamma+clahe"\n',
        "crop_bottom_px = 7\n",
        'view = "fourier"\n',
        'view = "blur:1.5"\n',
    ],
)
def test_validation_inputs_are_extractions(tmp_path: Path, depth: str, how: str) -> None:
    dataset = make_dataset(tmp_path, BF + how, depth=depth)
    given = made(dataset, "bf")
    for row in (0, 5):
        assert np.array_equal(look(given, row, epoch=3), extracted(dataset.images["bf"], row))


def test_stacks_are_extractions_too(tmp_path: Path) -> None:
    blocks = TWICE.replace('fl]\ncolumn = "file"', 'fl]\ncolumn = "file"\nconvert = "log"')
    dataset = make_dataset(tmp_path, blocks + '[images.both]\nstack = ["bf", "fl"]\n', depth="uint16")
    want = extracted(dataset.images["both"], 2)
    assert want.shape == (32, 32, 6) and not np.array_equal(want[..., :3], want[..., 3:])
    assert np.array_equal(look(made(dataset, "both"), 2), want)
    assert np.array_equal(look(made(dataset, "bf", "fl"), 2), want)


@pytest.mark.parametrize("depth", ["uint8", "uint16"])
def test_all_modalities_of_a_row_are_augmented_alike(tmp_path: Path, depth: str) -> None:
    dataset = make_dataset(tmp_path, TWICE + '[images.both]\nstack = ["bf", "fl"]\n', depth=depth)
    bf, fl, both = (made(dataset, name, change=Change(COLOURS)) for name in ("bf", "fl", "both"))
    plain = made(dataset, "bf")
    for row, epoch in ((0, 0), (5, 0), (5, 1)):
        assert np.array_equal(look(bf, row, epoch), look(fl, row, epoch))
        assert np.array_equal(look(both, row, epoch), np.concatenate([look(bf, row, epoch)] * 2, axis=2))
        assert not np.array_equal(look(bf, row, epoch), look(plain, row))
    assert not np.array_equal(look(bf, 5, 0), look(bf, 5, 1))


def test_a_spectrum_is_that_of_the_augmented_picture(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, FOURIER, size=(32, 32))
    change = Change(GEOMETRY, seed=4)
    bf, spectrum = (made(dataset, name, change=change, **AS_IT_IS) for name in ("bf", "spectrum"))
    for row in (0, 5):
        picture = look(bf, row, epoch=2)  # neither resized nor cropped
        want = spectrum_image(picture)
        assert np.array_equal(look(spectrum, row, epoch=2), np.repeat(want[..., None], 3, axis=2))
        assert not np.array_equal(want, spectrum_image(read_image(dataset.images["bf"].sources[row][0].path)))


def test_a_spectrum_is_taken_of_the_full_depth_and_without_colours(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, FOURIER, depth="uint16")
    drawn = draw(GEOMETRY, seed=0, epoch=1, row=3)
    raw = read_image(dataset.images["bf"].sources[3][0].path)
    want = prepare_image(spectrum_image(augmented(raw, drawn, input_px=32)), PREPROCESS)
    assert raw.max() > 1000
    assert np.array_equal(look(made(dataset, "spectrum", change=Change(COLOURS)), 3, epoch=1), want)


def test_a_conversion_is_drawn_for_each_row_and_epoch(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, TWICE, depth="uint16")
    bf, fl = (made(dataset, name, change=Change(draws_conversion=True, seed=9)) for name in ("bf", "fl"))
    names = {draw_conversion(seed=9, epoch=epoch, row=1) for epoch in range(60)}
    assert names == set(CONVERT) - {"none"}
    for epoch in range(8):
        name = draw_conversion(seed=9, epoch=epoch, row=1)
        raw = read_image(dataset.images["bf"].sources[1][0].path)
        want = prepare_image(CONVERT[name](raw), PREPROCESS)
        assert np.array_equal(look(bf, 1, epoch), want) and np.array_equal(look(fl, 1, epoch), want)


def test_a_conversion_is_drawn_before_the_picture_is_augmented(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, BF, depth="uint16")
    given = made(dataset, "bf", change=Change(COLOURS, draws_conversion=True))
    raw = read_image(dataset.images["bf"].sources[4][0].path)
    converted = CONVERT[draw_conversion(seed=0, epoch=2, row=4)](raw)
    drawn = draw(COLOURS, seed=0, epoch=2, row=4)
    want = prepare_image(augmented(converted, drawn, input_px=32), PREPROCESS)
    assert np.array_equal(look(given, 4, epoch=2), want)


def test_an_image_that_some_conversion_does_not_take_is_refused_at_once(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, BF, depth="float32")
    with pytest.raises(ImageError, match=r"real values of .* 'fixed' and 'gamma' take 0 to 1"):
        made(dataset, "bf", change=Change(draws_conversion=True)).begin(0)


def test_large_pictures_are_augmented_at_twice_the_input(tmp_path: Path) -> None:
    flips = Change(AugmentSettings(hflip=1.0))
    for size, kept in (((64, 90), (64, 90)), ((96, 180), (64, 120)), ((50, 50), (50, 50))):
        dataset = make_dataset(tmp_path / str(size), SMOOTH, size=size)
        assert [p.shape[:2] for p in made(dataset, "bf", change=flips).begin(0)] == [kept]
        assert [p.shape[:2] for p in made(dataset, "spectrum", change=flips).begin(0)] == [size]
        got, want = look(made(dataset, "bf", change=flips), 0), look(made(dataset, "bf"), 0)[:, ::-1]
        assert np.abs(got.astype(int) - want).mean() < 2


def test_tiles_and_turns_are_refused(tmp_path: Path) -> None:
    for how in ('tiles = "2x2"', 'turns = "d4"', "tile_px = 16"):
        dataset = make_dataset(tmp_path, BF + how + "\n")
        with pytest.raises(InputError, match=r"\[images\.bf\] has tiles or turns.*--set blocks"):
            made(dataset, "bf")


def test_a_row_without_a_file_says_so(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, BF)
    given = made(dataset, "bf")
    given.sources = [None, *given.sources[1:]]
    with pytest.raises(LookupError, match=r"has no file for \[images.bf\]"):
        given.begin(0)
