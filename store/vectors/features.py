"""The feature store: vectors by space and content key, on Zarr v3."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from store.errors import InputError, StoreError
from store.space import FeatureSpace
from store.vectors.arrays import CLAIMS, SpaceArrays, as_stored
from store.vectors.chunks import ChunkDamage
from store.vectors.damage import check_sizes
from store.vectors.description import (
    DESCRIPTION,
    LostSpace,
    folder_of,
    n_chunks_of,
    read_description,
    sound_description,
)
from store.vectors.failures import change_failures, read_failures
from store.vectors.files import open_files
from store.vectors.index import first_places, key_bytes
from store.vectors.locks import Claims
from store.vectors.names import find_space
from store.vectors.root import LAYOUT_VERSION, Root
from store.vectors.upkeep import find_all, mend, sweep_out

N_READ_TRIES = 5


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
        self._root = Root(self._files)
        self._opened: dict[str, SpaceArrays] = {}
        self._claims: dict[str, Claims | None] = {}

    def spaces(self) -> list[FeatureSpace]:
        """Return the spaces, by name; `lost` has those that cannot say what they are.

        Raises:
            StoreError: The folder is no feature store, or a space is of another schema version.
        """
        found = [about["space"] for folder in self._root.folders() if (about := sound_description(self._files, folder))]
        return sorted(found, key=lambda s: (s.name, s.fingerprint))

    def lost(self) -> list[str]:
        """Return the folders of spaces whose description is damaged or missing: the starts of their fingerprints."""
        without = [folder for folder in self._root.folders() if sound_description(self._files, folder) is None]
        return [name for name in without if DESCRIPTION in self._files.names(name) or n_chunks_of(self._files, name)]

    def find(self, name: str) -> FeatureSpace:
        """Return a space by its name, as `spaces` or a dataset has it, or by the start of its fingerprint.

        ``image@texture``, and a dataset's ``image:bf@texture``, is also the encoder's only space, however its images
        are seen; a dataset's ``image:bf.log@texture`` is ``image.log@texture``.

        Raises:
            InputError: None fits, or several; the message names them.
        """
        return find_space(name, self.spaces(), self.url)

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

    def provenance(self, space: FeatureSpace) -> dict[str, Any]:
        """Return where a space's weights came from, when vectors were last added to it; nothing where that is lost."""
        about = read_description(self._files, folder_of(space))
        latest: dict[str, Any] = about["provenance"][-1] if about and about["provenance"] else {}
        return latest

    def present(self, space: FeatureSpace, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Return whether every key has a vector, ``(n,)``."""
        return self._rows(space, key_bytes(keys)) >= 0

    def missing(self, space: FeatureSpace, keys: Sequence[str], *, retry: bool = False) -> list[str]:
        """Return the distinct keys without a vector, in the order they are first seen.

        Args:
            space: Which vectors; compared by fingerprint, not by name.
            keys: Content keys (sha256, hex). Repeats allowed.
            retry: Count keys that are recorded as failed as missing, too.

        Raises:
            StoreError: A file of vectors is missing or of a wrong size. Other damage is found where vectors are read.
        """
        if arrays := self._open(space):
            check_sizes(arrays)
        distinct = list(dict.fromkeys(keys))
        absent = [key for key, found in zip(distinct, self.present(space, distinct), strict=True) if not found]
        failed = read_failures(arrays) if arrays and not retry else {}
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
        """Read everything and return the damage: ``{space, fingerprint, chunk, reason}`` per chunk or description."""
        return [found.row for found in find_all(self._root)]

    def repair(self) -> list[dict[str, Any]]:
        """Write damaged descriptions again and drop exactly the damaged chunks; return them as `verify` with `done`.

        The next extraction fills what was dropped. A space's description that is lost with its copy is among them: only
        who knows the space can write it again.
        """
        self._check_writable()
        return [found.row | {"done": done} for found in find_all(self._root) if (done := mend(self._root, found))]

    def gc(self, *, drop: Sequence[str] = ()) -> dict[str, Any]:
        """Delete what killed writers left, and whole spaces on request. Rows never move: new ones fill the holes.

        Args:
            drop: Spaces to delete, by name or by the start of their fingerprint, also those without a description.

        Returns:
            ``dropped`` (names of spaces), ``files`` (names of leftovers, and of folders that never became a space) and
            ``bytes`` (freed).

        Raises:
            InputError: No store, or no such space.
        """
        self._check_writable()
        if not self._root.exists():
            raise InputError(f"there is no feature store at {self.url}: correct --store, or run extract first")
        doomed = dict(self._find_folder(name) for name in drop)
        self._opened = {name: arrays for name, arrays in self._opened.items() if arrays.folder not in doomed}
        return sweep_out(self._root, doomed)

    def _find_folder(self, name: str) -> tuple[str, str]:
        """Return a space's folder and name; of one without a sound description, by the start of its fingerprint."""
        lost = [folder for folder in self._root.folders() if name and folder.startswith(name[: len(folder)])]
        if len(lost) == 1 and sound_description(self._files, lost[0]) is None:
            return lost[0], LostSpace.name
        space = self.find(name)
        return folder_of(space), space.name

    def _check_writable(self) -> None:
        if self.read_only:
            raise StoreError(f"the store {self.url} was opened read-only: open it for writing")

    def _open(self, space: FeatureSpace) -> SpaceArrays | None:
        """Return a space's arrays, None if the store has no such space."""
        if space.fingerprint not in self._opened:
            arrays, folder = SpaceArrays(self._files, space), folder_of(space)
            about = read_description(self._files, folder) if self._root.exists() else None
            if about is None and not (self._root.exists() and n_chunks_of(self._files, folder)):
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
        exists, arrays = self._root.exists(), self._open(space)
        if not exists or (arrays is None and self._root.version != LAYOUT_VERSION):  # new spaces are of the new layout
            self._root.make()
        if arrays is None or provenance:
            SpaceArrays(self._files, space).make(space, provenance)
        return arrays or self._opened.setdefault(space.fingerprint, SpaceArrays(self._files, space))

    def _claims_of(self, space: FeatureSpace) -> Claims | None:
        if space.fingerprint not in self._claims:
            if not self._root.exists():
                self._root.make()
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


def _gather(arrays: SpaceArrays, rows: NDArray[np.int64], out: NDArray[np.float32]) -> ChunkDamage | None:
    try:
        arrays.gather(rows, out)
    except ChunkDamage as damage:
        return damage
    return None
