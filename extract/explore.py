"""What a dataset's pictures are like before any model: sizes, depths, and whether mere brightness tells classes apart.

Values are the file's own after the crop, before any conversion; of colour, the mean of the channels. Of many rows a
seeded sample is read, in which every class has some pictures.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.decode import ImageError, read_image
from extract.sheet import draw_sheet, row_picture
from extract.variance import share_between, share_between_groups
from extract.view import crop
from store import Dataset, ImageBlock, Progress, Stratum, in_threads, strata

EXAMPLES = 6  # pictures per class, a row of the sheet
N_PIXELS = 1024  # kept of each picture for histograms, so that large pictures count as much as small ones
N_BINS = 48
N_SIZES = 10  # sizes named, the most frequent ones
BLANK = np.full((1, 1, 3), 255, dtype=np.uint8)
PERCENT = (0.1, 99.9)  # the histograms' range; what lies outside counts in the first and last bin


@dataclass(frozen=True)
class Look:
    """One picture's values.

    Attributes:
        size_px: (height, width) after the crop.
        depth: ``"8 bit"``, ``"16 bit"`` or ``"32 bit float"``, and ``"grey"`` or ``"colour"``.
        low: The least value.
        high: The greatest.
        mean: Of all pixels: the brightness.
        spread: Their standard deviation: the contrast.
        pixels: float32 ``(N_PIXELS,)``, drawn with repeats.
    """

    size_px: tuple[int, int]
    depth: str
    low: float
    high: float
    mean: float
    spread: float
    pixels: NDArray[np.float32]


@dataclass(frozen=True)
class Looks:
    """What was read.

    Attributes:
        rows: Row numbers of all rows, or of a sample, in the order they were drawn.
        blocks: By image block, for each of `rows`: its values, or why it cannot be read, or None without an image.
    """

    rows: NDArray[np.int64]
    blocks: Mapping[str, list[Look | str | None]]


def look_at_images(dataset: Dataset, *, n_rows: int, seed: int, progress: Progress | None = None) -> Looks:
    """Read the pictures of all rows, or of a sample of them.

    Blocks that show the same files under another view or conversion are read once, under the first one's name, and
    stacks not at all: their parts are.

    Args:
        dataset: Any number of rows.
        n_rows: At most so many are read.
        seed: Of the sample.
        progress: Called with (pictures done, pictures to do).
    """
    rows = _sample(dataset, n_rows, seed)
    blocks: dict[str, list[Look | str | None]] = {}
    chosen = _distinct(dataset)
    for number, (name, block) in enumerate(chosen.items()):
        blocks[name] = []
        for look in in_threads(partial(_look, block), rows.tolist()):
            blocks[name].append(look)
            if progress:
                progress(number * len(rows) + len(blocks[name]), len(chosen) * len(rows))
    return Looks(rows, blocks)


def describe_images(dataset: Dataset, looks: Looks) -> dict[str, Any]:
    """Describe what was read.

    Returns:
        ``looked_at``, the number of rows; ``images``, one of each block; ``unreadable``: row, block and reason of each.
    """
    return {
        "looked_at": len(looks.rows),
        "images": [_describe_block(dataset, looks, name) for name in looks.blocks],
        "unreadable": [
            {"id": str(dataset.ids[row]), "block": name, "reason": look}
            for name, found in looks.blocks.items()
            for row, look in sorted(zip(looks.rows.tolist(), found, strict=True), key=lambda pair: pair[0])
            if isinstance(look, str)
        ],
    }


def draw_examples(dataset: Dataset, looks: Looks, path: Path) -> bool:
    """Draw pictures of each class, or of each third of the values, a row of them for each block.

    Returns:
        False where there is nothing to draw, and no file is written.
    """
    shown = [
        one
        for stratum in (one for task in dataset.tasks.values() for one in strata(task))
        for name in looks.blocks
        for one in _examples(dataset, looks, name, stratum)
    ]
    if shown:
        draw_sheet(path, [picture for picture, _ in shown], [caption for _, caption in shown], columns=EXAMPLES)
    return bool(shown)


def _examples(dataset: Dataset, looks: Looks, name: str, stratum: Stratum) -> list[tuple[NDArray[np.uint8], str]]:
    """Return the first pictures of a class in one block with their captions, filled up to a row of the sheet."""
    is_shown = np.array([isinstance(look, Look) for look in looks.blocks[name]], dtype=bool)
    rows = looks.rows[is_shown & np.isin(looks.rows, stratum.rows)][:EXAMPLES]
    block = dataset.images[name].take(rows.tolist())
    found = []
    for place, row in enumerate(rows):
        picture, note = _picture(block, place)
        what = f"{name}: {dataset.ids[row]}" if len(looks.blocks) > 1 else dataset.ids[row]
        found.append((picture, f"{stratum.task}: {stratum.name}\n{what}\n{note}".rstrip()))
    return found + [(BLANK, "")] * (EXAMPLES - len(found)) if found else []


def _sample(dataset: Dataset, n_rows: int, seed: int) -> NDArray[np.int64]:
    """Return row numbers: the first of each class in a random order, then any others in that order."""
    order = np.random.default_rng(seed).permutation(dataset.n_rows)
    every = [one.rows for task in dataset.tasks.values() for one in strata(task)]
    first = [row for rows in every for row in order[np.isin(order, rows)][:EXAMPLES].tolist()]
    return np.array(list(dict.fromkeys([*first, *order.tolist()]))[:n_rows], dtype=np.int64)


def _distinct(dataset: Dataset) -> dict[str, ImageBlock]:
    """Return the image blocks without stacks, one of those that read the same pixels."""
    found: dict[Any, ImageBlock] = {}
    for block in dataset.images.values():
        if not block.parts:
            found.setdefault((block.refs, block.crop_bottom_px), block)
    return {block.name: block for block in found.values()}


def _picture(block: ImageBlock, row: int) -> tuple[NDArray[np.uint8], str]:
    """Return what an encoder sees, or a grey square and why it sees nothing."""
    try:
        return row_picture(block, row), ""
    except ImageError as error:
        return BLANK // 2, str(error)


def _look(block: ImageBlock, row: int) -> Look | str | None:
    ref = block.refs[row]
    if ref is None:
        return None
    try:
        pixels = crop(read_image(ref.path, ref.page), block.crop_bottom_px)
    except ImageError as error:
        return str(error)
    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2, dtype=np.float32)
    kept = np.random.default_rng(0).integers(grey.size, size=N_PIXELS)
    return Look(
        size_px=(grey.shape[0], grey.shape[1]),
        depth=_depth(pixels),
        low=float(grey.min()),
        high=float(grey.max()),
        mean=float(grey.mean(dtype=np.float64)),
        spread=float(grey.std(dtype=np.float64)),
        pixels=grey.ravel()[kept].astype(np.float32),
    )


def _depth(pixels: NDArray[Any]) -> str:
    number = "float " if pixels.dtype.kind == "f" else ""
    return f"{8 * pixels.itemsize} bit {number}{'grey' if pixels.ndim == 2 else 'colour'}"


def _describe_block(dataset: Dataset, looks: Looks, name: str) -> dict[str, Any]:
    found = looks.blocks[name]
    read = np.array([isinstance(look, Look) for look in found], dtype=bool)
    seen = [look for look in found if isinstance(look, Look)]
    counts = {"n_rows": dataset.n_rows, "n_read": len(seen), "n_unreadable": sum(isinstance(x, str) for x in found)}
    if not seen:
        return {"block": name} | counts
    sizes = Counter(look.size_px for look in seen)
    labelled = dataset.take(looks.rows[read].tolist())
    edges = _edges(seen)
    return {
        "block": name,
        **counts,
        "sizes": [{"width_px": w, "height_px": h, "images": n} for (h, w), n in sizes.most_common(N_SIZES)],
        "n_sizes": len(sizes),
        "depths": dict(Counter(look.depth for look in seen).most_common()),
        "low": min(look.low for look in seen),
        "high": max(look.high for look in seen),
        "edges": edges.tolist(),
        "intensity": [
            _intensity(stratum, seen, edges)
            for task in labelled.tasks.values()
            for stratum in strata(task)
            if len(stratum.rows)
        ],
        "brightness": _brightness(labelled, seen),
    }


def _edges(seen: Sequence[Look]) -> NDArray[np.float64]:
    """Return the borders of N_BINS bins over nearly all values."""
    low, high = np.percentile(np.concatenate([look.pixels for look in seen]), PERCENT).tolist()
    return np.linspace(low, high if high > low else low + 1, N_BINS + 1)


def _intensity(stratum: Stratum, seen: Sequence[Look], edges: NDArray[np.float64]) -> dict[str, Any]:
    """Return what the pictures of one class are like: their mean brightness and contrast, each with its deviation."""
    own = [seen[row] for row in stratum.rows]
    pixels = np.clip(np.concatenate([look.pixels for look in own]), edges[0], edges[-1])
    counts, _ = np.histogram(pixels, bins=edges)
    found: dict[str, Any] = {"task": stratum.task, "class": stratum.name, "n_images": len(own)}
    for measure in ("mean", "spread"):
        values = np.array([getattr(look, measure) for look in own])
        found[measure] = {"mean": float(values.mean()), "std": float(values.std())}
    return found | {"histogram": (counts / counts.sum()).tolist()}


def _brightness(labelled: Dataset, seen: Sequence[Look]) -> list[dict[str, Any]]:
    """Return, for each task and measure, which share of its variance over the pictures goes with the label."""
    found = []
    for measure in ("mean", "spread"):
        values = np.array([getattr(look, measure) for look in seen])
        of_group = None if labelled.groups is None else share_between_groups(values, labelled.groups)
        for task in labelled.tasks.values():
            rows = np.flatnonzero(task.labelled)
            codes = task.y[rows]
            labels = np.eye(len(task.classes))[codes] if task.kind == "classification" else codes
            groups = None if labelled.groups is None else labelled.groups[rows]
            found.append(
                {
                    "task": task.name,
                    "measure": measure,
                    "of_label": share_between(values[rows], labels),
                    "of_label_within_groups": None if groups is None else share_between(values[rows], labels, groups),
                    "of_group": of_group,
                }
            )
    return found
