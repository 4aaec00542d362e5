"""Augmentation: one draw of parameters per row and epoch, applied to every picture of the row.

A picture is what `extract` shows an encoder before it is resized: cropped, converted to 8 bits and perturbed as its
block says; of a spectrum to be, at its full depth. It is mirrored, turned and cropped first, so that a spectrum is that
of the augmented picture. Brightness, contrast, saturation and hue are for pictures in 8 bits (the last two for colour):
a spectrum is stretched to its own range, which undoes them. Noise and blur are for all.

All lengths are parts of the picture's own, so that modalities of different sizes stay registered. What a turn uncovers
takes the picture's mean.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from finetune.settings import AugmentSettings
from store import CONVERSIONS

Picture = NDArray[Any]
CROP_RATIO = (3 / 4, 4 / 3)  # of a resized crop's sides: torchvision RandomResizedCrop
RANDOM_CONVERSIONS = tuple(name for name in CONVERSIONS if name != "none")
"""What `convert = "random"` chooses from."""


@dataclass(frozen=True)
class Draw:
    """What happens to all pictures of a row in one epoch.

    Attributes:
        hflip, vflip: Whether it is mirrored.
        angle_deg, shift, scale, shear_deg: Of the affine map around the centre; `shift` in parts of width and height.
        box: Top, left, height, width of the resized crop, in parts of height and width.
        brightness, contrast, saturation: Factors; 1 changes nothing.
        hue: Of a turn of the colour circle, -0.5 to 0.5.
        noise: Standard deviation, as a part of full scale.
        blur_px: Standard deviation, in px of the network's input.
        seed: Of the noise.
    """

    hflip: bool
    vflip: bool
    angle_deg: float
    shift: tuple[float, float]
    scale: float
    shear_deg: tuple[float, float]
    box: tuple[float, float, float, float]
    brightness: float
    contrast: float
    saturation: float
    hue: float
    noise: float
    blur_px: float
    seed: int


def is_off(settings: AugmentSettings) -> bool:
    """Whether nothing would ever be changed."""
    return all(value == (name == "crop_scale") for name, value in settings.model_dump().items())


def draw(settings: AugmentSettings, *, seed: int, epoch: int, row: int) -> Draw:
    """Return what happens to a row in an epoch; the same however it is batched, and whoever asks.

    Ranges: angle, shift and shear up to their setting to either side; scale, brightness, contrast and saturation by
    factors of 1 - setting to 1 + setting; noise and blur from 0 to their setting.
    """
    rng = np.random.default_rng([seed, epoch, row])
    part: list[float] = rng.random(16).tolist()  # as many for all settings, so that changing one leaves the other draws

    def about(centre: float, width: float, at: int) -> float:
        return centre + width * (2 * part[at] - 1)

    return Draw(
        hflip=part[0] < settings.hflip,
        vflip=part[1] < settings.vflip,
        angle_deg=about(0, settings.rotate_deg, 2),
        shift=(about(0, settings.translate, 3), about(0, settings.translate, 4)),
        scale=about(1, settings.scale, 5),
        shear_deg=(about(0, settings.shear_deg, 6), about(0, settings.shear_deg, 7)),
        box=_box(settings.crop_scale, part[8:12]),
        brightness=max(0.0, about(1, settings.brightness, 12)),
        contrast=max(0.0, about(1, settings.contrast, 13)),
        saturation=max(0.0, about(1, settings.saturation, 14)),
        hue=about(0, settings.hue, 15),
        noise=settings.noise * rng.random(),
        blur_px=settings.blur * rng.random(),
        seed=int(rng.integers(2**62)),
    )


def draw_conversion(*, seed: int, epoch: int, row: int) -> str:
    """Return one of the `RANDOM_CONVERSIONS` for a row in an epoch."""
    return RANDOM_CONVERSIONS[np.random.default_rng([seed, epoch, row, 1]).integers(len(RANDOM_CONVERSIONS))]


def augmented(picture: Picture, drawn: Draw, *, input_px: int) -> Picture:
    """Return a picture with a draw applied, of the same shape; uint8 stays uint8, deeper pixels become float32.

    Args:
        picture: ``(h, w)`` or ``(h, w, 3)``.
        drawn: From `draw`.
        input_px: The shorter side of the network's input, for the blur.
    """
    planes = torch.from_numpy(
        np.ascontiguousarray(picture if picture.dtype == np.uint8 else picture.astype(np.float32))
    )
    planes = planes[None] if picture.ndim == 2 else planes.permute(2, 0, 1)
    moved = _moved(planes, drawn)
    if picture.dtype == np.uint8:
        moved = _coloured(moved, drawn)
    pixels = (moved[0] if picture.ndim == 2 else moved.permute(1, 2, 0)).contiguous().numpy()
    return _noisy(_blurred(pixels, drawn.blur_px * min(picture.shape[:2]) / input_px), drawn)


def _box(least: float, part: list[float]) -> tuple[float, float, float, float]:
    """Return a crop of at least a part of the area, its sides' ratio within `CROP_RATIO`, and inside the picture."""
    area = least + (1 - least) * part[0]
    low, high = np.log(max(CROP_RATIO[0], area)), np.log(min(CROP_RATIO[1], 1 / area))
    ratio = float(np.exp(low + (high - low) * part[1]))
    height, width = float(np.sqrt(area / ratio)), float(np.sqrt(area * ratio))
    return (1 - height) * part[2], (1 - width) * part[3], height, width


def _moved(planes: torch.Tensor, drawn: Draw) -> torch.Tensor:
    """Mirror, turn and crop ``(c, h, w)``."""
    height, width = planes.shape[1:]
    if drawn.hflip:
        planes = F.horizontal_flip(planes)
    if drawn.vflip:
        planes = F.vertical_flip(planes)
    if (drawn.angle_deg, drawn.shift, drawn.scale, drawn.shear_deg) != (0, (0, 0), 1, (0, 0)):
        planes = F.affine(
            planes,
            angle=drawn.angle_deg,
            translate=[drawn.shift[0] * width, drawn.shift[1] * height],
            scale=drawn.scale,
            shear=list(drawn.shear_deg),
            interpolation=InterpolationMode.BILINEAR,
            fill=planes.float().mean(dim=(1, 2)).tolist(),
        )
    if drawn.box != (0, 0, 1, 1):
        top, left, tall, wide = (
            round(share * side) for share, side in zip(drawn.box, (height, width, height, width), strict=True)
        )
        size = [height, width]
        planes = F.resized_crop(planes, top, left, max(1, tall), max(1, wide), size, antialias=True)
    return planes


def _coloured(planes: torch.Tensor, drawn: Draw) -> torch.Tensor:
    """Change brightness and contrast of 8-bit ``(c, h, w)``, and saturation and hue of colour."""
    if drawn.brightness != 1:
        planes = F.adjust_brightness(planes, drawn.brightness)
    if drawn.contrast != 1:
        planes = F.adjust_contrast(planes, drawn.contrast)
    if len(planes) == 3 and drawn.saturation != 1:
        planes = F.adjust_saturation(planes, drawn.saturation)
    if len(planes) == 3 and drawn.hue != 0:
        planes = F.adjust_hue(planes, drawn.hue)
    return planes


def _blurred(pixels: Picture, sigma_px: float) -> Picture:
    return pixels if sigma_px == 0 else cv2.GaussianBlur(pixels, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT)


def _noisy(pixels: Picture, drawn: Draw) -> Picture:
    """Add white noise; full scale is 255, and of deeper pixels their own range."""
    if drawn.noise == 0:
        return pixels
    noise = np.random.default_rng(drawn.seed).standard_normal(pixels.shape, dtype=np.float32)
    if pixels.dtype != np.uint8:
        return np.asarray(pixels + drawn.noise * np.ptp(pixels) * noise)
    return np.asarray(np.rint(np.clip(pixels + 255 * drawn.noise * noise, 0, 255)), dtype=np.uint8)
