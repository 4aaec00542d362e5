"""The truth of every image of the ``tem`` sample: what lies where, how large, under which labels."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from store.samples.micrograph import Optics, nm_per_px
from store.samples.shares import pick, share

Fault = Literal["", "blank", "blurred", "overexposed", "grid_bar"]

SIDE_PX = 512
NANO_NM = 100.0  # ISO 80004-1: the nanoscale is about 1 to 100 nm
MANY = 10  # more than this is "many"
TASKS = ("particle_count", "material", "morphology", "nanostructures", "usability")
MAGNIFICATIONS = tuple(
    int(x * 1000) for x in (0.6, 1, 1.5, 2.5, 4, 6, 10, 15, 25, 40, 60, 80, 120, 200, 300, 500, 800, 1200)
)

FAULTS: tuple[Fault, ...] = ("blurred", "overexposed", "blank", "grid_bar")
FAULTY = 0.065
MISSING = 0.03
LABEL_NOISE = {"particle_count": 0.03, "material": 0.05, "morphology": 0.06, "nanostructures": 0.04, "usability": 0.0}
CONFUSED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "particle_count": {"one": ("part",), "part": ("one",), "few": ("many",), "many": ("few",)},
    "material": {"one": ("impurities",), "several": ("one",), "impurities": ("one", "several")},
    "morphology": {
        "flat": ("wavy",),
        "wavy": ("flat", "crumpled"),
        "crumpled": ("wavy", "disorganised"),
        "combination": ("crumpled", "wavy"),
        "disorganised": ("crumpled",),
    },
    "nanostructures": {"no": ("few",), "one": ("no",), "few": ("many", "one"), "many": ("few",)},
}


@dataclass(frozen=True)
class Kind:
    """What one material code stands for.

    Attributes:
        material: One of MATERIALS.
        coarse_nm: The sizes of its coarse specimens, low to high; the others are NANO_SIZES_NM wide.
        morphologies: How often it shows each.
        solids: The shapes that ``other`` means here.
    """

    material: str
    coarse_nm: tuple[float, float]
    morphologies: Mapping[str, float]
    solids: tuple[str, ...] = ()


NANO_SIZES_NM = (20.0, 75.0)
ELONGATION = {"sphere": 1.0, "facet": 1.0, "rod": 4.0, "tube": 12.0}
KINDS: Mapping[str, Kind] = {
    "GO": Kind("graphene oxide", (170.0, 3000.0), {"wavy": 0.3, "crumpled": 0.5, "combination": 0.2}),
    "RGO": Kind("graphene oxide", (170.0, 3000.0), {"crumpled": 0.55, "disorganised": 0.25, "combination": 0.2}),
    "FLG": Kind("graphite", (170.0, 3000.0), {"wavy": 0.65, "flat": 0.25, "combination": 0.1}),
    "GNP": Kind("graphite", (170.0, 3000.0), {"flat": 0.75, "wavy": 0.1, "combination": 0.15}),
    "CB": Kind("graphite", (170.0, 2000.0), {"disorganised": 0.9, "crumpled": 0.1}),
    "AU": Kind("gold", (150.0, 400.0), {"other": 1.0}, ("facet", "sphere", "rod")),
    "SIO": Kind("silica", (150.0, 1500.0), {"other": 1.0}, ("sphere", "sphere", "rod")),
    "ZNO": Kind("zinc oxide", (150.0, 600.0), {"other": 1.0}, ("rod", "facet", "sphere")),
    "CNT": Kind("graphite", (150.0, 400.0), {"other": 1.0}, ("tube",)),
}
SPECIMEN_CODES = (
    *("GO", "GNP", "AU", "RGO", "FLG", "GO", "CNT", "GNP", "CB"),
    *("FLG", "RGO", "SIO", "GO", "GNP", "FLG", "ZNO", "RGO", "AU"),
)
SPECIMEN_ROWS = (5, 7, 6, 8, 5, 6, 7, 4, 8, 6)
SHEET_COUNTS = {"none": 0.04, "one": 0.32, "part": 0.28, "few": 0.26, "many": 0.10}
SOLID_COUNTS = {"none": 0.04, "one": 0.14, "part": 0.06, "few": 0.36, "many": 0.40}
MATERIAL_LABELS = {"one": 0.66, "several": 0.18, "impurities": 0.16}
_SEQUENCES = ("fault", "count", "material", "morphology", "nano", "solid")


@dataclass(frozen=True)
class Specimen:
    """One grid in the microscope: what lies on it, and what all its images share."""

    code: str
    number: int
    size_nm: float
    film_nm: float
    hole_nm: float
    optics: Optics

    @property
    def name(self) -> str:
        """As in file names and in the group column, for example ``GO_02``."""
        return f"{self.code}_{self.number:02d}"

    @property
    def kind(self) -> Kind:
        """What its code stands for."""
        return KINDS[self.code]


@dataclass(frozen=True)
class Scene:
    """The truth of one image, fixed before a pixel is drawn.

    Attributes:
        seed: Seeds of the image's own generators.
        running: The number at the end of the file name.
        specimen: Where it was taken.
        magnification: As in the file name.
        fault: Why the image cannot be used, or ``""``.
        count: The true class of ``particle_count``.
        material: The true class of ``material``.
        morphology: The true class of ``morphology``.
        solid: The shape of the particles where it is ``other``, else ``""``.
        extents_px: The length of each object in pixels.
        n_dots: Nanoparticles of another material on the objects; 0 also where every other particle is of another kind.
        dot_px: Their width in pixels.
    """

    seed: tuple[int, ...]
    running: int
    specimen: Specimen
    magnification: int
    fault: Fault
    count: str
    material: str
    morphology: str
    solid: str
    extents_px: tuple[float, ...]
    n_dots: int
    dot_px: float

    @property
    def file_name(self) -> str:
        """Material code, specimen number, magnification, running number."""
        return f"{self.specimen.name}_{self.magnification}X_{self.running:04d}.tif"

    @property
    def nm_per_px(self) -> float:
        """The size of a pixel in the specimen."""
        return nm_per_px(self.magnification)

    def widths_px(self) -> NDArray[np.float64]:
        """Return the width of each object: its length over its elongation."""
        return np.asarray(self.extents_px) / ELONGATION.get(self.solid, 1.0)

    def n_nanostructures(self) -> int:
        """Return how many objects and nanoparticles are less than 100 nm wide."""
        n_dots = self.n_dots if self.dot_px * self.nm_per_px < NANO_NM else 0
        return int((self.widths_px() * self.nm_per_px < NANO_NM).sum()) + n_dots


def make_scene(seed: int, row: int, *, stream: int = 0) -> Scene:
    """Return the truth of one image.

    Args:
        seed: The sample's seed.
        row: Counted from 0.
        stream: 0 the labelled images, 1 the unlabelled ones, taken of specimens without a number (00).
    """
    rng = np.random.default_rng([seed, stream, 1, row])
    specimen = _specimen(seed, _specimen_index(row)) if stream == 0 else _unnumbered(seed, row // 4)
    fault, count, material, morphology, solid = _classes(seed, 2 * row + stream, specimen.kind)
    extents = _extents(rng, count)
    magnification = _frame(rng, specimen, float(np.median(extents or 200.0)) / ELONGATION.get(solid, 1.0))
    dotted = material == "several" and not (solid and count in ("few", "many"))
    return Scene(
        seed=(seed, stream, row),
        running=row + 1,
        specimen=specimen,
        magnification=magnification,
        fault=fault,
        count=count,
        material=material,
        morphology=morphology,
        solid=solid,
        extents_px=extents,
        n_dots=int(rng.integers(8, 40)) if dotted else 0,
        dot_px=max(rng.uniform(8.0, 18.0), 2.0 / nm_per_px(magnification)),
    )


def truth(scene: Scene) -> dict[str, str]:
    """Return the right labels by task; empty where a question has no answer."""
    n_nano = scene.n_nanostructures()
    nano = "no" if n_nano == 0 else "one" if n_nano == 1 else "few" if n_nano <= MANY else "many"
    empty = scene.count == "none"
    found = {"particle_count": scene.count, "nanostructures": nano, "usability": "no" if scene.fault else "yes"}
    found["material"] = "" if empty and scene.material == "one" else scene.material
    found["morphology"] = "" if empty else scene.morphology
    if scene.fault:
        found |= {"material": "", "morphology": "", "nanostructures": ""}
        found["particle_count"] = "none" if scene.fault == "blank" else ""
    return found


def labels(scene: Scene) -> dict[str, str]:
    """Return the labels as an annotator gave them: some confused, some missing (empty)."""
    rng = np.random.default_rng([*scene.seed, 2])
    given = truth(scene)
    for task, rate in LABEL_NOISE.items():
        wrong, missing, which = rng.random(3)
        others = CONFUSED.get(task, {}).get(given[task], ())
        if others and wrong < rate:
            given[task] = others[int(which * len(others))]
        if missing < MISSING and task != "usability":
            given[task] = ""
    return given


def _classes(seed: int, at: int, kind: Kind) -> tuple[Fault, str, str, str, str]:
    """Return what image number `at` shows: fault, count, material, morphology and solid."""
    at_share = {name: share(seed, at, which) for which, name in enumerate(_SEQUENCES)}
    fault: Fault = FAULTS[int(at_share["fault"] / FAULTY * len(FAULTS))] if at_share["fault"] < FAULTY else ""
    morphology = pick(kind.morphologies, at_share["morphology"])
    solid = kind.solids[int(at_share["solid"] * len(kind.solids))] if morphology == "other" else ""
    count = "none" if fault == "blank" else pick(SOLID_COUNTS if solid else SHEET_COUNTS, at_share["count"])
    material = pick(MATERIAL_LABELS, at_share["material"])
    if count == "none":
        material = "one" if fault else "impurities"  # an empty image is worth keeping only for the dirt on it
    return fault, count, material, morphology, solid


def _specimen_index(row: int) -> int:
    cycle, place = divmod(row, sum(SPECIMEN_ROWS))
    return cycle * len(SPECIMEN_ROWS) + int(np.searchsorted(list(accumulate(SPECIMEN_ROWS)), place, side="right"))


@cache
def _specimen(seed: int, index: int) -> Specimen:
    rng = np.random.default_rng([seed, 0, 4, index])
    cycle, place = divmod(index, len(SPECIMEN_CODES))
    code = SPECIMEN_CODES[place]
    number = cycle * SPECIMEN_CODES.count(code) + SPECIMEN_CODES[: place + 1].count(code)
    low, high = np.log(NANO_SIZES_NM if share(seed, index, _SEQUENCES.index("nano")) < 0.5 else KINDS[code].coarse_nm)
    optics = Optics(
        fringe_px=rng.uniform(0.6, 1.8),
        blur_px=rng.uniform(0.5, 1.1),
        dose_e=float(np.exp(rng.uniform(np.log(200.0), np.log(1600.0)))),
        level=rng.uniform(600.0, 2600.0),
        dark=rng.uniform(60.0, 220.0),
        tilt=(rng.normal(0.0, 0.04), rng.normal(0.0, 0.04)),
        vignette=rng.uniform(0.0, 0.15),
    )
    hole_nm = float(rng.uniform(300.0, 1200.0)) if rng.random() < 0.3 else 0.0
    return Specimen(code, number, float(np.exp(rng.uniform(low, high))), rng.uniform(8.0, 25.0), hole_nm, optics)


def _unnumbered(seed: int, index: int) -> Specimen:
    return replace(_specimen(seed, 1_000_000 + index), number=0)


def _extents(rng: np.random.Generator, count: str) -> tuple[float, ...]:
    """Return the objects' lengths in pixels: whatever their size in nm, the operator fills the frame with them."""
    if count == "none":
        return ()
    if count in ("one", "part"):
        return (rng.uniform(200.0, 400.0) if count == "one" else rng.uniform(750.0, 1400.0),)
    n_objects = int(rng.integers(2, MANY + 1) if count == "few" else rng.integers(MANY + 1, 33))
    typical = SIDE_PX * np.sqrt(0.4 / n_objects) * rng.uniform(0.75, 1.0)
    return tuple(float(x) for x in typical * np.exp(rng.normal(0.0, 0.18, n_objects)))


def _frame(rng: np.random.Generator, specimen: Specimen, width_px: float) -> int:
    """Return the magnification that shows an object of this specimen's size `width_px` wide."""
    wanted = nm_per_px(1.0) * width_px / (specimen.size_nm * np.exp(rng.normal(0.0, 0.25)))
    return MAGNIFICATIONS[int(np.abs(np.log(MAGNIFICATIONS) - np.log(wanted)).argmin())]
