"""A picture with heat maps beside it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heads import add_title

SIDE_INCHES = 2.6
DPI = 110
TOP_PERCENTILE = 99.0  # heat above is shown as the hottest: a few pixels would leave all others cold
OPACITY = 0.55
LEGEND = "orange to yellow: speaks for it; blue: against it"
LEGEND_OF_NUMBERS = "orange to yellow: makes the value greater; blue: less"
# Okabe and Ito 2008, "Color universal design": told apart with any kind of colour vision
ORANGE, YELLOW, BLUE = (np.array(colour) / 255 for colour in ((213, 94, 0), (240, 228, 66), (0, 114, 178)))


def draw_overlays(
    path: Path,
    picture: NDArray[np.uint8],
    heats: Mapping[str, NDArray[np.float32]],
    title: str,
    *,
    is_number: bool = False,
) -> None:
    """Write a PNG: the picture, and a grey copy under each heat map; and what the colours mean.

    Args:
        path: The file.
        picture: uint8 ``(h, w, 3)``, what the network saw.
        heats: float32 ``(h, w)`` by name.
        title: Above.
        is_number: A value is explained, not a class.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIDE_INCHES * (1 + len(heats)), SIDE_INCHES + 0.7), dpi=DPI, layout="constrained")
    add_title(figure, title)
    axes = figure.subplots(1, 1 + len(heats), squeeze=False)[0]
    for axis, (name, heat) in zip(axes, {"what the network saw": None, **heats}.items(), strict=True):
        axis.imshow(picture if heat is None else _grey(picture))
        axis.set_title(name, fontsize=8)
        axis.set_axis_off()
        if heat is not None:
            axis.imshow(coloured(heat))
    if heats:
        figure.supxlabel(LEGEND_OF_NUMBERS if is_number else LEGEND, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(path)  # type: ignore[no-untyped-call]


def _grey(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture without its colours, which are not to be taken for heat."""
    return np.repeat(picture.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)


def coloured(heat: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return a heat map as colours with opacity, float64 ``(h, w, 4)``; nothing where it is 0."""
    top = float(np.percentile(np.abs(heat), TOP_PERCENTILE)) or float(np.abs(heat).max()) or 1.0
    share = np.clip(heat / top, -1, 1)
    hot = np.clip(2 * share - 1, 0, 1)[..., None]  # of what speaks for it the upper half
    colour = np.where(share[..., None] < 0, BLUE, (1 - hot) * ORANGE + hot * YELLOW)
    return np.concatenate([colour, OPACITY * np.abs(share)[..., None]], axis=-1)
