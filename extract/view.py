"""From decoded pixels to what an encoder of a feature space takes: crop, view, turns, tiles, stack."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from extract.convert import to_8bit
from extract.decode import Image8, ImageError, Pixels
from extract.infobar import FINDERS
from extract.perturb import perturb
from extract.spectrum import spectrum_image
from extract.tiles import cut, turned
from store import Crop, is_one_crop


def crop(pixels: Pixels, bottom: Crop) -> Pixels:
    """Return the image without its lowest rows: so many, or as many as an info bar is found to have.

    Raises:
        ImageError: Nothing would be left.
    """
    bottom_px = FINDERS[bottom](pixels) if isinstance(bottom, str) else bottom
    if bottom_px >= len(pixels):
        raise ImageError(f"has {len(pixels)} rows of pixels; crop_bottom_px = {bottom_px} leaves none")
    return pixels[: len(pixels) - bottom_px]


def render(images: Sequence[Pixels], settings: Mapping[str, Any]) -> Any:
    """Return what an encoder's `prepare` takes.

    The order is: crop; convert and perturb the whole image; turn; cut into tiles; stack. A spectrum is taken of every
    tile of the full-depth pixels, not cut from that of the whole.

    Args:
        images: The decoded file; of a stack, one for each part.
        settings: `view_settings` of a block or space.

    Returns:
        uint8 (h, w) or (h, w, 3), of a stack (h, w, 3 p); with tiles or turns a list of turns, each a list of tiles.

    Raises:
        ImageError: It cannot be cropped, converted, cut or stacked; the message says why.
    """
    parts = seen_parts(settings)
    cropped = [crop(pixels, part["crop_bottom_px"]) for pixels, part in zip(images, parts, strict=True)]
    whole = [whole_picture(pixels, part) for pixels, part in zip(cropped, parts, strict=True)]
    _check_sizes(whole)
    if is_one_crop(settings):
        return join_pictures(whole, parts)
    columns = [[cut(turn, settings) for turn in turned(pixels, settings["turns"])] for pixels in whole]
    return [[join_pictures(tiles, parts) for tiles in zip(*turns, strict=True)] for turns in zip(*columns, strict=True)]


def seen_parts(settings: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the settings of each part of a stack; of another block its own."""
    return settings["stack"] or [settings]


def whole_picture(pixels: Pixels, part: Mapping[str, Any]) -> Pixels:
    """Return the cropped pixels converted and perturbed as a part says; of a spectrum to be, at their full depth."""
    if part["view"] == "fourier":
        return pixels
    converted = to_8bit(pixels, part["convert"])
    return converted if part["view"] == "plain" else perturb(converted, part["view"])


def join_pictures(images: Sequence[Pixels], parts: Sequence[Mapping[str, Any]]) -> Image8:
    """Return the 8-bit image of whole pictures or tiles: spectra taken, channels side by side for a stack.

    Raises:
        ImageError: The parts of a stack differ in size.
    """
    found = [
        spectrum_image(pixels) if part["view"] == "fourier" else pixels
        for pixels, part in zip(images, parts, strict=True)
    ]
    return found[0] if len(found) == 1 else _stacked(found)


def _check_sizes(images: Sequence[Pixels]) -> None:
    sizes = list(dict.fromkeys(pixels.shape[:2] for pixels in images))
    if len(sizes) > 1:
        shown = " and ".join(f"{h} x {w}" for h, w in sizes)
        raise ImageError(f"cannot be stacked: its images have {shown} px after the crop; they are to be of one size")


def _stacked(images: Sequence[Image8]) -> Image8:
    _check_sizes(images)  # a spectrum is square
    rgb = [np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image for image in images]
    return np.concatenate(rgb, axis=2)
