"""Layers at normal incidence: how much light they reflect and let through, by the characteristic matrix method.

Born and Wolf, Principles of Optics, 7th ed., 1999, section 1.6; Byrnes 2016, arXiv:1603.02720. The refractive index is
n + ik with k >= 0, time goes as exp(-i omega t), lengths are in nm.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.complex128]
Floats = NDArray[np.float64]

_SILICON = (  # wavelength nm, n, k: Aspnes and Studna 1983, Phys. Rev. B 27, 985, rounded to what it matters here
    (340.0, 5.30, 2.99),
    (365.0, 6.52, 2.70),
    (380.0, 6.02, 0.86),
    (400.0, 5.57, 0.39),
    (450.0, 4.68, 0.15),
    (500.0, 4.29, 0.07),
    (550.0, 4.08, 0.04),
    (600.0, 3.94, 0.025),
    (650.0, 3.85, 0.016),
    (740.0, 3.73, 0.009),
    (830.0, 3.67, 0.005),
    (1000.0, 3.57, 0.001),
)


def silicon(wavelength_nm: Floats) -> Index:
    """Return the refractive index of crystalline silicon, 340 to 1000 nm."""
    known, n, k = np.array(_SILICON).T
    return np.asarray(np.interp(wavelength_nm, known, n) + 1j * np.interp(wavelength_nm, known, k))


def silicon_nitride(wavelength_nm: Floats) -> Index:
    """Return the refractive index of Si3N4, by Philipp's dispersion formula (1973, J. Electrochem. Soc. 120, 295)."""
    squared = (wavelength_nm * 1e-3) ** 2
    return np.asarray(np.sqrt(1.0 + 2.8939 * squared / (squared - 0.13967**2)) + 0j)


def reflect(
    layers: Sequence[tuple[Index, float]], substrate: Index, wavelength_nm: Floats, *, above: float = 1.0
) -> tuple[Floats, Floats]:
    """Return reflectance and transmittance of a stack at normal incidence.

    Args:
        layers: Index ``(w,)`` and thickness in nm of each layer, from the top.
        substrate: Index ``(w,)`` of what lies below, without end.
        wavelength_nm: In vacuum, ``(w,)``.
        above: Index of what the light comes from.

    Returns:
        R and T, each ``(w,)``; what is missing to 1 is absorbed in the layers.
    """
    field, current = np.ones_like(substrate), substrate.astype(np.complex128)
    for index, thickness_nm in reversed(layers):
        phase = 2.0 * np.pi * index * thickness_nm / wavelength_nm
        cosine, sine = np.cos(phase), np.sin(phase)
        field, current = (
            cosine * field - 1j * sine / index * current,
            -1j * index * sine * field + cosine * current,
        )
    reflected = (above * field - current) / (above * field + current)
    transmitted = 2.0 * above / (above * field + current)
    return np.abs(reflected) ** 2, np.abs(transmitted) ** 2 * substrate.real / above
