"""The conversions agree with slow references written from their sources, and keep what a careless one loses."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from extract.convert import FUNCTIONS, to_8bit
from extract.decode import ImageError, read_image
from store import CONVERSIONS

DATA = Path(__file__).parents[3] / "shared" / "data"
RNG = np.random.default_rng(0)
SMOOTH = cv2.GaussianBlur(RNG.normal(0, 1, (150, 210)), (0, 0), 6)
DEEP = np.clip(2000 + 6000 * SMOOTH + RNG.normal(0, 40, SMOOTH.shape), 0, 4095).astype(np.uint16)  # 12 bits
COLOUR = np.dstack([DEEP, DEEP // 2 + 300, 4095 - DEEP])
DEEPER = [name for name in FUNCTIONS if name != "none"]


SMALL = DEEP[:40, :50].copy()  # few pixels go without the table of all values


def windowed(v, low, high, exponent=1.0):
    return np.rint(255 * np.clip((v.astype(float) - low) / (high - low), 0, 1) ** exponent).astype(np.uint8)


def clahe(image):
    return cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(image)


def imagej_auto(v):
    """ContrastAdjuster.autoAdjust, first press, line by line."""
    low, high = float(v.min()), float(v.max())
    bin_size = (high - low) / 256
    histogram = [0] * 256
    for value in v.ravel().tolist():
        histogram[min(int((value - low) * (1 / bin_size)), 255)] += 1
    limit, threshold = v.size // 10, v.size // 5000
    i = -1
    while True:
        i += 1
        count = 0 if histogram[i] > limit else histogram[i]
        if count > threshold or i >= 255:
            break
    first, i = i, 256
    while True:
        i -= 1
        count = 0 if histogram[i] > limit else histogram[i]
        if count > threshold or i <= 0:
            break
    if i < first or i == first:
        return low, high
    return low + first * bin_size, low + i * bin_size


REFERENCES = {
    "fixed": lambda v: windowed(v, 0, 65535),
    "linear": lambda v: windowed(v, v.min(), v.max()),
    "percentile_stretch": lambda v: windowed(v, *np.percentile(v, (2, 98))),
    "percentile_clip": lambda v: windowed(v, *np.percentile(v, (0.175, 99.825))),
    "gamma": lambda v: windowed(v, 0, 65535, 1 / 2.2),
    "log": lambda v: np.rint(255 * np.log(1.0 + v) / np.log(1.0 + v.max())).astype(np.uint8),
    "sqrt": lambda v: windowed(v, 0, v.max(), 0.5),
    "imagej": lambda v: windowed(v, *imagej_auto(v)),
    "linear+gamma": lambda v: windowed(v, v.min(), v.max(), 1 / 2.2),
    "linear+clahe": lambda v: clahe(windowed(v, v.min(), v.max())),
    "percentile_clip+gamma": lambda v: windowed(v, *np.percentile(v, (0.175, 99.825)), 1 / 2.2),
    "percentile_clip+gamma+clahe": lambda v: clahe(windowed(v, *np.percentile(v, (0.175, 99.825)), 1 / 2.2)),
}


def test_the_twelve_names_and_none():
    assert set(FUNCTIONS) == set(CONVERSIONS) == {"none", *REFERENCES}
    assert len(REFERENCES) == 12


@pytest.mark.parametrize("name", DEEPER)
def test_16_bits_equal_the_slow_reference(name):
    for image in (np.tile(DEEP, (3, 1)), DEEP, SMALL):
        np.testing.assert_array_equal(to_8bit(image, name), REFERENCES[name](image))


@pytest.mark.parametrize("name", [name for name in DEEPER if "fixed" not in name and name != "gamma"])
def test_float_equals_the_slow_reference(name):
    real = DEEP.astype(np.float32)
    np.testing.assert_array_equal(to_8bit(real, name), REFERENCES[name](real.astype(float)))


@pytest.mark.parametrize("name", DEEPER)
def test_colour_takes_its_statistics_over_all_channels(name):
    got = to_8bit(COLOUR, name)
    if "clahe" not in name:
        np.testing.assert_array_equal(got, REFERENCES[name](COLOUR))
        return
    parts = cv2.cvtColor(to_8bit(COLOUR, name.removesuffix("+clahe")), cv2.COLOR_RGB2YCrCb)
    parts[..., 0] = clahe(parts[..., 0].copy())
    np.testing.assert_array_equal(got, cv2.cvtColor(parts, cv2.COLOR_YCrCb2RGB))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_8_bits_pass_unchanged(name):
    image = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_8bit(image, name), image)


@pytest.mark.parametrize("name", DEEPER)
@pytest.mark.parametrize("value", [0, 700, 65535])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (1, 1)])
def test_one_value_stays_one_value(name, value, shape):
    got = to_8bit(np.full(shape, value, np.uint16), name)
    assert got.shape == shape and got.dtype == np.uint8
    assert len(np.unique(got)) == 1


@pytest.mark.parametrize("name", [name for name in DEEPER if "clahe" not in name])
def test_brighter_never_becomes_darker(name):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert (np.diff(to_8bit(ramp, name).ravel().astype(int)) >= 0).all()


@pytest.mark.parametrize("name", DEEPER)
def test_input_is_left_alone(name):
    image = DEEP.copy()
    to_8bit(image, name)
    np.testing.assert_array_equal(image, DEEP)


def test_every_two_conversions_differ():
    results = {name: to_8bit(DEEP, name) for name in DEEPER}
    for name, other in ((a, b) for a in results for b in results if a < b):
        assert np.abs(results[name].astype(int) - results[other]).mean() > 0.5, (name, other)


def test_percentiles_of_large_images_are_exact(monkeypatch):
    monkeypatch.setattr("extract.convert._FLOAT32_COUNTS", 10)
    large = np.tile(DEEP, (3, 1))
    np.testing.assert_array_equal(to_8bit(large, "percentile_clip"), REFERENCES["percentile_clip"](large))


def test_specks_on_one_value_are_stretched_over_the_whole_range():
    image = np.full((100, 100), 500, np.uint16)
    image[3, 4], image[7, 8] = 400, 600
    for name in ("percentile_stretch", "percentile_clip", "imagej"):
        assert set(np.unique(to_8bit(image, name))) == {0, 128, 255}


def test_older_opencv_without_long_tables_gives_the_same(monkeypatch):
    large = np.tile(DEEP, (3, 1))
    expected = to_8bit(large, "sqrt")

    def refuse(*_args):
        raise cv2.error("lut")

    monkeypatch.setattr(cv2, "LUT", refuse)
    np.testing.assert_array_equal(to_8bit(large, "sqrt"), expected)


def test_fixed_and_gamma_take_floats_of_0_to_1():
    real = (DEEP / DEEP.max()).astype(np.float32)
    np.testing.assert_array_equal(to_8bit(real, "fixed"), np.rint(255 * real.astype(float)))
    assert to_8bit(real, "gamma").max() == 255
    for name in ("fixed", "gamma"):
        with pytest.raises(ImageError, match=r"real values of -0.5 to 0.5; 'fixed' and 'gamma' take 0 to 1"):
            to_8bit(np.array([[-0.5, 0.5]], np.float32), name)


@pytest.mark.parametrize("name", [name for name in DEEPER if name not in ("fixed", "gamma")])
def test_negative_floats_are_shown(name):
    real = (SMOOTH * 10).astype(np.float32)
    got = to_8bit(real, name)
    assert got.min() < 60 and got.max() > 180
    assert len(np.unique(got)) > 100


def test_none_refuses_more_than_8_bits():
    with pytest.raises(ImageError, match=r"has uint16 values and convert = 'none' takes 8 bits only; choose"):
        to_8bit(DEEP, "none")


def levels(image):
    return len(np.unique(image))


def test_12_bits_in_a_16_bit_file_keep_their_levels_where_careless_readers_lose_them(tmp_path):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, DEEP)
    with Image.open(path) as image:
        by_pillow = np.asarray(image.convert("RGB"))[..., 0]
    by_opencv = cv2.imread(str(path), cv2.IMREAD_COLOR)[..., 0]
    assert levels(by_pillow) < 20 or (by_pillow == 255).mean() > 0.9  # saturates or drops the low byte
    assert levels(by_opencv) <= 16  # drops the low byte: 12 bits are 16 levels
    ours = to_8bit(read_image(path), "percentile_stretch")
    assert levels(ours) > 200
    assert (ours == 255).mean() < 0.03
    assert levels(to_8bit(read_image(path), "fixed")) <= 17  # what the full range honestly gives


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is absent")
def test_real_cells_near_700_keep_their_levels():
    cells = [read_image(path) for path in sorted(DATA.glob("ifc_cellcycle/BF/*.tif"))[::400]]
    for cell in cells:
        distinct = levels(cell)
        assert levels(to_8bit(cell, "fixed")) < 12
        assert levels(to_8bit(cell, "percentile_stretch")) > min(0.3 * distinct, 100)
