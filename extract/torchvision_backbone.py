"""Image backbones from torchvision, for what timm lacks."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.backbone import Backbone
from extract.weights import read_state, seeded, url_file, weights_file
from store import InputError, one_line

if TYPE_CHECKING:
    import torch

GOOGLENET = {"transform_input": True, "aux_logits": True, "init_weights": False}  # as its published weights want it


def torchvision_backbone(name: str, *, weights: str, seed: int, input_px: int | None) -> Backbone:
    """Return a torchvision network without its last layer; see `load_backbone`.

    Raises:
        InputError: Weights out of reach, or of another network.
    """
    from torchvision import models

    published = models.get_model_weights(name).DEFAULT
    network = _network(name, seed)
    file = _file(name, published.url, weights)
    if file is not None:
        try:
            network.load_state_dict(read_state(file))
        except RuntimeError as error:
            raise InputError(f"weights '{file}' do not fit '{name}': {one_line(error)}") from None
    _behead(network)
    preprocess = _preprocess(published.transforms(), input_px)
    return Backbone(network.eval(), name, preprocess, "default", str(file or f"random, seed {seed}"))


def _network(name: str, seed: int) -> "torch.nn.Module":
    from torchvision import models

    make: Callable[..., torch.nn.Module] = models.get_model
    with seeded(seed):
        return make(name, weights=None, **(GOOGLENET if name == "googlenet" else {}))


def _file(name: str, url: str, weights: str) -> Path | None:
    if weights == "random":
        return None
    return url_file(name, url) if weights == "pretrained" else weights_file(Path(weights))


def _behead(network: "torch.nn.Module") -> None:
    """Take off the last linear layer; where the head is convolutional (SqueezeNet), leave the mean over positions."""
    import torch

    name = next(name for name in ("fc", "classifier", "heads", "head") if hasattr(network, name))
    head = getattr(network, name)
    linear = [path for path, module in head.named_modules(prefix=name) if isinstance(module, torch.nn.Linear)]
    if not linear:
        setattr(network, name, torch.nn.AdaptiveAvgPool2d(1))
        return
    parent, _, child = linear[-1].rpartition(".")
    setattr(network.get_submodule(parent), child, torch.nn.Identity())


def _preprocess(transforms: Any, input_px: int | None) -> dict[str, Any]:
    own_px = transforms.crop_size[0]
    side_px = input_px or own_px
    return {
        "input_px": [side_px, side_px],
        "resize_px": transforms.resize_size[0] * side_px // own_px,
        "crop_mode": "center",
        "interpolation": transforms.interpolation.value,
        "mean": list(transforms.mean),
        "std": list(transforms.std),
        "pixel_code": 1,
    }
