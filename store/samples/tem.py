"""The ``tem`` sample: synthetic transmission electron micrographs with five labels each.

What is planted, so that tests and readers know the truth:

- Rows come in specimens of 4 to 8 images. A specimen has its material, its typical size in nm, its support film, and
  nuisances of its own (dose, brightness, dark level, focus), so unseen specimens are harder.
- ``particle_count``: none, one, part (a single object larger than the field of view), few (2 to 10), many (over 10).
- ``material``: one; several (heavy nanoparticles on the objects, or particles of two materials); impurities (dried
  residue or salt crystals).
- ``morphology``: flat (thick, flat, rigid sheets), wavy (thin sheets with few kinks), crumpled (thin sheets with many
  folds), combination (flat and crumpled together), disorganised (branched aggregates), other (particles, rods, tubes).
- ``nanostructures``: how many objects are less than 100 nm wide (the nanoscale of ISO 80004-1): no, one, few, many.
  Objects are framed to the same size in pixels at every magnification, as an operator frames them. So the picture tells
  how many there are, and only the magnification tells whether they are that small; neither is enough alone.
- ``usability``: no for bare film, far out of focus, overexposed, and mostly grid bar. Usable images are sometimes a
  little blurred or bright, and at low magnification a grid bar may show.
- Labels are wrong at the rates of LABEL_NOISE, always by a class that an annotator might confuse, and missing at the
  rate of MISSING and where an image cannot be used.

Every share is met closely at any number of rows (Kronecker sequences in place of coin tosses), each image has its own
seeded generator, and row i is the same however many rows there are. The optics are those of `store.samples.micrograph`.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from store.progress import Progress
from store.samples.files import write_image, write_text
from store.samples.sheet import write_xlsm
from store.samples.tem_picture import draw
from store.samples.tem_scene import TASKS, Scene, labels, make_scene

N_ROWS = 185
N_UNLABELLED = 12
SUMMARY = "transmission electron micrographs with five labels and their magnification"

_BLOCKS = """\
[images.tem]
column  = "file"                   # the column with the file name
convert = "percentile_stretch"     # 12-bit values to 8 bits: stretched between two percentiles

[metadata.magnification]
pattern   = '_(\\d+)X_'             # read from the file name: GO_02_1200000X_0007.tif -> 1200000
transform = "log"                  # from 600 to 1200000, so its logarithm is what counts

# What is predicted; an empty cell is a missing label and is left out of that task only.
[tasks.particle_count]             # none, one, part (of one larger than the image), few (2 to 10), many
column = "particle_count"
[tasks.material]                   # one, several, impurities
column = "material"
[tasks.morphology]                 # flat, wavy, crumpled, combination, disorganised, other
column = "morphology"
[tasks.nanostructures]             # objects less than 100 nm wide: no, one, few (2 to 10), many
column = "nanostructures"
[tasks.usability]                  # yes, no
column = "usability"
"""

DATASET_TOML = (
    """\
# Synthetic transmission electron micrographs (TEM), drawn from a physical model: nothing here was measured.
# Written by: {command}
name   = "tem"
sample = "tem"                     # says that this is a built-in sample
table  = "labels.csv"              # one row per image; labels.xlsm is the same
root   = "images"                  # a folder per specimen; the table's file names are relative to this folder
id     = "sample"                  # the column that names a row
group  = "specimen"                # images of one specimen are never split apart

"""
    + _BLOCKS
)

SHEETS_TOML = (
    """\
# The same micrographs, with a sheet for each specimen beside its images, as the study has them.
name   = "tem"
sample = "tem"
table  = "../images/{folder}/labels.xlsm"
root   = "../images"
id     = "sample"                  # unique in its sheet; the folder's name goes in front
group  = "folder"                  # the specimen

"""
    + _BLOCKS
)


def write_tem(folder: Path, *, n_rows: int, seed: int, progress: Progress | None = None) -> None:
    """Write the images, a folder per specimen and one for those without labels, and the tables.

    Args:
        folder: An empty folder, or one in which this was interrupted.
        n_rows: How many labelled images.
        seed: Another seed gives other images.
        progress: Called with (images done, images in all).
    """
    scenes = [make_scene(seed, row) for row in range(n_rows)]
    extra = [make_scene(seed, n, stream=1) for n in range(N_UNLABELLED)]
    jobs = [(f"images/{scene.specimen.name}", scene) for scene in scenes] + [("unlabelled", scene) for scene in extra]
    for done, (place, scene) in enumerate(jobs, start=1):
        write_image(folder / place / scene.file_name, partial(draw, scene), photometric="minisblack")
        if progress is not None:
            progress(done, len(jobs))
    _write_sheets(folder, scenes)


def _write_sheets(folder: Path, scenes: Sequence[Scene]) -> None:
    """Write the labels of all specimens into one table, and those of each into a sheet of its own, all twice."""
    _write_table(folder, [("sample", "file", "specimen", *TASKS), *(table_row(scene) for scene in scenes)])
    of_specimen: dict[str, list[tuple[str, ...]]] = {}
    for scene in scenes:
        row_id, _, specimen, *given = table_row(scene)
        of_specimen.setdefault(specimen, [("sample", "file", *TASKS)]).append((row_id, scene.file_name, *given))
    for specimen, rows in of_specimen.items():
        _write_table(folder / "images" / specimen, rows)
    (folder / "sheets").mkdir(exist_ok=True)
    write_text(folder / "sheets" / "dataset.toml", SHEETS_TOML)


def _write_table(folder: Path, rows: Sequence[Sequence[str]]) -> None:
    write_text(folder / "labels.csv", "".join(",".join(row) + "\n" for row in rows))
    write_xlsm(folder / "labels.xlsm", rows)


def table_row(scene: Scene) -> tuple[str, ...]:
    """Return a scene's row of ``labels.csv``; a missing label is an empty cell."""
    specimen, given = scene.specimen.name, labels(scene)
    return (
        f"{specimen}_{scene.running:04d}",
        f"{specimen}/{scene.file_name}",
        specimen,
        *(given[task] for task in TASKS),
    )
