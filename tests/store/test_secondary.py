import cv2
import numpy as np
import pytest

from store.samples.secondary import MAX_YIELD, Beam, emission, micrograph, sky_view

PLAIN = Beam(dose_e=100.0, blur_px=0.8)


def _slope(tangent: float) -> np.ndarray:
    return np.tile(np.float32(tangent) * np.arange(40, dtype=np.float32), (40, 1))


@pytest.mark.parametrize("degrees", [0.0, 45.0, 60.0])
def test_yield_follows_the_secant_law(degrees):
    found = emission(_slope(np.tan(np.radians(degrees))), PLAIN)[5:-5, 5:-5]
    assert found == pytest.approx(1 / np.cos(np.radians(degrees)), rel=1e-4)


def test_yield_ends_at_grazing_incidence():
    assert emission(_slope(100.0), PLAIN)[20, 20] == MAX_YIELD


def test_flank_towards_the_detector_is_brighter():
    towards, away = (
        emission(_slope(1.0), Beam(dose_e=1.0, blur_px=1.0, side=0.3, angle=angle))[20, 20] for angle in (np.pi, 0.0)
    )
    assert towards == pytest.approx(np.sqrt(2) * (1 + 0.3 / np.sqrt(2)), rel=1e-4)
    assert away == pytest.approx(np.sqrt(2) * (1 - 0.3 / np.sqrt(2)), rel=1e-4)


def test_flat_surface_sees_all_of_the_sky():
    assert (sky_view(np.zeros((30, 30), np.float32), reach_px=12) == 1.0).all()


def test_bottom_of_a_groove_sees_what_geometry_leaves():
    height = np.full((81, 81), 20.0, dtype=np.float32)
    height[:, 28:53] = 0.0  # 20 deep, walls 13 px from the middle, 13 * sqrt 2 along the diagonals; along it is open
    across = 1 / (1 + (20 / 13) ** 2)
    diagonal = 1 / (1 + (20 / np.hypot(13, 13)) ** 2)
    assert sky_view(height, reach_px=20)[40, 40] == pytest.approx((2 + 2 * across + 4 * diagonal) / 8, abs=1e-3)
    assert sky_view(height, reach_px=20)[40, 5] == 1.0


def test_deeper_and_narrower_is_darker():
    views = []
    for depth, width in ((5, 21), (20, 21), (20, 9)):
        height = np.full((81, 81), float(depth), dtype=np.float32)
        height[:, 40 - width // 2 : 41 + width // 2] = 0.0
        views.append(sky_view(height, reach_px=20)[40, 40])
    assert views[0] > views[1] > views[2] > 0


def test_counts_are_poisson_of_the_dose():
    flat = np.zeros((256, 256), dtype=np.float32)
    seen = micrograph(flat, PLAIN, np.random.default_rng(0), reach_px=4)
    assert seen.mean() == pytest.approx(1.0, rel=0.01)
    assert seen.var() == pytest.approx(1 / 100, rel=0.05)


def test_a_sphere_has_a_bright_rim_and_a_dark_gap_at_its_foot():
    y, x = np.mgrid[-60:61, -60:61].astype(np.float32)
    height = np.sqrt(np.maximum(0, 900 - y * y - x * x)) + np.where(y * y + x * x < 900, 30, 0).astype(np.float32)
    seen = cv2.blur(micrograph(height, PLAIN, np.random.default_rng(0), reach_px=40), (3, 3))
    middle, rim, foot, far = seen[60, 60], seen[60, 30:33].max(), seen[60, 25], seen[60, 2]
    assert rim > 1.5 * middle
    assert foot < 0.9 * far
