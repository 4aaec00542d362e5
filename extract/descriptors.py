"""Groups of texture descriptors, each a small function that gives named numbers.

Three forms of one image come in: `byte`, its grey values as uint8; `scaled`, the same in units of its standard
deviation about its mean; and `octaves`, a pyramid of either. Every form has a longer side of `LONG_SIDE_PX`.
"""

from functools import cache, lru_cache

import cv2
import numpy as np
import scipy  # loads scipy.fft where it is first used: not at every start
from numpy.typing import NDArray

from extract.decode import Image8

Grey = NDArray[np.float32]
Floats = NDArray[np.float64]
Features = dict[str, float]

LONG_SIDE_PX = 256
COLOUR_SIDE_PX = 64
MIN_BLOB_PX = 16
N_RADII, N_ANGLES = 20, 24
N_GREYS = 16  # a pair of grey levels fits one byte
QUANTILES = (1, 5, 25, 50, 75, 95, 99)


def pyramid(grey: Grey, *, n_levels: int) -> list[Grey]:
    """Return `grey` and its halvings, each pixel the mean of four."""
    levels = [grey]
    while len(levels) < n_levels:
        h, w = levels[-1].shape
        levels.append(cv2.resize(levels[-1], (max(w // 2, 1), max(h // 2, 1)), interpolation=cv2.INTER_AREA))
    return levels


def _moments(x: NDArray[np.floating]) -> tuple[float, float, float]:
    """Return standard deviation, asinh of the skewness and log1p of the kurtosis; zeros for a constant."""
    centred = x - x.mean()
    square = centred * centred
    variance = float(square.mean())
    if variance < 1e-8:
        return 0.0, 0.0, 0.0
    skewness = float((square * centred).mean()) / variance**1.5
    kurtosis = float((square * square).mean()) / variance**2
    return variance**0.5, float(np.arcsinh(skewness)), float(np.log1p(kurtosis))


def _log(x: float) -> float:
    """Return log10 with a floor that keeps empty bands finite and near the faintest real ones."""
    return float(np.log10(x + 1e-4))


# --- grey values ---


def intensity(byte: Image8) -> Features:
    """Moments, quantiles, entropy and saturation of the grey values, in units of full scale."""
    histogram = _histogram(byte) / byte.size
    cumulative = np.cumsum(histogram)
    std, skewness, kurtosis = _moments(byte.astype(np.float32))
    values = {"mean": float(histogram @ np.arange(256)) / 255, "std": std / 255, "skew": skewness, "kurt": kurtosis}
    values["entropy"] = _entropy(histogram)
    values["black"], values["white"] = float(histogram[0]), float(histogram[255])
    values |= {f"q{q:02d}": int(np.searchsorted(cumulative, q / 100 - 1e-9)) / 255 for q in QUANTILES}
    return {f"intensity_{name}": value for name, value in values.items()}


def _histogram(byte: Image8) -> Floats:
    return np.asarray(cv2.calcHist([byte], [0], None, [256], [0, 256]), dtype=np.float64).ravel()


def _entropy(probabilities: Floats) -> float:
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log2(positive)).sum())


def rings(scaled: Grey) -> Features:
    """Mean and spread in four rings of equal width from the centre to the border."""
    ring = _ring_index(scaled.shape)
    n = np.bincount(ring, minlength=4)
    mean = np.bincount(ring, scaled.ravel(), minlength=4) / n
    spread = np.sqrt(np.maximum(np.bincount(ring, scaled.ravel() ** 2, minlength=4) / n - mean**2, 0))
    return {f"ring{i}_mean": float(mean[i]) for i in range(4)} | {f"ring{i}_std": float(spread[i]) for i in range(4)}


@lru_cache(maxsize=16)  # images of one dataset have few shapes
def _ring_index(shape: tuple[int, int]) -> NDArray[np.intp]:
    y, x = (np.abs((np.arange(n) + 0.5) / n * 2 - 1) for n in shape)
    return np.asarray(np.minimum(np.maximum(y[:, None], x) * 4, 3), dtype=np.intp).ravel()


# --- things in the field ---


def blobs(byte: Image8) -> Features:
    """Count, size and share of connected bright and dark regions at Otsu's threshold."""
    smooth = cv2.GaussianBlur(byte, (0, 0), 1.0)
    threshold, bright = cv2.threshold(smooth, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    features = {"otsu_threshold": threshold / 255, "otsu_bright": float(bright.mean()) / 255}
    for name, mask in (("bright", bright), ("dark", 255 - bright)):
        area = cv2.connectedComponentsWithStats(mask, connectivity=8)[2][1:, cv2.CC_STAT_AREA]
        area = area[area >= MIN_BLOB_PX] / byte.size
        features[f"blob_{name}_count"] = float(np.log2(1 + len(area)))
        features[f"blob_{name}_largest"] = float(area.max(initial=0))
        features[f"blob_{name}_median"] = _log(float(np.median(area))) if len(area) else _log(0)
    return features


def granulometry(byte: Image8) -> Features:
    """What openings and closings of growing width remove: the sizes of bright and dark things."""
    std = max(float(byte.std()), 1.0)
    features: Features = {}
    for name, operation in (("opening", cv2.MORPH_TOPHAT), ("closing", cv2.MORPH_BLACKHAT)):
        for width in (3, 5, 9, 17, 33, 65):
            removed = cv2.morphologyEx(byte, operation, np.ones((width, width), np.uint8))
            features[f"{name}{width}"] = _log(float(removed.mean()) / std)
    return features


# --- spectrum ---


def spectrum(scaled: Grey) -> Features:
    """Log power by frequency (cycles per field, both directions alike), and how it depends on direction."""
    window = np.outer(*(np.hanning(n + 2)[1:-1].astype(np.float32) for n in scaled.shape))
    windowed = (scaled - (scaled * window).sum() / window.sum()) * window
    transform = scipy.fft.rfft2(windowed, s=(LONG_SIDE_PX, LONG_SIDE_PX))
    index, weight, n = _polar_grid()
    power = (transform.real**2 + transform.imag**2).ravel() * weight / float((window**2).sum())
    polar = np.asarray(np.bincount(index, power, minlength=n.size)[: n.size], dtype=np.float64).reshape(n.shape)
    radial = np.log10(polar.sum(axis=1) / n.sum(axis=1) + 1e-6)
    features = {f"spectrum_r{i:02d}": float(value) for i, value in enumerate(radial)}
    for band, rows in enumerate((slice(4, 10), slice(10, 15), slice(15, 20))):
        features |= _directions(polar[rows], n[rows], name=f"spectrum_band{band}")
    return features


@cache
def _polar_grid() -> tuple[NDArray[np.intp], NDArray[np.float32], Floats]:
    """Return the polar bin of every rfft2 coefficient, its weight, and the weight per bin ``(radii, angles)``.

    Radii are spaced evenly in the logarithm from 1 to 128 cycles per field; the rest (mean, corners) falls in a bin
    past the end. Angle bins are centred on the axes, so that a quarter turn maps bins onto bins.
    """
    fy = np.fft.fftfreq(LONG_SIDE_PX, 1 / LONG_SIDE_PX)[:, None]
    fx = np.fft.rfftfreq(LONG_SIDE_PX, 1 / LONG_SIDE_PX)[None, :]
    frequency = np.hypot(fx, fy)
    edges = np.geomspace(0.999, LONG_SIDE_PX / 2 + 0.001, N_RADII + 1)
    radius = np.searchsorted(edges, frequency, side="right") - 1
    angle = np.rint(np.arctan2(fy, fx) / np.pi * N_ANGLES).astype(np.intp) % N_ANGLES
    inside = (radius >= 0) & (radius < N_RADII)
    index = np.where(inside, radius * N_ANGLES + angle, N_RADII * N_ANGLES).ravel()
    mirrored = (fx > 0) & (fx < LONG_SIDE_PX / 2)  # stands for its conjugate too
    weight = np.broadcast_to(np.where(mirrored, 2.0, 1.0), frequency.shape).ravel().astype(np.float32)
    n = np.asarray(np.bincount(index, weight)[:-1], dtype=np.float64).reshape(N_RADII, N_ANGLES)
    return index, weight, n


def _directions(polar: Floats, n: Floats, *, name: str) -> Features:
    """Angular harmonics of whitened power: strengths (do not turn with the image) and the main direction (does)."""
    whitened = polar / (polar.sum(axis=1, keepdims=True) / n.sum(axis=1, keepdims=True) + 1e-6)
    profile = whitened.sum(axis=0) / np.maximum(n.sum(axis=0), 1)
    harmonics = np.fft.rfft(profile)[1:4] / max(float(profile.sum()), 1e-6)
    features = {f"{name}_harmonic{2 * k + 2}": float(abs(c)) for k, c in enumerate(harmonics)}
    return features | {f"{name}_cos2": float(harmonics[0].real), f"{name}_sin2": float(-harmonics[0].imag)}


# --- local patterns ---


def binary_patterns(octaves: list[Grey]) -> Features:
    """Histograms of rotation-invariant uniform binary patterns (Ojala et al. 2002, eq. 9; P = 8) per octave."""
    features: Features = {}
    for level, grey in enumerate(octaves):
        steps = np.rint(grey * 8).astype(np.int16)  # rounded, so that flat regions stay flat on every machine
        h, w = steps.shape
        centre = steps[1:-1, 1:-1]
        code = np.zeros(centre.shape, np.uint8)
        for bit, (dy, dx) in enumerate(((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))):
            code |= (steps[dy : dy + h - 2, dx : dx + w - 2] >= centre).view(np.uint8) << np.uint8(bit)
        share = np.bincount(_uniform_class(), _histogram(code), minlength=10) / code.size
        features |= {f"lbp{2**level}_{i}": float(np.sqrt(value)) for i, value in enumerate(share)}
    return features


@cache
def _uniform_class() -> NDArray[np.intp]:
    """Return the class of all 256 codes: the number of set bits if they are adjacent on the circle, else 9."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    changes = (bits != np.roll(bits, 1, axis=1)).sum(axis=1)
    return np.where(changes <= 2, bits.sum(axis=1), 9)


def cooccurrence(byte: Image8) -> Features:
    """Haralick statistics of grey-level pairs at five distances: mean over four directions, and their range."""
    low, high = np.searchsorted(np.cumsum(_histogram(byte)) / byte.size, (0.01, 0.99))
    table = np.clip((np.arange(256) - low) * N_GREYS // max(high - low, 1), 0, N_GREYS - 1).astype(np.uint8)
    greys = cv2.LUT(byte, table)
    features: Features = {}
    for distance in (1, 2, 4, 8, 16):
        directions = ((0, distance), (distance, distance), (distance, 0), (distance, -distance))
        statistics = [_haralick(_pairs(greys, dy, dx)) for dy, dx in directions]
        for name in statistics[0]:
            values = [s[name] for s in statistics]
            features[f"glcm{distance}_{name}"] = sum(values) / len(values)
            if name in ("contrast", "correlation"):
                features[f"glcm{distance}_{name}_range"] = max(values) - min(values)
    return features


def _pairs(greys: Image8, dy: int, dx: int) -> Floats:
    """Return the symmetric co-occurrence matrix ``(greys, greys)``, sum 1, at offset (dy, dx), dy >= 0."""
    h, w = greys.shape
    first = greys[: h - dy, max(-dx, 0) : w - max(dx, 0)]
    second = greys[dy:, max(dx, 0) : w + min(dx, 0)]
    counts = _histogram(first * np.uint8(N_GREYS) + second).reshape(N_GREYS, N_GREYS)
    return (counts + counts.T) / (2 * first.size)


def _haralick(p: Floats) -> Features:
    level = np.arange(N_GREYS)
    gap = (level[:, None] - level) ** 2
    marginal = p.sum(axis=1)
    mean = float(marginal @ level)
    variance = float(marginal @ (level - mean) ** 2)
    contrast = float((p * gap).sum())
    return {
        "contrast": float(np.log1p(contrast)),
        "homogeneity": float((p / (1 + gap)).sum()),
        "energy": float(np.sqrt((p**2).sum())),
        "entropy": _entropy(p),
        "correlation": 1 - contrast / (2 * variance) if variance > 1e-9 else 0.0,
    }


# --- scales ---


def wavelets(scaled: Grey) -> Features:
    """Energy and peakedness of the three Haar detail bands on five levels."""
    features: Features = {}
    for level in range(1, 6):
        h, w = (n // 2 * 2 for n in scaled.shape)
        a, b, c, d = (scaled[y:h:2, x:w:2] for y in (0, 1) for x in (0, 1))
        for name, band in (("x", a - b + c - d), ("y", a + b - c - d), ("xy", a - b - c + d)):
            std, _, kurtosis = _moments(band / 2)
            features[f"haar{level}{name}_energy"] = _log(std / 2 ** (level - 1))
            features[f"haar{level}{name}_kurt"] = kurtosis
        scaled = np.asarray((a + b + c + d) / 2, dtype=np.float32)
    return features


def band_pass(octaves: list[Grey]) -> Features:
    """Difference of Gaussians per octave: strength, skewness, kurtosis, and how many spots stand out."""
    features: Features = {}
    for level, grey in enumerate(octaves):
        band = cv2.GaussianBlur(grey, (0, 0), 0.8) - cv2.GaussianBlur(grey, (0, 0), 1.6)
        std, skewness, kurtosis = _moments(band)
        features |= {f"dog{level}_std": _log(std), f"dog{level}_skew": skewness, f"dog{level}_kurt": kurtosis}
        for name, signed in (("maxima", band), ("minima", -band)):
            peaks = (signed == cv2.dilate(signed, np.ones((3, 3), np.uint8))) & (signed > max(std, 1e-4))
            features[f"dog{level}_{name}"] = float(np.log2(1 + np.count_nonzero(peaks)))
    return features


def edges(octaves: list[Grey]) -> Features:
    """Gradient per octave: mean strength, share of strong edges, and how far one direction prevails."""
    features: Features = {}
    for level, grey in enumerate(octaves):
        gx, gy = (cv2.Sobel(grey, cv2.CV_32F, x, y, scale=0.125) for x, y in ((1, 0), (0, 1)))
        strength = np.sqrt(gx * gx + gy * gy)
        mean = float(strength.mean())
        xx, yy, xy = (float((p * q).mean()) for p, q in ((gx, gx), (gy, gy), (gx, gy)))
        features[f"edge{level}_mean"] = _log(mean)
        features[f"edge{level}_strong"] = float((strength > max(2 * mean, 1e-4)).mean())
        features[f"edge{level}_coherence"] = float(np.hypot(xx - yy, 2 * xy)) / (xx + yy + 1e-6)
    return features


# --- colour ---


def colour(pixels: Image8) -> Features:
    """Opponent colours, saturation and a hue histogram weighted by chroma; zeros for grey."""
    rgb = np.zeros((1, 1, 3), np.uint8) if pixels.ndim == 2 else pixels
    scale = COLOUR_SIDE_PX / max(rgb.shape[:2])
    if scale < 1:
        size = [max(round(n * scale), 1) for n in rgb.shape[1::-1]]
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    red, green, blue = np.moveaxis(rgb.astype(np.float32) / 255, -1, 0)
    opponent = {"red_green": red - green, "yellow_blue": (red + green) / 2 - blue}
    chroma = np.hypot(*opponent.values())
    saturation = np.ptp(rgb, axis=2) / np.maximum(rgb.max(axis=2), 1)
    features = {f"{name}_{f.__name__}": float(f(x)) for name, x in opponent.items() for f in (np.mean, np.std)}
    features |= {f"saturation_{f.__name__}": float(f(saturation)) for f in (np.mean, np.std, np.max)}
    hue = np.rint(np.arctan2(opponent["yellow_blue"], opponent["red_green"]) / np.pi * 4).astype(np.intp) % 8
    weight = np.bincount(hue.ravel(), chroma.ravel(), minlength=8) / chroma.size
    return {f"colour_{name}": value for name, value in features.items()} | {
        f"colour_hue{i}": float(value) for i, value in enumerate(weight)
    }
