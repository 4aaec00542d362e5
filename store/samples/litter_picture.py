"""Photos of litter: one thing on a table or the ground, its shadow, and a small camera."""

import cv2
import numpy as np
from numpy.typing import NDArray

from store.samples.litter_shapes import LOOKS, SIDE_PX, Thing, stain
from store.samples.micrograph import Pixels, smooth_field

PHOTO_PX = 128


def draw_litter(rng: np.random.Generator, look: str, *, soiled: bool) -> NDArray[np.uint8]:
    """Take a photo.

    Args:
        rng: The source of everything that varies.
        look: One of LOOKS.
        soiled: Whether food is on it.

    Returns:
        uint8 RGB, ``(128, 128, 3)``.
    """
    ground = _ground(rng)
    thing = LOOKS[look](rng)
    thing = _placed(rng, stain(rng.spawn(1)[0], thing) if soiled else thing)  # what follows is drawn alike
    dark = cv2.GaussianBlur(np.roll(thing.cover, (5, 4), axis=(0, 1)), (0, 0), rng.uniform(2.0, 4.0))
    scene = ground * (1.0 - 0.55 * dark * (1.0 - thing.cover))[..., None]
    scene = scene * (1.0 - thing.cover[..., None]) + thing.colour * thing.cover[..., None]
    return _developed(rng, scene)


def _placed(rng: np.random.Generator, thing: Thing) -> Thing:
    """Return the thing turned, moved and at the photo's scale."""
    scale = PHOTO_PX / SIDE_PX * rng.uniform(0.85, 1.1)
    turn = cv2.getRotationMatrix2D((SIDE_PX / 2.0, SIDE_PX / 2.0), rng.uniform(0.0, 360.0), scale)
    turn[:, 2] += (PHOTO_PX - SIDE_PX) / 2.0 + rng.normal(0.0, 4.0, 2)
    return Thing(*(cv2.warpAffine(part, turn, (PHOTO_PX, PHOTO_PX), flags=cv2.INTER_AREA) for part in thing))


def _ground(rng: np.random.Generator) -> Pixels:
    """Return what it lies on: wood, concrete, cloth or a plain table, ``(h, w, 3)``."""
    shape = (PHOTO_PX, PHOTO_PX)
    tone = smooth_field(rng, shape, 30.0) * 0.03
    match int(rng.integers(4)):
        case 0:
            colour = (0.55, 0.38, 0.24)
            grain = cv2.resize(smooth_field(rng, (PHOTO_PX, 16), 1.0), shape, interpolation=cv2.INTER_CUBIC)
            tone = tone + 0.07 * grain
        case 1:
            colour = (0.6, 0.6, 0.58)
            tone = tone + 0.05 * smooth_field(rng, shape, 1.0) + 0.04 * smooth_field(rng, shape, 5.0)
        case 2:
            colour = (0.35, 0.42, 0.52)
            at = np.arange(PHOTO_PX) * rng.uniform(0.9, 1.3)
            tone = tone + 0.05 * np.sin(at)[:, None] * np.sin(at)[None, :]
        case _:
            colour = (0.82, 0.81, 0.78)
    base = np.clip(np.array(colour) * rng.uniform(0.75, 1.2) + rng.normal(0.0, 0.03, 3), 0.05, 0.95)
    return np.asarray(base * (1.0 + tone[..., None]), dtype=np.float32)


def _developed(rng: np.random.Generator, scene: Pixels) -> NDArray[np.uint8]:
    """Return what the camera makes of it: uneven light, exposure, a cast of colour, blur and noise."""
    at = np.linspace(-1.0, 1.0, PHOTO_PX, dtype=np.float32)
    slope = rng.normal(0.0, 0.1, 2)
    light = 1.0 + slope[0] * at[:, None] + slope[1] * at[None, :]
    cast = np.float32(np.exp(rng.normal(0.0, 0.12) + rng.normal(0.0, 0.025, 3)))
    seen = cv2.GaussianBlur(scene * light[..., None] * cast, (0, 0), rng.uniform(0.45, 0.9))
    seen = seen + rng.normal(0.0, 0.006, (PHOTO_PX, PHOTO_PX, 1)).astype(np.float32)
    return np.asarray(np.rint(np.clip(seen, 0.0, 1.0) * 255.0), dtype=np.uint8)
