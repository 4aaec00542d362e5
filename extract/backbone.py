"""A headless network for images, and the encoder that it makes: normalisation included."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extract.engine import Precision
from extract.resize import prepare_image
from extract.runner import ANY_RUNTIME, Runner, Runtime
from extract.weights import state_digest
from store import FeatureSpace, InputError, one_line

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Backbone:
    """A headless network for images.

    Attributes:
        module: Takes normalised float32 ``(b, in_chans, h, w)``, gives ``(b, d)``; in evaluation mode.
        architecture: Its name without path or tag.
        preprocess: The resolved preprocessing, as `FeatureSpace` keeps it.
        pooling: How positions became one vector.
        source: Where the weights came from, for people.
        in_chans: 3 for each image.
        is_saved: Whether it comes from an encoder folder, and takes so many channels and no others.
        tuned_on: Fingerprint of the split whose training rows its weights have learned from, with ``+all`` behind it
            where it may be any row that is not held out; "" for none that is known.
    """

    module: "torch.nn.Module"
    architecture: str
    preprocess: Mapping[str, Any]
    pooling: str
    source: str
    in_chans: int = 3
    is_saved: bool = False
    tuned_on: str = ""


class ImageEncoder:
    """An `Encoder` of images: the transform is built from the space, so what is recorded is what runs."""

    n_looks = 1

    def __init__(
        self, backbone: Backbone, space: FeatureSpace, *, provenance: Mapping[str, Any], runtime: Runtime = ANY_RUNTIME
    ) -> None:
        self.space = space
        self.provenance: Mapping[str, Any] | None = dict(provenance)
        height_px, width_px = space.preprocess["input_px"]
        shape = (2, height_px, width_px, backbone.in_chans)
        noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        module = with_normalisation(backbone.module, space.preprocess, backbone.in_chans // 3)
        self.runner = Runner(module, (noise,), _cache_key(space), runtime, space.precision)

    def prepare(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the pixels the network sees, as `prepare_image` has them."""
        return prepare_image(pixels, self.space.preprocess)

    def encode(self, batch: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return float32 ``(b, d)`` for b prepared images.

        Raises:
            MemoryError: The batch does not fit on the device.
        """
        return self.runner(np.stack(batch))

    @property
    def batch_size(self) -> int:
        """Rows per batch to begin with: less for larger inputs, more on a GPU."""
        rows = 256 if self.runner.resolve_device() == "cuda" else 32
        n_pixels: int = math.prod(self.space.preprocess["input_px"])
        return max(1, rows * 224 * 224 // n_pixels)


def image_space(backbone: Backbone, settings: Mapping[str, Any], *, precision: Precision) -> FeatureSpace:
    """Return the space of a backbone's vectors, seen as `view_settings` has it."""
    return FeatureSpace(
        modality="image",
        encoder=backbone.architecture,
        dim=vector_length(backbone),
        weights_digest=state_digest(backbone.module.state_dict()),
        preprocess=backbone.preprocess,
        pooling=backbone.pooling,
        precision=precision,
        **settings,
    )


def with_normalisation(
    module: "torch.nn.Module", preprocess: Mapping[str, Any], n_images: int = 1
) -> "torch.nn.Module":
    """Return a module that takes uint8 ``(b, h, w, 3 n_images)`` and begins with ``(x / 255 - mean) / std``."""
    import torch

    class Normalised(torch.nn.Module):
        scale: torch.Tensor
        shift: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.network = module
            mean, std = (torch.tensor(preprocess[key] * n_images).view(1, -1, 1, 1) for key in ("mean", "std"))
            self.register_buffer("scale", 1 / (255 * std))
            self.register_buffer("shift", -mean / std)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            x = pixels.permute(0, 3, 1, 2).to(torch.float32) * self.scale + self.shift
            result: torch.Tensor = self.network(x)
            return result

    return Normalised().eval()


def vector_length(backbone: Backbone) -> int:
    """Return d, by running one black image: what libraries call the number of features is not always it."""
    import torch

    height_px, width_px = backbone.preprocess["input_px"]
    try:
        with torch.inference_mode():
            vectors = backbone.module(torch.zeros(1, backbone.in_chans, height_px, width_px))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(
            f"'{backbone.architecture}' takes no input of {height_px} x {width_px} px: {one_line(error)}"
        ) from None
    if vectors.ndim != 2:
        raise InputError(f"'{backbone.architecture}' gives {tuple(vectors.shape)} per image, not one vector")
    return int(vectors.shape[1])


def _cache_key(space: FeatureSpace) -> str:
    """What a converted model depends on: the network with its weights and normalisation, and who converted it."""
    versions = [version(name) for name in ("openvino", "timm", "torch", "torchvision")]  # importing them takes longer
    network = [space.encoder, space.weights_digest, space.pooling, dict(space.preprocess)]
    return json.dumps([1, versions, network], sort_keys=True)
