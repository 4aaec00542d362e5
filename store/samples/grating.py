"""What a grating reflects: the ten channels of the ``reflectance`` sample from period, duty, height and dye.

Lines or pillars of silicon nitride on silicon, in air, lit at normal incidence:

1. Effective medium. Light that is polarised along the lines (TE) sees the mean of the permittivities, across them (TM)
   the mean of their inverses (Rytov 1956, Sov. Phys. JETP 2, 466-475); pillars have no direction, and see the mean of
   both. The layer on silicon then reflects as a thin film (`store.samples.thin_film`). This is right for periods well
   below the wavelength and is used beyond as well: this is a sample, no rigorous coupled-wave analysis.
2. Diffraction. Top and grooves differ in phase by 4 pi h / wavelength; as a binary phase grating they send the share 2
   (1 - cos phase) |F_m|^2 of the reflected light into order m, F_m = sin(pi m duty) / (pi m) (Goodman, Introduction to
   Fourier Optics, 3rd ed., 2005, section 4.4). An order leaves at sin theta = m wavelength / period. Beyond 1 it
   cannot leave, and its share stays in the mirror direction; beyond the aperture NA it is lost to the detector.
3. Polarisation. The largest difference between TE and TM among blue, green and red.
4. Fluorescence. The ultraviolet passes the dye grains coming and reflected, and so does their light reach the
   detector: directly and reflected, without interference. That gives (1 - exp(-dye)) (1 + R_uv) / 2 (1 + R_emitted) /
   2, times the dye's yield in the channel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from store.samples.thin_film import Floats, Index, reflect, silicon, silicon_nitride

BANDS_NM: Mapping[str, float] = {"UV": 365.0, "B": 450.0, "G": 530.0, "R": 630.0, "740": 740.0, "940": 940.0}
BAND_SIGMA_NM = 12.0  # of a light-emitting diode: 28 nm full width at half maximum
DYE_YIELDS: Mapping[str, tuple[str, float]] = {"fB": ("B", 0.9), "fG": ("G", 0.55), "fR": ("R", 0.25)}
CHANNELS = (*BANDS_NM, *DYE_YIELDS, "poldiff")
VISIBLE = ("B", "G", "R")
APERTURE = 0.35  # numerical aperture of the lens that collects the light
MAX_ORDER = 12
_STEPS = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])  # of a band, in sigmas
_WEIGHTS = np.exp(-(_STEPS**2) / 2.0)
_WAVELENGTHS = np.add.outer(list(BANDS_NM.values()), BAND_SIGMA_NM * _STEPS).ravel()
_IS_VISIBLE = [name in VISIBLE for name in BANDS_NM]


@dataclass(frozen=True)
class Grating:
    """A structured surface.

    Attributes:
        kind: Lines in one direction, or square pillars in a square lattice.
        period_nm: From line to line.
        duty: Width of a line or pillar over the period, 0 to 1.
        height_nm: Of lines or pillars.
        dye: Optical depth of the dye grains in the ultraviolet.
    """

    kind: Literal["lines", "pillars"]
    period_nm: float
    duty: float
    height_nm: float
    dye: float


def channels(grating: Grating) -> dict[str, float]:
    """Return the ten channels by name, each 0 to 1."""
    te, tm = band_reflectances(grating)
    found = dict(zip(BANDS_NM, ((te + tm) / 2.0).tolist(), strict=True))
    absorbed = (1.0 - float(np.exp(-grating.dye))) * (1.0 + found["UV"]) / 2.0
    found |= {name: share * absorbed * (1.0 + found[band]) / 2.0 for name, (band, share) in DYE_YIELDS.items()}
    return found | {"poldiff": float(np.abs(te - tm)[_IS_VISIBLE].max())}


def band_reflectances(grating: Grating) -> tuple[Floats, Floats]:
    """Return what is detected in each of BANDS_NM of light polarised along (TE) and across (TM) the lines."""
    substrate, share = silicon(_WAVELENGTHS), collected(grating, _WAVELENGTHS)
    found = []
    for polarisation in ("TE", "TM"):
        index = np.sqrt(effective_permittivity(grating, _WAVELENGTHS, polarisation))
        reflected, _ = reflect([(index, grating.height_nm)], substrate, _WAVELENGTHS)
        found.append(np.average((reflected * share).reshape(len(BANDS_NM), -1), axis=1, weights=_WEIGHTS))
    return found[0], found[1]


def effective_permittivity(grating: Grating, wavelength_nm: Floats, polarisation: str) -> Index:
    """Return the permittivity of the grating's layer, ``(w,)``."""
    solid, fill = silicon_nitride(wavelength_nm) ** 2, fill_factor(grating)
    along, across = fill * solid + 1.0 - fill, 1.0 / (fill / solid + 1.0 - fill)
    if grating.kind == "pillars":
        return np.asarray((along + across) / 2.0)
    return np.asarray(along if polarisation == "TE" else across)


def fill_factor(grating: Grating) -> float:
    """Return the share of the area that is high."""
    return grating.duty if grating.kind == "lines" else grating.duty**2


def collected(grating: Grating, wavelength_nm: Floats) -> Floats:
    """Return the share of the reflected light that reaches the detector, ``(w,)``."""
    shares, orders = order_shares(grating, wavelength_nm)
    sine = orders[None, :] * wavelength_nm[:, None] / grating.period_nm
    return np.asarray(1.0 - np.where((sine > APERTURE) & (sine <= 1.0), shares, 0.0).sum(axis=1))


def order_shares(grating: Grating, wavelength_nm: Floats) -> tuple[Floats, Floats]:
    """Return how much of the reflected light goes into each order but the mirror's, were none evanescent.

    Returns:
        Shares ``(w, m)`` and the length of each order's vector, ``(m,)``: 1 for the first, sqrt 2 for a diagonal.
    """
    n = np.arange(-MAX_ORDER, MAX_ORDER + 1)
    line = grating.duty * np.sinc(n * grating.duty)  # sin(pi n duty) / (pi n)
    across: NDArray[np.float64] = line if grating.kind == "pillars" else (n == 0).astype(np.float64)
    structure = np.outer(across, line).ravel() ** 2
    length = np.hypot(n[:, None], n[None, :]).ravel()
    others = length > 0
    phase = 4.0 * np.pi * grating.height_nm / wavelength_nm
    return 2.0 * (1.0 - np.cos(phase))[:, None] * structure[others], length[others]
