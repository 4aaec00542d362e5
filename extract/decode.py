"""Read an image file: its exact values, or one clear reason why it cannot be read.

The format is told by the content, never by the name. 8-bit results equal Pillow's, value for value; deeper ones are
the file's own numbers. A file that ends early or whose checksums fail is refused, never half read. Alpha is dropped
(not blended) and a JPEG's EXIF orientation is not applied: both as `Image.open(path).convert("RGB")` does, which is
what timm and torchvision feed to a backbone.
"""

import io
import mmap
import re
import stat
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from extract.tiff import Buffer, CutShortError, TiffPage, tiff_pages, unpack

Pixels = NDArray[Any]
"""An image's values as its file has them: uint8, uint16 or float32, (h, w) or (h, w, 3)."""
Image8 = NDArray[np.uint8]
"""An image in 8 bits, (h, w) or (h, w, 3); of a stack (h, w, 3 p)."""

MAX_PIXELS = 512 * 2**20  # 512 megapixels: a larger header is damage or an attack, and is refused before allocating
_MMAP_BYTES = 64 * 2**20  # larger files are mapped, so that one page of a stack does not cost reading all of it
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # ITU-T T.81, table B.1: SOF0 to SOF15
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # T.81, B.1.1.5: what cannot stand inside coded data
_TIFF_NOT_IN_LIBTIFF = {33003, 33004, 33005, 34712, 50002, 52546}  # JPEG 2000 and JPEG XL, which tifffile reads
_DECODE_ERRORS = (RuntimeError, ValueError, IndexError, OSError, TypeError, KeyError, Image.DecompressionBombError)


class ImageError(Exception):
    """An image that cannot be read or converted; the message is the reason, without the path."""


class NoFileError(ImageError):
    """There is no file, or it cannot be opened."""


def read_image(path: Path, page: int | None = None) -> NDArray[Any]:
    """Return the values of an image file (tif, png, jpg, bmp).

    1, 2 and 4 bits become 0 to 255 as in Pillow; 8 bits stay uint8; 9 to 16 bits become uint16 unscaled. Signed and
    wider integers become uint16 where they fit and else float32 where that is exact. Float16 and float32 stay exact,
    float64 is rounded to float32. Where white is stored as zero (TIFF), values are inverted, so that high is bright.

    Args:
        path: The file.
        page: Which page of a multi-page TIFF, from 0; None for a file of one page.

    Returns:
        uint8, uint16 or float32, (h, w) or (h, w, 3); writable and contiguous.

    Raises:
        ImageError: The file is missing, damaged, cut short, too large, of another format, or has NaN or infinite
            pixels, or the page is not in it.
    """
    data = _read_file(path)
    decode = next((function for magic, function in DECODERS.items() if data[: len(magic)] == magic), None)
    if decode is None:
        raise ImageError(
            "is no tif, png, jpg or bmp: its first bytes belong to no format that is read here; convert it to png"
        )
    try:
        pixels = decode(data, page)
    except (CutShortError, struct.error):
        raise ImageError("is cut short: the file ends before the image does") from None
    except MemoryError:
        raise ImageError("does not fit into memory") from None
    except _DECODE_ERRORS as error:
        raise ImageError(_reason(error)) from None
    return np.ascontiguousarray(_plain_dtype(_drop_alpha(pixels)))


def _reason(error: Exception) -> str:
    text = str(error)
    if "truncated" in text:
        return "is cut short: the file ends before the image does"
    return f"is damaged: {text if text and 'BytesIO' not in text else 'its pixels cannot be decoded'}"


def _read_file(path: Path) -> Buffer:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise NoFileError("is a folder, not a file" if stat.S_ISDIR(status.st_mode) else "is not a regular file")
        if status.st_size == 0:
            raise ImageError("is empty (0 bytes)")
        with path.open("rb") as file:
            if status.st_size < _MMAP_BYTES:
                return file.read()
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise NoFileError("does not exist") from None
    except PermissionError:
        raise NoFileError("may not be read: permission denied") from None
    except OSError as error:
        raise NoFileError(f"cannot be read: {error.strerror}") from None


def _decode_png(data: Buffer, page: int | None) -> NDArray[Any]:
    """Check every chunk that carries pixels, then decode; libpng itself reads no further than the last row."""
    _choose_page([0], page)
    width, height = unpack(">II", data, 16)
    _check_size(width, height)
    at, kind, view = 8, b"", memoryview(data)
    while kind != b"IEND":
        length, kind = unpack(">I4s", data, at)
        (checksum,) = unpack(">I", data, at + 8 + length)
        is_critical = not kind[0] & 0x20  # PNG specification, 5.4: an ancillary chunk never decides a pixel
        if is_critical and zlib.crc32(view[at + 4 : at + 8 + length]) != checksum:
            raise ImageError(f"is damaged: the checksum of PNG chunk {kind.decode('latin-1')} at byte {at} is wrong")
        at += 12 + length
    pixels: NDArray[Any] = imagecodecs.png_decode(data)
    return pixels


def _decode_jpeg(data: Buffer, page: int | None) -> NDArray[Any]:
    """Decode with libjpeg-turbo's accurate DCT and smooth chroma upsampling, Pillow's settings."""
    _choose_page([0], page)
    if _check_jpeg(data) == 4:  # CMYK or YCCK: Pillow knows Adobe's inverted inks
        return _decode_pillow(data)
    pixels: NDArray[Any] = imagecodecs.jpeg8_decode(data)
    return pixels


def _check_jpeg(data: Buffer) -> int:
    """Walk the segments to the end marker (libjpeg fills what is missing with grey) and return the components."""
    at, components = 2, 0
    while True:
        (prefix, marker) = unpack(">BB", data, at)
        if prefix != 0xFF:
            raise ImageError(f"is damaged: no JPEG marker at byte {at}")
        if marker == _JPEG_END:
            return components
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        (length,) = unpack(">H", data, at + 2)
        if marker in _JPEG_FRAMES:
            height, width, components = unpack(">HHB", data, at + 5)
            _check_size(width, height)
        at += 2 + length
        if marker == _JPEG_SCAN:
            found = _JPEG_MARKER.search(data, at)
            if found is None:
                raise CutShortError
            at = found.start()


def _decode_bmp(data: Buffer, page: int | None) -> NDArray[Any]:
    _choose_page([0], page)
    if unpack("<I", data, 14)[0] >= 40:  # the header of OS/2 1.x has 16-bit sizes, which cannot be too large
        width, height = unpack("<ii", data, 18)
        _check_size(width, abs(height))
    return _decode_pillow(data)


def _decode_pillow(data: Buffer) -> NDArray[Any]:
    """Decode formats that never hold more than 8 bits per channel."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("L" if image.mode in ("1", "L") else "RGB"))


def _decode_tiff(data: Buffer, page: int | None) -> NDArray[Any]:
    pages = tiff_pages(data)
    index = _choose_page([k for k, p in enumerate(pages) if not p.is_reduced] or [0], page, n_pages=len(pages))
    chosen = pages[index]
    _check_size(chosen.width, chosen.height)
    _check_tiff(chosen, len(data), n_pages=len(pages))
    pixels: NDArray[Any]
    if chosen.compression in _TIFF_NOT_IN_LIBTIFF:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            pixels = file.pages[index].asarray()
    else:
        pixels = imagecodecs.tiff_decode(data, index=index)
    if pixels.ndim == 3 and chosen.is_planar:
        pixels = np.moveaxis(pixels, 0, -1)
    return _tiff_brightness(pixels, chosen)


def _check_tiff(page: TiffPage, n_bytes: int, *, n_pages: int) -> None:
    if page.last_byte > n_bytes:
        raise CutShortError
    if page.n_imagej > n_pages:
        raise ImageError(f"is an ImageJ stack of {page.n_imagej} images behind one TIFF page; save them as pages")
    if page.photometric not in (0, 1, 2, 3, 5, 6) or (page.photometric in (5, 6) and page.bits > 8):
        raise ImageError(f"has TIFF colour model {page.photometric} at {page.bits} bits; save it as grey or RGB")
    if page.n_colours not in (1, 3) and page.photometric != 5:
        raise ImageError(
            f"has {page.n_colours} channels per pixel; one (grey) or three (RGB) are read, and alpha dropped"
        )


def _tiff_brightness(pixels: NDArray[Any], page: TiffPage) -> NDArray[Any]:
    """Turn palette indices, bits and inverted values into values where high is bright."""
    if page.photometric == 3:
        return page.palette()[pixels.astype(np.uint8)]
    if page.bits in (1, 2, 4):
        pixels = pixels.astype(np.uint8) * np.uint8(255 // (2**page.bits - 1))
    if page.photometric != 0:
        return pixels
    if pixels.dtype.kind != "u":
        raise ImageError(f"stores white as zero in {pixels.dtype} values; save it with black as zero")
    top = pixels.dtype.type(255 if page.bits < 8 else 2**page.bits - 1)
    inverted: NDArray[Any] = top - pixels
    return inverted


def _choose_page(full: list[int], page: int | None, *, n_pages: int = 1) -> int:
    """Return the page to read. `full` are the pages of full resolution: a thumbnail is no page to choose from."""
    if page is None and len(full) == 1:
        return full[0]
    if page is None:
        raise ImageError(f"has {n_pages} pages; name one with page = 0 … {n_pages - 1}, as file.tif#0 in the table")
    if not 0 <= page < n_pages:
        raise ImageError(f"has {n_pages} page{'s' * (n_pages > 1)}, counted from 0; page {page} is not one of them")
    return page


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"has no pixels: its header says {width} x {height}")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"is too large: its header says {width} x {height}, and at most {MAX_PIXELS:,} pixels are read"
        )


def _drop_alpha(pixels: NDArray[Any]) -> NDArray[Any]:
    if pixels.ndim == 2:
        return pixels
    if pixels.ndim != 3 or pixels.shape[2] > 4:
        raise ImageError(f"has values of shape {pixels.shape}; grey or RGB is read")
    return pixels[..., :3] if pixels.shape[2] > 2 else pixels[..., 0]


def _plain_dtype(pixels: NDArray[Any]) -> NDArray[Any]:
    """Bring any number type to uint8, uint16 or float32 without changing what it says."""
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    if pixels.dtype.kind in "iu":
        return _plain_integers(pixels)
    if pixels.dtype.kind != "f":
        raise ImageError(f"has {pixels.dtype} values; integers and real numbers are read")
    n_bad = pixels.size - int(np.count_nonzero(np.isfinite(pixels)))
    if n_bad:
        raise ImageError(f"has {n_bad} NaN or infinite pixel{'s' * (n_bad > 1)}")
    return pixels if pixels.dtype == np.float32 else _rounded(pixels)


def _plain_integers(pixels: NDArray[Any]) -> NDArray[Any]:
    low, high = int(pixels.min()), int(pixels.max())
    if low >= 0 and high < 2**16:
        return pixels.astype(np.uint8 if pixels.dtype.itemsize == 1 else np.uint16)
    if max(-low, high) > 2**24 and (pixels.astype(np.float32).astype(np.float64) != pixels).any():
        raise ImageError(
            f"has {pixels.dtype} values of {low} to {high}, which float32 cannot hold exactly; rescale them"
        )
    return pixels.astype(np.float32)


def _rounded(pixels: NDArray[Any]) -> NDArray[Any]:
    """Round float64 to float32, unless that costs more than 1/65536 of the image's contrast."""
    low, high = float(pixels.min()), float(pixels.max())
    if max(-low, high) > float(np.finfo(np.float32).max):
        raise ImageError(f"has values of {low:g} to {high:g}, beyond float32; rescale them")
    rounded = pixels.astype(np.float32)
    if np.abs(rounded - pixels).max() > (high - low) / 2**16 > 0:
        raise ImageError(f"has values of {low!r} to {high!r}, too close together for float32; subtract their offset")
    return rounded


DECODERS: dict[bytes, Callable[[Buffer, int | None], NDArray[Any]]] = {
    b"\x89PNG\r\n\x1a\n": _decode_png,
    b"\xff\xd8\xff": _decode_jpeg,
    b"BM": _decode_bmp,
    b"II*\0": _decode_tiff,
    b"MM\0*": _decode_tiff,
    b"II+\0": _decode_tiff,
    b"MM\0+": _decode_tiff,
}
