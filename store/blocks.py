"""Which stored spaces belong to which block of a dataset, and what they are called there."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from store.dataset import Dataset, ImageBlock, TextBlock, hash_files
from store.errors import InputError, did_you_mean
from store.space import FeatureSpace
from store.vectors.features import FeatureStore
from store.vectors.names import match_spaces, tuned_mark
from store.view import view_settings, view_words


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


Choose = Callable[[ImageBlock | TextBlock, Sequence[FeatureSpace]], list[FeatureSpace]]


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
    fingerprint, as in ``image:bf@efficientnet_b0#1f00ba12``; that of a fine-tuned encoder always says so, as in
    ``image:bf@efficientnet_b0#tuned-1f00ba12``.
    """
    return _places(dataset, store, _fitting_spaces)


def _places(dataset: Dataset, store: FeatureStore, choose: Choose) -> dict[str, BlockSpace]:
    """Return the chosen spaces that hold something of a block, by their place in the dataset."""
    spaces, found = store.spaces(), {}
    fit = {block: choose(find_block(dataset, block), spaces) for block in block_names(dataset)}
    hashes = hash_files(find_block(dataset, block) for block in fit if fit[block])  # no file for nothing
    for block, fitting in fit.items():
        if not fitting:
            continue
        keys = find_block(dataset, block).keys(hashes)
        content = [key for key in keys if key is not None]
        begun = [space for space in fitting if store.present(space, content).any()]
        tuned = {space.fingerprint: tuned_mark(space.fingerprint, store.provenance(space)) for space in begun}
        names = {space.fingerprint: _place(dataset, block, space) for space in begun}
        times = Counter(name for fingerprint, name in names.items() if not tuned[fingerprint])
        for space in sorted(begun, key=lambda s: (s.encoder, s.fingerprint)):
            name = names[space.fingerprint]
            told_apart = f"#{space.fingerprint[:8]}" if times[name] > 1 else ""
            found[f"{name}{tuned[space.fingerprint] or told_apart}"] = BlockSpace(block, space, keys)
    return found


def find_block_space(dataset: Dataset, store: FeatureStore, name: str) -> tuple[str, BlockSpace]:
    """Return a stored space of a dataset and its full name there.

    Args:
        dataset: n rows.
        store: What is stored.
        name: Its name in the dataset (``image:bf@texture``), or as `FeatureStore.find` takes it where one block has it.
            Spaces of the blocks as the spec has them come first; then those of their files seen otherwise
            (``image:bf.log@texture``).

    Raises:
        InputError: None fits, or several; the message names them.
    """
    known = block_spaces(dataset, store)
    fits = _matches(name, known)
    if not fits:
        known |= _places(dataset, store, _otherwise_seen)
        fits = _matches(name, known)
    if len(fits) == 1:
        return fits[0], known[fits[0]]
    listed = ", ".join(f"{full} ({known[full].space.fingerprint[:12]})" for full in fits or known) or "nothing yet"
    if fits:
        raise InputError(f"space {name!r} is {len(fits)} in this dataset: {listed}. Give one of these names")
    hint = did_you_mean(name, [*known, *(at.space.name for at in known.values())])
    raise InputError(f"of this dataset the store {store.url} has no space {name!r}.{hint} It holds: {listed}")


def _matches(name: str, places: Mapping[str, BlockSpace]) -> list[str]:
    """Return the full names of the places that a name may mean; a block that it names is the place's."""
    if name in places:
        return [name]
    block, _, _ = name.partition("@")
    spaces = match_spaces(name, [at.space for at in places.values()])
    fits = [full for full, at in places.items() if at.space in spaces]
    return [full for full in fits if ":" not in block or f"{block}.".startswith(f"{places[full].block}.")]


def _place(dataset: Dataset, block: str, space: FeatureSpace) -> str:
    """Return what a space is called at a block, as `with_variants` calls blocks that are seen otherwise."""
    found = find_block(dataset, block)
    words = view_words(view_settings(space), view_settings(found)) if isinstance(found, ImageBlock) else []
    return f"{'.'.join([block, *words])}@{space.encoder}"


def _otherwise_seen(block: ImageBlock | TextBlock, spaces: Sequence[FeatureSpace]) -> list[FeatureSpace]:
    """Return the spaces that may hold a block's files in another view: keys are those of the files."""
    if isinstance(block, TextBlock):
        return []
    seen = view_settings(block)
    images = [space for space in spaces if space.modality == "image" and view_settings(space) != seen]
    return [space for space in images if len(space.stack) == len(seen["stack"])]


def _fitting_spaces(block: ImageBlock | TextBlock, spaces: Sequence[FeatureSpace]) -> list[FeatureSpace]:
    if isinstance(block, TextBlock):
        return [space for space in spaces if space.modality == "text"]
    settings = view_settings(block)
    return [space for space in spaces if space.modality == "image" and view_settings(space) == settings]
