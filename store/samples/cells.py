"""The ``cells`` sample: single cells in bright field and fluorescence, healthy or cancerous, of twelve patients.

What is planted, so that tests and readers know the truth:

- Each cancerous cell has one of two changes, or both (CHANGES). `keratin`: a small, ragged cell of dense cytoplasm
  with a halo around its nucleus; the cytoplasm hardly fluoresces, so that only bright field shows it. `ploidy`: a
  nucleus with more and clumped DNA and with micronuclei, which the stain does not show, but fluorescence does. Healthy
  cells have a trace of each at most. So either modality alone misses two cancerous cells in five.
- A patient has a stain, a lamp, a focus and a size of cells of its own, and is mostly healthy (7 patients, 12 % of
  cells cancerous) or mostly ill (5 patients, 75 %). Whoever recognises the patient guesses the diagnosis: with other
  cells of the same patient in training, scores are flattered. Two in five cells are cancerous.
- Names are ``pat_<patient>_image_<number>.jpg``, the same in both modalities; there is no column for the patient.
- The test images, without labels, are of four further patients.

Every share is met closely at any number of rows; row i is the same however many rows there are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from store.progress import Progress
from store.samples.cell_picture import Appearance, draw_bright_field, draw_fluorescence
from store.samples.files import write_image, write_text
from store.samples.shares import pick, share

N_ROWS = 480
N_TEST = 48
SUMMARY = "single cells in bright field and fluorescence, healthy or cancerous, of twelve patients"
N_PATIENTS, N_TEST_PATIENTS = 12, 4
ILL_PATIENTS = frozenset({2, 5, 7, 10, 12, 14, 15})
CANCEROUS: Mapping[bool, float] = {False: 0.12, True: 0.75}
"""The share of cancerous cells of patients that are not in ILL_PATIENTS, and that are."""
CHANGES: Mapping[str, float] = {"keratin": 0.4, "ploidy": 0.4, "both": 0.2}
_JPEG_QUALITY = 92

DATASET_TOML = """\
# Synthetic microscope images of cells, drawn from a physical model: nothing here was measured.
# Written by: {command}
name   = "cells"
sample = "cells"                   # says that this is a built-in sample
table  = "data/train.csv"          # Name, Diagnosis
root   = "data"
id     = "Name"
group  = "patient"                 # cells of one patient are never split apart

[columns.patient]
pattern = 'pat_(\\d+)_'             # read from the file name: pat_7_image_31.jpg -> 7

[images.bf]                        # bright field
column = "Name"
folder = "BF"
[images.fl]                        # fluorescence of the nucleus
column = "Name"
folder = "FL"

[tasks.diagnosis]                  # healthy, cancerous
column = "Diagnosis"
"""


@dataclass(frozen=True)
class Cell:
    """The truth of one cell, fixed before a pixel is drawn.

    Attributes:
        seed: Seeds of its own generators.
        patient: From 1.
        number: Of the patient's cells, from 1.
        change: ``keratin``, ``ploidy`` or ``both`` of a cancerous cell; ``""`` of a healthy one.
    """

    seed: tuple[int, ...]
    patient: int
    number: int
    change: str

    @property
    def name(self) -> str:
        """The file name in both modalities."""
        return f"pat_{self.patient}_image_{self.number}.jpg"

    @property
    def diagnosis(self) -> str:
        """As in ``train.csv``."""
        return "cancerous" if self.change else "healthy"


def make_cell(seed: int, row: int, *, test: bool = False) -> Cell:
    """Return the truth of one row; patients take turns."""
    n_patients = N_TEST_PATIENTS if test else N_PATIENTS
    number, turn = divmod(row, n_patients)
    patient = 1 + turn + test * N_PATIENTS
    is_ill = patient in ILL_PATIENTS
    at = (share(seed, number, 0) + patient / 7.0) % 1.0  # every patient starts elsewhere in the sequence
    change = pick(CHANGES, share(seed, row, 1)) if at < CANCEROUS[is_ill] else ""
    return Cell((seed, 5, patient, number), patient, number + 1, change)


def write_cells(folder: Path, *, n_rows: int, seed: int, progress: Progress | None = None) -> None:
    """Write ``data`` with BF, FL and ``train.csv``, and ``test`` with BF and FL alone.

    Args:
        folder: An empty folder, or one in which this was interrupted.
        n_rows: How many cells with a diagnosis.
        seed: Another seed gives other cells.
        progress: Called with (cells done, cells in all).
    """
    cells = [("data", make_cell(seed, row)) for row in range(n_rows)]
    cells += [("test", make_cell(seed, row, test=True)) for row in range(N_TEST)]
    for done, (place, cell) in enumerate(cells, start=1):
        look = appearance(cell, seed)
        for modality, draw in (("BF", draw_bright_field), ("FL", draw_fluorescence)):
            rng = np.random.default_rng([*cell.seed, modality == "FL"])
            write_image(folder / place / modality / cell.name, partial(draw, look, rng), quality=_JPEG_QUALITY)
        if progress is not None:
            progress(done, len(cells))
    rows = [f"{cell.name},{cell.diagnosis}" for place, cell in cells if place == "data"]
    write_text(folder / "data" / "train.csv", "\n".join(["Name,Diagnosis", *rows]) + "\n")


def appearance(cell: Cell, seed: int) -> Appearance:
    """Return what a cell looks like: its changes, more or less marked, and what all cells of its patient share."""
    rng = np.random.default_rng([*cell.seed, 2])
    marked = {
        change: rng.uniform(0.5, 1.0) if cell.change in (change, "both") else rng.uniform(0.0, 0.25)
        for change in CHANGES
    }
    return Appearance(
        shape_seed=(*cell.seed, 3), keratin=marked["keratin"], ploidy=marked["ploidy"], **_habits(seed, cell.patient)
    )


@cache
def _habits(seed: int, patient: int) -> Mapping[str, float]:
    """Return the nuisances of a patient's slide, which have nothing to do with the diagnosis."""
    rng = np.random.default_rng([seed, 6, patient])
    return {
        "stain": float(np.exp(rng.normal(0.0, 0.2))),
        "lamp": rng.uniform(0.8, 0.95),
        "warmth": rng.normal(0.0, 0.05),
        "defocus": rng.uniform(0.6, 1.3),
        "size": float(np.exp(rng.normal(0.0, 0.06))),
        "exposure": float(np.exp(rng.normal(0.0, 0.2))),
        "haze": rng.uniform(0.03, 0.08),
    }
