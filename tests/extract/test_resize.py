"""`resize_rgb` equals timm's evaluation transform on Pillow images within one level."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract import resize
from extract.decode import read_image
from extract.resize import CROP_MODES, INTERPOLATIONS, resize_rgb
from store import InputError

timm_data = pytest.importorskip("timm.data")

DATA = Path(__file__).parents[3] / "shared" / "data"
RNG = np.random.default_rng(0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPES = [(300, 400), (401, 303), (687, 512), (40, 40), (33, 90), (224, 224), (256, 256), (224, 256), (1024, 1024)]


def noise(shape, *channels):
    """Hard black and white blocks and noise: what overshoots most when resized."""
    blocks = np.kron(RNG.integers(0, 2, [-(-s // 8) for s in shape]), np.ones((8, 8), int))[: shape[0], : shape[1]]
    image = np.clip(blocks * 255 + RNG.normal(0, 30, shape), 0, 255).astype(np.uint8)
    return np.dstack([image, image[::-1], 255 - image]) if channels else image


def preprocess(**changes):
    base = {"input_px": [224, 224], "resize_px": 256, "crop_mode": "center", "interpolation": "bicubic"}
    return base | {"mean": list(MEAN), "std": list(STD), "pixel_code": 1} | changes


def by_timm(pixels, settings, crop_pct):
    transform = timm_data.create_transform(
        input_size=(3, *settings["input_px"]),
        interpolation=settings["interpolation"],
        crop_mode=settings["crop_mode"],
        crop_pct=crop_pct,
        mean=MEAN,
        std=STD,
        normalize=False,
    )
    return transform(Image.fromarray(pixels).convert("RGB")).permute(1, 2, 0).numpy()


@pytest.fixture(autouse=True)
def across_before_down(monkeypatch):
    """Pillow resizes across, then down; recent ones swap the two where that is cheaper: it shows at clipped edges."""
    whole = Image.Image.resize

    def in_two_steps(self, size, resample=None, box=None, **options):
        if box is not None:  # one direction at a time already
            return whole(self, size, resample, box, **options)
        return whole(whole(self, (size[0], self.height), resample), size, resample)

    monkeypatch.setattr(Image.Image, "resize", in_two_steps)


def assert_equal_within_one_level(got, expected):
    """Where bicubic overshoots black and white, weights of 16 bits may cost a second level at a few pixels."""
    assert got.shape == expected.shape and got.dtype == np.uint8
    difference = np.abs(got.astype(int) - expected)
    assert difference.max() <= 2
    assert (difference > 1).mean() < 1e-4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("crop_mode", CROP_MODES)
@pytest.mark.parametrize("channels", [(), (3,)])
def test_equals_timm_within_one_level(shape, interpolation, crop_mode, channels):
    pixels = noise(shape, *channels)
    settings = preprocess(interpolation=interpolation, crop_mode=crop_mode)
    assert_equal_within_one_level(resize_rgb(pixels, settings), by_timm(pixels, settings, 0.875))


@pytest.mark.parametrize("crop_mode", CROP_MODES)
@pytest.mark.parametrize(("input_px", "resize_px", "crop_pct"), [
    ([224, 224], 224, 1.0),
    ([224, 224], [224, 224], 1.0),
    ([299, 299], 332, 0.9),
    ([384, 288], [438, 329], 0.875),
    ([128, 256], [128, 256], 1.0),
])  # fmt: skip
def test_other_sizes_equal_timm_within_one_level(crop_mode, input_px, resize_px, crop_pct):
    settings = preprocess(input_px=input_px, resize_px=resize_px, crop_mode=crop_mode)
    for shape in ((300, 400), (401, 303), (60, 50)):
        for pixels in (noise(shape), noise(shape, 3)):
            assert_equal_within_one_level(resize_rgb(pixels, settings), by_timm(pixels, settings, crop_pct))


@pytest.mark.parametrize("shape", [(30, 500), (500, 30), (600, 5000)])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_narrow_images_equal_timm_within_one_level(shape, channels):
    pixels = noise(shape, *channels)
    assert_equal_within_one_level(resize_rgb(pixels, preprocess()), by_timm(pixels, preprocess(), 0.875))


@pytest.mark.parametrize("shape", [(1, 1), (1, 200_000), (200_000, 1), (2, 3)])
def test_the_smallest_and_longest_images_take_no_extra_memory(shape):
    got = resize_rgb(np.full(shape, 77, np.uint8), preprocess())
    np.testing.assert_array_equal(got, np.full((224, 224, 3), 77))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_grey_equals_three_equal_channels(interpolation):
    for shape in SHAPES:
        pixels = noise(shape)
        settings = preprocess(interpolation=interpolation)
        assert_equal_within_one_level(resize_rgb(pixels, settings), resize_rgb(np.dstack([pixels] * 3), settings))


def test_read_only_and_sliced_pixels_are_taken():
    pixels = noise((300, 400), 3)
    expected = resize_rgb(pixels[10:290, 20:380].copy(), preprocess())
    pixels.setflags(write=False)
    np.testing.assert_array_equal(resize_rgb(pixels[10:290, 20:380], preprocess()), expected)
    grey = pixels[..., 0]
    np.testing.assert_array_equal(resize_rgb(grey, preprocess()), resize_rgb(grey.copy(), preprocess()))


def test_the_result_is_contiguous_and_its_own():
    pixels = noise((224, 224), 3)
    got = resize_rgb(pixels, preprocess(resize_px=224))
    assert got.flags.c_contiguous and got.flags.writeable
    np.testing.assert_array_equal(got, pixels)


def test_border_is_filled_with_the_mean():
    got = resize_rgb(noise((100, 300), 3), preprocess(crop_mode="border", resize_px=224))
    np.testing.assert_array_equal(got[0], np.tile([round(255 * v) for v in MEAN], (224, 1)))


def test_unknown_words_are_refused():
    with pytest.raises(InputError, match="crop_mode 'middle' is not one of center, squash, border"):
        resize_rgb(noise((9, 9)), preprocess(crop_mode="middle"))
    with pytest.raises(InputError, match="interpolation 'lanczos' is not one of bicubic, bilinear"):
        resize_rgb(noise((9, 9)), preprocess(interpolation="lanczos"))


def test_narrow_images_resize_only_what_is_kept(monkeypatch):
    monkeypatch.setattr(resize, "_interpolate", None)
    assert resize_rgb(noise((20, 4000)), preprocess()).shape == (224, 224, 3)


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is absent")
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_real_images_equal_timm_within_one_level(interpolation):
    settings = preprocess(interpolation=interpolation)
    paths = [*sorted(DATA.glob("emps/images/*.png"))[::80], *sorted(DATA.glob("trashnet/images/*/*.jpg"))[::250]]
    for path in paths:
        pixels = read_image(path)
        expected = by_timm(pixels, settings, 0.875).astype(int)
        assert np.abs(resize_rgb(pixels, settings) - expected).max() <= 1
