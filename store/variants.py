"""Variants of a dataset's image blocks: other conversions, views, tiles and turns of the same files, to compare."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from store.dataset import Dataset, ImageBlock, image_block
from store.sections import ImageSpec
from store.spec import DatasetSpec, parse_spec

Variants = dict[str, dict[str, Any]]
"""By label, the keys of ``[images.NAME]`` that a variant changes."""


def with_variants(
    dataset: Dataset, *, converts: Sequence[str] = (), views: Sequence[str] = (), **settings: Any
) -> Dataset:
    """Return the dataset with every image block replaced by its variants, which are ordinary blocks.

    One variant keeps the block's name. Several are ``bf.log``, ``bf.fourier``, ``bf.log.jpeg-50``: what differs, with
    ``-`` for ``+`` and ``:``. A spectrum takes no conversion, so that there is one of it. A stack's conversion and
    view are those of its parts. File names are read from the first variant.

    Args:
        dataset: Its spec is changed with it, so that a bundle can be fitted on the variants.
        converts: Conversions; by default each block's own.
        views: Views; by default each block's own.
        settings: `tiles`, `tile_px`, `pool` and `turns` of all variants; None for each block's own.

    Raises:
        InputError: A word or strength that a spec would not take.
    """
    shared = {key: value for key, value in settings.items() if value is not None}
    variants = _combine(converts, views)
    if not shared and list(variants.values()) == [{}]:
        return dataset
    if "tiles" in shared or "tile_px" in shared:  # one replaces the other
        shared = {"tiles": None, "tile_px": None} | shared
    spec = _with_images(dataset.spec, variants, shared)
    sources = [name for name in dataset.spec.images for _ in variants]
    made: dict[str, ImageBlock] = {}
    order = sorted(zip(spec.images, sources, strict=True), key=lambda pair: spec.images[pair[0]].stack is not None)
    for name, source in order:
        parts = [made[part] for part in spec.images[name].stack or ()]
        made[name] = image_block(name, spec.images[name], dataset.images[source].refs, parts)
    return replace(dataset, spec=spec, images={name: made[name] for name in spec.images})


def _combine(converts: Sequence[str], views: Sequence[str]) -> Variants:
    """Return the variants by label; one alone has the label ``""``."""
    found: Variants = {}
    for convert, view in product(dict.fromkeys(converts) or [None], dict.fromkeys(views) or [None]):
        changed = {key: word for key, word in (("convert", convert), ("view", view)) if word is not None}
        words = [convert] if convert and len(converts) > 1 and view != "fourier" else []
        if view and len(views) > 1 and (view != "plain" or not words):
            words.append(view)
        found[".".join(words)] = changed
    return {"": next(iter(found.values()))} if len(found) == 1 else found


def _with_images(spec: DatasetSpec, variants: Variants, shared: dict[str, Any]) -> DatasetSpec:
    values = spec.model_dump(mode="json", exclude_none=True)
    first = next(iter(variants))
    values["images"] = {
        _name(name, label): _changed(image, label, changed, shared)
        for name, image in spec.images.items()
        for label, changed in variants.items()
    }
    for text in values["texts"].values():
        if "from_filename" in text:
            text["from_filename"] = _name(text["from_filename"], first)
    for column in [*values["metadata"].values(), *values["columns"].values()]:
        if "image" in column:
            column["image"] = _name(column["image"], first)
    return parse_spec(values, "the options")


def _changed(image: ImageSpec, label: str, changed: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    own = image.model_dump(mode="json", exclude_none=True)
    if image.stack:
        return own | {"stack": [_name(part, label) for part in image.stack]} | shared
    return own | changed | shared


def _name(name: str, label: str) -> str:
    return f"{name}.{re.sub('[^A-Za-z0-9_.-]', '-', label)}" if label else name
