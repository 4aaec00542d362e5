"""What a space's folder says of itself: its zarr.json, read, checked and written, and a copy beside the vectors."""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from store.errors import StoreError
from store.space import FeatureSpace
from store.vectors.chunks import ChunkDamage
from store.vectors.files import Files, reading

FOLDER = re.compile(r"[0-9a-f]{16}")
CHUNK = re.compile(r"c\.(\d+)\.0")
ARRAYS = ("keys", "vectors")
DESCRIPTION = "zarr.json"
COPY = "vectors/zarr.json"
"""Its attributes repeat those of the space's description, so that a lost one can be written again."""


@dataclass(frozen=True)
class LostSpace:
    """A space whose description is lost: what its folder and its vectors' description still tell.

    Attributes:
        fingerprint: The start of it, which is the folder's name.
        dim: d, length of a vector.
        dtype: Type the vectors are stored in.
    """

    fingerprint: str
    dim: int
    dtype: str
    name: str = "a space without a description"


def folder_of(space: FeatureSpace | LostSpace) -> str:
    """Return the name of a space's folder: the start of its fingerprint."""
    return space.fingerprint[:16]


def read_description(files: Files, folder: str) -> dict[str, Any] | None:
    """Return what a space's folder says of itself, None if it does not exist or was never finished.

    Returns:
        ``space`` (a FeatureSpace), ``created`` and ``provenance``.

    Raises:
        ChunkDamage: The description is damaged or was changed by hand.
        StoreError: Another schema version wrote it.
    """
    return _described(files, folder, DESCRIPTION)


def sound_description(files: Files, folder: str) -> dict[str, Any] | None:
    """Return what `read_description` does, None if the description is damaged or missing."""
    with suppress(ChunkDamage):
        return read_description(files, folder)
    return None


def read_copy(files: Files, folder: str) -> dict[str, Any] | None:
    """Return what a space's description said, from its copy; None if that is lost too or was never made."""
    with suppress(ChunkDamage):
        return _described(files, folder, COPY)
    return None


def space_attributes(space: FeatureSpace, *, created: str, provenance: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a space's description holds."""
    return {
        "space": json.loads(space.to_json()),
        "fingerprint": space.fingerprint,
        "created": created,
        "provenance": list(provenance),
    }


def _described(files: Files, folder: str, name: str) -> dict[str, Any] | None:
    label = f"space {folder}"
    attributes = read_attributes(files, folder, name, label)
    if attributes is None:
        return None
    try:
        found = attributes["created"], attributes["provenance"], attributes["fingerprint"], attributes["space"]
    except KeyError as error:
        raise ChunkDamage(label, name, f"lacks {error}") from None
    try:
        space = FeatureSpace.from_json(json.dumps(found[3]))
    except StoreError as error:
        raise StoreError(f"space {folder} of the store {files.url}: {error}") from None
    if space.fingerprint != found[2] or folder_of(space) != folder:
        raise ChunkDamage(label, name, f"was changed: its fields have the fingerprint {space.fingerprint}")
    return {"space": space, "created": found[0], "provenance": found[1]}


def n_chunks_of(files: Files, folder: str) -> int:
    """Return the number of chunks of a space's folder that have a file; a space without a row may have none."""
    names = [name for array in ARRAYS for name in files.names(f"{folder}/{array}")]
    return max((int(match[1]) + 1 for name in names if (match := CHUNK.fullmatch(name))), default=0)


def read_lost(files: Files, folder: str) -> LostSpace | None:
    """Return what is known of a space without a description, None if its vectors' description is lost as well."""
    try:
        document = read_json(files, f"{folder}/{COPY}", f"space {folder}", COPY) or {}
        return LostSpace(folder, int(document["shape"][1]), np.dtype(document["data_type"]).name)
    except (ChunkDamage, KeyError, IndexError, TypeError, ValueError):
        return None


def read_json(files: Files, path: str, label: str, name: str) -> dict[str, Any] | None:
    """Return a JSON file's object, None if there is no file; `label` and `name` say in errors what it is."""
    try:
        with reading(files, path) as file:
            document = json.loads(file.read())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ChunkDamage(label, name, f"is no JSON ({error})") from None
    if not isinstance(document, dict):
        raise ChunkDamage(label, name, "is no JSON object")
    return document


def read_attributes(files: Files, folder: str, name: str, label: str) -> dict[str, Any] | None:
    """Return a group's attributes, None if it does not exist."""
    document = read_json(files, f"{folder}/{name}" if folder else name, label, name)
    if document is None:
        return None
    attributes = document.get("attributes")
    if not isinstance(attributes, dict):
        raise ChunkDamage(label, name, "has no attributes")
    return attributes
