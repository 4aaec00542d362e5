"""The pictures of the ``reflectance`` sample: gratings with rough edges and dye grains, seen from above."""

from dataclasses import dataclass
from math import cos, sin

import numpy as np
from numpy.typing import NDArray

from store.samples.grating import Grating
from store.samples.micrograph import smooth_field
from store.samples.powder_picture import OUTSIDE, sphere
from store.samples.secondary import Beam, Pixels, micrograph

SIDE_PX = 256
NM_PER_PX = 25.0
FLANK_PX = 1.6  # width of a flank from above
GRAINS_PER_DYE = 90.0  # dye grains in a picture at an optical depth of 1
REACH_PX = 20


@dataclass(frozen=True)
class View:
    """How a grating lies and was taken.

    Attributes:
        seed: Seeds of the picture's own generator.
        angle: By which the lines are turned from upright, in radians.
        rough: Standard deviation of the edges, as a part of the period.
        beam: Dose, focus and detector.
        black: Grey value of no electrons, of 255.
        white: Grey value of the brightest 0.5 %, as the operator set it.
    """

    seed: tuple[int, ...]
    angle: float
    rough: float
    beam: Beam
    black: float
    white: float


def draw(grating: Grating, view: View) -> NDArray[np.uint8]:
    """Return the micrograph, uint8 ``(256, 256)``."""
    rng = np.random.default_rng([*view.seed, 3])
    height = relief(rng, grating, view)
    _add_grains(rng, height, int(rng.poisson(GRAINS_PER_DYE * grating.dye)))
    seen = micrograph(height, view.beam, rng, reach_px=REACH_PX)
    seen *= 1.0 + 0.05 * smooth_field(rng, (SIDE_PX, SIDE_PX), 60.0)  # charging
    gain = (view.white - view.black) / float(np.percentile(seen, 99.5))
    return np.asarray(np.clip(np.rint(view.black + gain * seen), 0, 255), dtype=np.uint8)


def relief(rng: np.random.Generator, grating: Grating, view: View) -> Pixels:
    """Return the heights of the grating in px, ``(256, 256)``."""
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX].astype(np.float32)
    across = x * np.float32(cos(view.angle)) + y * np.float32(sin(view.angle))
    along = y * np.float32(cos(view.angle)) - x * np.float32(sin(view.angle))
    shape = _profile(rng, grating, view, across)
    if grating.kind == "pillars":
        shape = np.minimum(shape, _profile(rng, grating, view, along))
    return np.asarray(shape * np.float32(grating.height_nm / NM_PER_PX), dtype=np.float32)


def _profile(rng: np.random.Generator, grating: Grating, view: View, across: Pixels) -> Pixels:
    """Return 1 on lines and 0 in grooves, with flanks in between."""
    period_px = grating.period_nm / NM_PER_PX
    rough = np.float32(view.rough * period_px)
    place = (across + rough * smooth_field(rng, across.shape, 9.0)) / np.float32(period_px) + rng.uniform()
    from_middle = np.abs(place - np.rint(place)) * np.float32(period_px)
    half = 0.5 * grating.duty * period_px + 0.5 * rough * smooth_field(rng, across.shape, 6.0)
    return np.asarray(np.clip((half - from_middle) / FLANK_PX + 0.5, 0.0, 1.0), dtype=np.float32)


def _add_grains(rng: np.random.Generator, height: Pixels, n: int) -> None:
    """Lay dye grains of 100 to 250 nm wherever they fall."""
    for _ in range(n):
        radius = rng.uniform(2.0, 5.0)
        cy, cx = rng.uniform(0.0, SIDE_PX, 2)
        rows, cols = (slice(max(0, int(c - radius)), int(c + radius) + 2) for c in (cy, cx))
        here = height[rows, cols]
        y = np.arange(rows.start, rows.start + here.shape[0], dtype=np.float32)[:, None] - np.float32(cy)
        x = np.arange(cols.start, cols.start + here.shape[1], dtype=np.float32)[None, :] - np.float32(cx)
        top = sphere(radius)(y, x)
        lies = np.float32(here.mean() + 0.5 * radius)
        np.maximum(here, np.where(top > OUTSIDE / 2, lies + top, OUTSIDE), out=here)
