"""Encoders: what turns pixels or text into vectors, found by name."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from extract.contract import Encoder
from extract.network import (
    Block,
    Loaded,
    Modality,
    Options,
    Recalled,
    block_of,
    is_stack,
    load_network,
    pooled,
    recall_network,
)
from extract.ngrams import NgramEncoder
from extract.runner import resolve_device
from extract.texture import TextureEncoder
from store import (
    Dataset,
    FeatureSpace,
    InputError,
    StoreError,
    TextBlock,
    did_you_mean,
    view_settings,
)


@dataclass(frozen=True)
class BuiltIn:
    """A registered encoder that needs no weights."""

    modality: Modality
    make: Callable[[Any], Encoder]
    summary: str


ENCODERS: dict[str, BuiltIn] = {
    "texture": BuiltIn(
        "image",
        lambda block: TextureEncoder(**view_settings(block)),
        "spectrum, local patterns, co-occurrence, wavelets, grey-value moments",
    ),
    "ngrams": BuiltIn("text", lambda block: NgramEncoder(), "hashed character n-grams"),  # noqa: ARG005
}


def modality_of(name: str) -> Modality:
    """Return whether an encoder's name means images or text.

    Raises:
        InputError: Nobody knows the name; the nearest ones are given.
    """
    if name in ENCODERS:
        return ENCODERS[name].modality
    from extract import catalogue, language

    if catalogue.is_image_name(name):
        return "image"
    if language.is_text_name(name):
        return "text"
    timm_names, torchvision_names = catalogue.image_names()
    known = [*ENCODERS, *timm_names, *torchvision_names, *language.TEXT_NAMES]
    hint = did_you_mean(name, known, n=3)
    raise InputError(
        f"unknown backbone '{name}'.{hint} Expected {', '.join(ENCODERS)}, a timm or torchvision name, "
        "local-dir:PATH, or for text a transformers name (owner/name) or folder."
    )


def fitting_blocks(name: str, dataset: Dataset) -> tuple[Modality, Mapping[str, Block]]:
    """Return what an encoder's name means, and the blocks of a dataset that it is for; nothing is loaded.

    Raises:
        InputError: Nobody knows the name, or the dataset has no such block.
    """
    modality = modality_of(name)
    return modality, _blocks_of(name, modality, dataset)


def _blocks_of(name: str, modality: Modality, dataset: Dataset) -> Mapping[str, Block]:
    blocks = dataset.images if modality == "image" else dataset.texts
    if not blocks:
        raise InputError(f"backbone '{name}' takes {modality}s, but the dataset has no [{modality}s.…] block")
    return blocks


def make_encoders(
    names: Iterable[str], dataset: Dataset, options: Options | None = None
) -> tuple[dict[str, list[Encoder]], list[str]]:
    """Return the encoders of every block that a name fits: image names for image blocks, text names for text blocks.

    Each network is loaded once, however many blocks it serves.

    Returns:
        Encoders by block (``"image:bf"``, ``"text:notes"``), as `extract_features` takes them; and warnings.

    Raises:
        InputError: Unknown name, no block for it, weights out of reach or not fitting.
    """
    options, names = options or Options(), list(dict.fromkeys(names))
    if options.device == "cuda":
        resolve_device(options.device)  # also where no encoder has a network
    encoders: dict[str, list[Encoder]] = {}
    warnings = _useless(options, names)
    for name in names:
        loaded: Loaded | Recalled | None = _recall(name, dataset, options)
        modality = modality_of(name) if loaded is None else loaded.modality
        blocks = _blocks_of(name, modality, dataset)
        if loaded is None and name not in ENCODERS:
            loaded = load_network(name, modality, options, warnings)
        taken = [block for block in blocks.values() if _takes(loaded, block)] or list(blocks.values())
        warnings += _left_out(name, [block for block in blocks.values() if block not in taken])
        for block in taken:
            encoder = _built_in(name, block) if loaded is None else loaded.encoder(block)
            encoders.setdefault(f"{modality}:{block.name}", []).append(_stored_as(options.dtype, encoder))
    return encoders, warnings


def _left_out(name: str, blocks: Sequence[Block]) -> list[str]:
    """Say which blocks an encoder does not take, although it takes others: all stacks, or all that are none."""
    if not blocks:
        return []
    stacks = "no stacks" if is_stack(blocks[0]) else "stacks"
    named = " and ".join(f"[images.{block.name}]" for block in blocks)
    return [f"'{name}' takes {stacks}: {named} {'is' if len(blocks) == 1 else 'are'} left out"]


def _useless(options: Options, names: Sequence[str]) -> list[str]:
    """Say of what only networks take that none of the encoders is one."""
    given = [f"--weights {options.weights}"] * (options.weights != "pretrained") + ["--compile"] * options.is_compiled
    if not set(names) <= set(ENCODERS):
        return []
    has = f"{names[0]} has" if len(names) == 1 else f"{' and '.join(names)} have"
    return [f"{option} changes nothing: {has} no weights. Name a network with --backbone" for option in given]


def folder_digests(names: Iterable[str]) -> dict[str, str]:
    """Return the digest of the weights of those names that are encoder folders; it tells their spaces from others'.

    Raises:
        InputError: A folder's weights cannot be read.
    """
    return {name: Loaded(name, modality_of(name), Options()).weights_digest for name in names if _is_folder(name)}


def folder_fingerprints(names: Iterable[str], dataset: Dataset) -> dict[str, set[str]]:
    """Return the fingerprints of the spaces of a dataset's blocks for those names that are encoder folders.

    Raises:
        InputError: As `make_encoder`.
    """
    made = {name: make_encoders([name], dataset)[0] for name in names if _is_folder(name)}
    return {name: {one.space.fingerprint for own in found.values() for one in own} for name, found in made.items()}


def _is_folder(name: str) -> bool:
    from extract.timm_backbone import LOCAL

    return name not in ENCODERS and (Path(name.removeprefix(LOCAL)) / "config.json").is_file()


def encoders_like(
    dataset: Dataset, spaces: Mapping[str, FeatureSpace], provenance: Mapping[str, Any], options: Options | None = None
) -> dict[str, list[Encoder]]:
    """Return the encoders of stored spaces for variants of their image blocks, which are seen otherwise.

    Args:
        dataset: Of variants (`store.with_variants`): ``bf.log`` and ``bf.sqrt``, or ``bf`` itself.
        spaces: By name in the dataset without variants: ``image:bf@texture``.
        provenance: By name, as `encoder_from_space` takes it.
        options: Device and engine; and weights, where they have moved since.

    Returns:
        Encoders by block; each network is loaded once per space.
    """
    encoders: dict[str, list[Encoder]] = {}
    for name, space in spaces.items():
        source = name.partition("@")[0].removeprefix("image:")
        blocks = [b for b in dataset.images.values() if b.name == source or b.name.startswith(f"{source}.")]
        seen = [replace(space, **view_settings(block)) for block in blocks]
        for block, encoder in zip(blocks, _encoders_of(seen, provenance.get(name), options), strict=True):
            encoders.setdefault(f"image:{block.name}", []).append(encoder)
    return encoders


def encoder_from_space(
    space: FeatureSpace, provenance: Mapping[str, Any] | None = None, options: Options | None = None
) -> Encoder:
    """Return an encoder whose vectors are those of `space`; its transform is built from the space.

    Args:
        space: What a bundle or store asks for.
        provenance: What was recorded beside the space: under which name and from where the weights came.
        options: Device and engine; and weights, where they have moved since.

    Raises:
        StoreError: What can be loaded differs from the space; the message names the fields.
        InputError: As `make_encoders`.
    """
    return _encoders_of([space], provenance, options)[0]


def encoders_from_spaces(
    spaces: Mapping[str, FeatureSpace], provenance: Mapping[str, Any], options: Options | None = None
) -> dict[str, list[Encoder]]:
    """Return the encoders of spaces by block, as `extract_features` takes them.

    Args:
        spaces: By block and encoder, as a bundle has them: ``image:bf@texture``.
        provenance: By the same names, as `encoder_from_space` takes it.
        options: Device and engine; and weights, where they have moved since.

    Raises:
        StoreError, InputError: As `encoder_from_space`.
    """
    encoders: dict[str, list[Encoder]] = {}
    for name, space in spaces.items():
        encoder = encoder_from_space(space, provenance[name], options)
        encoders.setdefault(name.partition("@")[0], []).append(encoder)
    return encoders


def _encoders_of(
    spaces: Sequence[FeatureSpace], provenance: Mapping[str, Any] | None, options: Options | None
) -> list[Encoder]:
    """Return the encoders of spaces that differ only in how images are seen; see `encoder_from_space`."""
    if not spaces:
        return []
    recorded = dict(provenance or {})
    options = options or Options()
    if options.weights == "pretrained":
        options = replace(options, weights=recorded.get("weights", "pretrained"), seed=recorded.get("seed", 0))
    first = spaces[0]
    if first.encoder in ENCODERS:
        encoders = [_built_in(space.encoder, block_of(space)) for space in spaces]
    else:
        options = replace(options, precision=first.precision)
        loaded = Loaded(recorded.get("name", first.encoder), first.modality, options)
        encoders = [loaded.encoder_of(space) for space in spaces]
    return [_checked(_stored_as(first.dtype, encoder), space) for encoder, space in zip(encoders, spaces, strict=True)]


def _checked(encoder: Encoder, space: FeatureSpace) -> Encoder:
    if found := encoder.space.differences(space):
        raise StoreError(
            f"encoder '{space.encoder}' is not the one these vectors came from: {'; '.join(found)}. Give its weights "
            "with --weights FILE-OR-FOLDER."
        )
    return encoder


def _built_in(name: str, block: Block) -> Encoder:
    if is_stack(block):
        raise InputError(f"'{name}' takes no stacks, but [images.{block.name}] is one: give --backbone a timm network")
    return pooled(ENCODERS[name].make(block))


def _stored_as(dtype: Literal["float32", "float16"], encoder: Encoder) -> Encoder:
    encoder.space = replace(encoder.space, dtype=dtype)
    return encoder


def _takes(loaded: Loaded | Recalled | None, block: Block) -> bool:
    """Whether a built-in encoder (None) or a network takes a block's images: one, or so many stacked."""
    if isinstance(block, TextBlock):
        return True
    return not block.parts if loaded is None else loaded.takes(block)


def _recall(name: str, dataset: Dataset, options: Options) -> Recalled | None:
    """Return a network that is known from an earlier run; a dataset with stacks needs the network itself."""
    if not options.is_postponed or name in ENCODERS or any(map(is_stack, dataset.images.values())):
        return None
    return recall_network(name, options)
