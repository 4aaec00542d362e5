"""The pictures of the ``powder`` sample: particles dropped one by one onto a heap, seen from above with electrons.

A particle is a height map of its upper side; its lower side is taken to be the same. Each falls where the heap is
lowest of a few places, until it touches, so nothing overlaps. Gas and plasma atomised particles are spheres, with
satellites; water atomised ones are fused lobes; crushed ones are cut by planes. Lobes and cuts deepen as
sphericity falls.
"""

from collections.abc import Callable
from functools import lru_cache
from math import cos, pi, sin, tau

import numpy as np
from numpy.typing import NDArray

from store.samples.micrograph import smooth_field
from store.samples.powder_plan import FIELD_PX, TILE_PX, TILES_ACROSS, Field
from store.samples.secondary import Pixels, micrograph

COVERAGE = 2.6  # area of all particles over that of the field: nothing of the ground is left
N_PLACES = 6  # a particle falls into the lowest of so many places
SMALLEST_PX = 3.0
SATELLITE_SIZES = (0.12, 0.35)  # of the diameter of the particle they stick to
ROUGH_UM = 0.55  # height of the asperities of the roughest surface, and 4 times as wide
REACH_PX = 40
OUTSIDE = np.float32(-1e6)
Places = NDArray[np.float64]


def draw(field: Field) -> NDArray[np.uint16]:
    """Return a field of view, uint16 ``(512, 512)``."""
    rng = np.random.default_rng([*field.seed, 3])
    height = heap(rng, field)
    height += _asperities(rng, field)
    seen = micrograph(height, field.powder.beam, rng, reach_px=REACH_PX) + _hum(rng, field)
    y, x = np.mgrid[-1 : 1 : FIELD_PX * 1j, -1 : 1 : FIELD_PX * 1j].astype(np.float32)
    tilt = rng.normal(0.0, 0.03, 2)  # of the illumination
    counts = field.powder.black + field.powder.gain * seen * (1.0 + tilt[0] * x + tilt[1] * y)
    counts += rng.standard_normal(seen.shape) * 12.0  # of the amplifier
    return np.asarray(np.clip(np.rint(counts), 0, 65_535), dtype=np.uint16)


def tiles(picture: NDArray[np.uint16]) -> list[NDArray[np.uint16]]:
    """Return a field's parts, row by row."""
    starts = range(0, TILES_ACROSS * TILE_PX, TILE_PX)
    return [np.ascontiguousarray(picture[y : y + TILE_PX, x : x + TILE_PX]) for y in starts for x in starts]


def draw_tile(field: Field, tile: int) -> NDArray[np.uint16]:
    """Return one part of a field, which is drawn once for the parts that are asked for in turn."""
    return _parts(field)[tile]


@lru_cache(maxsize=1)
def _parts(field: Field) -> list[NDArray[np.uint16]]:
    return tiles(draw(field))


def heap(rng: np.random.Generator, field: Field) -> Pixels:
    """Return the heights of a heap of particles, in px, ``(512, 512)``."""
    height = np.zeros((FIELD_PX, FIELD_PX), dtype=np.float32)
    for diameter in _diameters(rng, field):
        solid = _solid(rng, field, diameter)
        centre = _lowest(rng, height, diameter)
        _drop(height, solid, centre, diameter)
        for _ in range(int(rng.poisson(field.powder.satellites))):
            small = diameter * rng.uniform(*SATELLITE_SIZES)
            if small >= SMALLEST_PX:
                angle, off = rng.uniform(0.0, tau), 0.5 * diameter * rng.uniform(0.3, 1.0)
                spot = centre[0] + off * sin(angle), centre[1] + off * cos(angle)
                _drop(height, sphere(small / 2), spot, small)
    return height


Solid = Callable[[Pixels, Pixels], Pixels]
"""From y and x, in px from the centre, to the height of the upper side; OUTSIDE where there is none."""


def sphere(radius: float) -> Solid:
    """Return a sphere."""

    def top(y: Pixels, x: Pixels) -> Pixels:
        squared = np.float32(radius**2) - y * y - x * x
        return np.where(squared > 0, np.sqrt(np.maximum(squared, 0)), OUTSIDE)

    return top


def lobes(rng: np.random.Generator, radius: float, sphericity: float) -> Solid:
    """Return fused spheres; the lower the sphericity, the smaller and the farther from the centre."""
    apart = 1.6 * (1.0 - sphericity) * radius
    parts = []
    for k in range(int(rng.integers(3, 7))):
        angle = tau * k / 5 + rng.normal(0.0, 0.5)
        off = apart * rng.uniform(0.5, 1.5)
        size = max(0.35 * radius, (radius - 0.7 * off) * rng.uniform(0.75, 1.0))
        parts.append((off * sin(angle), off * cos(angle), sphere(size)))

    def top(y: Pixels, x: Pixels) -> Pixels:
        return np.asarray(np.maximum.reduce([part(y - np.float32(dy), x - np.float32(dx)) for dy, dx, part in parts]))

    return top


def stone(rng: np.random.Generator, radius: float, sphericity: float) -> Solid:
    """Return a larger sphere cut by planes; the lower the sphericity, the deeper."""
    depth = 1.0 - 1.2 * (1.0 - sphericity)  # distance of the planes from the centre, in radii
    radius *= 1.35  # what is left is as wide as the sphere would have been
    normals = _directions(rng, 10)
    distances = radius * np.clip(rng.normal(depth, 0.13, len(normals)), 0.3, 1.0)
    planes = np.stack([normals[:, 0], normals[:, 1], distances], axis=1) / normals[:, 2:]

    def top(y: Pixels, x: Pixels) -> Pixels:
        height = sphere(radius)(y, x)
        for slope_y, slope_x, middle in planes.astype(np.float32):
            height = np.minimum(height, middle - slope_y * y - slope_x * x)
        return np.where(height > -radius, height, OUTSIDE)

    return top


def _directions(rng: np.random.Generator, n: int) -> Places:
    """Return unit vectors (y, x, z) of the upper half space, spread evenly, turned at random."""
    z = (np.arange(n) + 0.5) / n * 0.95 + 0.05
    angle = np.arange(n) * pi * (3.0 - 5.0**0.5) + rng.uniform(0.0, tau)
    flat = np.sqrt(1.0 - z**2)
    return np.stack([flat * np.sin(angle), flat * np.cos(angle), z], axis=1)


def _solid(rng: np.random.Generator, field: Field, diameter: float) -> Solid:
    sphericity = min(1.0, field.powder.particles.sphericity + rng.normal(0.0, 0.02))
    if field.powder.process == "water":
        return lobes(rng, diameter / 2, sphericity)
    if field.powder.process == "crushed":
        return stone(rng, diameter / 2, sphericity)
    return sphere(diameter / 2)


def _diameters(rng: np.random.Generator, field: Field) -> list[float]:
    """Return diameters in px, lognormal by number, until they cover the field; the median by volume is d50."""
    powder = field.powder
    by_number = powder.particles.d50_um * np.exp(-3.0 * powder.spread**2)  # Hatch and Choate 1929
    median = by_number / field.um_per_px
    sizes = median * np.exp(np.clip(rng.normal(0.0, powder.spread, 20_000), -2.5 * powder.spread, 2.5 * powder.spread))
    sizes = sizes[sizes >= SMALLEST_PX]
    area = np.cumsum(pi / 4 * np.minimum(sizes, 2 * FIELD_PX) ** 2)
    enough = COVERAGE * (FIELD_PX + median) ** 2
    return [float(size) for size in sizes[: int(np.searchsorted(area, enough)) + 1]]


def _lowest(rng: np.random.Generator, height: Pixels, diameter: float) -> tuple[float, float]:
    """Return the lowest of a few places (y, x); centres may lie outside by a radius."""
    places = rng.uniform(-diameter / 2, FIELD_PX + diameter / 2, (N_PLACES, 2))
    at = np.clip(places.astype(int), 0, FIELD_PX - 1)
    best = places[int(np.argmin(height[at[:, 0], at[:, 1]]))]
    return float(best[0]), float(best[1])


def _drop(height: Pixels, solid: Solid, centre: tuple[float, float], diameter: float) -> None:
    """Let a particle down until it touches the heap."""
    reach = diameter * 0.75 + 1.0
    rows, cols = (slice(max(0, int(c - reach)), min(FIELD_PX, int(c + reach) + 1)) for c in centre)
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(centre[0])
    x = np.arange(cols.start, cols.stop, dtype=np.float32)[None, :] - np.float32(centre[1])
    if y.size == 0 or x.size == 0:
        return
    top = solid(y, x)
    inside = top > OUTSIDE / 2
    if inside.any():
        here = height[rows, cols]
        middle = np.max(here[inside] + np.maximum(top[inside], 0.0))
        here[inside] = np.maximum(here[inside], middle + top[inside])


def _hum(rng: np.random.Generator, field: Field) -> Pixels:
    """Return what the mains add to each line of the scan, ``(512, 1)``."""
    amplitude, period = field.powder.hum
    phase = tau * np.arange(FIELD_PX)[:, None] / period + rng.uniform(0.0, tau)
    return np.asarray(amplitude * np.sin(phase), dtype=np.float32)


def _asperities(rng: np.random.Generator, field: Field) -> Pixels:
    """Return the roughness of the surfaces in px: seen only where a pixel is finer than an asperity."""
    width_px = 4.0 * ROUGH_UM / field.um_per_px
    bumps = smooth_field(rng, (FIELD_PX, FIELD_PX), max(0.6, width_px / 4))
    fine = smooth_field(rng, (FIELD_PX, FIELD_PX), max(0.6, width_px / 16))
    scale = field.powder.particles.roughness * min(ROUGH_UM / field.um_per_px, 4.0)
    return np.asarray(np.float32(scale) * (bumps + 0.3 * fine), dtype=np.float32)
