"""The `fourier` view: the centred log magnitude spectrum of an image, as an 8-bit image for the same backbones.

Grey (luma, ITU-R BT.601) of the full-depth pixels, no window, ``log(1 + |F|)`` in float32 with the zero frequency in
the middle at ``(n // 2, n // 2)``. Without a window the spectrum does not change when the image is shifted (edges that
do not match show as a cross). An image that is not square gives a square spectrum: the longer axis is averaged to as
many frequencies as the shorter one, so that a step means the same number of cycles per px along both, and rings stay
round. Then black is the 1st percentile and white the maximum outside the zero frequency, in between linear: brightness
and contrast of the image drop out, as far as 1 is small beside ``|F|``.
"""

from typing import Any

import cv2
import numpy as np
import scipy  # loads scipy.fft where it is first used: not at every start
from numpy.typing import NDArray

BLACK_PERCENT = 1.0


def log_spectrum(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Return ``log(1 + |F|)``, float32 (n, n), n the shorter side, of pixels (h, w) or (h, w, 3) of any depth."""
    grey = pixels.astype(np.float32)
    if grey.ndim == 3:
        grey = cv2.cvtColor(grey, cv2.COLOR_RGB2GRAY)
    magnitude = np.log1p(np.abs(scipy.fft.fftshift(_fft2(grey))), dtype=np.float32)
    h, w = magnitude.shape
    n = min(h, w)
    return magnitude if h == w else _square(magnitude, n)


def spectrum_image(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the spectrum as an image, uint8 (n, n); black where all frequencies but zero are equally strong."""
    spectrum = log_spectrum(pixels)
    centre = len(spectrum) // 2
    others = spectrum.copy()
    others[centre, centre] = spectrum.min()
    low, high = float(np.percentile(others, BLACK_PERCENT)), float(others.max())
    scale = 255 / (high - low) if high - low > 1e-6 * max(1.0, high) else 0.0
    return np.asarray(np.rint(np.clip((spectrum - low) * scale, 0, 255)), dtype=np.uint8)


def _fft2(grey: NDArray[np.float32]) -> NDArray[np.complex64]:
    """Transform without the mean, whose rounding would drown what is weak in float32, and put it back."""
    mean = grey.mean(dtype=np.float64)
    transform: NDArray[np.complex64] = scipy.fft.fft2((grey - mean).astype(np.float32))
    transform[0, 0] = mean * grey.size
    return transform


def _square(spectrum: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """Average the longer axis of a centred spectrum to n frequencies; the zero frequency stays at ``n // 2``."""
    if spectrum.shape[0] > n:
        return np.ascontiguousarray(_square(spectrum.T, n).T)
    width = spectrum.shape[1]
    edges = np.clip((np.arange(n + 1) - n // 2 - 0.5) * width / n + width // 2 + 0.5, 0, width)
    whole = np.minimum(edges.astype(np.int64), width - 1)
    summed = np.cumsum(spectrum, axis=1, dtype=np.float64) - spectrum  # over all bins before each one
    up_to = summed[:, whole] + (edges - whole) * spectrum[:, whole]
    return np.asarray(np.diff(up_to, axis=1) / np.diff(edges), dtype=np.float32)
