"""Perturbations: disturbed copies of 8-bit pixels, for tests of robustness; deterministic.

They come after crop and conversion, so that a strength means the same for every depth and format. Noise is drawn from
a generator seeded by the pixels themselves: the same pixels always get the same noise, in any order, on any machine
(`RandomState` is NumPy's generator whose numbers never change, NEP 19), and two strengths get the same noise, scaled.
The noise of the channels of a colour image is independent. What strengths mean: `store.PERTURBATIONS`.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from extract.decode import Image8
from store import parse_view


def perturb(pixels: Image8, view: str) -> Image8:
    """Return disturbed pixels.

    Args:
        pixels: uint8, (h, w) or (h, w, 3) RGB.
        view: A checked view such as ``gaussian_noise:0.1``.

    Returns:
        uint8, same shape.
    """
    kind, strength = parse_view(view)
    return FUNCTIONS[kind](pixels, strength)


def _gaussian_noise(pixels: Image8, strength: float) -> Image8:
    return _rounded(pixels + 255 * strength * _seeded(pixels).standard_normal(pixels.shape))


def _poisson_noise(pixels: Image8, strength: float) -> Image8:
    """Count electrons: white is 1 / strength**2 of them, so that its noise is `strength` of its value."""
    if strength == 0:
        return pixels
    per_electron = 255 * strength**2
    return _rounded(_seeded(pixels).poisson(pixels / per_electron) * per_electron)


def _blur(pixels: Image8, strength: float) -> Image8:
    if strength == 0:
        return pixels
    reach = int(np.ceil(4 * strength))  # scipy.ndimage.gaussian_filter's truncate
    blurred: Image8 = cv2.GaussianBlur(pixels, (2 * reach + 1, 2 * reach + 1), strength, borderType=cv2.BORDER_REFLECT)
    return blurred


def _gamma(pixels: Image8, strength: float) -> Image8:
    table = np.rint(255 * (np.arange(256) / 255) ** strength).astype(np.uint8)
    return table[pixels]


def _jpeg(pixels: Image8, strength: float) -> Image8:
    """What libjpeg writes and reads again, colour at half the resolution as cameras and OpenCV do."""
    bgr = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, int(strength)])
    read: Any = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE if pixels.ndim == 2 else cv2.IMREAD_COLOR)
    found: Image8 = read if pixels.ndim == 2 else cv2.cvtColor(read, cv2.COLOR_BGR2RGB)
    return found


def _png(pixels: Image8, strength: float) -> Image8:
    """The nearest of the 2**bits grey levels that a PNG of this bit depth has (PNG specification, 13.12)."""
    top = 2 ** int(strength) - 1
    table = np.rint(np.rint(np.arange(256) * top / 255) * 255 / top).astype(np.uint8)
    return np.asarray(table[pixels])


def _rounded(values: NDArray[Any]) -> Image8:
    return np.asarray(np.rint(np.clip(values, 0, 255)), dtype=np.uint8)


def _seeded(pixels: Image8) -> np.random.RandomState:
    digest = hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).digest()
    return np.random.RandomState(np.frombuffer(digest, "<u4"))


FUNCTIONS: dict[str, Callable[[Image8, float], Image8]] = {
    "gaussian_noise": _gaussian_noise,
    "poisson_noise": _poisson_noise,
    "blur": _blur,
    "gamma": _gamma,
    "jpeg": _jpeg,
    "png": _png,
}
