import numpy as np
import pytest

from extract.spectrum import log_spectrum, spectrum_image

N = 64


def grating(cycles_x: int, cycles_y: int, *, shape: tuple[int, int] = (N, N), top: float = 255) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return top * (0.5 + 0.25 * np.cos(2 * np.pi * (cycles_x * x / shape[1] + cycles_y * y / shape[0])))


@pytest.mark.parametrize(("cx", "cy"), [(8, 0), (0, 5), (7, 12), (31, 31)])
@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1e4)])
def test_a_grating_shows_as_two_points_at_its_frequency(cx: int, cy: int, dtype: type, top: float) -> None:
    image = spectrum_image(np.rint(grating(cx, cy, top=top)).astype(dtype))
    centre = N // 2
    assert image[centre + cy, centre + cx] == image[centre - cy, centre - cx] == 255
    image[centre, centre] = image[centre + cy, centre + cx] = image[centre - cy, centre - cx] = 0
    assert image.max() < 200


def test_values_are_the_log_of_one_and_the_magnitude() -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (30, 30), dtype=np.uint16)
    want = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(pixels.astype(np.float64)))))
    assert np.abs(log_spectrum(pixels) - want).max() < 1e-5
    others = np.delete(want.ravel(), 15 * 30 + 15)
    low, high = np.percentile(np.append(others, want.min()), 1), others.max()
    assert np.abs(spectrum_image(pixels) - np.clip(255 * (want - low) / (high - low), 0, 255)).max() < 0.51


@pytest.mark.parametrize("shape", [(64, 64), (48, 81), (81, 48)])
def test_shifted_image_has_the_same_spectrum(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, shape, dtype=np.uint16)
    shifted = np.roll(pixels, (11, -17), axis=(0, 1))
    assert np.abs(spectrum_image(pixels).astype(int) - spectrum_image(shifted)).max() <= 1


def test_large_magnitudes_do_not_wrap() -> None:
    """A cast of 20 ln|F| to 8 bits wraps past 255; here the order of magnitudes stays."""
    pixels = np.random.default_rng(0).integers(0, 65536, (128, 128), dtype=np.uint16)
    values, image = log_spectrum(pixels).ravel(), spectrum_image(pixels).ravel()
    assert (20 * values).max() > 255
    assert (np.diff(image[np.argsort(values)].astype(int)) >= 0).all()


@pytest.mark.parametrize("shape", [(64, 160), (160, 64), (64, 101), (63, 100)])
def test_rings_stay_round_in_images_that_are_not_square(shape: tuple[int, int]) -> None:
    """A quarter of a cycle per px lies at a quarter of the side in both directions."""
    n = min(shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    found = [log_spectrum(128 + 100 * np.cos(2 * np.pi * along / 4)) for along in (x, y)]
    across, down = found[0][n // 2], found[1][:, n // 2]
    for line in (across, down):
        line[n // 2] = 0
        assert abs(abs(int(line.argmax()) - n // 2) - n / 4) <= 1
    assert log_spectrum(np.full(shape, 9.0)).argmax() == n * (n // 2) + n // 2


def test_brightness_and_contrast_drop_out() -> None:
    pixels = np.random.default_rng(0).normal(5000, 500, (64, 64))
    first, second = spectrum_image(pixels.astype(np.float32)), spectrum_image((3 * pixels + 700).astype(np.float32))
    assert np.abs(first.astype(int) - second).max() <= 1


def test_colour_counts_as_its_luma_and_one_value_is_black() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    assert np.abs(spectrum_image(grey).astype(int) - spectrum_image(np.stack([grey] * 3, axis=2))).max() <= 1
    assert not spectrum_image(np.full((32, 40), 700, np.uint16)).any()
    assert spectrum_image(np.zeros((1, 1), np.uint8)).shape == (1, 1)
