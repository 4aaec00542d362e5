"""Variants of a dataset's image blocks: other conversions, views, tiles and turns of the same files, to compare."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from store.dataset import Dataset, ImageBlock, image_block
from store.sections import ImageSpec
from store.spec import DatasetSpec, parse_spec
from store.view import view_settings, view_words

Names = Mapping[str, str]
"""What a variant of each image block is called."""


def with_variants(
    dataset: Dataset, *, converts: Sequence[str] = (), views: Sequence[str] = (), **settings: Any
) -> Dataset:
    """Return the dataset with every image block replaced by its variants, which are ordinary blocks.

    A name says in what a variant differs from its block (`view_words`): ``bf.log``, ``bf.log.jpeg-50.2x2``; one that
    does not differ keeps the block's name. A spectrum takes no conversion, so that there is one of it. A stack's
    conversion and view are those of its parts. File names are read from the first variant.

    Args:
        dataset: Its spec is changed with it, so that a bundle can be fitted on the variants.
        converts: Conversions; by default each block's own.
        views: Views; by default each block's own.
        settings: `tiles`, `tile_px`, `pool` and `turns` of all variants; None for each block's own.

    Raises:
        InputError: A word or strength that a spec would not take.
    """
    shared = {key: value for key, value in settings.items() if value is not None}
    if not (converts or views or shared):
        return dataset
    if "tiles" in shared or "tile_px" in shared:  # one replaces the other
        shared = {"tiles": None, "tile_px": None} | shared
    seen = [
        _seen(dataset.spec, {"convert": convert, "view": view}, shared)
        for convert, view in product(converts or (None,), views or (None,))
    ]
    names = [{name: _name(dataset.spec, spec, name) for name in spec.images} for spec in seen]
    sources = {variants[name]: name for name in dataset.spec.images for variants in names}
    images = {
        variants[name]: _renamed(spec.images[name], "stack", variants)
        for name in dataset.spec.images
        for spec, variants in zip(seen, names, strict=True)
    }
    made: dict[str, ImageBlock] = {}
    for name in sorted(images, key=lambda name: images[name].stack is not None):
        parts = [made[part] for part in images[name].stack or ()]
        made[name] = image_block(name, images[name], dataset.images[sources[name]].refs, parts)
    return replace(
        dataset, spec=_with_images(dataset.spec, images, names[0]), images={name: made[name] for name in images}
    )


def _seen(spec: DatasetSpec, changed: Mapping[str, Any], shared: Mapping[str, Any]) -> DatasetSpec:
    """Return a checked spec with all its images seen otherwise; a stack's parts are."""
    values = spec.model_dump(mode="json", exclude_none=True)
    changed = {key: word for key, word in changed.items() if word is not None}
    for image in values["images"].values():
        image.update(shared if "stack" in image else {**changed, **shared})
    return parse_spec(values, "the options")


def _name(before: DatasetSpec, after: DatasetSpec, name: str) -> str:
    words = [word for part in (*(after.images[name].stack or ()), name) for word in _changes(before, after, part)]
    return ".".join([name, *dict.fromkeys(words)])


def _changes(before: DatasetSpec, after: DatasetSpec, name: str) -> list[str]:
    settings = view_settings(after.images[name])
    if settings["view"] == "fourier":
        del settings["convert"]
    return view_words(settings, view_settings(before.images[name]))


def _with_images(spec: DatasetSpec, images: Mapping[str, ImageSpec], first: Names) -> DatasetSpec:
    """Return a spec with other images; what reads file names reads those of the first variant."""
    sections = {
        "texts": {name: _renamed(text, "from_filename", first) for name, text in spec.texts.items()},
        "metadata": {name: _renamed(column, "image", first) for name, column in spec.metadata.items()},
        "columns": {name: _renamed(column, "image", first) for name, column in spec.columns.items()},
    }
    return spec.model_copy(update={"images": dict(images), **sections})


def _renamed(section: Any, key: str, names: Names) -> Any:
    """Return a section whose `key` names image blocks, by what these are called now."""
    found = getattr(section, key)
    if found is None:
        return section
    return section.model_copy(update={key: names[found] if isinstance(found, str) else tuple(map(names.get, found))})
