"""timm's standard evaluation transform up to normalisation, three to seven times faster than through Pillow.

Equal to ``timm.data.create_transform`` on a Pillow image within one level (two at a few pixels in a million): the
arithmetic is torch's antialiased uint8 kernel, which rounds as Pillow does, always across before down. Recent Pillows
choose the order by its cost; at edges of pure black and white, where bicubic overshoots and is clipped, that shows.

The kernel is vectorised for interleaved pixels of 3 or 4 channels only, so a grey image is turned on its side and
read as pixels of four, one pass per direction: three times faster than the kernel's own way with one channel.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image

from extract.decode import Image8
from store import InputError

Size = tuple[int, int]  # (h, w), pixels

INTERPOLATIONS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
CROP_MODES = ("center", "squash", "border")  # timm/data/transforms_factory.py, transforms_imagenet_eval
_NARROW = 8  # from this aspect ratio on, only what survives the crop is resized: a 3 x 9000 strip would fill memory


def prepare_image(pixels: Image8, preprocess: Mapping[str, Any]) -> Image8:
    """Return the pixels a network sees, uint8 ``(*input_px, 3)``, of one image ``(h, w)`` or ``(h, w, 3)``.

    Of a stack of p images both have 3 p channels.
    """
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return resize_rgb(pixels, preprocess)
    images = np.split(pixels, pixels.shape[2] // 3, axis=2)
    return np.concatenate([resize_rgb(image, preprocess) for image in images], axis=2)


def resize_rgb(pixels: Image8, preprocess: Mapping[str, Any]) -> Image8:
    """Resize and crop to what a backbone takes.

    Args:
        pixels: uint8, (h, w) or (h, w, 3).
        preprocess: `input_px` (h, w); `resize_px`, the shorter side before the crop, or (h, w); `crop_mode`, one of
            `CROP_MODES`; `interpolation`, one of `INTERPOLATIONS`; `mean`, the border's colour in mode border.

    Returns:
        uint8, (*input_px, 3); the three channels of a grey image are equal.

    Raises:
        InputError: `crop_mode` or `interpolation` is none of those.
    """
    mode, interpolation = preprocess["crop_mode"], preprocess["interpolation"]
    if mode not in CROP_MODES:
        raise InputError(f"crop_mode {mode!r} is not one of {', '.join(CROP_MODES)}")
    if interpolation not in INTERPOLATIONS:
        raise InputError(f"interpolation {interpolation!r} is not one of {', '.join(INTERPOLATIONS)}")
    height, width = preprocess["input_px"]
    size = _scaled_size(pixels.shape[:2], preprocess["resize_px"], mode)
    is_narrow = max(pixels.shape[:2]) > _NARROW * min(pixels.shape[:2])
    if is_narrow and mode == "center" and min(size) >= max(height, width):
        resized = _resize_box(pixels, size, crop=(height, width), interpolation=interpolation)
    else:
        resized = _resize(pixels, size, interpolation)
    fill = [round(255 * v) for v in preprocess["mean"]] if mode == "border" else [0, 0, 0]
    return _centre(resized, (height, width), fill)


def _scaled_size(shape: Sequence[int], resize_px: int | Sequence[int], mode: str) -> Size:
    """Return (h, w) after the resize, rounded as torchvision (one side given) or timm (two sides) does."""
    target = (resize_px, resize_px) if isinstance(resize_px, int) else (resize_px[0], resize_px[1])
    if mode == "squash":
        return target
    height, width = shape[0], shape[1]
    if mode == "center" and target[0] == target[1]:
        long = int(target[0] * max(height, width) / min(height, width))
        return (target[0], long) if height <= width else (long, target[0])
    ratios = (height / target[0], width / target[1])
    ratio = max(ratios) if mode == "border" else min(ratios)
    return round(height / ratio), round(width / ratio)


def _resize(pixels: Image8, size: Size, interpolation: str) -> Image8:
    if size == pixels.shape[:2]:
        return pixels
    if pixels.ndim == 3:
        return _interpolate(pixels, size, interpolation)
    height, width = size
    across = _resize_rows(_on_its_side(pixels), width, interpolation)[:, : pixels.shape[0]]
    return _resize_rows(_on_its_side(across), height, interpolation)[:, :width]


def _on_its_side(grey: Image8) -> Image8:
    """Return a grey (h, w) image as (w, h rounded up to a multiple of 4); what fills the last columns is unused."""
    height, width = grey.shape
    turned = np.empty((width, -(-height // 4) * 4), np.uint8)
    cv2.transpose(grey, turned[:, :height])
    return turned


def _resize_rows(grey: Image8, height: int, interpolation: str) -> Image8:
    """Resize a grey (h, w) image, w a multiple of 4, to (height, w): its columns never meet, so four are a pixel."""
    width = grey.shape[1]
    return _interpolate(grey.reshape(len(grey), width // 4, 4), (height, width // 4), interpolation).reshape(-1, width)


def _interpolate(pixels: Image8, size: Size, interpolation: str) -> Image8:
    """Resize (h, w, 3 or 4)."""
    import torch  # two seconds, and not needed by workers that only take textures

    planes = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(planes, size=size, mode=interpolation, antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def _resize_box(pixels: Image8, size: Size, *, crop: Size, interpolation: str) -> Image8:
    """Resize only the centre that the crop keeps: Pillow takes a box in fractions of a pixel, here per direction."""
    (top, bottom), (left, right) = (
        _source(old, new, kept) for old, new, kept in zip(pixels.shape[:2], size, crop, strict=True)
    )
    margin = 3 * max(1.0, pixels.shape[0] / size[0])  # more than the kernels' reach
    first = max(0, int(top - margin))
    rows = Image.fromarray(pixels[first : int(bottom + margin) + 1])
    method = INTERPOLATIONS[interpolation]
    across = rows.resize((crop[1], rows.height), method, box=(left, 0, right, rows.height))
    return np.asarray(across.resize(crop[::-1], method, box=(0, top - first, crop[1], bottom - first)))


def _source(old_px: int, new_px: int, kept_px: int) -> tuple[float, float]:
    """Return where the kept centre of a resized side begins and ends before the resize."""
    start, scale = _start(new_px, kept_px), old_px / new_px
    return start * scale, min((start + kept_px) * scale, old_px)


def _start(full_px: int, crop_px: int) -> int:
    return round((full_px - crop_px) / 2)  # torchvision center_crop: int(round(...)), half to even


def _centre(pixels: Image8, size: Size, fill: Sequence[int]) -> Image8:
    """Crop or pad to `size` around the centre, in three channels."""
    height, width = (min(full, wanted) for full, wanted in zip(pixels.shape[:2], size, strict=True))
    top, left = _start(pixels.shape[0], height), _start(pixels.shape[1], width)
    kept = pixels[top : top + height, left : left + width]
    if kept.ndim == 2:
        kept = cv2.cvtColor(kept, cv2.COLOR_GRAY2RGB).astype(np.uint8, copy=False)
    if (height, width) == size:
        return np.ascontiguousarray(kept)
    padded = np.full((*size, 3), fill, np.uint8)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    padded[top : top + height, left : left + width] = kept
    return padded
