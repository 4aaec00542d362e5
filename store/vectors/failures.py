"""Why content has no vector: kept beside the space's arrays, as the attributes of a Zarr group."""

from collections.abc import Iterable, Mapping

from store.space import SCHEMA_VERSION
from store.vectors.arrays import SpaceArrays
from store.vectors.chunks import ChunkDamage, group_document
from store.vectors.description import read_attributes

FAILURES = "failures/zarr.json"


def read_failures(arrays: SpaceArrays) -> dict[str, str]:
    """Return key -> reason as recorded, whether or not a vector came since."""
    attributes = read_attributes(arrays.files, arrays.folder, FAILURES, arrays.label)
    if attributes is None:
        return {}
    if attributes.get("schema_version") != SCHEMA_VERSION or not isinstance(attributes.get("reasons"), dict):
        raise ChunkDamage(arrays.label, FAILURES, f"has no reasons of schema version {SCHEMA_VERSION}")
    return {str(key): str(reason) for key, reason in attributes["reasons"].items()}


def change_failures(arrays: SpaceArrays, *, add: Mapping[str, str], remove: Iterable[str] = ()) -> None:
    """Merge reasons into those recorded, and take out those of `remove`."""
    with arrays.lock():
        before = read_failures(arrays)
        after = before | dict(add)
        for key in remove:
            after.pop(key, None)
        if after != before:
            document = group_document({"schema_version": SCHEMA_VERSION, "reasons": after})
            arrays.files.write(f"{arrays.folder}/{FAILURES}", document)
