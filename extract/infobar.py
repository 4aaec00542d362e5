"""Find the info bar that microscopes draw below a picture, so that neither its text nor its lines pass for texture."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from store import INFO_BAR

_COLUMNS = 1024  # of wider images every second or third column is looked at
_MIN_HEIGHT, _MAX_HEIGHT = 0.02, 0.25  # of the image
_MARGIN = 0.03  # of the image: what is looked at above the highest bar
_GROUND_ROWS = 0.05  # of the image, lowest: where the bar's background is the commonest value
_LINE = 0.01  # of the image: how thick a line that borders or divides a bar may be
_BAR_ROW, _CLEAN_ROW = 0.2, 0.8  # share of a row that is background: with dense text, and without any
_BAR = 0.4  # share of the whole bar that is background
_PICTURE = 0.4  # of the rows above the bar no more has its background's value
_STEP = 0.03  # mean step from background to picture, of the range of values
_TEXT = (0.002, 0.4)  # share of the bar that is text, lines and scale bar
_STROKES = 4  # that some row of text crosses at least
_JPEG = 8  # levels of 255 by which compression moves a background
_JPEG_STEP = 16  # levels that make a step in compressed pixels
_JPEG_EDGE, _JPEG_LINE = 0.5, 0.6  # share of the columns that step at the edge of a picture, and of a line


def find_info_bar(pixels: NDArray[Any]) -> int:
    """Return how many rows at the bottom are an info bar; 0 if there is none, or where that is in doubt.

    A bar has the full width and 2 to 25 % of the height, is mostly of one value (black, white or grey) with text on
    it, and begins below a sharp edge with clean rows. Uniform margins without text are no bar, and text or a scale bar
    written into the picture is none either. A line along its edge belongs to it.

    Args:
        pixels: (h, w) or (h, w, 3), as decoded: before any conversion to 8 bits.
    """
    height = len(pixels)
    strip = pixels[height - int(height * (_MAX_HEIGHT + _MARGIN)) :]
    if len(strip) < 8 or strip.shape[1] < 32:
        return 0
    strip = np.ascontiguousarray(strip[:, :: max(1, strip.shape[1] // _COLUMNS)])
    grey = cv2.cvtColor(strip, cv2.COLOR_RGB2GRAY) if strip.ndim == 3 else strip
    tolerances = (0, _JPEG) if grey.dtype == np.uint8 else (0,)  # deeper files were never JPEG
    return next((rows for tolerance in tolerances if (rows := _bar_rows(grey, height, tolerance))), 0)


def _bar_rows(strip: NDArray[Any], height: int, tolerance: int) -> int:
    """Return the rows of the bar in the lowest part of an image of `height`, or 0."""
    line = max(3, int(height * _LINE))
    ground = _ground(strip[-max(6, int(height * _GROUND_ROWS)) :], tolerance)
    share = _share(strip, ground, tolerance)
    top = _first_clean_row(share, line)
    if top is None or share[top:].mean() < _BAR or not _has_text(strip[top:], ground):
        return 0
    top = _sharpest_row(strip, top, line=line) if tolerance else _with_border(strip, top, line=line)
    above = slice(max(0, top - max(4, 2 * line)), top)
    n_rows = len(strip) - top
    is_bar = (
        above.stop - above.start >= 4
        and height * _MIN_HEIGHT <= n_rows <= height * _MAX_HEIGHT
        and share[above].mean() <= _PICTURE
        and _is_edge(strip, top, ground=ground, tolerance=tolerance)
    )
    return n_rows if is_bar else 0


def _ground(rows: NDArray[Any], tolerance: int) -> float:
    """Return the value that most pixels have, give or take the tolerance."""
    if rows.dtype.kind == "f":
        values, counts = np.unique(rows, return_counts=True)
        return float(values[counts.argmax()])
    counts = np.convolve(np.bincount(rows.ravel()), np.ones(2 * tolerance + 1, np.int64), mode="same")
    return float(np.flatnonzero(counts == counts.max()).mean())


def _share(strip: NDArray[Any], ground: float, tolerance: float) -> NDArray[np.float64]:
    """Return which share of each row has the background's value, (h,)."""
    same = (strip >= ground - tolerance) & (strip <= ground + tolerance)
    share: NDArray[np.float64] = np.count_nonzero(same, axis=1) / strip.shape[1]
    return share


def _first_clean_row(share: NDArray[np.float64], line: int) -> int | None:
    """Return the highest clean row that rows of a bar reach from the bottom; lines may come between."""
    bar = np.flatnonzero(share >= _BAR_ROW)[::-1]
    if not len(bar) or len(share) - bar[0] > line:
        return None
    breaks = np.flatnonzero(-np.diff(bar) > line + 1)
    reached = bar[: breaks[0] + 1] if len(breaks) else bar
    clean = reached[share[reached] >= _CLEAN_ROW]
    return int(clean[-1]) if len(clean) else None


def _has_text(bar: NDArray[Any], ground: float) -> bool:
    contrast = np.abs(bar - ground)
    ink = contrast > 0.4 * contrast.max()
    strokes = np.count_nonzero(ink[:, 1:] > ink[:, :-1], axis=1)
    return bool(_TEXT[0] <= ink.mean() <= _TEXT[1] and strokes.max() >= _STROKES)


def _sharpest_row(strip: NDArray[Any], top: int, *, line: int) -> int:
    """Return the row near `top` where the picture ends: compression smears an edge over a block of 8 rows.

    It is below the strongest step, or below one of (nearly) the whole width just above that: a line borders the bar.
    """
    start = max(0, top - 8 - line)
    steps = np.abs(np.diff(strip[start : top + 3].astype(np.int16), axis=0))
    first = len(steps) - min(len(steps), 10)
    strongest = first + int(steps[first:].mean(axis=1).argmax())
    nearest = max(0, strongest - line)
    is_full = (steps[nearest : strongest + 1] > _JPEG_STEP).mean(axis=1) >= _JPEG_LINE
    return start + 1 + (nearest + int(is_full.argmax()) if is_full.any() else strongest)


def _with_border(strip: NDArray[Any], top: int, *, line: int) -> int:
    """Return where a line above the bar begins, or `top`: rows of one value, no more than `line` of them."""
    start = top
    while start > 0 and top - start <= line:
        row = strip[start - 1 : start]
        if _share(row, float(np.median(row)), 0)[0] < _CLEAN_ROW:
            return start
        start -= 1
    return top


def _is_edge(strip: NDArray[Any], top: int, *, ground: float, tolerance: int) -> bool:
    """Whether the picture ends at `top` across the whole width."""
    if tolerance == 0:
        spread = float(strip.max()) - float(strip.min())
        return bool(np.abs(strip[top - 1] - ground).mean() >= _STEP * spread)
    step = np.abs(strip[top - 1].astype(np.int16) - strip[top + 1])
    return bool((step > _JPEG_STEP).mean() >= _JPEG_EDGE)


FINDERS: dict[str, Callable[[NDArray[Any]], int]] = {INFO_BAR: find_info_bar}
"""By what a space records. A changed search gets another name, for it gives other pixels."""
