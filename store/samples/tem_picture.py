"""The pictures of the ``tem`` sample: a scene's objects laid on a carbon film and photographed."""

from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from store.samples.micrograph import MATERIALS, Optics, Pixels, record, smooth_field
from store.samples.shapes import (
    Window,
    aggregate,
    cube,
    facet,
    flat_sheet,
    make_window,
    residue,
    rod,
    sphere,
    thin_sheet,
    tube,
)
from store.samples.tem_scene import ELONGATION, SIDE_PX, Scene


class Limp(NamedTuple):
    """How the thin sheets of one image are: flat (0) to crushed (1), and so many nm a layer."""

    crumple: float
    thickness_nm: float


def draw(scene: Scene) -> NDArray[np.uint16]:
    """Return the image, uint16 ``(512, 512)`` of 12-bit values."""
    rng = np.random.default_rng([*scene.seed, 3])
    depth = _film(rng, scene)
    if scene.count != "none":
        _add_objects(rng, scene, depth)
    if scene.material == "impurities":
        _add_impurities(rng, depth)
    return record(depth, _optics(rng, scene, depth), rng)


def _film(rng: np.random.Generator, scene: Scene) -> Pixels:
    """Return the optical depth of the support: carbon with grain finer than a nm, holes, and grid bars."""
    shape = (SIDE_PX, SIDE_PX)
    depth = scene.specimen.film_nm * _mu("carbon film") * (1.0 + 0.06 * smooth_field(rng, shape, 90.0))
    grain_px = 0.3 / scene.nm_per_px
    depth += 0.006 * min(1.0, grain_px) * smooth_field(rng, shape, max(0.6, grain_px))
    if scene.specimen.hole_nm > 0:
        _cut_holes(rng, depth, scene.specimen.hole_nm / scene.nm_per_px)
    low = scene.magnification <= 4000 and rng.random() < 0.3
    if scene.fault == "grid_bar" or low:
        depth += _grid_bar(rng, rng.uniform(0.55, 0.85) if scene.fault == "grid_bar" else rng.uniform(0.03, 0.2))
    return depth.astype(np.float32)


def _cut_holes(rng: np.random.Generator, depth: Pixels, radius_px: float) -> None:
    """Cut round holes out of the film, some three radii apart."""
    if radius_px < 4.0:
        return
    pitch = 3.0 * radius_px
    first = rng.uniform(0.0, pitch, 2)
    for y in np.arange(first[0] - pitch, SIDE_PX + pitch, pitch):
        for x in np.arange(first[1] - pitch, SIDE_PX + pitch, pitch):
            window = make_window((float(y), float(x)), radius_px * 1.3, SIDE_PX)
            reach = np.hypot(window.y, window.x) / np.float32(radius_px * rng.uniform(0.85, 1.15))
            rim = 1.0 + 0.5 * np.exp(-(((reach - 1.04) / 0.05) ** 2))
            depth[window.rows, window.cols] *= np.clip((reach - 0.98) / 0.03, 0.0, 1.0) * rim


def _grid_bar(rng: np.random.Generator, share: float) -> Pixels:
    """Return an opaque bar of copper that covers `share` of the image from one side."""
    window = make_window((SIDE_PX / 2, SIDE_PX / 2), SIDE_PX, SIDE_PX)
    angle = rng.uniform(0.0, 2.0 * np.pi)
    across = np.cos(angle) * window.x + np.sin(angle) * window.y
    across = across + 6.0 * smooth_field(rng, window.shape, 25.0)
    edge = np.float32(np.quantile(across, share))
    return np.asarray(6.0 * np.clip((edge - across) / 3.0 + 0.5, 0.0, 1.0), dtype=np.float32)


def _add_objects(rng: np.random.Generator, scene: Scene, depth: Pixels) -> None:
    """Lay the objects on the film, then the nanoparticles on them."""
    centres = _place(rng, scene)
    crumple = rng.uniform(0.0, 0.3) if scene.morphology == "wavy" else rng.uniform(0.65, 1.0)
    limp = Limp(crumple, float(np.exp(rng.normal(np.log(28.0), 0.25))))
    for k, (centre, extent, width) in enumerate(zip(centres, scene.extents_px, scene.widths_px(), strict=True)):
        window = make_window(centre, 0.85 * extent, SIDE_PX)
        if 0 in window.shape:
            continue
        if scene.morphology == "other":
            added = _solid(rng, scene, window, width, foreign=scene.material == "several" and k % 2 == 1)
        elif scene.morphology == "disorganised":
            added = aggregate(rng, window, extent) * np.float32(scene.nm_per_px * _mu(scene.specimen.kind.material))
        else:
            added = _sheet(rng, scene, window, extent, nth=k, limp=limp)
        depth[window.rows, window.cols] += added
    _add_dots(rng, scene, depth, centres)


def _solid(rng: np.random.Generator, scene: Scene, window: Window, width_px: float, *, foreign: bool) -> Pixels:
    """Return the optical depth of a particle, rod or tube; a foreign one is of another shape and material."""
    shape, material = scene.solid, scene.specimen.kind.material
    if foreign:
        material = _visible(width_px * scene.nm_per_px, other_than=material)
        shape = "facet" if shape == "sphere" else "sphere"
    length_px = width_px * ELONGATION[scene.solid]
    drawn = {
        "sphere": lambda: sphere(window, width_px),
        "facet": lambda: facet(rng, window, width_px),
        "rod": lambda: rod(rng, window, width_px, length_px),
        "tube": lambda: tube(rng, window, width_px, length_px),
    }[shape]()
    return drawn * np.float32(scene.nm_per_px * _mu(material))


def _sheet(rng: np.random.Generator, scene: Scene, window: Window, width_px: float, *, nth: int, limp: Limp) -> Pixels:
    """Return the optical depth of a sheet; in a combination flat and crumpled ones alternate or lie on each other."""
    mixed = scene.morphology == "combination"
    alone = len(scene.extents_px) == 1
    mu = np.float32(_mu(scene.specimen.kind.material))
    depth = np.zeros(window.shape, dtype=np.float32)
    if scene.morphology == "flat" or (mixed and (alone or nth % 2 == 0)):
        plate_nm = min(limp.thickness_nm * rng.uniform(3.0, 6.0), 0.8 * width_px * scene.nm_per_px)
        depth += flat_sheet(rng, window, width_px * (0.7 if mixed and alone else 1.0)) * mu * np.float32(plate_nm)
    if scene.morphology in ("wavy", "crumpled") or (mixed and (alone or nth % 2 == 1)):
        depth += thin_sheet(rng, window, width_px, crumple=limp.crumple) * mu * np.float32(limp.thickness_nm)
    return depth


def _place(rng: np.random.Generator, scene: Scene) -> list[tuple[float, float]]:
    """Return centres (y, x) that keep the objects apart and in the image; of a part the edge crosses the image."""
    if scene.count == "part":
        angle, off = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.2, 0.42) * scene.extents_px[0]
        return [(SIDE_PX / 2 + off * np.sin(angle), SIDE_PX / 2 + off * np.cos(angle))]
    centres: list[tuple[float, float]] = []
    for k, extent in enumerate(scene.extents_px):
        margin = min(0.42 * extent, 0.46 * SIDE_PX)
        tries = rng.uniform(margin, SIDE_PX - margin, (60, 2))
        gaps = [
            _gap(tries, other, 0.45 * (extent + size))
            for other, size in zip(centres, scene.extents_px[:k], strict=True)
        ]
        tightest = np.min(gaps, axis=0) if gaps else np.zeros(60)
        best = int(np.argmax(tightest >= 0)) if (tightest >= 0).any() else int(np.argmax(tightest))
        centres.append((float(tries[best, 0]), float(tries[best, 1])))
    return centres


def _gap(tries: NDArray[np.float64], other: tuple[float, float], apart_px: float) -> NDArray[np.float64]:
    return np.asarray(np.hypot(*(tries - other).T) - apart_px)


def _add_dots(rng: np.random.Generator, scene: Scene, depth: Pixels, centres: list[tuple[float, float]]) -> None:
    """Put nanoparticles of a heavier material on the objects."""
    material = _visible(scene.dot_px * scene.nm_per_px, other_than=scene.specimen.kind.material)
    scale = np.float32(scene.nm_per_px * _mu(material))
    for _ in range(scene.n_dots):
        k = int(rng.integers(len(centres)))
        reach = min(0.3 * scene.extents_px[k], 0.22 * SIDE_PX)
        middle = np.clip(centres[k], 0.25 * SIDE_PX, 0.75 * SIDE_PX)  # of what can be seen of the object
        centre = tuple(middle + rng.uniform(-reach, reach, 2))
        width = scene.dot_px * float(np.exp(rng.normal(0.0, 0.15)))
        window = make_window(centre, width, SIDE_PX)
        depth[window.rows, window.cols] += sphere(window, width) * scale


def _add_impurities(rng: np.random.Generator, depth: Pixels) -> None:
    """Add dried residue or salt crystals, or both, anywhere."""
    dried, salty = ((True, False), (False, True), (True, True))[int(rng.integers(3))]
    for _ in range(int(rng.integers(6, 14)) * dried):
        width = rng.uniform(40.0, 120.0)
        window = make_window(tuple(rng.uniform(0.0, SIDE_PX, 2)), 0.8 * width, SIDE_PX)
        depth[window.rows, window.cols] += residue(rng, window, width) * np.float32(rng.uniform(0.1, 0.3))
    for _ in range(int(rng.integers(8, 20)) * salty):
        width = rng.uniform(8.0, 26.0)
        window = make_window(tuple(rng.uniform(10.0, SIDE_PX - 10.0, 2)), width, SIDE_PX)
        depth[window.rows, window.cols] += cube(rng, window, width) * np.float32(rng.uniform(0.5, 1.2))


def _optics(rng: np.random.Generator, scene: Scene, depth: Pixels) -> Optics:
    """Return how this image was taken: the specimen's optics, a little off, or far off where the image has a fault."""
    base = scene.specimen.optics
    blur = base.blur_px + (rng.uniform(0.5, 1.6) if rng.random() < 0.12 else 0.0)
    level = base.level * float(np.exp(rng.normal(0.0, 0.12)))
    if scene.fault == "blurred":
        blur = rng.uniform(5.0, 11.0)
    if scene.fault == "overexposed":
        level = 4095.0 / float(np.exp(-np.quantile(depth, rng.uniform(0.6, 0.9))))
    tilt = base.tilt[0] + rng.normal(0.0, 0.02), base.tilt[1] + rng.normal(0.0, 0.02)
    fringe = max(0.0, base.fringe_px + rng.normal(0.0, 0.3))
    return replace(base, blur_px=blur, fringe_px=fringe, level=level, tilt=tilt)


@cache
def _mu(material: str) -> float:
    return MATERIALS[material].attenuation_per_nm()


def _visible(width_nm: float, *, other_than: str) -> str:
    """Return the material that shows best at this width: neither faint nor black."""
    choices = [name for name in ("gold", "zinc oxide", "titania", "silica", "latex") if name != other_than]
    return min(choices, key=lambda name: abs(float(np.log(_mu(name) * width_nm))))
