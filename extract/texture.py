"""The built-in image encoder `texture`: classical texture statistics, deterministic and without weights.

An image becomes grey, its longer side is brought to 256 px (antialiased; smaller images are enlarged), and each
function of `descriptors` adds one group of named numbers. Lengths are therefore relative to the field of view. The
original size is left out on purpose: where it carries information it is metadata, and as a feature it is a shortcut.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from extract import descriptors
from extract.contract import BATCH_ROWS
from extract.decode import Image8
from extract.descriptors import LONG_SIDE_PX, Features, Grey
from store import Crop, FeatureSpace

ALGORITHM = "texture-1"  # raise the number when any value changes: it is the weights digest of the space
MIN_SIDE_PX = 32  # fields more elongated than 8:1 are squeezed, so that five halvings leave a pixel


def texture_vector(pixels: Image8) -> NDArray[np.float32]:
    """Return the texture vector of one image.

    Args:
        pixels: ``(h, w)`` or ``(h, w, 3)`` RGB, of any size from 1 x 1 up.

    Returns:
        float32, ``(d,)``, finite, in the order of `TEXTURE_NAMES`. Three equal channels give the same as grey.
    """
    return np.fromiter(_features(pixels).values(), dtype=np.float32)


class TextureEncoder:
    """The `Encoder` of `texture_vector`; the vector is computed in `prepare`, hence in the decode workers."""

    runner = None
    provenance: Mapping[str, Any] | None = None
    batch_size = BATCH_ROWS
    n_looks = 1

    def __init__(self, convert: str | None, crop_bottom_px: Crop, **view: Any) -> None:
        self.space = FeatureSpace(
            modality="image",
            encoder="texture",
            dim=len(TEXTURE_NAMES),
            weights_digest=hashlib.sha256(ALGORITHM.encode()).hexdigest(),
            preprocess={"long_side_px": LONG_SIDE_PX, "min_side_px": MIN_SIDE_PX},
            convert=convert,
            crop_bottom_px=crop_bottom_px,
            **view,
        )

    def prepare(self, pixels: Image8) -> NDArray[np.float32]:
        """Return the vector ``(d,)`` of one image, uint8 ``(h, w)`` or ``(h, w, 3)``."""
        return texture_vector(pixels)

    def encode(self, batch: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Stack b prepared vectors to float32 ``(b, d)``."""
        return np.asarray(batch, dtype=np.float32).reshape(len(batch), self.space.dim)


def _features(pixels: Image8) -> Features:
    grey = _resized_grey(pixels)
    byte = np.rint(grey).astype(np.uint8)
    scaled = (grey - grey.mean()) / max(float(grey.std()), 1.0)  # below one grey level there is only noise
    octaves = descriptors.pyramid(scaled, n_levels=6)
    return (
        descriptors.intensity(byte)
        | descriptors.blobs(byte)
        | descriptors.granulometry(byte)
        | descriptors.rings(scaled)
        | descriptors.spectrum(scaled)
        | descriptors.binary_patterns(descriptors.pyramid(grey, n_levels=4))
        | descriptors.cooccurrence(byte)
        | descriptors.wavelets(scaled)
        | descriptors.band_pass(octaves)
        | descriptors.edges(octaves[:4])
        | descriptors.colour(pixels)
    )


def _resized_grey(pixels: Image8) -> Grey:
    """Return the grey image, float32 in [0, 255], longer side `LONG_SIDE_PX`, nothing rounded."""
    grey = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    h, w = grey.shape
    scale = LONG_SIDE_PX / max(h, w)
    size = max(round(w * scale), MIN_SIDE_PX), max(round(h * scale), MIN_SIDE_PX)
    enlarged = cv2.resize(grey.astype(np.float32), size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return np.asarray(np.clip(enlarged, 0.0, 255.0), dtype=np.float32)  # cubic overshoots


TEXTURE_NAMES: tuple[str, ...] = tuple(_features(np.zeros((1, 1), np.uint8)))
"""One name per number of the vector, d in all."""
