"""A picture with heat maps beside it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIDE_INCHES = 2.6
DPI = 110
TOP_PERCENTILE = 99.0  # heat above is shown as the hottest: a few pixels would leave all others cold
OPACITY = 0.5
LEGEND = "red to yellow: speaks for it; blue: against it"


def draw_overlays(path: Path, picture: NDArray[np.uint8], heats: Mapping[str, NDArray[np.float32]], title: str) -> None:
    """Write a PNG: the picture, and a copy under each heat map; and what the colours mean.

    Args:
        path: The file.
        picture: uint8 ``(h, w, 3)``, what the network saw.
        heats: float32 ``(h, w)`` by name.
        title: Above.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIDE_INCHES * (1 + len(heats)), SIDE_INCHES + 0.7), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=9)
    axes = figure.subplots(1, 1 + len(heats), squeeze=False)[0]
    for axis, (name, heat) in zip(axes, {"what the network saw": None, **heats}.items(), strict=True):
        axis.imshow(picture)
        axis.set_title(name, fontsize=8)
        axis.set_axis_off()
        if heat is not None:
            axis.imshow(coloured(heat))
    if heats:
        figure.supxlabel(LEGEND, fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(path)  # type: ignore[no-untyped-call]


def coloured(heat: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return a heat map as colours with opacity, float64 ``(h, w, 4)``; nothing where it is 0."""
    top = float(np.percentile(np.abs(heat), TOP_PERCENTILE)) or float(np.abs(heat).max()) or 1.0
    share = np.clip(heat / top, -1, 1)
    red, blue = np.maximum(share, 0), np.maximum(-share, 0)
    yellow = np.clip(2 * red - 1, 0, 1)  # hottest of all
    return np.stack([np.where(share > 0, 1.0, 0.0), yellow, np.where(share < 0, 1.0, 0.0), OPACITY * (red + blue)], -1)
