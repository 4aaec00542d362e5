"""The physical image model of single cells: bright field and fluorescence of one and the same cell.

Bright field: light is absorbed along its way, a factor 10^-(absorbance x thickness) in each colour (Beer-Lambert), and
refracted: a little out of focus the intensity changes by -z times the Laplacian of the optical path (the transport of
intensity equation for weak phase objects; Teague 1983, 10.1364/JOSA.73.001434). Fluorescence: the DNA shines in
proportion to its amount along the axis, over a haze of autofluorescence. In both the microscope blurs by a Gaussian
(Zhang et al. 2007, 10.1364/AO.46.001819), and photons are counted, so that the noise is Poisson.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from store.samples.micrograph import Pixels, smooth_field

SIDE_PX = 128
CYTOPLASM_RGB = (0.10, 0.30, 0.16)  # absorbance of cytoplasm stained by eosin, per unit of thickness: set by eye
KERATIN_RGB = (0.06, 0.28, 0.52)  # the same by orange G
NUCLEUS_RGB = (0.16, 0.16, 0.09)
EMISSION_RGB = (0.25, 0.6, 1.0)  # the colour that the camera's grey values are shown in
BRIGHT_FIELD_PHOTONS = 2500.0
FLUORESCENCE_PHOTONS = 90.0


@dataclass(frozen=True)
class Appearance:
    """What decides how a cell looks.

    Attributes:
        shape_seed: Seeds of its outline and its insides, shared by both modalities.
        keratin: How far its cytoplasm is keratinised, 0 to 1.
        ploidy: How far its DNA has multiplied, 0 to 1.
        stain: How strongly the slide is stained, about 1.
        lamp: The brightness of the empty slide in bright field, at most 1.
        warmth: How much redder than blue the lamp is.
        defocus: Distance from focus, about 1.
        size: The patient's cells relative to others, about 1.
        exposure: Of the fluorescence, about 1.
        haze: Autofluorescence.
    """

    shape_seed: tuple[int, ...]
    keratin: float
    ploidy: float
    stain: float
    lamp: float
    warmth: float
    defocus: float
    size: float
    exposure: float
    haze: float

    @cached_property
    def body(self) -> "Body":
        """The cell's parts."""
        return _make_body(self)


@dataclass(frozen=True)
class Body:
    """Thickness of a cell's parts, ``(h, w)`` each, 1 where it is typical.

    Attributes:
        cytoplasm: Of the whole cell and of what its neighbours show of themselves.
        nucleus: Smooth, as refraction sees it.
        dna: As it shines: granular or clumped, with micronuclei.
    """

    cytoplasm: Pixels
    nucleus: Pixels
    dna: Pixels


def draw_bright_field(look: Appearance, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return RGB, uint8 ``(128, 128, 3)``."""
    body = look.body
    cytoplasm = (1.0 - look.keratin) * np.array(CYTOPLASM_RGB) + look.keratin * np.array(KERATIN_RGB)
    absorbed = body.cytoplasm[..., None] * cytoplasm + body.nucleus[..., None] * np.array(NUCLEUS_RGB)
    path = cv2.GaussianBlur(body.cytoplasm + 0.8 * body.nucleus, (0, 0), 1.0)
    refracted = 1.0 - 0.9 * look.defocus * cv2.Laplacian(path, cv2.CV_32F)
    lamp = look.lamp * np.array((1.0 + look.warmth, 1.0, 1.0 - look.warmth))
    seen = lamp * _uneven(rng) * 10.0 ** (-look.stain * absorbed) * np.clip(refracted, 0.4, 1.8)[..., None]
    return _counted(rng, seen, BRIGHT_FIELD_PHOTONS, blur_px=0.5 + 0.4 * look.defocus)


def draw_fluorescence(look: Appearance, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return RGB, uint8 ``(128, 128, 3)``: the grey values of one camera, shown in blue."""
    body = look.body
    glow = cv2.GaussianBlur(body.cytoplasm, (0, 0), 14.0)  # of all that lies out of focus
    shines = look.exposure * (0.42 * body.dna + look.haze * (0.5 + 0.5 * glow))
    grey = _counted(rng, shines * _uneven(rng)[..., 0], FLUORESCENCE_PHOTONS, blur_px=0.8 + 0.6 * look.defocus)
    return np.asarray(np.rint(grey[..., None] * np.array(EMISSION_RGB)), dtype=np.uint8)


def _make_body(look: Appearance) -> Body:
    rng = np.random.default_rng(look.shape_seed)
    centre = rng.normal(SIDE_PX / 2.0, 4.0, 2)
    ragged = 0.035 + 0.05 * look.keratin
    inside, reach = _outline(rng, centre, look.size * (1.0 - 0.3 * look.keratin) * rng.uniform(44.0, 58.0), ragged)
    width = rng.uniform(11.0, 15.0) * look.size
    nucleus_inside, _ = _outline(rng, centre + rng.normal(0.0, 3.0, 2), width, 0.04)
    nucleus = np.sqrt(np.clip(nucleus_inside / width, 0.0, 1.0) * 1.5)
    halo = np.exp(-(((nucleus_inside + 3.0) / 2.5) ** 2))
    folds = np.exp(-((smooth_field(rng, reach.shape, 14.0) / 0.05) ** 2)) * 0.25
    grain = 1.0 + 0.1 * smooth_field(rng, reach.shape, 3.0) + folds
    cytoplasm = _edge(inside, 3.0) * grain * (0.75 + 0.55 * look.keratin) * (1.0 - 0.75 * look.keratin * halo)
    return Body(
        np.maximum(cytoplasm + _neighbours(rng), 0.0).astype(np.float32),
        nucleus.astype(np.float32),
        _dna(rng, nucleus, centre, width, look.ploidy),
    )


def _dna(rng: np.random.Generator, nucleus: Pixels, centre: NDArray[np.float64], width: float, ploidy: float) -> Pixels:
    """Return the DNA of a nucleus: the more of it, the brighter, the more clumped, with micronuclei beside."""
    fine, coarse = smooth_field(rng, nucleus.shape, 1.2), smooth_field(rng, nucleus.shape, 2.4)
    texture = np.clip(1.0 + 0.12 * fine + 0.75 * ploidy * coarse, 0.15, 3.0)
    dna = nucleus * texture * (1.0 + 0.6 * ploidy)
    for _ in range(int(rng.poisson(3.0 * max(0.0, ploidy - 0.3)))):
        angle, away = rng.uniform(0.0, 2.0 * np.pi), width * rng.uniform(1.3, 1.9)
        at = centre + away * np.array((np.sin(angle), np.cos(angle)))
        dna = dna + _edge(_outline(rng, at, rng.uniform(2.0, 3.5), 0.0)[0], 1.0) * rng.uniform(0.8, 1.4)
    return np.asarray(dna, dtype=np.float32)


def _neighbours(rng: np.random.Generator) -> Pixels:
    """Return what the margins of other cells cover, most often nothing."""
    covered = np.zeros((SIDE_PX, SIDE_PX), dtype=np.float32)
    for _ in range(int(rng.poisson(0.7))):
        angle = rng.uniform(0.0, 2.0 * np.pi)
        at = SIDE_PX / 2.0 + rng.uniform(88.0, 105.0) * np.array((np.sin(angle), np.cos(angle)))
        covered += 0.7 * _edge(_outline(rng, at, rng.uniform(40.0, 50.0), 0.05)[0], 3.0)
    return covered


def _outline(
    rng: np.random.Generator, centre: NDArray[np.float64], radius_px: float, ragged: float
) -> tuple[Pixels, Pixels]:
    """Return how far inside a wavy circle each pixel lies, negative outside, and its distance from the centre."""
    at = np.arange(SIDE_PX, dtype=np.float32)
    y, x = at[:, None] - np.float32(centre[0]), at[None, :] - np.float32(centre[1])
    reach, angle = np.hypot(y, x), np.arctan2(y, x)
    waves = np.arange(2, 10)
    amounts = rng.normal(0.0, ragged, len(waves)) / np.sqrt(waves / 2.0)
    phases = rng.uniform(0.0, 2.0 * np.pi, len(waves))
    bound = 1.0 + sum(a * np.cos(k * angle + p) for k, a, p in zip(waves, amounts, phases, strict=True))
    return np.asarray(radius_px * bound - reach, dtype=np.float32), reach


def _edge(inside: Pixels, width_px: float) -> Pixels:
    """Return 0 outside to 1 inside, over `width_px` inside the outline."""
    return np.asarray(np.clip(inside / width_px, 0.0, 1.0), dtype=np.float32)


def _uneven(rng: np.random.Generator) -> Pixels:
    """Return the relative brightness of the illumination, ``(h, w, 1)``."""
    at = np.linspace(-1.0, 1.0, SIDE_PX, dtype=np.float32)
    slope = rng.normal(0.0, 0.03, 2)
    return np.asarray(1.0 + slope[0] * at[:, None, None] + slope[1] * at[None, :, None], dtype=np.float32)


def _counted(rng: np.random.Generator, seen: Pixels, photons: float, *, blur_px: float) -> NDArray[np.uint8]:
    """Return 8 bits of what a camera counts; `seen` is 1 where `photons` arrive, and white."""
    blurred = cv2.GaussianBlur(np.asarray(seen, dtype=np.float32), (0, 0), blur_px)
    counts = rng.poisson(np.clip(blurred, 0.0, 4.0) * photons) / photons
    return np.asarray(np.rint(np.clip(counts, 0.0, 1.0) * 255.0), dtype=np.uint8)
