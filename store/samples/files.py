"""Writing a sample's files: each appears whole or not at all, and its bytes depend on its content alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tifffile
from numpy.typing import NDArray
from PIL import Image


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 with Unix line ends."""
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8", newline="\n")
    part.replace(path)


def write_image(path: Path, draw: Callable[[], NDArray[Any]], **settings: Any) -> None:
    """Write an image in the format that the path's ending names; one that is there is left, and not drawn.

    Args:
        path: ``.tif``, ``.png`` or ``.jpg``; folders are made.
        draw: Returns uint8 ``(h, w)`` or ``(h, w, 3)``; uint16 ``(h, w)`` for ``.tif``.
        settings: Of the format, such as ``quality`` of a ``.jpg``.
    """
    if path.exists():
        return
    pixels = draw()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    if path.suffix == ".tif":
        tifffile.imwrite(part, pixels, metadata=None, software=False, **settings)
    else:
        Image.fromarray(pixels).save(part, "png" if path.suffix == ".png" else "jpeg", **settings)
    part.replace(path)
