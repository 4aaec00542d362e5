"""Encoders for the tests that need one of one block."""

from types import SimpleNamespace

from extract import Encoder, Options, make_encoders
from store import ImageBlock, TextBlock


def make_encoder(name: str, block: ImageBlock | TextBlock, options: Options | None = None) -> Encoder:
    """Return the encoder that `make_encoders` makes for a dataset of this block alone."""
    kind = "images" if isinstance(block, ImageBlock) else "texts"
    dataset = SimpleNamespace(**({"images": {}, "texts": {}} | {kind: {block.name: block}}))
    encoders, _ = make_encoders([name], dataset, options)  # type: ignore[arg-type]
    [[encoder]] = encoders.values()
    return encoder


class WithoutNetwork:
    """What the tests' own encoders have in common with the built-in ones."""

    runner = None
    provenance = None
    batch_size = 64
    n_looks = 1
