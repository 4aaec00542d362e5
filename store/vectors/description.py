"""What a store's folders say of themselves: their zarr.json, read and checked."""

import json
import re
from typing import Any

from store.errors import StoreError
from store.space import FeatureSpace
from store.vectors.chunks import ChunkDamage
from store.vectors.files import Files, reading

FOLDER = re.compile(r"[0-9a-f]{16}")


def folder_of(space: FeatureSpace) -> str:
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
    attributes = read_attributes(files, folder, "zarr.json", folder)
    if attributes is None:
        return None
    try:
        found = attributes["created"], attributes["provenance"], attributes["fingerprint"], attributes["space"]
    except KeyError as error:
        raise ChunkDamage(folder, "zarr.json", f"lacks {error}") from None
    try:
        space = FeatureSpace.from_json(json.dumps(found[3]))
    except StoreError as error:
        raise StoreError(f"space {folder} of the store {files.url}: {error}") from None
    if space.fingerprint != found[2] or folder_of(space) != folder:
        raise ChunkDamage(folder, "zarr.json", f"was changed: its fields have the fingerprint {space.fingerprint}")
    return {"space": space, "created": found[0], "provenance": found[1]}


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
