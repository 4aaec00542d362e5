"""The whole store: damage found and mended, and what killed writers left deleted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from store.vectors.arrays import LOCK, SpaceArrays
from store.vectors.chunks import ChunkDamage, group_document
from store.vectors.damage import drop_damage, find_damage
from store.vectors.description import (
    ARRAYS,
    DESCRIPTION,
    n_chunks_of,
    read_copy,
    read_description,
    read_lost,
    space_attributes,
)
from store.vectors.files import PARTIAL, Files
from store.vectors.root import Root


@dataclass(frozen=True)
class Found:
    """Damage and where it is.

    Attributes:
        name: The space's.
        folder: The space's; "" for the store's own description.
        damage: What is wrong.
        arrays: The space's, None where nothing is known of them.
    """

    name: str
    folder: str
    damage: ChunkDamage
    arrays: SpaceArrays | None = None

    @property
    def row(self) -> dict[str, Any]:
        """What is told about it."""
        return {
            "space": self.name,
            "fingerprint": self.folder,
            "chunk": self.damage.chunk,
            "reason": self.damage.reason,
        }


def find_all(root: Root) -> Iterator[Found]:
    """Read everything and yield the damage, the store's own description first."""
    if damage := root.damage():
        yield Found("the store", "", damage)
    for folder in root.candidates() if damage else root.folders():
        yield from _in_folder(root.files, folder)


def mend(root: Root, found: Found) -> str | None:
    """Write a damaged description again, or drop what is damaged.

    Returns:
        ``"written again"``, ``"dropped"``, or None if it is sound by now.
    """
    if not found.folder:
        root.make()
        return "written again"
    if found.damage.chunk == DESCRIPTION:
        return _mend_description(root.files, found.folder)
    return drop_damage(found.arrays, found.damage) if found.arrays else None


def sweep_out(root: Root, doomed: Mapping[str, str]) -> dict[str, Any]:
    """Delete folders of spaces, and everywhere what killed writers left; return what `FeatureStore.gc` does.

    Args:
        root: The store's.
        doomed: Folder -> name of the spaces to delete.
    """
    files, before, folders = root.files, root.files.n_bytes(""), root.folders()
    for folder in doomed:
        files.delete(f"{folder}/{DESCRIPTION}")  # first: from here on the space does not exist
        files.delete(folder)
    left = [name for folder in folders if folder not in doomed for name in _clean_up(files, folder)]
    unfinished = [name for name in _leftovers(files, [""]) if name.startswith(DESCRIPTION)]
    for name in unfinished:
        files.delete(name)
    return {"dropped": list(doomed.values()), "files": left + unfinished, "bytes": before - files.n_bytes("")}


def _in_folder(files: Files, folder: str) -> list[Found]:
    try:
        about = read_description(files, folder)
    except ChunkDamage as found:
        return _behind_lost(files, folder, found.reason)
    if about is None:
        return _behind_lost(files, folder, "is missing") if n_chunks_of(files, folder) else []
    arrays = SpaceArrays(files, about["space"])
    return [Found(about["space"].name, folder, damage, arrays) for damage in find_damage(arrays)]


def _behind_lost(files: Files, folder: str, problem: str) -> list[Found]:
    """Return the damage of a space whose description is damaged or missing: itself and what lies behind it."""
    about = read_copy(files, folder)
    if not about:
        remedy = "the next `extract` of its encoder writes it again"
        problem = f"{problem}: {remedy}, `store gc --drop {folder}` deletes the space"
    lost = about["space"] if about else read_lost(files, folder)
    damage = ChunkDamage(f"space {folder}", DESCRIPTION, problem)
    if lost is None:
        return [Found(folder, folder, damage)]
    arrays = SpaceArrays(files, lost)
    return [Found(lost.name, folder, each, arrays) for each in (damage, *find_damage(arrays))]


def _mend_description(files: Files, folder: str) -> str:
    """Write a space's description again from its copy; without one only who knows the space can, and the rows stay."""
    if about := read_copy(files, folder):
        files.write(f"{folder}/{DESCRIPTION}", group_document(space_attributes(**about)))
        return "written again"
    files.delete(f"{folder}/{DESCRIPTION}")
    return "dropped"


def _clean_up(files: Files, folder: str) -> list[str]:
    """Delete what killed writers left in a space's folder, and a folder that never became a space; return the names.

    Under the lock nobody else has any files there but claims, which are a courtesy.
    """
    with files.lock(f"{folder}/{LOCK}"):
        is_begun = DESCRIPTION in files.names(folder) or n_chunks_of(files, folder)
        parts = [folder, *(f"{folder}/{name}" for name in (*ARRAYS, "failures"))]
        left = _leftovers(files, parts) if is_begun else [folder]
        for name in left:
            files.delete(name)
        return left


def _leftovers(files: Files, folders: Sequence[str]) -> list[str]:
    """Return the files in `folders` that were never finished."""
    return [
        f"{folder}/{name}".lstrip("/") for folder in folders for name in files.names(folder) if name.endswith(PARTIAL)
    ]
