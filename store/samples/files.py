"""Writing a sample's files: each appears whole or not at all, and its bytes depend on its content alone."""

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


def write_image(path: Path, pixels: NDArray[Any], **settings: Any) -> None:
    """Write pixels in the format that the path's ending names; folders are made.

    Args:
        path: ``.tif``, ``.png`` or ``.jpg``.
        pixels: uint8 ``(h, w)`` or ``(h, w, 3)``; uint16 ``(h, w)`` for ``.tif``.
        settings: Of the format, such as ``quality`` of a ``.jpg``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    if path.suffix == ".tif":
        tifffile.imwrite(part, pixels, metadata=None, software=False, **settings)
    else:
        Image.fromarray(pixels).save(part, "png" if path.suffix == ".png" else "jpeg", **settings)
    part.replace(path)
