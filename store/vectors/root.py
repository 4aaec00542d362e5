"""A store's own folder: the description that makes it a feature store, and the folders of its spaces."""

from contextlib import suppress
from typing import Any

from store.errors import StoreError
from store.vectors.chunks import ChunkDamage, group_document
from store.vectors.description import (
    ARRAYS,
    DESCRIPTION,
    FOLDER,
    read_attributes,
    read_lost,
    sound_description,
)
from store.vectors.files import PARTIAL, Files

LAYOUT_VERSION = 2
"""Of the files; a space's fields have a version of their own. Version 1 had no sums beside the keys."""
_VERSION = "embedonce_schema_version"


class Root:
    """What tells a feature store from any other folder.

    Attributes:
        version: Of its layout; None until `exists` has found it, or `make` made it.
    """

    def __init__(self, files: Files) -> None:
        self.files = files
        self.version: int | None = None

    def exists(self) -> bool:
        """Tell whether the store was made.

        Raises:
            StoreError: The folder is something else, another version wrote it, or its description is lost.
        """
        if self.version is not None:
            return True
        if not self._names():
            return False
        attributes, problem = self._read()
        if problem:
            raise self.damage() or StoreError(
                f"{self.files.url} is no feature store: expected a zarr.json that says so. Name another with --store"
            )
        if attributes[_VERSION] not in range(1, LAYOUT_VERSION + 1):
            raise StoreError(
                f"the store {self.files.url} has schema version {attributes[_VERSION]!r}, expected {LAYOUT_VERSION}: "
                "use the embedonce that wrote it, or another store"
            )
        self.version = attributes[_VERSION]
        return True

    def make(self) -> None:
        """Write the description, anew if it is damaged; what else it says stays."""
        attributes, _ = self._read()
        self.files.write(DESCRIPTION, group_document(attributes | {_VERSION: LAYOUT_VERSION}))
        self.version = LAYOUT_VERSION

    def folders(self) -> list[str]:
        """Return the folders that may be spaces; raises as `exists`."""
        return self.candidates() if self.exists() else []

    def candidates(self) -> list[str]:
        """Return the folders that may be spaces, whatever folder this is."""
        return [name for name in self._names() if FOLDER.fullmatch(name)]

    def damage(self) -> ChunkDamage | None:
        """Return what is wrong with the description of a folder in which spaces lie; None for any other folder."""
        _, problem = self._read()
        if problem and any(_is_space(self.files, folder) for folder in self.candidates()):
            return ChunkDamage(f"the store {self.files.url}", DESCRIPTION, problem)
        return None

    def _names(self) -> list[str]:
        try:
            return [name for name in self.files.names("") if not name.endswith(PARTIAL)]
        except NotADirectoryError:
            return ["."]

    def _read(self) -> tuple[dict[str, Any], str | None]:
        """Return what the description says, and why that makes no feature store."""
        try:
            with suppress(NotADirectoryError):
                attributes = read_attributes(self.files, "", DESCRIPTION, f"the store {self.files.url}")
                if attributes is not None:
                    return attributes, None if _VERSION in attributes else "says nothing of a feature store"
        except ChunkDamage as found:
            return {}, found.reason
        return {}, "is missing"


def _is_space(files: Files, folder: str) -> bool:
    if sound_description(files, folder):
        return True
    return set(ARRAYS) <= set(files.names(folder)) and read_lost(files, folder) is not None
