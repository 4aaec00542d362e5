import io

import cv2
import numpy as np
import pytest
from PIL import Image

from extract.perturb import FUNCTIONS, perturb
from store import PERTURBATIONS

GREY = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
COLOUR = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8), (9, 9), 2)
FLAT = np.full((400, 500), 100, np.uint8)


def test_what_the_spec_takes_is_what_there_is() -> None:
    assert list(FUNCTIONS) == list(PERTURBATIONS)


@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_neutral_strength_changes_nothing_and_others_are_repeatable(kind: str, pixels: np.ndarray) -> None:
    known, before = PERTURBATIONS[kind], pixels.copy()
    if known.neutral is not None:
        assert np.array_equal(perturb(pixels, f"{kind}:{known.neutral:g}"), pixels)
    for strength in (known.low, known.high):
        found = perturb(pixels, f"{kind}:{strength:g}")
        assert (found.dtype, found.shape) == (np.uint8, pixels.shape)
        assert np.array_equal(found, perturb(pixels.copy(), f"{kind}:{strength:g}"))
    assert np.array_equal(pixels, before)


def test_noise_has_the_strength_it_is_asked_for() -> None:
    gaussian = perturb(FLAT, "gaussian_noise:0.05") - 100.0
    assert abs(gaussian.std() - 0.05 * 255) < 0.1 and abs(gaussian.mean()) < 0.1
    poisson = perturb(FLAT, "poisson_noise:0.1") - 100.0
    assert abs(poisson.std() - 0.1 * np.sqrt(255 * 100)) < 0.15 and abs(poisson.mean()) < 0.15


def test_noise_is_fixed_for_all_time() -> None:
    """Vectors of these views are comparable only as long as these numbers stay."""
    small = np.arange(0, 240, 40, dtype=np.uint8).reshape(2, 3)
    assert perturb(small, "gaussian_noise:0.1").tolist() == [[2, 50, 56], [70, 211, 199]]
    assert perturb(small, "poisson_noise:0.2").tolist() == [[0, 71, 41], [82, 133, 143]]


def test_other_pixels_get_other_noise_and_other_strengths_the_same_scaled() -> None:
    one, two = (perturb(FLAT, f"gaussian_noise:{s}") - 100.0 for s in (0.02, 0.04))
    assert np.abs(two - 2 * one).max() <= 1.5
    other = perturb(FLAT + np.uint8(1), "gaussian_noise:0.02") - 101.0
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("quality", [5, 50, 95])
def test_jpeg_is_pillows(quality: int) -> None:
    for pixels in (GREY, COLOUR):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        want = np.asarray(Image.open(file))
        assert np.abs(perturb(pixels, f"jpeg:{quality}").astype(int) - want).mean() < 0.35


def test_png_keeps_so_many_bits() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for bits in range(1, 9):
        assert len(np.unique(perturb(ramp, f"png:{bits}"))) == 2**bits
    assert np.unique(perturb(ramp, "png:1")).tolist() == [0, 255]
    file = io.BytesIO()
    Image.fromarray(np.unique(perturb(ramp, "png:4")) // 17).save(file, "PNG", bits=4)
    assert np.array_equal(np.asarray(Image.open(file)).ravel(), np.unique(perturb(ramp, "png:4")))


def test_gamma_and_blur_are_what_their_formulas_say() -> None:
    want = 255 * (GREY / 255) ** 1.7
    assert np.abs(perturb(GREY, "gamma:1.7") - want).max() < 0.51
    point = np.zeros((41, 41), np.uint8)
    point[20, 20] = 255
    y, x = np.mgrid[-20:21, -20:21]
    gauss = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
    assert np.abs(perturb(point, "blur:1.5") - 255 * gauss / gauss.sum()).max() <= 1
    assert (perturb(FLAT, "blur:30") == 100).all()
