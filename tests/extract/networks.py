"""A small network and pictures for the tests of engines."""

import numpy as np
import timm
import torch

from extract.backbone import with_normalisation
from extract.weights import seeded

NORMALISE = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}


def images(n: int, side: int = 160) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def network(name: str = "test_resnet") -> torch.nn.Module:
    """With batch norms whose statistics are not the initial ones."""
    with seeded(0):
        module = timm.create_model(name, num_classes=0).eval()
        for child in module.modules():
            if isinstance(child, torch.nn.BatchNorm2d):
                child.running_mean.normal_()  # type: ignore[union-attr]
                child.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
                child.weight.data.uniform_(0.5, 2)
    return with_normalisation(module, NORMALISE)
