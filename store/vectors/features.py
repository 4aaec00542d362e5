"""The feature store: vectors by space and content key, on Zarr v3."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from store.errors import InputError, StoreError, did_you_mean
from store.space import FeatureSpace
from store.vectors.arrays import CLAIMS, SpaceArrays, as_stored
from store.vectors.chunks import ChunkDamage, group_document
from store.vectors.description import (
    DESCRIPTION,
    FOLDER,
    LostSpace,
    folder_of,
    n_chunks_of,
    read_attributes,
    read_description,
    read_lost,
)
from store.vectors.failures import change_failures, read_failures
from store.vectors.files import PARTIAL, open_files
from store.vectors.index import first_places, key_bytes
from store.vectors.locks import Claims
from store.vectors.upkeep import clean_up, drop_damage, find_damage, leftovers

N_READ_TRIES = 5
LAYOUT_VERSION = 2
"""Of the files; a space's fields have a version of their own. Version 1 had no sums beside the keys."""


class FeatureStore:
    """Vectors by space and content key, in a local folder or at any fsspec URL.

    Stores take any number of readers and writers at once. Who fills a local one shares the work with others; at other
    URLs nobody knows what others compute, so each is to have a shard of its own.
    Nothing is made before the first write. `storage_options` are fsspec's, such as ``endpoint_url``; by default the
    environment decides (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``).
    """

    def __init__(
        self, url: str | Path, *, read_only: bool = False, storage_options: Mapping[str, Any] | None = None
    ) -> None:
        self.url = str(url)
        self.read_only = read_only
        self._files = open_files(url, storage_options)
        self._opened: dict[str, SpaceArrays] = {}
        self._claims: dict[str, Claims | None] = {}
        self._version: int | None = None

    def spaces(self) -> list[FeatureSpace]:
        """Return the spaces, by name; `lost` has those that cannot say what they are.

        Raises:
            StoreError: The folder is no feature store, or a space is of another schema version.
        """
        found = [about["space"] for folder in self._folders() if (about := self._describe(folder))]
        return sorted(found, key=lambda s: (s.name, s.fingerprint))

    def lost(self) -> list[str]:
        """Return the folders of spaces whose description is damaged or missing: the starts of their fingerprints."""
        without = [folder for folder in self._folders() if self._describe(folder) is None]
        return [name for name in without if DESCRIPTION in self._files.names(name) or n_chunks_of(self._files, name)]

    def find(self, name: str) -> FeatureSpace:
        """Return a space by its name, as `spaces` or a dataset has it, or by the start of its fingerprint.

        ``image@texture``, and a dataset's ``image:bf@texture``, is also the encoder's only space, however its images
        are seen; a dataset's ``image:bf.log@texture`` is ``image.log@texture``.

        Raises:
            InputError: None fits, or several; the message names them.
        """
        spaces = self.spaces()
        fits = match_spaces(name, spaces)
        if len(fits) == 1:
            return fits[0]
        listed = ", ".join(f"{s.name} ({s.fingerprint[:12]})" for s in fits or spaces) or "none yet"
        if fits:
            remedy = "Give one of these names, or the first letters of a fingerprint"
            raise InputError(f"space {name!r} is {len(fits)} spaces: {listed}. {remedy}")
        hint = did_you_mean(name, [s.name for s in spaces])
        raise InputError(f"the store {self.url} has no space {name!r}.{hint} It holds: {listed}")

    def info(self, space: FeatureSpace) -> dict[str, Any]:
        """Return what is known of a space, as JSON values."""
        arrays = self._open(space)
        about = read_description(self._files, folder_of(space)) if arrays else None
        return {
            "name": space.name,
            "fingerprint": space.fingerprint,
            "dim": space.dim,
            "dtype": space.dtype,
            "rows": arrays.n_rows() if arrays else 0,
            "bytes": self._files.n_bytes(folder_of(space)),
            "failed": len(self.failures(space)),
            "created": about["created"] if about else None,
            "provenance": about["provenance"] if about else [],
        }

    def present(self, space: FeatureSpace, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Return whether every key has a vector, ``(n,)``."""
        return self._rows(space, key_bytes(keys)) >= 0

    def missing(self, space: FeatureSpace, keys: Sequence[str], *, retry: bool = False) -> list[str]:
        """Return the distinct keys without a vector, in the order they are first seen.

        Args:
            space: Which vectors; compared by fingerprint, not by name.
            keys: Content keys (sha256, hex). Repeats allowed.
            retry: Count keys that are recorded as failed as missing, too.
        """
        distinct = list(dict.fromkeys(keys))
        absent = [key for key, found in zip(distinct, self.present(space, distinct), strict=True) if not found]
        arrays = None if retry else self._open(space)
        failed = read_failures(arrays) if arrays else {}
        return [key for key in absent if key not in failed]

    def claim(self, space: FeatureSpace, keys: Sequence[str], *, retry: bool = False) -> tuple[list[str], list[str]]:
        """Say that this process will embed what is missing of these keys and what no other process has claimed.

        A claim ends with `release` or with the process. At URLs there are none: everything is this process's.

        Args:
            space: Which vectors.
            keys: Distinct content keys that lacked a vector when they were last looked for.
            retry: As for `missing`.

        Returns:
            The keys that are this process's now, and those that others have finished meanwhile.
        """
        self._check_writable()
        if (claims := self._claims_of(space)) is None:
            return list(keys), []
        taken = claims.take(keys)
        missing = set(self.missing(space, taken, retry=retry))
        done = [key for key in taken if key not in missing]
        claims.free(done)
        return [key for key in taken if key in missing], done

    def release(self, space: FeatureSpace, keys: Sequence[str]) -> None:
        """Give claimed keys back."""
        if (claims := self._claims_of(space)) is not None:
            claims.free(keys)

    def read(self, space: FeatureSpace, keys: Sequence[str]) -> NDArray[np.float32]:
        """Return stored vectors in the order of `keys`, reading only the chunks they lie in.

        Args:
            space: Which vectors; compared by fingerprint, not by name.
            keys: n content keys (sha256, hex). Repeats allowed.

        Returns:
            float32, (n, space.dim), not normalised.

        Raises:
            StoreError: A key has no vector (the message gives the first five and the count), or a chunk is damaged.
        """
        out, query = np.empty((len(keys), space.dim), np.float32), key_bytes(keys)
        arrays = self._open(space)
        if arrays is None or not len(keys):
            self._refuse_absent(space, keys, np.full(len(keys), -1))
            return out
        for _ in range(N_READ_TRIES):
            version = arrays.refresh()
            rows = arrays.find(query)
            self._refuse_absent(space, keys, rows)
            damage = _gather(arrays, rows, out)
            is_unchanged = arrays.refresh() == version
            if damage and is_unchanged:
                raise damage
            if not damage and (is_unchanged or np.array_equal(arrays.find(query), rows)):  # no row moved meanwhile
                return out
        raise damage or StoreError(
            f"the store {self.url} is being repaired again and again while it is read: try later"
        )

    def write(
        self,
        space: FeatureSpace,
        keys: Sequence[str],
        vectors: ArrayLike,
        *,
        provenance: Mapping[str, Any] | None = None,
    ) -> int:
        """Store the vectors of keys that have none yet; what is there already stays as it is.

        Rows are committed up to 1,024 at a time; give as many at once as you have, a chunk is written whole.

        Args:
            space: What the vectors are comparable with.
            keys: n content keys; of repeated ones the first counts.
            vectors: ``(n, d)``, finite.
            provenance: Library versions and where the weights came from; kept beside the space (JSON values).

        Returns:
            Rows newly stored.

        Raises:
            InputError: A vector is not finite, or not in the range of the space's dtype.
            StoreError: Read-only, disk full, damage, or another space under the same folder name.
        """
        query, table = key_bytes(keys), np.asarray(vectors)
        if table.shape != (len(keys), space.dim):
            raise ValueError(f"vectors have shape {table.shape}, expected {(len(keys), space.dim)}")
        first = first_places(keys)
        table = as_stored(space, keys, table)
        arrays = self._make(space, provenance)
        n_new = arrays.append(query[first], table[first]) if len(first) < len(keys) else arrays.append(query, table)
        if read_failures(arrays).keys() & set(keys):
            change_failures(arrays, add={}, remove=keys)
        return n_new

    def fail(self, space: FeatureSpace, reasons: Mapping[str, str]) -> None:
        """Record why keys have no vector (key -> reason); kept until a vector of the key is written."""
        key_bytes(list(reasons))
        if reasons:
            change_failures(self._make(space, None), add=reasons)

    def failures(self, space: FeatureSpace) -> dict[str, str]:
        """Return key -> reason of the keys that failed and have no vector."""
        arrays = self._open(space)
        recorded = read_failures(arrays) if arrays else {}
        present = self.present(space, list(recorded))
        return {key: reason for (key, reason), found in zip(recorded.items(), present, strict=True) if not found}

    def verify(self) -> list[dict[str, Any]]:
        """Read everything and return the damage: ``{space, fingerprint, chunk, reason}`` per chunk."""
        return [
            {"space": name, "fingerprint": folder, "chunk": found.chunk, "reason": found.reason}
            for folder in self._folders()
            for name, _, found in self._damage(folder)
        ]

    def repair(self) -> list[dict[str, Any]]:
        """Drop exactly the damaged chunks, so that the next extraction fills them; return them as `verify` does.

        A space's description, damaged or missing, is among them: only who knows the space can write it again.
        """
        self._check_writable()
        dropped = []
        for folder in self._folders():
            for name, arrays, found in self._damage(folder):
                if found.chunk == DESCRIPTION:
                    self._files.delete(f"{folder}/{DESCRIPTION}")  # whoever knows the space writes it, the rows stay
                elif arrays is None or not drop_damage(arrays, found):
                    continue
                dropped.append({"space": name, "fingerprint": folder, "chunk": found.chunk, "reason": found.reason})
        return dropped

    def gc(self, *, drop: Sequence[str] = ()) -> dict[str, Any]:
        """Delete what killed writers left, and whole spaces on request. Rows never move: new ones fill the holes.

        Args:
            drop: Spaces to delete, by name or by the start of their fingerprint, also those without a description.

        Returns:
            ``dropped`` (names of spaces), ``files`` (names of leftovers, and of folders that never became a space) and
            ``bytes`` (freed).
        """
        self._check_writable()
        before = self._files.n_bytes("")
        doomed = dict(self._find_folder(name) for name in drop)
        for folder in doomed:
            self._files.delete(f"{folder}/{DESCRIPTION}")  # first: from here on the space does not exist
            self._files.delete(folder)
        self._opened = {name: arrays for name, arrays in self._opened.items() if arrays.folder not in doomed}
        files = [name for folder in self._folders() for name in clean_up(self._files, folder)]
        roots = [name for name in leftovers(self._files, [""]) if name.startswith(DESCRIPTION)]
        for name in roots:
            self._files.delete(name)
        return {
            "dropped": list(doomed.values()),
            "files": files + roots,
            "bytes": before - self._files.n_bytes(""),
        }

    def _find_folder(self, name: str) -> tuple[str, str]:
        """Return a space's folder and name; of one without a sound description, by the start of its fingerprint."""
        lost = [folder for folder in self._folders() if name and folder.startswith(name[: len(folder)])]
        if len(lost) == 1 and self._describe(lost[0]) is None:
            return lost[0], LostSpace.name
        space = self.find(name)
        return folder_of(space), space.name

    def _describe(self, folder: str) -> dict[str, Any] | None:
        """Return what a folder says of itself, None if that is damaged or missing."""
        try:
            return read_description(self._files, folder)
        except ChunkDamage:
            return None

    def _folders(self) -> list[str]:
        return [name for name in self._files.names("") if FOLDER.fullmatch(name)] if self._exists() else []

    def _exists(self) -> bool:
        """Tell whether the store was made; refuse a folder that is something else."""
        if self._version is not None:
            return True
        try:
            names = [name for name in self._files.names("") if not name.endswith(PARTIAL)]
        except NotADirectoryError:
            names = ["."]
        if not names:
            return False
        version = self._schema_version()
        if version not in range(1, LAYOUT_VERSION + 1):
            raise StoreError(
                f"the store {self.url} has schema version {version!r}, expected {LAYOUT_VERSION}: "
                "use the embedonce that wrote it, or another store"
            )
        self._version = version
        return True

    def _schema_version(self) -> Any:
        try:
            attributes = read_attributes(self._files, "", "zarr.json", self.url) or {}
        except (ChunkDamage, NotADirectoryError):
            attributes = {}
        if "embedonce_schema_version" not in attributes:
            raise StoreError(
                f"{self.url} is no feature store: expected a zarr.json that says so. Name another with --store; "
                "if it is one and the file was damaged, copy the zarr.json of any other feature store there"
            )
        return attributes["embedonce_schema_version"]

    def _check_writable(self) -> None:
        if self.read_only:
            raise StoreError(f"the store {self.url} was opened read-only: open it for writing")

    def _open(self, space: FeatureSpace) -> SpaceArrays | None:
        """Return a space's arrays, None if the store has no such space."""
        if space.fingerprint not in self._opened:
            arrays, folder = SpaceArrays(self._files, space), folder_of(space)
            about = read_description(self._files, folder) if self._exists() else None
            if about is None and not (self._exists() and n_chunks_of(self._files, folder)):
                return None
            if about and about["space"].fingerprint != space.fingerprint:
                differences = "; ".join(space.differences(about["space"]))
                raise StoreError(f"space {space.name!r}: its folder in {self.url} holds another space: {differences}")
            if about is None and not self.read_only:  # lost; the folder's name says that these are the space's rows
                arrays.make(space, None)
            self._opened[space.fingerprint] = arrays
        return self._opened[space.fingerprint]

    def _make(self, space: FeatureSpace, provenance: Mapping[str, Any] | None) -> SpaceArrays:
        self._check_writable()
        exists, arrays = self._exists(), self._open(space)
        if not exists or (arrays is None and self._version != LAYOUT_VERSION):  # new spaces are of the new layout
            self._make_root()
        if arrays is None or provenance:
            SpaceArrays(self._files, space).make(space, provenance)
        return arrays or self._opened.setdefault(space.fingerprint, SpaceArrays(self._files, space))

    def _make_root(self) -> None:
        self._files.write("zarr.json", group_document({"embedonce_schema_version": LAYOUT_VERSION}))
        self._version = LAYOUT_VERSION

    def _claims_of(self, space: FeatureSpace) -> Claims | None:
        if space.fingerprint not in self._claims:
            if not self._exists():
                self._make_root()
            self._claims[space.fingerprint] = self._files.claims(f"{folder_of(space)}/{CLAIMS}")
        return self._claims[space.fingerprint]

    def _rows(self, space: FeatureSpace, query: NDArray[np.uint8]) -> NDArray[np.int64]:
        arrays = self._open(space)
        if arrays is None:
            return np.full(len(query), -1, np.int64)
        arrays.refresh()
        return arrays.find(query)

    def _refuse_absent(self, space: FeatureSpace, keys: Sequence[str], rows: NDArray[np.int64]) -> None:
        absent = np.flatnonzero(rows < 0)
        if len(absent):
            first = ", ".join(keys[place][:12] for place in absent[:5])
            raise StoreError(
                f"space {space.name!r} ({space.fingerprint[:12]}) of the store {self.url} has no vector for "
                f"{len(absent)} of {len(keys)} keys: {first}{', …' if len(absent) > 5 else ''}. Run `extract`"
            )

    def _damage(self, folder: str) -> list[tuple[str, SpaceArrays | None, ChunkDamage]]:
        try:
            about = read_description(self._files, folder)
        except ChunkDamage as found:
            return self._damage_of_lost(folder, found.reason)
        if about is None:
            return self._damage_of_lost(folder, "is missing") if n_chunks_of(self._files, folder) else []
        arrays = SpaceArrays(self._files, about["space"])
        return [(about["space"].name, arrays, found) for found in find_damage(arrays)]

    def _damage_of_lost(self, folder: str, problem: str) -> list[tuple[str, SpaceArrays | None, ChunkDamage]]:
        """Return the damage of a space whose description is damaged or missing, itself and what lies behind it."""
        remedy = "the next `extract` of its encoder writes it again"
        found = ChunkDamage(folder, DESCRIPTION, f"{problem}: {remedy}, `store gc --drop {folder}` deletes the space")
        lost = read_lost(self._files, folder)
        if lost is None:
            return [(folder, None, found)]
        arrays = SpaceArrays(self._files, lost)
        return [(lost.name, arrays, each) for each in (found, *find_damage(arrays))]


def match_spaces(name: str, spaces: Sequence[FeatureSpace]) -> list[FeatureSpace]:
    """Return the spaces that a name may mean; `FeatureStore.find` says which names there are."""
    plain, _, start = name.partition("#")
    alike = [space for space in spaces if space.fingerprint.startswith(start)]
    fits = [space for space in alike if space.name == plain] or _fitting_block(plain, alike)
    return fits or [space for space in spaces if name and space.fingerprint.startswith(name)]


def _fitting_block(name: str, spaces: Sequence[FeatureSpace]) -> list[FeatureSpace]:
    """Return the spaces that a name without block, view or conversion may mean."""
    match = re.fullmatch(r"(image|text)(?::[^.@]*)?(\.[^@]*)?@(.*)", name)
    if match is None:
        return []
    modality, words, encoder = match.groups(default="")
    fits = [space for space in spaces if (space.modality, space.encoder) == (modality, encoder)]
    return [space for space in fits if not words or space.name == f"{modality}{words}@{encoder}"]


def _gather(arrays: SpaceArrays, rows: NDArray[np.int64], out: NDArray[np.float32]) -> ChunkDamage | None:
    try:
        arrays.gather(rows, out)
    except ChunkDamage as damage:
        return damage
    return None
