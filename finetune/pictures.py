"""From a row's files to the pixels one image branch takes, through extraction's own code.

The work is in two halves. What is the same in every epoch is begun once and can be kept: without augmentation that is
all of it, equal to what extraction feeds the same backbone; with it, the pictures before they are augmented; where the
conversion is drawn anew for each row and epoch, the decoded pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from extract import crop, join_pictures, prepare_image, read_image, seen_parts, whole_picture
from finetune.augment import Picture, augmented, draw, draw_conversion
from finetune.settings import AugmentSettings
from store import ImageBlock, InputError, is_one_crop, view_settings

OVERSIZE = 2  # pictures are augmented at up to twice the network's input: larger ones are reduced first, for speed

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Change:
    """What happens to training inputs anew for each row and epoch.

    Attributes:
        augment: None for nothing.
        draws_conversion: Whether one of all conversions takes the place of the block's own.
        seed: Of all draws.
    """

    augment: AugmentSettings | None = None
    draws_conversion: bool = False
    seed: int = 0


def one_block(blocks: Sequence[ImageBlock]) -> ImageBlock:
    """Return the block that a branch reads: several are stacked."""
    return blocks[0] if len(blocks) == 1 else ImageBlock("", blocks[0].refs, None, parts=tuple(blocks))


def check_whole(blocks: Sequence[ImageBlock]) -> None:
    """Raise an `InputError` where a block has tiles or turns."""
    for one in blocks:
        if not is_one_crop(view_settings(one)):
            raise InputError(
                f"[images.{one.name}] has tiles or turns, and finetune trains on whole images: take them out, or "
                "add an [images.NAME] without them and choose it with --set blocks"
            )


class ImageInput:
    """The pixels of one image branch.

    Attributes:
        sources: The n rows' files, None where a row has none.
    """

    def __init__(self, blocks: Sequence[ImageBlock], preprocess: Mapping[str, Any], change: Change) -> None:
        """Check the blocks.

        Args:
            blocks: One, or several that are stacked.
            preprocess: The backbone's, as `FeatureSpace` has it.
            change: None of it for validation.

        Raises:
            InputError: A block has tiles or turns.
        """
        block = one_block(blocks)
        check_whole(blocks)
        self.sources = block.sources
        self._names = ", ".join(f"[images.{one.name}]" for one in blocks)
        self._parts = seen_parts(view_settings(block))
        self._preprocess, self._change = preprocess, change

    def begin(self, row: int) -> list[Picture]:
        """Return what is the same in every epoch, one array or one for each part of a stack.

        Raises:
            ImageError: A file cannot be read, converted or stacked.
            LookupError: The row has no file.
        """
        refs = self.sources[row]
        if refs is None:
            raise LookupError(f"has no file for {self._names}")
        images = [read_image(ref.path, ref.page) for ref in refs]
        cropped = [crop(pixels, part["crop_bottom_px"]) for pixels, part in zip(images, self._parts, strict=True)]
        if self._change.draws_conversion:
            self._check_conversions(cropped)
            return cropped
        pictures = self._whole(cropped)
        return [self._finished(pictures)] if self._change.augment is None else self._reduced(pictures)

    def finish(self, begun: Sequence[Picture], *, epoch: int, row: int) -> Pixels:
        """Return the network's input for a row in an epoch, uint8 ``(h, w, 3 p)``."""
        change, which = self._change, {"seed": self._change.seed, "epoch": epoch, "row": row}
        if change.draws_conversion:
            begun = self._reduced(self._whole(begun, draw_conversion(**which)))
        elif change.augment is None:
            return begun[0]
        if change.augment is not None:
            drawn, side_px = draw(change.augment, **which), min(self._preprocess["input_px"])
            begun = [augmented(picture, drawn, input_px=side_px) for picture in begun]
        return self._finished(begun)

    def _whole(self, cropped: Sequence[Picture], convert: str | None = None) -> list[Picture]:
        other = {} if convert is None else {"convert": convert}
        return [whole_picture(pixels, {**part, **other}) for pixels, part in zip(cropped, self._parts, strict=True)]

    def _finished(self, pictures: Sequence[Picture]) -> Pixels:
        return prepare_image(join_pictures(pictures, self._parts), self._preprocess)

    def _check_conversions(self, cropped: Sequence[Picture]) -> None:
        """Raise ImageError where some conversion does not take an image: only real numbers can be out of range."""
        for name in (None, "fixed") if any(pixels.dtype == np.float32 for pixels in cropped) else (None,):
            self._finished(self._whole(cropped, name))

    def _reduced(self, pictures: list[Picture]) -> list[Picture]:
        """Return pictures that are not much larger than what the network sees; never those of a spectrum."""
        height, width = pictures[0].shape[:2]
        ratio = OVERSIZE * min(self._preprocess["input_px"]) / min(height, width)
        if ratio >= 1 or any(part["view"] == "fourier" for part in self._parts):
            return pictures
        size = round(width * ratio), round(height * ratio)
        return [cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pictures]
