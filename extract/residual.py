"""The `residual` network: a plain residual CNN for images unlike photographs, made to be trained from scratch.

One path of the two-path reflectance study: a stem of 64 channels at half size, then blocks of 128, 128, 256, 256,
512 x 3 and 1024 x 3 channels, halved where they widen, and the mean over positions. Importing this module registers it
with timm, so that it is created, saved and read as any of timm's.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from timm.models import build_model_with_cfg, register_model
from torch import nn

STEM = 64
STAGES = ((128, 2), (256, 2), (512, 3), (1024, 3))
"""Channels and blocks of each stage."""
N_GROUPS = 32
LEAST_IN_GROUP = 2  # channels, as in the stem of the study's

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda width: nn.GroupNorm(min(N_GROUPS, width // LEAST_IN_GROUP), width),
    "instance": lambda width: nn.InstanceNorm2d(width, affine=True),
}

default_cfgs = {
    "residual": {
        "input_size": (3, 256, 256),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "first_conv": "stem.conv",
        "num_classes": 0,
    }
}


class Residual(nn.Module):
    """The network.

    Args:
        in_chans: 3 per image.
        norm: ``"batch"``, ``"group"`` (of 32) or ``"instance"``; the latter two allow batches of one.
        channels: ``"colour"``, or ``"grey"``, the mean of each image's three channels.
        narrow: All channels are divided by this, 1 to 16; 1 is the study's.
        num_classes: 0: it has no classifier of its own.
    """

    global_pool = "avg"

    def __init__(
        self,
        in_chans: int = 3,
        norm: Literal["batch", "group", "instance"] = "batch",
        channels: Literal["colour", "grey"] = "colour",
        narrow: Literal[1, 2, 4, 8, 16] = 1,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        widths = [STEM // narrow, *(width // narrow for width, _ in STAGES)]
        self.num_classes, self.num_features = num_classes, widths[-1]
        self.is_grey = channels == "grey"
        self.stem = _Convolution(in_chans // 3 if self.is_grey else in_chans, widths[0], 7, stride=2, norm=norm)
        sizes = zip(widths, widths[1:], (n_blocks for _, n_blocks in STAGES), strict=False)
        self.stages = nn.Sequential(*(_stage(*size, norm=norm) for size in sizes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return float32 ``(b, 1024 / narrow)`` of normalised ``(b, in_chans, h, w)``."""
        if self.is_grey:
            x = torch.stack([image.mean(dim=1) for image in torch.split(x, 3, dim=1)], dim=1)
        x = self.stages(torch.relu(self.stem(x)))
        return x.mean(dim=(2, 3))

    def reset_classifier(self, num_classes: int) -> None:
        """There is none to take off: timm asks for it."""


class _Convolution(nn.Module):
    """A convolution without bias, and a normalisation."""

    def __init__(self, n_in: int, n_out: int, size: int, *, stride: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, size, stride=stride, padding=size // 2, bias=False)
        self.norm = NORMS[norm](n_out)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.norm(self.conv(x))
        return result


class _Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al. 2016, 10.1109/CVPR.2016.90, figure 2)."""

    def __init__(self, n_in: int, n_out: int, *, stride: int, norm: str) -> None:
        super().__init__()
        self.first = _Convolution(n_in, n_out, 3, stride=stride, norm=norm)
        self.second = _Convolution(n_out, n_out, 3, stride=1, norm=norm)
        same = n_in == n_out and stride == 1
        self.shortcut = nn.Identity() if same else _Convolution(n_in, n_out, 1, stride=stride, norm=norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


def _stage(n_in: int, width: int, n_blocks: int, *, norm: str) -> nn.Sequential:
    blocks = [_Block(n_in, width, stride=2, norm=norm)]
    return nn.Sequential(*blocks, *(_Block(width, width, stride=1, norm=norm) for _ in range(n_blocks - 1)))


def residual(pretrained: bool = False, **arguments: Any) -> Residual:
    """Return the network as `timm.create_model` wants it."""
    made: Residual = build_model_with_cfg(Residual, "residual", pretrained, **arguments)
    return made


register_model(residual)
