"""Things that people throw away, drawn upright and alone: their colours, and where they are.

Bottles, cans, bulbs, sticks and cups are solids of revolution, shaded by their curvature; boxes, cartons, plates and
bags are height fields, shaded by their slope. Light comes from the upper left; every colour is between 0 and 1.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import cv2
import numpy as np

from store.samples.micrograph import Pixels, smooth_field

SIDE_PX = 192
"""The side of the square that a thing is drawn in; it fills about three quarters of it."""
_LIGHT = (-0.45, -0.45, 0.77)  # x right, y down, z towards the camera
_PLASTICS = (
    (0.93, 0.93, 0.9),
    (0.2, 0.35, 0.75),
    (0.85, 0.2, 0.2),
    (0.95, 0.75, 0.1),
    (0.15, 0.55, 0.3),
    (0.5, 0.3, 0.6),
)
_PAPERS = ((0.78, 0.62, 0.42), (0.72, 0.55, 0.36), (0.93, 0.92, 0.88), (0.86, 0.83, 0.76))
_METAL = np.array((0.72, 0.73, 0.76), dtype=np.float32)

Colour = Pixels
"""RGB, ``(3,)``."""


class Thing(NamedTuple):
    """One thing on nothing.

    Attributes:
        colour: RGB, ``(h, w, 3)``.
        cover: 1 where it is, 0 where it is not, ``(h, w)``.
    """

    colour: Pixels
    cover: Pixels


def bottle(rng: np.random.Generator) -> Thing:
    """Return a bottle with a cap, shoulders and a printed label."""
    neck, shoulder, width = rng.uniform(0.28, 0.5), rng.uniform(0.2, 0.4), rng.uniform(0.2, 0.3)
    body = _choice(rng, _PLASTICS)

    def radius(t: Pixels) -> Pixels:
        rise = np.clip((t - 0.16) / (shoulder - 0.08), 0.0, 1.0)
        smooth = neck + (1.0 - neck) * np.sin(rise * np.pi / 2.0) ** 1.5
        return np.where(t < 0.1, neck * 1.25, np.where(t > 0.97, 0.94, smooth)) * np.float32(width)

    def paint(t: Pixels, turn: Pixels) -> Pixels:
        cap = t < 0.1
        return np.where(
            cap[..., None], _ridged(_choice(rng, _PLASTICS), turn), _labelled(rng, body, t, turn, 0.45, 0.88)
        )

    return _revolve(radius, paint, gloss=rng.uniform(0.3, 0.7))


def can(rng: np.random.Generator) -> Thing:
    """Return a spray can: a printed cylinder between metal rims, with a dome and a nozzle."""
    width = rng.uniform(0.17, 0.25)
    body = _choice(rng, _PLASTICS)

    def radius(t: Pixels) -> Pixels:
        dome = 0.4 + 0.6 * np.sqrt(np.clip((t - 0.08) / 0.12, 0.0, 1.0))
        return np.where(t < 0.08, 0.28, np.where((t > 0.2) & (t < 0.225), 1.05, dome)) * np.float32(width)

    def paint(t: Pixels, turn: Pixels) -> Pixels:
        print_ = _labelled(rng, body, t, turn, 0.24, 0.94)
        return np.where((t < 0.225)[..., None] | (t > 0.95)[..., None], _METAL, print_)

    return _revolve(radius, paint, gloss=0.9)


def bulb(rng: np.random.Generator) -> Thing:
    """Return a light bulb: a glass globe on a ridged screw base."""
    width = rng.uniform(0.27, 0.34)
    glass = _choice(rng, ((0.8, 0.79, 0.74), (0.74, 0.77, 0.81), (0.82, 0.74, 0.58)))

    def radius(t: Pixels) -> Pixels:
        globe = np.sqrt(np.clip(1.0 - ((t - 0.3) / 0.3) ** 2, 0.0, 1.0))
        taper = np.clip(1.25 - 1.25 * t, 0.42, 1.0) * (t > 0.3)
        screw = 0.4 + 0.03 * np.sin(t * 190.0)
        return np.where(t > 0.72, np.where(t > 0.96, 0.22, screw), np.maximum(globe, taper)) * np.float32(width)

    def paint(t: Pixels, turn: Pixels) -> Pixels:  # noqa: ARG001 - plain all around
        return np.asarray(np.where((t > 0.72)[..., None], _METAL, glass), dtype=np.float32)

    return _revolve(radius, paint, gloss=0.3)


def stick(rng: np.random.Generator) -> Thing:
    """Return a small cylinder, such as a battery or a glue stick, with an end of another colour."""
    width, at = rng.uniform(0.1, 0.16), rng.uniform(0.2, 0.4)
    ends = _choice(rng, _PLASTICS), _choice(rng, _PLASTICS)

    def radius(t: Pixels) -> Pixels:
        return np.where(t < 0.05, 0.4, 1.0) * np.float32(width) + 0.0 * t

    def paint(t: Pixels, turn: Pixels) -> Pixels:
        return np.where((t < at)[..., None], _ridged(ends[0], turn), _labelled(rng, ends[1], t, turn, at, 0.96))

    return _revolve(radius, paint, gloss=0.6)


def cup(rng: np.random.Generator) -> Thing:
    """Return a paper cup, wider above, with a rolled rim and a printed band."""
    low, width = rng.uniform(0.62, 0.75), rng.uniform(0.26, 0.33)
    paper = _choice(rng, _PAPERS)

    def radius(t: Pixels) -> Pixels:
        return np.where(t < 0.05, 1.06, low + (1.0 - low) * (1.0 - t)) * np.float32(width)

    def paint(t: Pixels, turn: Pixels) -> Pixels:
        return _labelled(rng, paper, t, turn, 0.3, rng.uniform(0.55, 0.8))

    return _revolve(radius, paint, gloss=0.1)


def box(rng: np.random.Generator) -> Thing:
    """Return a cardboard box seen from above: a lid with a seam and flaps, a lower side, a printed mark."""
    y, x = _grid()
    ratio, side = rng.uniform(0.7, 1.0), rng.uniform(0.05, 0.12)
    inside = np.minimum(0.37 - np.abs(x), 0.37 * ratio - np.abs(y))
    front = (y > (0.37 * ratio - side)).astype(np.float32)
    seam = np.exp(-((y - rng.uniform(-0.05, 0.05)) ** 2) / 0.00006) + np.exp(-((np.abs(x) - 0.3) ** 2) / 0.00006)
    height = -0.5 * seam * (1 - front) + 0.2 * smooth_field(rng, y.shape, 12.0)
    shade = _shaded(height * 2.0) * (1.0 - 0.35 * front)
    colour = _printed(rng, _choice(rng, _PAPERS), y, x) * shade[..., None]
    return Thing(colour.astype(np.float32), _covered(inside))


def carton(rng: np.random.Generator) -> Thing:
    """Return an egg carton: rows of domes."""
    y, x = _grid()
    n, ratio = int(rng.integers(3, 6)), rng.uniform(0.42, 0.66)
    inside = np.minimum(0.38 - np.abs(x), 0.38 * ratio - np.abs(y))
    m = max(2, round(n * ratio))
    domes = np.abs(np.sin((x + 0.38) / 0.76 * np.pi * n) * np.sin((y / (0.76 * ratio) + 0.5) * np.pi * m))
    height = 8.0 * domes + 0.4 * smooth_field(rng, y.shape, 2.0)
    paper = _choice(rng, (*_PAPERS, (0.6, 0.6, 0.58), (0.62, 0.7, 0.66)))
    return Thing((_shaded(height)[..., None] * paper).astype(np.float32), _covered(inside))


def plate(rng: np.random.Generator) -> Thing:
    """Return a paper plate with a fluted rim."""
    y, x = _grid()
    squeeze, flutes = rng.uniform(0.75, 1.0), int(rng.integers(24, 48))
    reach, angle = np.hypot(x, y / squeeze), np.arctan2(y / squeeze, x)
    rim = np.clip((reach - 0.24) / 0.12, 0.0, 1.0)
    height = 9.0 * rim**1.5 + 0.6 * np.sin(angle * flutes) * (rim > 0.2) + 0.15 * smooth_field(rng, y.shape, 4.0)
    ring = 1.0 - 0.5 * np.exp(-(((reach - 0.33) / 0.008) ** 2)) * (rng.random() < 0.4)
    paper = _choice(rng, _PAPERS[2:])
    colour = (_shaded(height) * ring)[..., None] * paper
    return Thing(colour.astype(np.float32), _covered(0.39 - reach))


def bag(rng: np.random.Generator) -> Thing:
    """Return a paper bag lying flat: a zigzag edge above, folds and creases."""
    y, x = _grid()
    half, zigzag = rng.uniform(0.22, 0.3), 0.012 * np.abs((x * 40.0) % 2.0 - 1.0)
    inside = np.minimum(half - np.abs(x), np.minimum(y + 0.4 - zigzag, 0.4 - y))
    creases = sum(np.abs(smooth_field(rng, y.shape, scale)) * scale / 9.0 for scale in (6.0, 14.0, 30.0))
    fold = np.exp(-((np.abs(x) - half * 0.72) ** 2) / 0.0001) + np.exp(-((y - 0.25) ** 2) / 0.0001)
    shade = _shaded(np.asarray(creases) * 1.2 - 0.6 * fold)
    colour = _printed(rng, _choice(rng, _PAPERS), y, x) * shade[..., None]
    return Thing(colour.astype(np.float32), _covered(inside))


LOOKS: Mapping[str, Callable[[np.random.Generator], Thing]] = {
    "bottle": bottle,
    "can": can,
    "bulb": bulb,
    "stick": stick,
    "cup": cup,
    "box": box,
    "carton": carton,
    "plate": plate,
    "bag": bag,
}


def stain(rng: np.random.Generator, thing: Thing) -> Thing:
    """Return the thing soiled by food: soaked-in grease and sauce with dark borders, splashes and crumbs."""
    field = smooth_field(rng, thing.cover.shape, rng.uniform(9.0, 16.0))
    level = float(np.quantile(field[thing.cover > 0.5], rng.uniform(0.55, 0.8)))
    soaked = np.clip((field - level) * 4.0, 0.0, 1.0)
    border = np.exp(-(((field - level) / 0.12) ** 2))
    spots = np.clip((smooth_field(rng, thing.cover.shape, 2.2) - 1.7) * 3.0, 0.0, 1.0)
    sauce = _choice(rng, ((0.45, 0.25, 0.1), (0.6, 0.18, 0.08), (0.5, 0.38, 0.1), (0.3, 0.22, 0.12)))
    crumbs = _choice(rng, ((0.35, 0.2, 0.08), (0.25, 0.35, 0.1), (0.8, 0.6, 0.25)))
    wet = (0.62 * soaked * (0.8 + 0.2 * smooth_field(rng, field.shape, 3.0)) + 0.35 * border)[..., None]
    colour = thing.colour * (1.0 - wet * (1.0 - sauce))
    relief = _shaded(4.0 * cv2.GaussianBlur(spots, (0, 0), 0.8))[..., None]
    colour = colour * (1.0 - spots[..., None]) + crumbs * relief * spots[..., None]
    return Thing(np.clip(colour, 0.0, 1.0).astype(np.float32), thing.cover)


def _grid() -> tuple[Pixels, Pixels]:
    """Return y (down) and x (right) in units of the side, 0 in the middle."""
    at = (np.arange(SIDE_PX, dtype=np.float32) - SIDE_PX / 2.0 + 0.5) / SIDE_PX
    return np.repeat(at[:, None], SIDE_PX, axis=1), np.repeat(at[None, :], SIDE_PX, axis=0)


def _covered(inside: Pixels) -> Pixels:
    return np.asarray(np.clip(inside * SIDE_PX + 0.5, 0.0, 1.0), dtype=np.float32)


def _shaded(height: Pixels) -> Pixels:
    """Return how bright a matt surface of this height (in pixels) is, 1 where it is level."""
    dy, dx = np.gradient(height)
    bright = (_LIGHT[2] - dx * _LIGHT[0] - dy * _LIGHT[1]) / np.sqrt(1.0 + dx**2 + dy**2)
    return np.asarray(np.clip(0.35 + 0.65 * bright / _LIGHT[2], 0.1, 1.3), dtype=np.float32)


def _revolve(radius: Callable[[Pixels], Pixels], paint: Callable[[Pixels, Pixels], Pixels], *, gloss: float) -> Thing:
    """Return a solid of revolution around the upright axis.

    Args:
        radius: Of each height, in units of the side; the height is 0 above and 1 below.
        paint: The colour ``(h, w, 3)`` by height and by the angle around the axis.
        gloss: How bright the highlight is.
    """
    y, x = _grid()
    t = np.clip((y + 0.4) / 0.8, 0.0, 1.0)
    r = np.maximum(np.asarray(radius(t), dtype=np.float32), 1e-3)
    across = np.clip(x / r, -1.0, 1.0)
    facing = np.sqrt(1.0 - across**2)
    bright = np.clip(across * _LIGHT[0] + facing * _LIGHT[2], 0.0, 1.0)
    highlight = np.float32(gloss) * np.clip(across * -0.28 + facing * 0.96, 0.0, 1.0) ** 60
    colour = paint(t, np.arcsin(across)) * (0.3 + 0.85 * bright)[..., None] + highlight[..., None]
    return Thing(np.clip(colour, 0.0, 1.0).astype(np.float32), _covered(np.minimum(r - np.abs(x), 0.4 - np.abs(y))))


def _ridged(colour: Colour, turn: Pixels) -> Pixels:
    return np.asarray(colour * (0.85 + 0.15 * np.sin(turn * 24.0))[..., None], dtype=np.float32)


def _labelled(rng: np.random.Generator, colour: Colour, t: Pixels, turn: Pixels, top: float, bottom: float) -> Pixels:
    """Return the colour with a printed label from height `top` to `bottom`: bands, lines of type and a blot."""
    label, ink = _choice(rng, _PLASTICS), _choice(rng, _PLASTICS) * 0.6
    on_label = ((t > top) & (t < bottom))[..., None]
    n_lines = int(rng.integers(4, 9))
    lines = (np.sin((t - top) / (bottom - top) * 2.0 * np.pi * n_lines) > 0.75) & (np.abs(turn) < 0.9)
    words = lines & (np.sin(turn * rng.uniform(18.0, 30.0) + 9.0 * np.floor(t * 4.0 * n_lines)) > -0.6)
    blot = np.hypot((t - (top + bottom) / 2.0) * 3.0, turn - rng.uniform(-0.4, 0.4)) < rng.uniform(0.2, 0.45)
    printed = np.where((words | blot)[..., None], ink, label)
    return np.asarray(np.where(on_label, printed, colour), dtype=np.float32)


def _printed(rng: np.random.Generator, paper: Colour, y: Pixels, x: Pixels) -> Pixels:
    """Return paper with a printed mark, a ring or a block of lines, or nothing on it."""
    ink = _choice(rng, _PLASTICS) * 0.7
    kind = int(rng.integers(3))
    reach = np.hypot(x, y - rng.uniform(-0.08, 0.08))
    size = rng.uniform(0.08, 0.16)
    ring = np.abs(reach - size) < 0.018
    lines = (np.abs(x) < size) & (np.abs(y) < 0.6 * size) & (np.sin(y * 260.0) > 0.2)
    mark = (ring, lines, np.zeros_like(ring))[kind]
    return np.asarray(np.where(mark[..., None], ink, paper), dtype=np.float32)


def _choice(rng: np.random.Generator, choices: tuple[tuple[float, float, float], ...]) -> Colour:
    base = np.array(choices[int(rng.integers(len(choices)))])
    return np.clip(base + rng.normal(0.0, 0.03, 3), 0.02, 0.98).astype(np.float32)
