"""How more than 8 bits become 8: the conversions that powder metallographers compare, by name.

Each is one pointwise curve, ``255 * curve(v)`` rounded to the nearest level, from whole-image statistics (for colour
taken over all channels together, so that hues stay), and `+clahe` equalises afterwards. 8-bit images pass unchanged.
For 16-bit images a curve is a table of 65,536 entries and percentiles come exactly from the histogram.

| name | window lo … hi | curve of t = (v - lo) / (hi - lo), clipped to 0 … 1 |
|---|---|---|
| `fixed` | 0 … 65535; float 0 … 1 | t |
| `linear` | min … max | t |
| `percentile_stretch` | 2nd … 98th percentile | t |
| `percentile_clip` | 0.175th … 99.825th percentile | t |
| `imagej` | Auto of Brightness/Contrast | t |
| `gamma` | as `fixed` | t ** (1 / 2.2) |
| `log` | 0 … max | log(1 + v) / log(1 + max) |
| `sqrt` | 0 … max | t ** 0.5 |
| `linear+gamma` | min … max | t ** (1 / 2.2) |
| `linear+clahe` | min … max | t, then CLAHE |
| `percentile_clip+gamma` | as `percentile_clip` | t ** (1 / 2.2) |
| `percentile_clip+gamma+clahe` | as `percentile_clip` | t ** (1 / 2.2), then CLAHE |

An image of one value becomes 0 where lo and hi are its own (it has no contrast to show). `log` and `sqrt` count from
0, or from the minimum where that is negative.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from extract.decode import Image8, ImageError, Pixels

Window = Callable[[Pixels], tuple[float, float]]
Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]

GAMMA = 1 / 2.2  # the encoding exponent of CRT displays; Gonzalez and Woods, Digital Image Processing, 3.2, power law
STRETCH_PERCENT = (2.0, 98.0)  # scikit-image gallery, "Histogram Equalization": contrast stretching
CLIP_PERCENT = (0.175, 99.825)  # ImageJ, Enhance Contrast: 0.35 % saturated, half at each end (ContrastEnhancer.java)
IMAGEJ_AUTO_THRESHOLD = 5000  # ImageJ, ContrastAdjuster.java, AUTO_THRESHOLD
IMAGEJ_LIMIT = 10  # ContrastAdjuster.autoAdjust: a bin of more than a tenth of the pixels is background
IMAGEJ_BINS = 256  # ShortStatistics.getStatistics: 256 bins from minimum to maximum
CLAHE_CLIP, CLAHE_TILES = 2.0, (8, 8)  # OpenCV tutorial "Histogram Equalization"; Zuiderveld 1994, Graphics Gems IV
_LEVELS = 2**16
_FLOAT32_COUNTS = 2**24  # cv2.calcHist counts in float32


def to_8bit(pixels: Pixels, name: str) -> Image8:
    """Return an image in 8 bits.

    Args:
        pixels: uint8, uint16 or float32, (h, w) or (h, w, 3). uint8 is returned as it is.
        name: One of `store.CONVERSIONS`.

    Returns:
        uint8, same shape.

    Raises:
        ImageError: The conversion is not defined for these values; the message says what to do.
    """
    return pixels if pixels.dtype == np.uint8 else FUNCTIONS[name](pixels)


def _none(pixels: Pixels) -> Image8:
    raise ImageError(
        f"has {pixels.dtype} values and convert = 'none' takes 8 bits only; choose how they become 8 bits, for example "
        "convert = 'percentile_clip'"
    )


def _fixed_window(pixels: Pixels) -> tuple[float, float]:
    if pixels.dtype == np.uint16:
        return 0.0, _LEVELS - 1.0
    low, high = _range(pixels)
    if low < 0 or high > 1:
        raise ImageError(
            f"has real values of {low:g} to {high:g}; 'fixed' and 'gamma' take 0 to 1. Rescale them, or choose a "
            "conversion that looks at the image, for example convert = 'linear'"
        )
    return 0.0, 1.0


def _range(pixels: Pixels) -> tuple[float, float]:
    low, high, *_ = cv2.minMaxLoc(pixels.reshape(pixels.shape[0], -1))
    return low, high


def _origin_window(pixels: Pixels) -> tuple[float, float]:
    low, high = _range(pixels)
    return min(low, 0.0), high


def _stretch_window(pixels: Pixels) -> tuple[float, float]:
    return _percentiles(pixels, STRETCH_PERCENT)


def _clip_window(pixels: Pixels) -> tuple[float, float]:
    return _percentiles(pixels, CLIP_PERCENT)


def _percentiles(pixels: Pixels, percents: tuple[float, float]) -> tuple[float, float]:
    """Return what `np.percentile` does; if both ends meet (nearly all pixels alike), the whole range."""
    ranks = np.array(percents) / 100 * (pixels.size - 1)
    below, above = _at_ranks(pixels, np.array([np.floor(ranks), np.ceil(ranks)]))
    low, high = (below + (ranks - np.floor(ranks)) * (above - below)).tolist()
    return (low, high) if high > low else _range(pixels)


def _at_ranks(pixels: Pixels, ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values at ranks of the sorted pixels, from 0."""
    if _is_tabled(pixels):
        return np.searchsorted(np.cumsum(_histogram(pixels)), ranks, side="right").astype(np.float64)
    return np.sort(pixels, axis=None)[ranks.astype(np.int64)].astype(np.float64)


def _is_tabled(pixels: Pixels) -> bool:
    """Whether there are so many pixels that a table of all 16-bit values is less work than each pixel."""
    return pixels.dtype == np.uint16 and pixels.size >= _LEVELS


def _histogram(pixels: Pixels) -> NDArray[np.int64]:
    if pixels.size > _FLOAT32_COUNTS:
        return np.bincount(pixels.ravel(), minlength=_LEVELS)
    counts: NDArray[np.float32] = cv2.calcHist([pixels.reshape(-1, 1)], [0], None, [_LEVELS], [0, _LEVELS])
    return counts.ravel().astype(np.int64)


def _imagej_window(pixels: Pixels) -> tuple[float, float]:
    """Return the window of the first press on Auto: the outermost bins that hold neither specks nor background."""
    low, high = _range(pixels)
    if high == low:
        return low, high
    bin_size = (high - low) / IMAGEJ_BINS
    counts = _binned(pixels, low, bin_size)
    n_pixels = int(counts.sum())
    is_content = (counts > n_pixels // IMAGEJ_AUTO_THRESHOLD) & (counts <= n_pixels // IMAGEJ_LIMIT)
    found = np.flatnonzero(is_content)
    if len(found) == 0 or found[0] == found[-1]:
        return low, high
    return low + float(found[0]) * bin_size, low + float(found[-1]) * bin_size


def _binned(pixels: Pixels, low: float, bin_size: float) -> NDArray[np.int64]:
    values, weights = (np.arange(_LEVELS), _histogram(pixels)) if _is_tabled(pixels) else (pixels.ravel(), None)
    index = np.clip((values - low) * (1 / bin_size), 0, IMAGEJ_BINS - 1).astype(np.int64)
    return np.bincount(index, weights, minlength=IMAGEJ_BINS).astype(np.int64)


def _same(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return t


def _gamma(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.power(t, GAMMA)


def _through(window: Window, curve: Curve = _same) -> Callable[[Pixels], Image8]:
    """Return the conversion 255 * curve(t), t the position in the window."""

    def convert(pixels: Pixels) -> Image8:
        low, high = window(pixels)
        scale = 1 / (high - low) if high > low else 0.0
        return _map(pixels, lambda v: curve(np.clip((v - low) * scale, 0, 1)))

    return convert


def _log(pixels: Pixels) -> Image8:
    """Gonzalez and Woods 3.2, log transformation: c * log(1 + v), with c so that the maximum becomes 255."""
    low, high = _origin_window(pixels)
    c = 1 / np.log1p(high - low) if high > low else 0.0
    return _map(pixels, lambda v: np.clip(np.log1p(np.maximum(v - low, 0)) * c, 0, 1))


def _map(pixels: Pixels, curve: Curve) -> Image8:
    """Apply a curve from values to 0 … 1, by table where that is less work."""
    if not _is_tabled(pixels):
        return np.rint(255 * curve(pixels.astype(np.float64))).astype(np.uint8)
    table = np.rint(255 * curve(np.arange(_LEVELS, dtype=np.float64))).astype(np.uint8)
    try:
        mapped: Image8 = cv2.LUT(pixels, table)  # three times faster than take; older OpenCVs take 256 entries only
    except cv2.error:
        return table.take(pixels)
    return mapped


def _with_clahe(convert: Callable[[Pixels], Image8]) -> Callable[[Pixels], Image8]:
    """Return the conversion, then contrast-limited adaptive histogram equalisation, for colour of the luma alone."""

    def equalised(pixels: Pixels) -> Image8:
        image = convert(pixels)
        clahe = cv2.createCLAHE(CLAHE_CLIP, CLAHE_TILES)
        result: Image8
        if image.ndim == 2:
            result = clahe.apply(image)
        else:
            parts = cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)
            parts[..., 0] = clahe.apply(np.ascontiguousarray(parts[..., 0]))
            result = cv2.cvtColor(parts, cv2.COLOR_YCrCb2RGB)
        return result

    return equalised


FUNCTIONS: dict[str, Callable[[Pixels], Image8]] = {
    "none": _none,
    "fixed": _through(_fixed_window),
    "linear": _through(_range),
    "percentile_stretch": _through(_stretch_window),
    "percentile_clip": _through(_clip_window),
    "gamma": _through(_fixed_window, _gamma),
    "log": _log,
    "sqrt": _through(_origin_window, np.sqrt),
    "imagej": _through(_imagej_window),
    "linear+gamma": _through(_range, _gamma),
    "linear+clahe": _with_clahe(_through(_range)),
    "percentile_clip+gamma": _through(_clip_window, _gamma),
    "percentile_clip+gamma+clahe": _with_clahe(_through(_clip_window, _gamma)),
}
