"""Scanning electron micrographs from heights: which share of the secondary electrons of each point is detected.

1. Yield. The secondary electron yield of a surface tilted by theta against the beam grows as 1 / cos theta, because
   more of the path lies within the escape depth (Reimer, Scanning Electron Microscopy, 2nd ed., 1998, section 4.2.1).
   Steep flanks and edges are bright. The growth ends where the beam runs along the flank (MAX_YIELD).
2. Escape. Secondary electrons leave with a cosine distribution; of one that starts towards a neighbour only the share
   above the horizon gets away. Gaps between particles and narrow grooves are dark.
3. Collection. An Everhart-Thornley detector stands at one side, so flanks that face it are a little brighter.
4. Blur by the beam and the escape volume, then counting: the electrons of a pixel are Poisson distributed.
"""

from dataclasses import dataclass
from math import cos, sin, tau

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]

MAX_YIELD = 5.0  # at grazing incidence, of the flat surface; Reimer's measured curves end between 4 and 6
N_DIRECTIONS = 8


@dataclass(frozen=True)
class Beam:
    """How one micrograph was taken.

    Attributes:
        dose_e: Electrons counted in a pixel of a flat open surface.
        blur_px: Standard deviation of the Gaussian blur.
        side: Relative brightness that a vertical flank facing the detector gains.
        angle: Where the detector stands, in radians from the x axis.
    """

    dose_e: float
    blur_px: float
    side: float = 0.0
    angle: float = 0.0


def micrograph(height_px: Pixels, beam: Beam, rng: np.random.Generator, *, reach_px: int) -> Pixels:
    """Return what the detector counts, 1 for a flat open surface.

    Args:
        height_px: Heights in units of a pixel's width, ``(h, w)``.
        beam: Dose, blur and detector.
        rng: The source of the counting noise.
        reach_px: How far a neighbour can throw a shadow.
    """
    signal = emission(height_px, beam) * sky_view(height_px, reach_px=reach_px)
    seen = cv2.GaussianBlur(signal, (0, 0), beam.blur_px)
    return np.asarray(rng.poisson(seen * beam.dose_e) / beam.dose_e, dtype=np.float32)


def emission(height_px: Pixels, beam: Beam) -> Pixels:
    """Return the yield by the secant law, weighted by how well each flank faces the detector, ``(h, w)``."""
    slope_x = cv2.Sobel(height_px, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    slope_y = cv2.Sobel(height_px, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    secant = np.sqrt(1.0 + slope_x**2 + slope_y**2)
    facing = -(slope_x * cos(beam.angle) + slope_y * sin(beam.angle)) / secant
    return np.asarray(np.minimum(secant, MAX_YIELD) * (1.0 + beam.side * facing), dtype=np.float32)


def sky_view(height_px: Pixels, *, reach_px: int) -> Pixels:
    """Return the share of a cosine distribution that starts at each point and meets no neighbour, ``(h, w)``, 0 to 1.

    Above a horizon at elevation beta leaves the share cos^2 beta; the mean over azimuths is returned.

    Args:
        height_px: Heights in units of a pixel's width, ``(h, w)``; continued beyond the border as they are there.
        reach_px: The farthest neighbour that is looked at.
    """
    h, w = height_px.shape
    pad = reach_px + 1
    around = cv2.copyMakeBorder(height_px, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    open_ = np.zeros_like(height_px)
    for k in range(N_DIRECTIONS):
        horizon = np.zeros_like(height_px)
        for far in _distances(reach_px):
            dy, dx = round(far * sin(tau * k / N_DIRECTIONS)), round(far * cos(tau * k / N_DIRECTIONS))
            rise = around[pad + dy : pad + dy + h, pad + dx : pad + dx + w] - height_px
            np.maximum(horizon, rise * np.float32(1.0 / np.hypot(dy, dx)), out=horizon)
        open_ += 1.0 / (1.0 + horizon**2)
    return np.asarray(open_ / N_DIRECTIONS, dtype=np.float32)


def _distances(reach_px: int) -> list[int]:
    """Return 1, 2, 3, 4, 6, 9 … px: every next one half as far again."""
    found = [1]
    while found[-1] < reach_px:
        found.append(min(reach_px, max(found[-1] + 1, int(1.5 * found[-1]))))
    return found
