from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from extract.convert import to_8bit
from extract.decode import read_image
from extract.descriptors import N_ANGLES, N_RADII, _polar_grid
from extract.texture import TEXTURE_NAMES, TextureEncoder, texture_vector


def named(pixels: NDArray[np.uint8]) -> dict[str, float]:
    return dict(zip(TEXTURE_NAMES, texture_vector(pixels).tolist(), strict=True))


def blobs(h: int = 300, w: int = 300, *, n: int = 30, seed: int = 0) -> NDArray[np.uint8]:
    """Draw n bright discs on a noisy ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    field = np.full((h, w), 80.0)
    for cy, cx, radius in zip(rng.uniform(0, h, n), rng.uniform(0, w, n), rng.uniform(4, 12, n), strict=True):
        field[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = 170
    return np.clip(field + rng.normal(0, 8, (h, w)), 0, 255).astype(np.uint8)


def grating(period_px: float, angle: float = 0.0, size_px: int = 256) -> NDArray[np.uint8]:
    y, x = np.mgrid[:size_px, :size_px]
    wave = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period_px)
    return np.rint(128 + 60 * wave).astype(np.uint8)


def test_vector_has_one_name_per_number() -> None:
    vector = texture_vector(blobs())
    assert vector.dtype == np.float32
    assert vector.shape == (len(TEXTURE_NAMES),)
    assert len(set(TEXTURE_NAMES)) == len(TEXTURE_NAMES) == 239


def test_golden_vector_is_unchanged() -> None:
    """If this fails on purpose, raise ALGORITHM: stored vectors are no longer comparable."""
    rng = np.random.default_rng(7)
    smooth = cv2.GaussianBlur(rng.normal(0, 1, (200, 320, 3)).astype(np.float32), (0, 0), 3.0)
    values = named(np.clip(128 + 300 * smooth, 0, 255).astype(np.uint8))
    golden = {
        "intensity_mean": 0.5002,
        "intensity_entropy": 6.3275,
        "otsu_bright": 0.4957,
        "opening9": -0.2579,
        "ring2_std": 0.9572,
        "spectrum_r05": 1.7719,
        "spectrum_r16": -2.4414,
        "spectrum_band0_harmonic2": 0.1778,
        "spectrum_band1_cos2": -0.0065,
        "lbp1_4": 0.6748,
        "lbp8_9": 0.5978,
        "glcm4_contrast": 2.5878,
        "glcm16_correlation_range": 0.0518,
        "haar2x_energy": -0.3247,
        "haar3xy_kurt": 1.4681,
        "dog1_skew": 0.0120,
        "dog3_maxima": 4.9069,
        "edge2_coherence": 0.0254,
        "colour_saturation_mean": 0.2854,
        "colour_hue3": 0.0197,
    }
    assert {name: values[name] for name in golden} == pytest.approx(golden, abs=2e-3)


@pytest.mark.parametrize("value", [0, 1, 128, 255])
@pytest.mark.parametrize("shape", [(64, 64), (40, 40, 3)])
def test_constant_image_is_finite_and_without_structure(shape: tuple[int, ...], value: int) -> None:
    values = named(np.full(shape, value, np.uint8))
    assert np.isfinite(list(values.values())).all()
    assert values["intensity_mean"] == pytest.approx(value / 255)
    assert values["intensity_std"] == values["dog0_maxima"] == values["edge0_strong"] == 0
    assert values["blob_bright_count"] + values["blob_dark_count"] == 1
    assert values["edge0_mean"] == pytest.approx(-4, abs=0.01)


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 9), (2, 3, 3), (7, 5), (40, 40), (41, 39, 3), (16, 4000), (3000, 11), (257, 255)]
)
def test_every_size_gives_a_finite_vector(shape: tuple[int, ...]) -> None:
    vector = texture_vector(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    assert np.isfinite(vector).all()
    assert np.abs(vector).max() < 50


def test_three_equal_channels_are_the_same_as_grey() -> None:
    grey = blobs()
    np.testing.assert_array_equal(texture_vector(np.dstack([grey] * 3)), texture_vector(grey))
    assert all(value == 0 for name, value in named(grey).items() if name.startswith("colour"))


def test_non_contiguous_pixels_are_the_same_as_contiguous_ones() -> None:
    rgb = np.dstack([blobs(seed=s) for s in range(3)])
    for view in (rgb[::-1, ::-1], rgb[10:-7, 5:90], rgb[..., ::-1], rgb[::2, :, 0]):
        np.testing.assert_array_equal(texture_vector(view), texture_vector(view.copy()))


@pytest.mark.parametrize("shape", [(300, 300), (300, 400), (300, 410), (40, 40)])
@pytest.mark.parametrize("turn", [np.fliplr, np.flipud, np.rot90], ids=lambda f: f.__name__)
def test_flips_and_quarter_turns_change_only_what_tells_directions(turn, shape: tuple[int, int]) -> None:
    pixels = blobs(*shape)
    before, after = named(pixels), named(np.ascontiguousarray(turn(pixels)))
    odd_side = shape == (300, 410)  # becomes 187 x 256: a wavelet leaves out the last row, wherever it is now
    directed = ("_cos2", "_sin2", "haar") if turn is np.rot90 or odd_side else ("_cos2", "_sin2")
    kept = [name for name in before if not any(word in name for word in directed)]
    assert {n: after[n] for n in kept} == pytest.approx({n: before[n] for n in kept}, abs=5e-3)


def test_quarter_turn_swaps_the_wavelet_directions_and_the_sign_of_the_main_one() -> None:
    pixels = grating(12, angle=0.3)
    before, after = named(pixels), named(np.ascontiguousarray(np.rot90(pixels)))
    assert after["haar2x_energy"] == pytest.approx(before["haar2y_energy"], abs=1e-3)
    assert after["spectrum_band1_cos2"] == pytest.approx(-before["spectrum_band1_cos2"], abs=1e-3)
    assert after["spectrum_band1_harmonic2"] == pytest.approx(before["spectrum_band1_harmonic2"], abs=1e-3)


@pytest.mark.parametrize("period_px", [64, 32, 16, 8, 4])
@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_period_of_a_grating_moves_the_peak_of_the_radial_spectrum(period_px: int, angle: float) -> None:
    values = named(grating(period_px, angle))
    peak = np.argmax([values[f"spectrum_r{i:02d}"] for i in range(N_RADII)])
    cycles_per_field = 256 / period_px
    expected = int(np.log(cycles_per_field) / np.log(128) * N_RADII)
    assert abs(peak - expected) <= 1


@pytest.mark.parametrize("angle", np.linspace(0, np.pi, 7)[:-1])
def test_direction_of_a_grating_is_read_from_the_spectrum(angle: float) -> None:
    values = named(grating(10, angle))
    found = np.arctan2(values["spectrum_band1_sin2"], values["spectrum_band1_cos2"]) / 2
    assert abs(np.angle(np.exp(2j * (found - angle)))) / 2 < np.pi / N_ANGLES
    assert values["spectrum_band1_harmonic2"] > 0.5 > named(blobs())["spectrum_band1_harmonic2"]


def test_every_frequency_up_to_nyquist_is_counted_once() -> None:
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(256, 1 / 256)] * 2))
    assert _polar_grid()[2].sum() == np.count_nonzero((frequency >= 1) & (frequency <= 128))


def test_binary_patterns_are_those_of_a_slow_reference() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (256, 256), dtype=np.uint8)
    counts = np.zeros(10)
    ring = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
    for y in range(1, 255):
        for x in range(1, 255):
            bits = [pixels[y + dy, x + dx] >= pixels[y, x] for dy, dx in ring]
            n_changes = sum(bits[i] != bits[i - 1] for i in range(8))
            counts[sum(bits) if n_changes <= 2 else 9] += 1
    values = named(pixels)
    assert [values[f"lbp1_{i}"] for i in range(10)] == pytest.approx(np.sqrt(counts / counts.sum()), abs=1e-6)


def test_cooccurrence_of_a_checkerboard_is_known() -> None:
    values = named(np.kron(np.indices((256, 256)).sum(axis=0) % 2, np.ones((1, 1))).astype(np.uint8) * 255)
    assert values["glcm1_correlation"] == pytest.approx(0)  # -1 along the axes, 1 along the diagonals
    assert values["glcm1_correlation_range"] == pytest.approx(2)
    assert values["glcm2_correlation"] == pytest.approx(1)
    assert values["glcm2_entropy"] == pytest.approx(1)


def test_more_discs_give_more_blobs_and_wider_discs_survive_wider_openings() -> None:
    few, many = named(blobs(n=5)), named(blobs(n=60))
    assert few["blob_bright_count"] + 2 < many["blob_bright_count"]
    y, x = np.mgrid[:256, :256]
    small, large = (
        named(np.where((y % 64 - 32) ** 2 + (x % 64 - 32) ** 2 < r * r, 200, 50).astype(np.uint8)) for r in (4, 20)
    )
    assert small["opening17"] > large["opening17"] + 0.5


def test_contrast_and_brightness_leave_the_spectrum_alone() -> None:
    pixels = blobs()
    before, after = named(pixels), named((pixels // 2 + 20).astype(np.uint8))
    names = [n for n in before if n.startswith(("spectrum", "ring", "dog1_std"))]
    assert {n: after[n] for n in names} == pytest.approx({n: before[n] for n in names}, abs=0.05)


def test_hue_is_found() -> None:
    rgb = np.zeros((50, 50, 3), np.uint8)
    rgb[..., 0] = 200
    values = named(rgb)
    assert values["colour_red_green_mean"] == pytest.approx(200 / 255)
    assert values["colour_saturation_mean"] == 1
    assert max(range(8), key=lambda i: values[f"colour_hue{i}"]) == 1


def test_encoding_does_not_depend_on_the_batch() -> None:
    encoder = TextureEncoder("percentile", 0)
    prepared = [encoder.prepare(blobs(seed=i)) for i in range(5)]
    whole = encoder.encode(prepared)
    assert whole.dtype == np.float32
    assert whole.shape == (5, encoder.space.dim)
    np.testing.assert_array_equal(whole, np.concatenate([encoder.encode([p]) for p in prepared]))
    np.testing.assert_array_equal(whole[2], texture_vector(blobs(seed=2)))
    assert encoder.encode([]).shape == (0, encoder.space.dim)


def test_space_tells_conversions_and_crops_apart() -> None:
    spaces = [TextureEncoder(*options).space for options in (("linear", 0), ("linear", 0), ("fixed", 0), ("linear", 9))]
    assert spaces[0].fingerprint == spaces[1].fingerprint
    assert len({space.fingerprint for space in spaces}) == 3
    assert [space.name for space in spaces[1:]] == [
        "image.linear@texture",
        "image.fixed@texture",
        "image.linear.crop-9@texture",
    ]


def test_number_of_threads_does_not_change_the_vector() -> None:
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        single = texture_vector(blobs(700, 900))
        cv2.setNumThreads(4)
        np.testing.assert_array_equal(texture_vector(blobs(700, 900)), single)
    finally:
        cv2.setNumThreads(before)


@pytest.mark.slow
def test_real_particles_are_counted_better_than_by_the_majority(shared: Path) -> None:
    table = pd.read_csv(shared / "data/emps/labels.csv")
    X = np.stack([texture_vector(read_image(shared / "data/emps/images" / name)) for name in table["name"]])
    y, groups = table["count_bin"].to_numpy(str), table["doi"].to_numpy(str)
    test = (table["split_group"] == "test").to_numpy(bool)
    folds = list(GroupKFold(4).split(X[~test], groups=groups[~test]))
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    search = GridSearchCV(pipeline, {"logisticregression__C": [1e-3, 1e-2, 1e-1]}, cv=folds, scoring="neg_log_loss")
    majority = (y[test] == pd.Series(y[~test]).mode()[0]).mean()
    accuracy = (search.fit(X[~test], y[~test]).predict(X[test]) == y[test]).mean()
    assert accuracy >= 0.75 > majority + 0.2


def test_real_cells_of_12_bits_give_distinct_finite_vectors(shared: Path) -> None:
    paths = sorted((shared / "data/ifc_cellcycle/BF").glob("*.tif"))[:50]
    vectors = np.stack([texture_vector(to_8bit(read_image(path), "percentile_clip")) for path in paths])
    assert np.isfinite(vectors).all()
    assert len(np.unique(vectors, axis=0)) == len(paths)
