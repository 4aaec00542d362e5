"""The ``powder`` sample: synthetic 16-bit scanning electron micrographs of 38 metal powders, and how they flow.

What is planted, so that tests and readers know the truth:

- A powder has a process (gas, plasma or water atomised, crushed), a median diameter of 17 to 90 um, a width of the
  distribution, a sphericity, satellites and a surface roughness: all of that shows in the picture. Its density and the
  fineness of its asperities do not, and are half of the cohesion.
- AOR, HR and Flow_rate follow from these by `store.samples.flow` and are constant per powder; CI = 100 (1 - 1 / HR)
  exactly. Flow_rate is empty where the powder does not flow; some 21 of the 38 do.
- Every powder was taken at 500 and 1000 times, then at eleven magnifications drawn alike for all: the magnification
  alone says nothing about a powder. The picture shows a diameter in px only, so beside it the magnification counts.
- Every powder was taken in one session with a dose, focus, brightness and contrast of its own. So tiles of one powder
  are alike in more than their particles, and rows of a random split are recognised rather than predicted.

The study's three tables hold a random split: every powder, and even every field, stands in all of them
(``study/dataset.toml``). ``dataset.toml`` keeps powders together. Row i is the same however many rows there are.
"""

from functools import partial
from pathlib import Path

from store.progress import Progress
from store.samples.files import write_image, write_text
from store.samples.powder_picture import draw_tile
from store.samples.powder_plan import N_TILES, PARTS, Field, magnification_scaled, make_field, part_of

N_FIELDS = 3
N_ROWS = 38 * N_FIELDS * N_TILES
SUMMARY = "16-bit scanning electron micrographs of 38 metal powders and how they flow"
COLUMNS = (
    "image_path",
    "magnification",
    "magnification_scaled",
    "powder_name",
    "convert_method",
    "AOR",
    "HR",
    "CI",
    "Flow_rate",
)
CONVERT_METHOD = "16-bit"  # the study's rows are 8-bit conversions; these files keep their 16 bits

_BLOCKS = """\
[images.sem]
column  = "image_path"
convert = "percentile_clip"        # how 16 bits become 8; compare others with --convert

[metadata.magnification]
column    = "magnification"
transform = "log"                  # as the study's column magnification_scaled

[tasks.AOR]                        # angle of repose
column = "AOR"
kind   = "regression"
unit   = "degree"
[tasks.HR]                         # Hausner ratio: tapped over bulk density
column = "HR"
kind   = "regression"
[tasks.CI]                         # Carr index, 100 (1 - 1 / HR)
column = "CI"
kind   = "regression"

[columns.flowable]                 # does it flow through the Hall funnel? yes where there is a flow rate
filled = "Flow_rate"
[tasks.flowable]
column = "flowable"
[tasks.Flow_rate]                  # seconds for 50 g
column = "Flow_rate"
kind   = "regression"
when   = "flowable == 'yes'"       # trained and scored only there
unit   = "s"
"""
DATASET_TOML = f"""\
# Synthetic scanning electron micrographs of metal powders, drawn from a physical model: nothing here was measured.
# Written by: {{command}}
name   = "powder"
sample = "powder"                  # says that this is a built-in sample
table  = "all_data.csv"            # every row of the study's three tables
root   = "images"
group  = "powder_name"             # a powder is never split apart: its labels are the same in all its rows

{_BLOCKS}"""
STUDY_TOML = f"""\
# The same rows in the study's own split: drawn row by row, so that every powder is in all three tables.
# Scores of this split measure how well a powder is recognised. ../dataset.toml keeps powders together.
name   = "powder_study"
sample = "powder"
root   = "../images"

[tables]
train = "../train_data.csv"
val   = "../val_data.csv"
test  = "../test_data.csv"

{_BLOCKS}"""


def write_powder(folder: Path, *, n_rows: int, seed: int, progress: Progress | None = None) -> None:
    """Write the tiles, the study's three tables, one table of all, and the study's spec.

    Args:
        folder: An empty folder, or one in which this was interrupted.
        n_rows: How many tiles.
        seed: Another seed gives other powders.
        progress: Called with (tiles done, tiles in all).
    """
    for index in range(-(-n_rows // N_TILES)):
        field = make_field(seed, index)
        for tile in range(min(N_TILES, n_rows - index * N_TILES)):
            path = folder / "images" / field.tile_name(tile)
            write_image(path, partial(draw_tile, field, tile), photometric="minisblack")
            if progress is not None:
                progress(index * N_TILES + tile + 1, n_rows)
    (folder / "study").mkdir(exist_ok=True)
    write_text(folder / "study" / "dataset.toml", STUDY_TOML)
    for name, text in tables(seed, n_rows).items():
        write_text(folder / name, text)


def tables(seed: int, n_rows: int) -> dict[str, str]:
    """Return the text of each csv file by its name."""
    rows = [_cells(make_field(seed, row // N_TILES), row % N_TILES) for row in range(n_rows)]
    parts = [part_of(seed, row) for row in range(n_rows)]
    found: dict[str, list[tuple[str, ...]]] = {f"{part}_data.csv": [COLUMNS] for part in PARTS}
    for part, cells in zip(parts, rows, strict=True):
        found[f"{part}_data.csv"].append(cells)
    found["all_data.csv"] = [COLUMNS, *rows]
    return {name: "\n".join(",".join(cells) for cells in lines) + "\n" for name, lines in found.items()}


def _cells(field: Field, tile: int) -> tuple[str, ...]:
    flow = field.powder.flow
    ratio = round(flow.hausner_ratio, 4)
    return (
        field.tile_name(tile),
        str(field.magnification),
        f"{magnification_scaled(field.magnification):.6f}",
        field.powder.name,
        CONVERT_METHOD,
        f"{flow.angle_of_repose:.1f}",
        str(ratio),
        str(100.0 * (1.0 - 1.0 / ratio)),
        "" if flow.hall_s is None else f"{flow.hall_s:.1f}",
    )
