"""Which stored spaces belong to which block of a dataset, and what they are called there."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from store.dataset import Dataset, ImageBlock, TextBlock, hash_files
from store.errors import InputError, did_you_mean
from store.space import FeatureSpace
from store.vectors.features import FeatureStore
from store.view import view_settings


@dataclass(frozen=True)
class BlockSpace:
    """A space's place in a dataset.

    Attributes:
        block: The image or text block, such as ``image:bf``.
        space: A space that fits the block and holds some of it.
        keys: n content keys in row order, None where a row has no content.
    """

    block: str
    space: FeatureSpace
    keys: Sequence[str | None]


def block_names(dataset: Dataset) -> list[str]:
    """Return the image and text blocks of a dataset, as ``image:bf`` and ``text:notes``."""
    return [f"image:{name}" for name in dataset.images] + [f"text:{name}" for name in dataset.texts]


def find_block(dataset: Dataset, name: str) -> ImageBlock | TextBlock:
    """Return a block by its name as `block_names` has it.

    Raises:
        InputError: The dataset has no such block.
    """
    modality, _, short = name.partition(":")
    kinds: Mapping[str, Mapping[str, ImageBlock | TextBlock]] = {"image": dataset.images, "text": dataset.texts}
    if short not in kinds.get(modality, {}):
        raise InputError(f"block {name!r} is needed, this dataset has {', '.join(block_names(dataset)) or 'none'}")
    return kinds[modality][short]


def block_spaces(dataset: Dataset, store: FeatureStore) -> dict[str, BlockSpace]:
    """Return what is stored of a dataset, by its place there: ``image:bf@efficientnet_b0``.

    A space fits a block when its modality and all of `VIEW_FIELDS` are the block's. It is listed when it holds a vector
    of the block, for a store may serve several datasets. Spaces of one encoder are told apart by the start of their
    fingerprint, as in ``image:bf@efficientnet_b0#1f00ba12``.
    """
    spaces, found = store.spaces(), {}
    fit = {block: _fitting_spaces(find_block(dataset, block), spaces) for block in block_names(dataset)}
    hashes = hash_files(find_block(dataset, block) for block in fit if fit[block])  # no file for nothing
    for block, fitting in fit.items():
        if not fitting:
            continue
        keys = find_block(dataset, block).keys(hashes)
        content = [key for key in keys if key is not None]
        begun = [space for space in fitting if store.present(space, content).any()]
        times = Counter(space.encoder for space in begun)
        for space in sorted(begun, key=lambda s: (s.encoder, s.fingerprint)):
            suffix = f"#{space.fingerprint[:8]}" if times[space.encoder] > 1 else ""
            found[f"{block}@{space.encoder}{suffix}"] = BlockSpace(block, space, keys)
    return found


def find_block_space(dataset: Dataset, store: FeatureStore, name: str) -> tuple[str, BlockSpace]:
    """Return a stored space of a dataset and its full name there.

    Args:
        dataset: n rows.
        store: What is stored.
        name: Its name in the dataset (``image:bf@texture``), its name in the store (``image.log@texture``) where one
            block fits it, or the start of its fingerprint.

    Raises:
        InputError: None fits, or several; the message names them.
    """
    known = block_spaces(dataset, store)
    if name in known:
        return name, known[name]
    plain, _, start = name.partition("#")
    names = {full: (full.partition("#")[0], at.space.name) for full, at in known.items()}
    fits = [full for full in known if plain in names[full] and known[full].space.fingerprint.startswith(start)]
    fits = fits or [full for full, at in known.items() if name and at.space.fingerprint.startswith(name)]
    if len(fits) == 1:
        return fits[0], known[fits[0]]
    listed = ", ".join(f"{full} ({known[full].space.fingerprint[:12]})" for full in fits or known) or "nothing yet"
    if fits:
        raise InputError(f"space {name!r} is {len(fits)} in this dataset: {listed}. Give one of these names")
    hint = did_you_mean(name, [*known, *(at.space.name for at in known.values())])
    raise InputError(f"of this dataset the store {store.url} has no space {name!r}.{hint} It holds: {listed}")


def _fitting_spaces(block: ImageBlock | TextBlock, spaces: Sequence[FeatureSpace]) -> list[FeatureSpace]:
    if isinstance(block, TextBlock):
        return [space for space in spaces if space.modality == "text"]
    settings = view_settings(block)
    return [space for space in spaces if space.modality == "image" and view_settings(space) == settings]
