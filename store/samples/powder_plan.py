"""The truth of the ``powder`` sample: what 38 powders are made of, and where each tile was taken."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from store.samples.flow import Flow, Particles, flow_of
from store.samples.secondary import Beam
from store.samples.shares import evenly, pick

FIELD_PX, TILES_ACROSS = 512, 2
TILE_PX = FIELD_PX // TILES_ACROSS
N_TILES = TILES_ACROSS**2
SCREEN_MM = 254.0  # magnification is stated for a screen of this width
FIRST_MAGNIFICATIONS = (500, 1000)  # of every powder's first two fields; the others are drawn
MAGNIFICATIONS: Mapping[int, float] = {  # as often as the study has its eleven, roughly
    400: 0.06,
    500: 0.27,
    600: 0.04,
    750: 0.06,
    1000: 0.27,
    1500: 0.18,
    2000: 0.04,
    2500: 0.02,
    3000: 0.03,
    5000: 0.02,
    8000: 0.01,
}
MEAN_LN, STD_LN = 6.68116, 0.55611  # of the study's ln(magnification): its column magnification_scaled
PARTS: Mapping[str, float] = {"train": 0.70, "val": 0.15, "test": 0.15}
D50_UM = (17.0, 90.0)
ASPERITY_NM = (55.0, 165.0)
DENSITY: Mapping[str, float] = {  # kg/m3 of the solids, CRC Handbook and makers' data sheets
    "316L": 7990.0,
    "Al": 2700.0,
    "Al6061": 2700.0,
    "AlSi10Mg": 2670.0,
    "Bronze": 8800.0,
    "CoCr": 8300.0,
    "Cr": 7190.0,
    "Cu": 8960.0,
    "Fe": 7874.0,
    "In718": 8190.0,
    "Ni": 8908.0,
    "Ti": 4506.0,
    "Ti6Al4V": 4430.0,
}


class Process(NamedTuple):
    """How a powder was made, and the ranges of what its particles look like."""

    sphericity: tuple[float, float]
    satellites: tuple[float, float]
    roughness: tuple[float, float]
    spread: tuple[float, float]


PROCESSES: Mapping[str, Process] = {
    "plasma": Process((0.965, 0.995), (0.0, 0.15), (0.0, 0.2), (0.18, 0.30)),
    "gas": Process((0.89, 0.965), (0.4, 2.2), (0.1, 0.45), (0.28, 0.48)),
    "water": Process((0.70, 0.86), (0.0, 0.3), (0.3, 0.8), (0.28, 0.45)),
    "crushed": Process((0.60, 0.76), (0.0, 0.0), (0.4, 1.0), (0.25, 0.42)),
}
_GAS = "Cu Al 316L Al6061 Ti6Al4V Bronze AlSi10Mg Ni In718 Cu Al CoCr 316L Al6061 Cu"
_PLASMA = "Ti6Al4V Ti Al Cu Ti In718 316L"
_WATER = "Fe Cu 316L Ni Cu Fe Bronze Cu Al Fe"
_CRUSHED = "Cr Ti Cu Al Fe Cr"
_MADE = {"gas": _GAS, "plasma": _PLASMA, "water": _WATER, "crushed": _CRUSHED}
_OTHERS = {"spread": 3**0.5, "sphericity": 7**0.5, "satellites": 11**0.5, "roughness": 13**0.5}


@dataclass(frozen=True)
class Powder:
    """One powder and how its micrographs were taken.

    Attributes:
        name: Material, process and number, such as ``Cu-gas-2``.
        process: One of PROCESSES.
        particles: What its flow follows from.
        spread: Standard deviation of ln diameter, by number.
        satellites: Small spheres stuck to a particle, on average.
        beam: Of its session at the microscope.
        black: Counts of no electrons, of 65,535.
        gain: Counts of a flat open surface above black; small, so the picture fills little of the 16 bits.
        hum: Amplitude of the mains hum in the signal, in units of the gain, and its period in lines of the scan.
        flow: What was measured; the same in all its rows.
    """

    name: str
    process: str
    particles: Particles
    spread: float
    satellites: float
    beam: Beam
    black: float
    gain: float
    hum: tuple[float, float]
    flow: Flow


@dataclass(frozen=True)
class Field:
    """One field of view: N_TILES rows of the table show its parts."""

    seed: tuple[int, ...]
    powder: Powder
    number: int
    magnification: int

    @property
    def um_per_px(self) -> float:
        """The size of a pixel."""
        return um_per_px(self.magnification)

    def tile_name(self, tile: int) -> str:
        """Return the file of one tile, such as ``Cu-gas-2/500X_f001_t3.tif``."""
        return f"{self.powder.name}/{self.magnification}X_f{self.number:03d}_t{tile}.tif"


def um_per_px(magnification: float) -> float:
    """Return the size of a pixel in micrometres."""
    return SCREEN_MM * 1e3 / FIELD_PX / magnification


def magnification_scaled(magnification: float) -> float:
    """Return what the study feeds its network."""
    return (float(np.log(magnification)) - MEAN_LN) / STD_LN


def part_of(seed: int, row: int) -> str:
    """Return train, val or test: drawn row by row, so each powder and even each field is in all of them."""
    if row < len(PARTS):
        return list(PARTS)[row]  # no table is empty
    return pick(PARTS, _share(seed, row, 2**0.5, of="part"))


def make_field(seed: int, index: int) -> Field:
    """Return field `index` of the sample, counted from 0: one of each powder, then another of each."""
    number, place = divmod(index, len(powders(seed)))
    return Field((seed, 1, index), powders(seed)[place], number, _magnification(seed, number, place))


@cache
def powders(seed: int) -> tuple[Powder, ...]:
    """Return the 38 powders, processes mixed."""
    made = [(process, material) for process, materials in _MADE.items() for material in materials.split()]
    order = np.random.default_rng(38).permutation(len(made))  # the same names in the same order under every seed
    names = [f"{material}-{process}" for process, material in made]
    numbers = [1 + names[:k].count(name) for k, name in enumerate(names)]
    return tuple(_powder(seed, nth, f"{names[k]}-{numbers[k]}", *made[k]) for nth, k in enumerate(order.tolist()))


def _powder(seed: int, nth: int, name: str, process: str, material: str) -> Powder:
    rng = np.random.default_rng([seed, 0, nth])
    ranges = PROCESSES[process]
    at = {what: _share(seed, nth, step, of=what) for what, step in _OTHERS.items()}
    low, high = np.log(D50_UM)
    particles = Particles(
        d50_um=float(np.exp(low + (high - low) * _share(seed, nth, 5**0.5, of="d50"))),
        sphericity=_between(ranges.sphericity, at["sphericity"]),
        roughness=_between(ranges.roughness, at["roughness"]),
        asperity_nm=float(np.exp(rng.uniform(*np.log(ASPERITY_NM)))),
        density=DENSITY[material],
    )
    beam = Beam(
        dose_e=float(np.exp(rng.uniform(np.log(12.0), np.log(90.0)))),
        blur_px=rng.uniform(0.6, 1.3),
        side=rng.uniform(0.05, 0.35),
        angle=rng.uniform(0.0, 2.0 * np.pi),
    )
    return Powder(
        name=name,
        process=process,
        particles=particles,
        spread=_between(ranges.spread, at["spread"]),
        satellites=_between(ranges.satellites, at["satellites"]),
        beam=beam,
        black=rng.uniform(4_000.0, 22_000.0),
        gain=float(np.exp(rng.uniform(np.log(900.0), np.log(5_000.0)))),
        hum=(rng.uniform(0.02, 0.08), float(np.exp(rng.uniform(np.log(2.5), np.log(25.0))))),
        flow=flow_of(particles),
    )


def _between(bounds: tuple[float, float], at: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * at


def _magnification(seed: int, number: int, place: int) -> int:
    if number < len(FIRST_MAGNIFICATIONS):
        return FIRST_MAGNIFICATIONS[number]
    return pick(MAGNIFICATIONS, _share(seed, number * 1009 + place, 2**0.5, of="magnification"))


def _share(seed: int, nth: int, step: float, *, of: str) -> float:
    """Return a number in [0, 1) that fills the range evenly as `nth` grows."""
    return evenly((seed, 2, *of.encode()), nth, step)
