"""The ``reflectance`` sample: synthetic micrographs of structured surfaces, and the light they reflect.

What is planted, so that tests and readers know the truth:

- A surface has lines, or pillars in a square lattice, of silicon nitride on silicon: a period of 250 to 1600 nm, a
  duty, a height, and dye grains. All of them show in the picture: the period as periodicity, the height as the
  darkness of the grooves, the dye as the number of grains.
- The ten channels follow from these by `store.samples.grating`, with measurement noise of NOISE: reflectance in UV,
  blue, green, red, 740 and 940 nm, fluorescence in blue, green and red, and the largest polarisation difference.
- Where the lines lie is random, by phase and within MAX_ANGLE, and so are dose, focus, brightness and contrast. The
  spectrum of a picture knows nothing of phase and brightness: the period is the distance of its peaks from the middle.
- All pictures are of one magnification. Each is of a surface of its own, so there are no groups.

``reflectance.csv`` is in the study's layout: a path, then ten numbers by position. ``structure/`` holds the truth
behind them as a dataset of its own over the same pictures. Row i is the same however many rows there are.
"""

from functools import partial
from pathlib import Path

import numpy as np

from store.progress import Progress
from store.samples.files import write_image, write_text
from store.samples.grating import CHANNELS, Grating, channels
from store.samples.grating_picture import View, draw
from store.samples.secondary import Beam
from store.samples.shares import evenly

N_ROWS = 320
SUMMARY = "scanning electron micrographs of gratings and the light they reflect in ten channels"
NOISE = 0.004
MAX_ANGLE = 0.2  # radians; the study turns its pictures by up to 15 degrees
PERIOD_NM = (250.0, 1600.0)
HEIGHT_NM = (60.0, 420.0)
DUTY = (0.3, 0.7)
MAX_DYE = 1.5
SHARE_OF_PILLARS = 0.3
_STEPS = {"period": 2**0.5, "duty": 3**0.5, "height": 5**0.5, "dye": 7**0.5, "kind": 11**0.5}

_IMAGES = """\
[images.sem]
column = 0                         # by position: the study's first column holds the path
[images.spectrum]
column = 0
view   = "fourier"                 # the centred log spectrum of the same file
"""
DATASET_TOML = f"""\
# Synthetic micrographs of gratings, drawn and computed from a physical model: nothing here was measured.
# Written by: {{command}}
name   = "reflectance"
sample = "reflectance"             # says that this is a built-in sample
table  = "reflectance.csv"         # a path, then ten numbers from 0 to 1

{_IMAGES}
[tasks.reflectance]                # UV, B, G, R, 740, 940, then fluorescence fB, fG, fR, then poldiff
columns = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
weights = [3, 4, 4, 4, 4, 4, 1, 1, 1, 1]
kind    = "regression"
"""
STRUCTURE_TOML = f"""\
# The truth behind ../reflectance.csv: what the surfaces are like that reflect so.
name   = "structure"
sample = "reflectance"
table  = "../structure.csv"
root   = ".."

{_IMAGES}
[tasks.period]
column = "period_nm"
unit   = "nm"
[tasks.duty]
column = "duty"
[tasks.height]
column = "height_nm"
unit   = "nm"
[tasks.kind]                       # lines or pillars
column = "kind"
"""


def write_reflectance(folder: Path, *, n_rows: int, seed: int, progress: Progress | None = None) -> None:
    """Write the pictures, the table of channels, and the truth behind it.

    Args:
        folder: An empty folder, or one in which this was interrupted.
        n_rows: How many pictures.
        seed: Another seed gives other surfaces.
        progress: Called with (pictures done, pictures in all).
    """
    for row in range(n_rows):
        write_image(folder / file_name(row), partial(draw, make_grating(seed, row), make_view(seed, row)))
        if progress is not None:
            progress(row + 1, n_rows)
    (folder / "structure").mkdir(exist_ok=True)
    write_text(folder / "structure" / "dataset.toml", STRUCTURE_TOML)
    write_text(folder / "structure.csv", _structure_text(seed, n_rows))
    write_text(folder / "reflectance.csv", table_text(seed, n_rows))


def table_text(seed: int, n_rows: int) -> str:
    """Return ``reflectance.csv``."""
    lines = [",".join(("SEM_filenames", *CHANNELS))]
    for row in range(n_rows):
        noise = np.random.default_rng([seed, 1, row]).normal(0.0, NOISE, len(CHANNELS))
        exact = np.array(list(channels(make_grating(seed, row)).values()))
        lines.append(",".join((file_name(row), *(f"{x:.4f}" for x in np.clip(exact + noise, 0.0, 1.0)))))
    return "\n".join(lines) + "\n"


def file_name(row: int) -> str:
    """Return the path of a row's picture in the dataset's folder."""
    return f"images/surface_{row + 1:06d}.png"


def make_grating(seed: int, row: int) -> Grating:
    """Return the surface of a row, counted from 0."""
    at = {name: evenly((seed, 0, i), row, step) for i, (name, step) in enumerate(_STEPS.items())}
    return Grating(
        kind="pillars" if at["kind"] < SHARE_OF_PILLARS else "lines",
        period_nm=float(PERIOD_NM[0] * (PERIOD_NM[1] / PERIOD_NM[0]) ** at["period"]),
        duty=DUTY[0] + (DUTY[1] - DUTY[0]) * at["duty"],
        height_nm=HEIGHT_NM[0] + (HEIGHT_NM[1] - HEIGHT_NM[0]) * at["height"],
        dye=MAX_DYE * at["dye"],
    )


def make_view(seed: int, row: int) -> View:
    """Return how a row's picture was taken."""
    rng = np.random.default_rng([seed, 2, row])
    beam = Beam(
        dose_e=float(np.exp(rng.uniform(np.log(15.0), np.log(120.0)))),
        blur_px=rng.uniform(0.6, 1.4),
        side=rng.uniform(0.0, 0.25),
        angle=rng.uniform(0.0, 2.0 * np.pi),
    )
    return View(
        seed=(seed, 2, row),
        angle=rng.uniform(-MAX_ANGLE, MAX_ANGLE),
        rough=rng.uniform(0.01, 0.05),
        beam=beam,
        black=rng.uniform(5.0, 50.0),
        white=rng.uniform(170.0, 250.0),
    )


def _structure_text(seed: int, n_rows: int) -> str:
    lines = ["SEM_filenames,kind,period_nm,duty,height_nm,dye"]
    for row in range(n_rows):
        made = make_grating(seed, row)
        numbers = (f"{made.period_nm:.1f}", f"{made.duty:.3f}", f"{made.height_nm:.1f}", f"{made.dye:.3f}")
        lines.append(",".join((file_name(row), made.kind, *numbers)))
    return "\n".join(lines) + "\n"
