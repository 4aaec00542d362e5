"""The ``garbage`` sample: photos of litter in class folders, one per bin, with a text in each file name.

What is planted, so that tests and readers know the truth:

- Bottles, cans, bulbs and sticks belong into the bins Black and TTR. Only the text tells into which: a bottle of
  shampoo and a bottle of bleach look alike.
- Cups, boxes, cartons, plates and bags of paper belong into Blue where they are clean and into Green where food soils
  them. Only the picture tells: both are called a pizza box.
- Picture and text both tell paper from the others. So with the picture alone Black and TTR are a coin toss, with the
  text alone Blue and Green are, and only both together tell all four bins apart.
- A share of VAGUE texts says nothing ("some waste"); a share of WRONG items lies in the other bin of its pair;
  ``misfiled.csv`` names them.
- Bins are as unequal as BINS says. Train, Val and Test are 60, 20 and 20 % of each bin.

Every share is met closely at any number of rows; row i is the same however many rows there are.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from store.progress import Progress
from store.samples.files import write_image, write_text
from store.samples.litter_picture import draw_litter
from store.samples.shares import pick, share

N_ROWS = 600
SUMMARY = "photos of litter in class folders, one per bin, with a text in each file name"
BINS: Mapping[str, float] = {"Black": 0.2, "Blue": 0.42, "Green": 0.2, "TTR": 0.18}
PAIRS: Mapping[str, str] = {"Black": "TTR", "TTR": "Black", "Blue": "Green", "Green": "Blue"}
VAGUE, WRONG = 0.05, 0.03
PAPER = ("cup", "box", "carton", "plate", "bag")
TEXTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "Black": {
        "bottle": ("shampoo bottle", "ketchup bottle", "lotion bottle", "mouthwash bottle"),
        "can": ("whipped cream can", "deodorant can", "shaving foam can", "cooking oil spray can"),
        "bulb": ("halogen light bulb", "clear light bulb", "oven light bulb", "candle light bulb"),
        "stick": ("glue stick", "lip balm", "lint roller", "highlighter pen"),
    },
    "TTR": {
        "bottle": ("bleach bottle", "motor oil bottle", "weed killer bottle", "drain cleaner bottle"),
        "can": ("spray paint can", "paint thinner can", "insect poison can", "brake fluid can"),
        "bulb": ("fluorescent light bulb", "mercury light bulb", "uv light bulb", "neon light bulb"),
        "stick": ("aa battery", "lithium battery", "rechargeable battery", "thermometer"),
    },
    "paper": {
        "cup": ("paper cup", "coffee cup", "take away cup"),
        "box": ("pizza box", "cardboard box", "take away box"),
        "carton": ("egg carton", "egg box"),
        "plate": ("paper plate", "party plate"),
        "bag": ("paper bag", "bakery bag", "lunch bag"),
    },
}
ADJECTIVES = ("", "", "", "small ", "large ", "old ", "empty ", "broken ")
VAGUE_TEXTS = ("some waste", "item", "garbage from the kitchen", "photo", "thing")
_PARTS = (*("Train", "Train", "Train", "Val", "Test"), *("Train", "Test", "Train", "Val", "Train"))

DATASET_TOML = """\
# Synthetic photos of litter, drawn by a program: nothing here was photographed.
# Written by: {command}
name   = "garbage"
sample = "garbage"                 # says that this is a built-in sample
root   = "CVPR-like"               # no table: the images below this folder are the rows

[folders]                          # each holds the class folders Black, Blue, Green and TTR
train = "Train"
val   = "Val"
test  = "Test"

[images.photo]

[texts.name]
from_filename = "photo"            # plastic_bottle_12.png: "plastic bottle"

[tasks.bin]
column = "folder"                  # the class folder
"""


@dataclass(frozen=True)
class Item:
    """The truth of one photo, fixed before a pixel is drawn.

    Attributes:
        seed: Seeds of its own generator.
        row: Counted from 0.
        part: ``Train``, ``Val`` or ``Test``.
        bin: Where it belongs.
        folder: The bin in whose folder it lies; another one for a share of WRONG.
        look: One of LOOKS.
        text: What its file name says.
    """

    seed: tuple[int, ...]
    row: int
    part: str
    bin: str
    folder: str
    look: str
    text: str

    @property
    def path(self) -> str:
        """Relative to the sample's folder."""
        return f"CVPR-like/{self.part}/{self.folder}/{self.text.replace(' ', '_')}_{self.row + 1}.png"


def make_items(seed: int, n_rows: int) -> Iterator[Item]:
    """Yield the truth of n photos."""
    seen: Counter[str] = Counter()
    for row in range(n_rows):
        rng = np.random.default_rng([seed, 3, row])
        right = pick(BINS, share(seed, row, 0))
        folder = PAIRS[right] if share(seed, row, 1) < WRONG else right
        texts = TEXTS["paper" if right in ("Blue", "Green") else right]
        look = list(texts)[int(share(seed, row, 2) * len(texts))]
        words = str(rng.choice(ADJECTIVES)) + str(rng.choice(texts[look]))
        text = str(rng.choice(VAGUE_TEXTS)) if share(seed, row, 3) < VAGUE else words
        yield Item((seed, 4, row), row, _PARTS[seen[folder] % len(_PARTS)], right, folder, look, text)
        seen[folder] += 1


def write_garbage(folder: Path, *, n_rows: int, seed: int, progress: Progress | None = None) -> None:
    """Write the photos into their class folders, and beside them which of these are wrong.

    Args:
        folder: An empty folder, or one in which this was interrupted.
        n_rows: How many photos.
        seed: Another seed gives other photos.
        progress: Called with (photos done, photos in all).
    """
    for done, item in enumerate(make_items(seed, n_rows), start=1):
        rng = np.random.default_rng(item.seed)
        write_image(folder / item.path, partial(draw_litter, rng, item.look, soiled=item.bin == "Green"))
        if progress is not None:
            progress(done, n_rows)
    wrong = [item for item in make_items(seed, n_rows) if item.folder != item.bin]
    write_text(folder / "misfiled.csv", "\n".join(["file,bin", *(f"{item.path},{item.bin}" for item in wrong)]) + "\n")
