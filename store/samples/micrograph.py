"""The physical image model: how projected thickness becomes the counts of a 12-bit camera.

Bright-field TEM at 200 kV through an objective aperture:

1. Mass-thickness contrast. Elastically scattered electrons miss the aperture, so the transmitted fraction falls as
   exp(-mu t) with the projected thickness t (Beer-Lambert; Reimer and Kohl, Transmission Electron Microscopy, 5th ed.,
   2008, chapter 6). mu = n sigma_el comes from density, composition and the elastic cross-section of an atom.
2. Defocus. Phase contrast turns every edge into a Fresnel fringe: the transfer function of a defocused lens acts on
   the optical depth mu t (the linear theory of Reimer and Kohl, chapter 6, for an object of one material, whose phase
   shift is proportional to its absorption). Spherical aberration matters only below about 0.5 nm and is left out.
3. Blur: one Gaussian for drift, partial coherence and the camera's point spread.
4. Counting. The electrons in a pixel are Poisson distributed; gain, dark level and read noise follow, and the 12-bit
   converter clips at 4095.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import pi, sqrt

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]

KILOVOLTS = 200.0
MAX_COUNT = 4095  # 12 bits
NM_PER_PX_AT_1X = 56_000.0  # a camera of 14 um pixels, binned 4 x 4
PHASE_TO_AMPLITUDE = 3.0  # linear theory gives some 30 for carbon, but only where the object is thin: set by eye
READ_NOISE_COUNTS = 3.0
CAMERA_BLUR_PX = 0.55
_AVOGADRO_PER_MOL = 6.022e23
_REST_ENERGY_KEV = 511.0
_ATOMS: Mapping[str, tuple[int, float]] = {  # atomic number, atomic weight in g/mol
    "H": (1, 1.008),
    "C": (6, 12.011),
    "N": (7, 14.007),
    "O": (8, 15.999),
    "Na": (11, 22.990),
    "Si": (14, 28.086),
    "Cl": (17, 35.45),
    "Ti": (22, 47.867),
    "Zn": (30, 65.38),
    "Au": (79, 196.97),
}


@dataclass(frozen=True)
class Material:
    """A density in g/cm3 and the atoms of one formula unit."""

    density: float
    atoms: Mapping[str, int]

    def attenuation_per_nm(self) -> float:
        """Return mu, the share of the beam that one nm scatters out of the aperture."""
        weight = sum(n * _ATOMS[atom][1] for atom, n in self.atoms.items())
        cross_section_nm2 = sum(n * _elastic_nm2(_ATOMS[atom][0]) for atom, n in self.atoms.items())
        units_per_nm3 = self.density * _AVOGADRO_PER_MOL / weight * 1e-21
        return units_per_nm3 * cross_section_nm2


MATERIALS: Mapping[str, Material] = {
    "carbon film": Material(2.0, {"C": 1}),
    "graphite": Material(2.2, {"C": 1}),
    "graphene oxide": Material(1.8, {"C": 2, "O": 1}),
    "latex": Material(1.05, {"C": 1, "H": 1}),
    "silica": Material(2.0, {"Si": 1, "O": 2}),
    "salt": Material(2.16, {"Na": 1, "Cl": 1}),
    "titania": Material(4.2, {"Ti": 1, "O": 2}),
    "zinc oxide": Material(5.6, {"Zn": 1, "O": 1}),
    "gold": Material(19.3, {"Au": 1}),
}


@dataclass(frozen=True)
class Optics:
    """How one image was taken.

    Attributes:
        fringe_px: Width of the first Fresnel fringe, sqrt(wavelength x defocus), in pixels; 0 is in focus.
        blur_px: Standard deviation of the Gaussian blur.
        dose_e: Electrons per pixel without a specimen.
        level: Counts per pixel without a specimen, above the dark level.
        dark: The camera's dark level in counts.
        tilt: Relative brightness gained (x, y) from the centre of the image to its border.
        vignette: Relative brightness lost from the centre to the corners.
    """

    fringe_px: float
    blur_px: float
    dose_e: float
    level: float
    dark: float
    tilt: tuple[float, float] = (0.0, 0.0)
    vignette: float = 0.0


def nm_per_px(magnification: float) -> float:
    """Return the size of a pixel in the specimen."""
    return NM_PER_PX_AT_1X / magnification


def record(depth: Pixels, optics: Optics, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Take a picture.

    Args:
        depth: Optical depth, the sum of mu t over all materials along the beam, ``(h, w)``.
        optics: Focus, dose, camera and illumination.
        rng: The source of the counting and read noise.

    Returns:
        uint16 ``(h, w)``, 0 to 4095.
    """
    seen = np.exp(-_defocused(depth, optics)) * _illumination(depth.shape, optics)
    electrons = rng.poisson(np.clip(seen, 0.0, 4.0) * optics.dose_e).astype(np.float32)
    electrons = cv2.GaussianBlur(electrons, (0, 0), CAMERA_BLUR_PX)
    counts = optics.dark + electrons * np.float32(optics.level / optics.dose_e)
    counts += rng.standard_normal(depth.shape, dtype=np.float32) * np.float32(READ_NOISE_COUNTS)
    return np.asarray(np.clip(np.rint(counts), 0, MAX_COUNT), dtype=np.uint16)


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], scale_px: float) -> Pixels:
    """Return Gaussian noise of zero mean and unit variance, smoothed by a Gaussian of `scale_px`.

    Args:
        rng: The source of the noise.
        shape: ``(h, w)``.
        scale_px: Standard deviation of the smoothing kernel; at least 0.5.
    """
    step = max(1.0, scale_px / 3.0)  # smooth fields are made small and enlarged
    blur = max(0.5, scale_px / step)
    coarse = [int(np.ceil(side / step)) + 16 for side in shape]
    noise = cv2.GaussianBlur(rng.standard_normal(coarse, dtype=np.float32), (0, 0), blur)
    noise *= np.float32(2.0 * sqrt(pi) * blur)  # a normalised Gaussian leaves variance 1 / (4 pi blur^2)
    noise = noise[8:-8, 8:-8]
    if step > 1.0:
        noise = cv2.resize(noise, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(noise[: shape[0], : shape[1]])


def _elastic_nm2(atomic_number: int) -> float:
    """Return the elastic cross-section of an atom (Langmore and Smith 1992, Ultramicroscopy 46, 349-373)."""
    beta = sqrt(1.0 - 1.0 / (1.0 + KILOVOLTS / _REST_ENERGY_KEV) ** 2)
    return float(1.4e-6 * atomic_number**1.5 / beta**2 * (1.0 - 0.26 * atomic_number / (137.0 * beta)))


def _defocused(depth: Pixels, optics: Optics) -> Pixels:
    """Return the optical depth as the defocused lens shows it; edges are mirrored, so nothing wraps round."""
    pad = int(4 * (optics.fringe_px + optics.blur_px)) + 4
    more = [cv2.getOptimalDFTSize(side + 2 * pad) - side - pad for side in depth.shape]  # lengths of small factors
    padded = cv2.copyMakeBorder(depth, pad, more[0], pad, more[1], cv2.BORDER_REFLECT_101)
    squared = np.fft.fftfreq(padded.shape[0])[:, None] ** 2 + np.fft.rfftfreq(padded.shape[1])[None, :] ** 2
    squared = squared.astype(np.float32)
    chi = pi * optics.fringe_px**2 * squared  # pi wavelength defocus q^2, in pixel units
    blur = np.exp(-2.0 * pi**2 * optics.blur_px**2 * squared)
    transfer = (blur * (np.cos(chi) + PHASE_TO_AMPLITUDE * np.sin(chi))).astype(np.float32)
    shown = np.fft.irfft2(np.fft.rfft2(padded) * transfer, s=padded.shape)
    return np.asarray(shown[pad : pad + depth.shape[0], pad : pad + depth.shape[1]], dtype=np.float32)


def _illumination(shape: tuple[int, ...], optics: Optics) -> Pixels:
    """Return the relative brightness of the beam, 1 in the centre."""
    y = np.linspace(-1.0, 1.0, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-1.0, 1.0, shape[1], dtype=np.float32)[None, :]
    brightness = 1.0 + optics.tilt[0] * x + optics.tilt[1] * y - optics.vignette * (x * x + y * y) / 2.0
    return np.asarray(brightness, dtype=np.float32)
