"""How large a pixel is: read from what the microscope or ImageJ wrote into an image file, never from its pixels.

Resolution in dots per inch or per centimetre is no scale: programs write 72 or 96 there whatever the microscope did. So
the TIFF resolution tags count only where ImageJ names a unit of length for them, and never with inch or centimetre,
which ImageJ copies from files that had nothing better.
"""

import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from store.dataset import ImageRef
from store.errors import InputError
from store.threads import in_threads
from store.units import NM_PER_UNIT, nm_per

Tag = Literal["nm_per_px", "magnification"]
Found = tuple[float | None, float | None]
"""Pixel size in nm, magnification; None for what is not there."""

_TIFF_MAGIC = {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}
_DAMAGED = (OSError, ValueError, IndexError, KeyError, TypeError, struct.error)
_X_RESOLUTION, _Y_RESOLUTION = 282, 283
_NOTHING: Found = (None, None)


@dataclass(frozen=True)
class Scale:
    """What a file says about its scale; None for what it does not say.

    Attributes:
        nm_per_px: Pixel size. Where width and height of a pixel differ their geometric mean, which keeps areas exact.
        magnification: As the instrument states it, so relative to its own screen or print.
        source: Names of the `SOURCES` it was found in, or "".
    """

    nm_per_px: float | None = None
    magnification: float | None = None
    source: str = ""


def read_scale(path: Path, page: int | None = None) -> Scale:
    """Return the scale that an image file, or a text file beside it, states. No pixel is decoded.

    Microscopes write it into the page they mean, so a page without is not given its neighbour's; OME and ImageJ
    describe all pages in the first. A file that is missing or damaged states nothing: `check` and `extract` report it.

    Args:
        path: The image.
        page: Of a multi-page TIFF, counted from 0; None for the first page that is no thumbnail.
    """
    found = {**_read_tiff(path, page), "Hitachi": _hitachi(path)}
    sizes = [(name, size) for name, (size, _) in found.items() if size is not None]
    magnifications = [(name, value) for name, (_, value) in found.items() if value is not None]
    first = [*sizes[:1], *magnifications[:1]]
    return Scale(
        sizes[0][1] if sizes else None,
        magnifications[0][1] if magnifications else None,
        ", ".join(dict.fromkeys(name for name, _ in first)),
    )


def read_scales(refs: Sequence[ImageRef | None], tag: Tag) -> NDArray[np.float64]:
    """Return one value per image, float64 ``(n,)``, NaN where there is no image or it does not state the value.

    Raises:
        InputError: No image states it.
    """
    distinct = list({ref for ref in refs if ref is not None})
    read = in_threads(
        lambda ref: getattr(read_scale(ref.path, ref.page), tag), distinct
    )  # hides the latency of a network drive
    found = dict(zip(distinct, read, strict=True))
    values = [None if ref is None else found[ref] for ref in refs]
    if all(value is None for value in values):
        example = f", {distinct[0].path.name} for one" if distinct else ""
        raise InputError(
            f"none of {len(distinct)} images states its {tag}{example}: looked for {', '.join(SOURCES)} metadata in "
            "the file, and for Hitachi's text file beside it (dots per inch are no scale); use column or pattern"
        )
    return np.array([math.nan if value is None else value for value in values])


def _read_tiff(path: Path, page: int | None) -> dict[str, Found]:
    """Return what each source states, in the order of `SOURCES`: who wrote the file last comes first."""
    try:
        with path.open("rb") as file:
            if file.read(4) not in _TIFF_MAGIC:
                return {}
        with tifffile.TiffFile(path, _multifile=False) as tiff:
            index = next((k for k, p in enumerate(tiff.pages) if not p.is_reduced), 0) if page is None else page
            return {name: read(tiff, index) for name, read in SOURCES.items()}
    except _DAMAGED:
        return {}


def _ome(tiff: tifffile.TiffFile, index: int) -> Found:
    """PhysicalSizeX and Y of the OME image that the page belongs to; µm by default (OME schema 2016-06, Pixels)."""
    text = tiff.pages.first.description.strip()
    if not text.startswith("<") or "OME" not in text:
        return _NOTHING
    try:
        parts = [part for part in ElementTree.fromstring(text).iter() if _local(part) == "Pixels"]
    except ElementTree.ParseError:
        return _NOTHING
    pixels = parts[0] if len(parts) == 1 else next((part for part in parts if _holds_page(part, index)), None)
    if pixels is None:
        return _NOTHING
    sizes = [
        _times(_number(pixels.get(f"PhysicalSize{axis}")), nm_per(pixels.get(f"PhysicalSize{axis}Unit", "um")))
        for axis in "XY"
    ]
    return _one_size(*sizes), None


def _local(part: ElementTree.Element) -> str:
    return str(part.tag).rpartition("}")[2]


def _holds_page(pixels: ElementTree.Element, index: int) -> bool:
    """Whether a TiffData of an OME image covers the page: from IFD on, PlaneCount pages, one by default."""
    spans = [(int(p.get("IFD", 0)), int(p.get("PlaneCount", 1))) for p in pixels if _local(p) == "TiffData"]
    return any(first <= index < first + count for first, count in spans)


def _imagej(tiff: tifffile.TiffFile, index: int) -> Found:  # noqa: ARG001 - ImageJ has one scale per file
    """Pixels per `unit` in the resolution tags (ImageJ's ij/io/TiffEncoder.java and ij/io/FileSaver.java)."""
    page = tiff.pages.first
    if not page.description.startswith("ImageJ="):
        return _NOTHING
    units = dict(re.findall(r"^(y?unit)=(.*)$", page.description, re.MULTILINE))
    x_unit = units.get("unit")
    sizes = [
        _times(_inverse(page.tags.valueof(tag)), nm_per(unit))
        for tag, unit in ((_X_RESOLUTION, x_unit), (_Y_RESOLUTION, units.get("yunit", x_unit)))
    ]
    return _one_size(*sizes), None


def _fei(tiff: tifffile.TiffFile, index: int) -> Found:
    """FEI and Thermo Fisher: PixelWidth and PixelHeight in m; the magnification is the canvas over the field's width.

    Tags 34680 (FEI_SFEG) and 34682 (FEI_HELIOS) as tifffile parses them; the same fields are read by RosettaSciIO
    (rsciio/tiff/_api.py) and by NOMAD (MagCanvasRealWidth / HorFieldsize).
    """
    tags = tiff.pages[index].tags
    parts = tags.valueof(34682, tags.valueof(34680))
    if not isinstance(parts, dict):
        return _NOTHING
    scan: Mapping[str, Any] = next((parts[name] for name in ("Scan", "EScan", "IScan") if name in parts), {})
    sizes = [_times(_number(scan.get(name)), NM_PER_UNIT["m"]) for name in ("PixelWidth", "PixelHeight")]
    width, canvas = _number(scan.get("HorFieldsize")), _number(parts.get("Image", {}).get("MagCanvasRealWidth"))
    return _one_size(*sizes), canvas / width if canvas and width else None


def _zeiss(tiff: tifffile.TiffFile, index: int) -> Found:
    """Zeiss SmartSEM: tag 34118 (CZ_SEM) as tifffile parses it: {"ap_mag": ("Mag", "10.00 K X"), …}."""
    page = tiff.pages[index]
    fields = page.tags.valueof(34118)
    if not isinstance(fields, dict):
        return _NOTHING
    size = _length(fields.get("ap_image_pixel_size"))
    if size is None and (width := _length(fields.get("ap_width"))) is not None:  # older versions: the field's width
        size = width / page.imagewidth
    stated = " ".join(str(part) for part in fields.get("ap_mag", ("", ""))[1:])
    number, kilo = (re.match(r"([\d.]+)\s*(K?)", stated) or re.match("()()", "")).groups()  # type: ignore[union-attr]
    return size, _times(_number(number), 1e3 if kilo else 1.0)


def _length(field: Sequence[Any] | None) -> float | None:
    """Return nm of a field such as ("Image Pixel Size", 558.2, "pm")."""
    return _times(_number(field[1]), nm_per(field[2])) if field and len(field) == 3 else None


def _hitachi(path: Path) -> Found:
    """Hitachi: NAME.txt beside the image, PixelSize in nm (Bio-Formats, HitachiReader.java), ASCII or UTF-16."""
    try:
        data = path.with_suffix(".txt").read_bytes()
    except (OSError, ValueError):
        return _NOTHING
    text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1", errors="replace")
    if not re.search(r"^\s*\[(Sem|Tem)ImageFile\]", text, re.MULTILINE):
        return _NOTHING
    fields = dict(re.findall(r"^(PixelSize|Magnification)\s*=\s*(\S+)", text, re.MULTILINE))
    return _number(fields.get("PixelSize")), _number(fields.get("Magnification"))


SOURCES: dict[str, Callable[[tifffile.TiffFile, int], Found]] = {
    "OME": _ome,
    "ImageJ": _imagej,
    "FEI/Thermo": _fei,
    "Zeiss": _zeiss,
}


def _number(value: object) -> float | None:
    """Return a positive finite number, or None."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if 0 < number < math.inf else None


def _inverse(rational: Any) -> float | None:
    """Return b / a of a TIFF rational (a, b)."""
    return rational[1] / rational[0] if rational and rational[0] and rational[1] else None


def _times(value: float | None, factor: float | None) -> float | None:
    return None if value is None or factor is None else value * factor


def _one_size(x: float | None, y: float | None) -> float | None:
    """Return the geometric mean; the width alone where no height is stated."""
    return x if x is None or y is None else math.sqrt(x * y)
