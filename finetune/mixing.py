"""MixUp and CutMix: each row of a batch takes a part of the row before it, and of its loss.

MixUp (Zhang, Cisse, Dauphin, Lopez-Paz 2018, arXiv 1710.09412) blends the inputs, CutMix (Yun et al. 2019, arXiv
1905.04899) pastes a rectangle; the share comes from a Beta distribution. Where both are on, a coin decides. Metadata is
blended in both; a number that one of the two lacks is missing.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from finetune.settings import AugmentSettings

Inputs = dict[str, torch.Tensor | tuple[torch.Tensor, torch.Tensor]]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Mix:
    """How the rows of a batch are mixed.

    Attributes:
        share: Of a row itself, lambda; the other row has 1 - `share`.
        box: Of CutMix: top, left, bottom, right of what is pasted, in parts of height and width; None for MixUp.
    """

    share: float
    box: Box | None


def draw_mix(settings: AugmentSettings, rng: np.random.Generator) -> Mix | None:
    """Return how a batch is mixed; None where both are off."""
    cut = settings.cutmix > 0 and (settings.mixup <= 0 or rng.random() < 0.5)
    alpha = settings.cutmix if cut else settings.mixup
    if alpha <= 0:
        return None
    share = float(rng.beta(alpha, alpha))
    return Mix(share, _box(share, rng) if cut else None)


def mix_inputs(inputs: Inputs, mix: Mix, partner: torch.Tensor) -> tuple[Inputs, float]:
    """Return mixed inputs, and the share of a row itself: of CutMix what the rectangle leaves of whole pixels.

    Args:
        inputs: Images ``(b, h, w, c)``, uint8 or float32; metadata ``(b, m)``. No tokens.
        mix: From `draw_mix`.
        partner: int64 ``(b,)``: which row each one is mixed with.
    """
    images = [tensor for tensor in inputs.values() if isinstance(tensor, torch.Tensor) and tensor.ndim == 4]
    share = mix.share if mix.box is None else 1 - _covered(mix.box, images[0].shape[1:3])
    mixed: Inputs = {}
    for name, tensor in inputs.items():
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"tokens of {name!r} cannot be mixed")
        if mix.box is not None and tensor.ndim == 4:
            mixed[name] = _pasted(tensor, mix.box, partner)
        else:
            mixed[name] = _blended(tensor, share, partner)
    return mixed, share


def _box(share: float, rng: np.random.Generator) -> Box:
    """Return a rectangle of 1 - `share` of the area around an even point, cut at the edges."""
    reach = 0.5 * math.sqrt(1 - share)
    y, x = rng.random(2).tolist()
    return max(0, y - reach), max(0, x - reach), min(1, y + reach), min(1, x + reach)


def _pixels(box: Box, size: torch.Size) -> tuple[slice, slice]:
    top, left, bottom, right = (round(share * size[i % 2]) for i, share in enumerate(box))
    return slice(top, bottom), slice(left, right)


def _covered(box: Box, size: torch.Size) -> float:
    mask = torch.zeros(size)
    mask[_pixels(box, size)] = 1
    return float(mask.mean(dtype=torch.float64))


def _pasted(images: torch.Tensor, box: Box, partner: torch.Tensor) -> torch.Tensor:
    down, across = _pixels(box, images.shape[1:3])
    result = images.clone()
    result[:, down, across] = images[partner][:, down, across]
    return result


def _blended(tensor: torch.Tensor, share: float, partner: torch.Tensor) -> torch.Tensor:
    """Blend rows; 8-bit pixels are rounded, half a grey level at most."""
    mixed = torch.lerp(tensor[partner].float(), tensor.float(), share)
    return mixed if tensor.dtype != torch.uint8 else mixed.round_().to(torch.uint8)
