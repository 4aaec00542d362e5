"""What makes two vectors comparable."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Final, Literal, Self

from store.errors import StoreError
from store.view import view_settings, view_words

SCHEMA_VERSION = 1

INFO_BAR: Final = "auto-1"
"""Instead of a number of rows: the info bar is found in each image, by this version of the search."""

Crop = int | Literal["auto-1"]


@dataclass(frozen=True)
class FeatureSpace:
    """Everything that decides a vector's value, besides the content it is a vector of.

    Two vectors may be compared, and fed to the same head, exactly if their spaces have one fingerprint.
    Library versions and the place the weights came from are recorded beside a space, never in it.

    Attributes:
        modality: ``"image"`` or ``"text"``.
        encoder: Name in the registry, or the architecture of a local folder: ``efficientnet_b0``, ``texture``.
        dim: d, length of a vector.
        weights_digest: sha256 over the encoder's tensors; the algorithm's version for encoders without weights.
        preprocess: The resolved preprocessing that the transform is built from (JSON values only).
        pooling: How positions or tokens became one vector.
        convert: How more than 8 bits became 8; None for text, for a spectrum, and for a stack, whose parts have theirs.
        crop_bottom_px: Rows cut off below (an instrument's info bar); or `INFO_BAR`.
        view: ``"plain"``, ``"fourier"``, or a perturbation with its strength.
        tiles: Rows x columns that the image was cut into (``"2x2"``), or None.
        tile_px: Side of the squares that it was cut into, or None.
        pool: How the vectors of the tiles became one.
        turns: ``"none"``; or the mean over ``"flips"`` or the eight symmetries of the square, ``"d4"``.
        stack: For several images as one input of three channels each: `convert`, `crop_bottom_px` and `view` of each.
        precision: Arithmetic of the forward pass.
        dtype: Type the vectors are stored in.
    """

    modality: Literal["image", "text"]
    encoder: str
    dim: int
    weights_digest: str
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    pooling: str = "none"
    convert: str | None = None
    crop_bottom_px: Crop = 0
    view: str = "plain"
    tiles: str | None = None
    tile_px: int | None = None
    pool: Literal["mean", "max"] = "mean"
    turns: Literal["none", "flips", "d4"] = "none"
    stack: Sequence[Mapping[str, Any]] = field(default_factory=list)
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    dtype: Literal["float32", "float16"] = "float32"

    @property
    def name(self) -> str:
        """A short name for people, such as ``image.log@texture``; not unique, the fingerprint is."""
        words = view_words(view_settings(self))
        words += [self.precision] * (self.precision != "float32") + [f"stored-{self.dtype}"] * (self.dtype != "float32")
        return f"{'.'.join([self.modality, *words])}@{self.encoder}"

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 (hex) of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Return the canonical JSON: sorted keys, no white space, with the schema version."""
        return json.dumps(
            {"schema_version": SCHEMA_VERSION} | asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Rebuild a space from its canonical JSON.

        Raises:
            StoreError: The JSON has another schema version or other fields.
        """
        fields = json.loads(text)
        version = fields.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"feature space of schema version {version!r}, expected {SCHEMA_VERSION}: use the version that wrote it"
            )
        crop = fields.get("crop_bottom_px")
        if isinstance(crop, str) and crop != INFO_BAR:
            raise StoreError(f"crop_bottom_px {crop!r} is not {INFO_BAR!r}: use the version that wrote it")
        try:
            return cls(**fields)
        except TypeError as error:
            raise StoreError(f"feature space has unknown or missing fields: {error}") from None

    def differences(self, other: "FeatureSpace") -> list[str]:
        """Return the fields in which `other` differs, as ``"field: mine != theirs"``."""
        mine, theirs = asdict(self), asdict(other)
        return [f"{key}: {mine[key]!r} != {theirs[key]!r}" for key in mine if mine[key] != theirs[key]]
