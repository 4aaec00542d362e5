"""Projected thickness of particles, rods, tubes, sheets and aggregates.

Solids (sphere, facet, rod, tube, aggregate) return their thickness in pixels: they are as deep as they are wide, so the
size of a pixel turns it into nm. Sheets return a number of layers: their thickness is a property of their own.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from store.samples.micrograph import Pixels, smooth_field


class Window(NamedTuple):
    """The part of the image that one object covers, and the object's own coordinates there.

    Attributes:
        rows: Where it lies in the image.
        cols: Where it lies in the image.
        y: Pixels below the object's centre, ``(h, 1)``.
        x: Pixels right of the object's centre, ``(1, w)``.
    """

    rows: slice
    cols: slice
    y: Pixels
    x: Pixels

    @property
    def shape(self) -> tuple[int, int]:
        """``(h, w)``; either may be 0 for an object outside the image."""
        return self.y.shape[0], self.x.shape[1]


def make_window(centre: tuple[float, float], half_px: float, side_px: int) -> Window:
    """Return the window of `half_px` around `centre` (y, x), cut at the border of a `side_px` wide image."""
    low = [min(max(int(c - half_px), 0), side_px) for c in centre]
    high = [min(max(int(c + half_px) + 1, 0), side_px) for c in centre]
    y, x = (np.arange(low[k], high[k], dtype=np.float32) - np.float32(centre[k]) for k in (0, 1))
    return Window(slice(low[0], high[0]), slice(low[1], high[1]), y[:, None], x[None, :])


def sphere(window: Window, width_px: float) -> Pixels:
    """Return the thickness of a ball."""
    return _chord(np.sqrt(window.y**2 + window.x**2), width_px / 2.0)


def facet(rng: np.random.Generator, window: Window, width_px: float) -> Pixels:
    """Return the thickness of a truncated crystal, darker or lighter as Bragg's condition is met, maybe twinned."""
    inside = make_polygon(rng, width_px, int(rng.integers(4, 9))).inside(window.y, window.x)
    solid = np.clip(inside * 2.5, 0.0, 0.7 * width_px)
    tone = float(np.exp(rng.normal(0.0, 0.3)))
    if rng.random() < 0.35:
        angle, offset = rng.uniform(0.0, np.pi), rng.normal(0.0, 0.15 * width_px)
        side = np.cos(angle) * window.x + np.sin(angle) * window.y > offset
        solid = solid * np.where(side, np.float32(0.6), np.float32(1.1))
    return np.asarray(solid * tone, dtype=np.float32)


def rod(rng: np.random.Generator, window: Window, width_px: float, length_px: float) -> Pixels:
    """Return the thickness of a straight round-ended rod."""
    return _chord(_segment_distance(rng.uniform(0.0, np.pi), window, length_px - width_px), width_px / 2.0)


def tube(rng: np.random.Generator, window: Window, width_px: float, length_px: float) -> Pixels:
    """Return the thickness of a bent hollow tube, whose walls look dark."""
    bend = rng.normal(0.0, 0.8)
    angle = rng.uniform(0.0, 2.0 * np.pi) + bend * np.linspace(-1.0, 1.0, 40)
    step = length_px / 40.0
    path = np.cumsum(np.stack([np.cos(angle), np.sin(angle)], axis=1) * step, axis=0)
    path -= path.mean(axis=0) + np.array([window.x[0, 0], window.y[0, 0]])
    away = np.full(window.shape, 255, dtype=np.uint8)
    cv2.polylines(away, [np.rint(path * 16).astype(np.int32)], False, 0, 1, cv2.LINE_8, 4)
    distance = cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    hollow = rng.uniform(0.35, 0.65)
    return _chord(distance, width_px / 2.0) - _chord(distance, hollow * width_px / 2.0)


def aggregate(rng: np.random.Generator, window: Window, width_px: float) -> Pixels:
    """Return the thickness of a branched cluster of small primary balls that stick where they first touch."""
    y, x = _cluster(rng, int(rng.integers(40, 220)))
    primary_px = max(2.5, width_px / (2.0 * float(np.hypot(y, x).max()) + 1.0))
    y, x = y * primary_px - window.y[0, 0], x * primary_px - window.x[0, 0]
    seeds = np.zeros(window.shape, dtype=np.float32)
    inside = (y >= 0) & (x >= 0) & (y < seeds.shape[0] - 0.5) & (x < seeds.shape[1] - 0.5)
    np.add.at(seeds, (np.rint(y[inside]).astype(int), np.rint(x[inside]).astype(int)), np.float32(1.0))
    ball = sphere(make_window((primary_px, primary_px), primary_px, int(2 * primary_px) + 2), primary_px)
    grown: Pixels = cv2.filter2D(seeds, -1, ball, borderType=cv2.BORDER_CONSTANT)
    return grown * (1.0 + 0.25 * smooth_field(rng, window.shape, max(1.0, primary_px / 4.0)))


def flat_sheet(rng: np.random.Generator, window: Window, width_px: float) -> Pixels:
    """Return the layers of a stiff plate: straight edges, even grey, a few terraces, sometimes a bend contour."""
    layers = np.zeros(window.shape, dtype=np.float32)
    n_terraces = int(rng.integers(1, 4))
    for k in range(n_terraces):
        shrink = 1.0 if k == 0 else rng.uniform(0.5, 0.95)
        inside = make_polygon(rng, width_px * shrink, int(rng.integers(4, 8)), irregular=0.35).inside(
            window.y, window.x
        )
        layers += _edge(inside, 1.2) * np.float32(1.0 if k == 0 else rng.uniform(0.15, 0.5))
    if rng.random() < 0.3:
        contour = _lines(smooth_field(rng, window.shape, width_px / 3.0), width_px / 3.0, 0.03 * width_px)
        layers *= 1.0 + 0.35 * contour
    return layers


def thin_sheet(rng: np.random.Generator, window: Window, width_px: float, *, crumple: float) -> Pixels:
    """Return the layers of a limp sheet.

    Args:
        rng: The source of the shape.
        window: Where it lies.
        width_px: About its diameter.
        crumple: 0 flat, to 0.4 wavy with few kinks, from 0.6 crumpled with many folds, 1 crushed.
    """
    ragged = smooth_field(rng, window.shape, max(1.5, width_px / 10.0)) * np.float32(width_px * 0.05)
    layers = _folded(rng, window, width_px, ragged, n_folds=int(rng.integers(0, 2 + round(2 * crumple))))
    waves = smooth_field(rng, window.shape, max(1.5, width_px / 6.0))
    relief = 1.0 + 0.15 * waves + _wrinkles(rng, window.shape, width_px) * np.float32(1.6)
    if crumple > 0.15:
        relief = relief + _creases(rng, window.shape, width_px, crumple)
    return layers * np.maximum(relief, 0.2)


def residue(rng: np.random.Generator, window: Window, width_px: float) -> Pixels:
    """Return a soft-edged blot of dried dirt, between 0 and about 1; every other one is a ring."""
    reach = np.sqrt(window.y**2 + window.x**2) + smooth_field(rng, window.shape, width_px / 8.0) * width_px * 0.06
    blot = _edge(width_px * 0.4 - reach, width_px * 0.12)
    if rng.random() < 0.5:
        blot = blot * (0.35 + np.exp(-(((reach - width_px * 0.36) / (width_px * 0.06)) ** 2)))
    return blot * (1.0 + 0.2 * smooth_field(rng, window.shape, 2.0))


def cube(rng: np.random.Generator, window: Window, width_px: float) -> Pixels:
    """Return the outline of a square crystal lying on its face, between 0 and 1."""
    angle = rng.uniform(0.0, np.pi / 2.0)
    along = np.cos(angle) * window.x + np.sin(angle) * window.y
    across = np.cos(angle) * window.y - np.sin(angle) * window.x
    return _edge(width_px / 2.0 - np.maximum(np.abs(along), np.abs(across) * rng.uniform(1.0, 1.5)), 1.0)


class Polygon(NamedTuple):
    """A convex polygon around 0: the directions of its sides' normals, and how far out the sides lie in pixels."""

    angles: NDArray[np.float64]
    reach: NDArray[np.float64]

    def inside(self, y: Pixels, x: Pixels) -> Pixels:
        """Return how far inside each point is, in pixels; negative outside."""
        found = np.full(np.broadcast_shapes(y.shape, x.shape), np.inf, dtype=np.float32)
        for angle, bound in zip(self.angles, self.reach, strict=True):
            normal = np.float32(np.cos(angle)), np.float32(np.sin(angle))
            np.minimum(found, np.float32(bound) - normal[0] * x - normal[1] * y, out=found)
        return found


def make_polygon(rng: np.random.Generator, width_px: float, n_sides: int, *, irregular: float = 0.1) -> Polygon:
    """Return a random polygon about `width_px` wide; `irregular` is 0 for equal sides and at most 0.45."""
    turn = rng.uniform(0.0, 2.0 * np.pi)
    angles = turn + (np.arange(n_sides) + rng.uniform(-irregular, irregular, n_sides)) * 2.0 * np.pi / n_sides
    return Polygon(angles, width_px / 2.0 * rng.uniform(0.9 - irregular, 0.9, n_sides))


def _chord(distance: Pixels, radius: float) -> Pixels:
    """Return the length of the beam's path through a ball or cylinder, by the distance from its centre or axis."""
    return np.asarray(2.0 * np.sqrt(np.maximum(np.float32(radius**2) - distance**2, 0.0)), dtype=np.float32)


def _edge(inside: Pixels, width_px: float) -> Pixels:
    """Return 0 outside to 1 inside, over `width_px` on either side of the outline."""
    return np.asarray(np.clip(inside / np.float32(2.0 * width_px) + 0.5, 0.0, 1.0), dtype=np.float32)


def _segment_distance(angle: float, window: Window, length_px: float) -> Pixels:
    along = np.cos(angle) * window.x + np.sin(angle) * window.y
    across = np.cos(angle) * window.y - np.sin(angle) * window.x
    return np.asarray(np.hypot(np.maximum(np.abs(along) - length_px / 2.0, 0.0), across), dtype=np.float32)


def _cluster(rng: np.random.Generator, n_balls: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return centres (y, x) of balls of width 1, each touching a random earlier one, around a mean of 0."""
    angle, parent = rng.uniform(0.0, 2.0 * np.pi, n_balls), rng.random(n_balls) ** 0.5
    y, x = np.zeros(n_balls), np.zeros(n_balls)
    for k in range(1, n_balls):
        j = int(parent[k] * k)
        y[k], x[k] = y[j] + 0.85 * np.sin(angle[k]), x[j] + 0.85 * np.cos(angle[k])
    return y - y.mean(), x - x.mean()


def _folded(rng: np.random.Generator, window: Window, width_px: float, ragged: Pixels, *, n_folds: int) -> Pixels:
    """Return the layers of a sheet whose margins were folded over: the flap lies on the sheet, twice as dark."""
    outline = make_polygon(rng, width_px, int(rng.integers(5, 10)), irregular=0.35)
    layers = _edge(outline.inside(window.y, window.x) + ragged, 1.2)
    for _ in range(n_folds):
        angle, reach = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.12, 0.3) * width_px
        normal = np.float32(np.sin(angle)), np.float32(np.cos(angle))
        beyond = normal[0] * window.y + normal[1] * window.x - np.float32(reach)
        flap = outline.inside(window.y - 2 * beyond * normal[0], window.x - 2 * beyond * normal[1])
        layers = np.where(beyond > 0, np.float32(0.0), layers + _edge(flap, 1.2))
    return layers


def _lines(field: Pixels, scale_px: float, width_px: float) -> Pixels:
    """Return ridges of about `width_px` along the zero contours of a unit-variance field."""
    return np.asarray(np.exp(-((field * 1.4 * scale_px / max(width_px, 0.5)) ** 2)), dtype=np.float32)


def _wrinkles(rng: np.random.Generator, shape: tuple[int, int], width_px: float) -> Pixels:
    """Return a few long, gently curved ridges that fade in and out."""
    scale_px = max(2.0, width_px / 6.0)
    fade = np.clip(smooth_field(rng, shape, scale_px) + 0.3, 0.0, 1.3)
    lines = _lines(smooth_field(rng, shape, scale_px), scale_px, min(4.0, max(1.2, 0.011 * width_px)))
    return np.asarray(lines * fade, dtype=np.float32)


def _creases(rng: np.random.Generator, shape: tuple[int, int], width_px: float, crumple: float) -> Pixels:
    """Return the relief of a crumpled sheet: tilted facets (thickness / cos of the tilt) between creases."""
    relief = np.zeros(shape, dtype=np.float32)
    for cell_px in (width_px / rng.uniform(3.0, 5.0), width_px / rng.uniform(7.0, 11.0)):
        cell_px = max(5.0, cell_px)
        facets, borders = _cells(rng, shape, cell_px)
        tone = rng.gamma(1.0, 0.45, facets.max() + 1).astype(np.float32)
        fade = np.clip(1.5 * smooth_field(rng, shape, 0.6 * cell_px) + 1.2, 0.0, 3.5)
        relief += tone[facets] + fade * np.exp(-borders / max(1.4, 0.05 * cell_px))
    return relief * np.float32(crumple)


def _cells(rng: np.random.Generator, shape: tuple[int, int], cell_px: float) -> tuple[NDArray[np.int32], Pixels]:
    """Return each pixel's cell in a bent, stretched Voronoi pattern, and its distance from the cell's border."""
    away = np.full(shape, 255, dtype=np.uint8)
    n_cells = max(4, int(1.3 * shape[0] * shape[1] / cell_px**2))
    away[rng.integers(0, shape[0], n_cells), rng.integers(0, shape[1], n_cells)] = 0
    _, cells = cv2.distanceTransformWithLabels(away, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL)
    stretch, turn = rng.uniform(1.5, 3.0), rng.uniform(0.0, np.pi)
    y, x = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None, :]
    along = (np.cos(turn) * (x - shape[1] / 2) + np.sin(turn) * (y - shape[0] / 2)) * (1.0 / stretch - 1.0)
    bent_y, bent_x = (smooth_field(rng, shape, cell_px / 2.0) * np.float32(0.18 * cell_px) for _ in range(2))
    at = (x + along * np.cos(turn) + bent_x).astype(np.float32), (y + along * np.sin(turn) + bent_y).astype(np.float32)
    cells = cv2.remap(cells.astype(np.float32), *at, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)
    inner = np.full(shape, 255, dtype=np.uint8)
    inner[:, 1:][cells[:, 1:] != cells[:, :-1]] = 0
    inner[1:][cells[1:] != cells[:-1]] = 0
    return cells.astype(np.int32), cv2.distanceTransform(inner, cv2.DIST_L2, cv2.DIST_MASK_5)
