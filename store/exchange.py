"""Vectors out to the files that other tools read, and back in."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from store.blocks import find_block_space
from store.dataset import Dataset
from store.errors import InputError, StoreError, did_you_mean
from store.space import FeatureSpace
from store.vectors.features import FeatureStore
from store.vectors.index import first_places

SAME_FLOAT32, SAME_LOWER = 1e-3, 0.1
"""Relative distances: engines agree with eager float32 within 1e-4, in bfloat16 networks differ by up to 8e-2."""
ROWS_AT_ONCE = 4096
SPACE = "embedonce_space"  # what the space's canonical JSON is called inside a file


def export_vectors(
    store: FeatureStore,
    space: FeatureSpace,
    ids: Sequence[str],
    *,
    keys: Sequence[str | None],
    out: Path,
    to: str | None = None,
) -> dict[str, Any]:
    """Write ids, keys and vectors in the order of `ids`, beside the space they belong to.

    Args:
        store: Where the vectors lie.
        space: Which vectors.
        ids: n row ids.
        keys: n content keys, None where a row has no content.
        out: The file; replaced if there is one.
        to: As for `export_format`.

    Returns:
        ``out``, ``rows`` (written) and ``left_out`` (ids of the rows that have no vector).

    Raises:
        InputError: As for `export_format`, or `out` cannot be written.
        StoreError: Damage.
    """
    to = export_format(to, out)
    content = [key for key in keys if key is not None]
    present = dict(zip(content, store.present(space, content).tolist(), strict=True))
    kept = [(row, key) for row, key in zip(ids, keys, strict=True) if key is not None and present[key]]
    left_out = [row for row, key in zip(ids, keys, strict=True) if key is None or not present[key]]
    kept_keys = [key for _, key in kept]
    partial = out.with_name(f"{out.name}.partial")
    try:
        EXPORTS[to](partial, space, [row for row, _ in kept], kept_keys, store.read(space, kept_keys))
        partial.replace(out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}. Choose another --out") from error
    finally:  # interrupted, too
        with suppress(OSError):
            partial.unlink()
    return {"out": str(out), "rows": len(kept), "left_out": left_out}


def export_block(
    dataset: Dataset, store: FeatureStore, name: str, *, out: Path, to: str | None = None
) -> dict[str, Any]:
    """Write a stored space of a dataset, rows in dataset order; as `export_vectors`, with ``name`` and ``fingerprint``.

    Args:
        dataset: n rows.
        store: Where the vectors lie.
        name: As `find_block_space` takes it.
        out: The file; replaced if there is one.
        to: As for `export_format`, which is asked before anything is read.
    """
    to = export_format(to, out)
    full_name, found = find_block_space(dataset, store, name)
    done = export_vectors(store, found.space, dataset.ids.tolist(), keys=found.keys, to=to, out=out)
    return {"name": full_name, "fingerprint": found.space.fingerprint} | done


def export_format(to: str | None, out: Path) -> str:
    """Return which of `EXPORTS` a file is to be: what its ending says; `to` for an ending that says nothing.

    Raises:
        InputError: `to` is unknown or contradicts the ending, or neither says anything.
    """
    if to is not None and to not in EXPORTS:
        raise InputError(f"cannot export to {to!r}: expected {', '.join(EXPORTS)}.{did_you_mean(to, EXPORTS)}")
    ending = ENDINGS.get(out.suffix)
    if ending and to and ending != to:
        raise InputError(f"{out} ends as {ending} and --to says {to}: give one of them, or an --out that ends as --to")
    if not (found := to or ending):
        raise InputError(f"cannot tell what to write to {out}: end --out in {', '.join(ENDINGS)}, or say --to")
    return found


def import_vectors(
    store: FeatureStore, file: Path, *, space: FeatureSpace | None = None, provenance: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Store the keys and vectors of a .npz or .parquet file as `export_vectors` writes them.

    A file with a vector that contradicts the store's, or another of its own, is refused as a whole: its other vectors
    cannot be trusted either.

    Args:
        store: Where to.
        file: Has ``keys`` ``(n,)`` and ``X`` ``(n, d)`` (npz), or columns ``key`` and ``X`` (parquet).
        space: What the vectors belong to, for a file that does not say so itself.
        provenance: Kept beside the space.

    Returns:
        ``name`` and ``fingerprint`` of the space; ``rows`` newly stored, ``present`` before, and ``repeated`` in the
        file, which are all rows of it.

    Raises:
        InputError: The file is not there, cannot be read, says nothing of its space, says another one, or contradicts.
        StoreError: Damage.
    """
    if file.suffix[1:] not in IMPORTS:
        raise InputError(f"cannot import {file}: expected a file ending in .{' or .'.join(IMPORTS)}")
    if not file.is_file():
        raise InputError(f"cannot import {file}: there is no such file; give one that `store export` wrote")
    try:
        keys, vectors, text = IMPORTS[file.suffix[1:]](file)
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(
            f"cannot import {file}: expected keys and X, as `store export` writes them; export it again"
        ) from error
    found = _space_of(file, text, space)
    if vectors.dtype.kind not in "fiu":
        raise InputError(f"{file}: X is of type {vectors.dtype}, expected numbers")
    if vectors.ndim != 2 or vectors.shape != (len(keys), found.dim):
        raise InputError(f"{file}: X has shape {vectors.shape}, expected {(len(keys), found.dim)}")
    keys = [str(key).lower() for key in keys]
    try:
        first = first_places(keys)
        _compare_repeats(file, found, keys, vectors)
        _compare_stored(file, found, [keys[place] for place in first], vectors[first], store=store)
        n_new = store.write(found, keys, vectors, provenance=provenance or {"imported": file.name})
    except ValueError as error:
        raise InputError(f"cannot import {file}: {error}") from error
    counts = {"rows": n_new, "present": len(first) - n_new, "repeated": len(keys) - len(first)}
    return {"name": found.name, "fingerprint": found.fingerprint} | counts


def _compare_repeats(file: Path, space: FeatureSpace, keys: Sequence[str], vectors: NDArray[Any]) -> None:
    """Refuse a key that stands in the file with different vectors."""
    first: dict[str, int] = {}
    repeats = [(first.setdefault(key, place), place) for place, key in enumerate(keys)]
    pairs = np.array([pair for pair in repeats if pair[0] < pair[1]], np.int64).reshape(-1, 2)
    wrong = _contradicting(space, vectors[pairs[:, 1]], vectors[pairs[:, 0]])
    if wrong.any():
        twice = _counted(wrong, [keys[place] for place in pairs[:, 1]])
        raise InputError(
            f"cannot import {file}: {twice} stand there with different vectors, and nothing was imported. "
            "Keep the row that is right"
        )


def _compare_stored(
    file: Path, space: FeatureSpace, keys: Sequence[str], vectors: NDArray[Any], *, store: FeatureStore
) -> None:
    """Refuse distinct keys that have other vectors in the store."""
    there = np.flatnonzero(store.present(space, keys)).tolist()
    wrong = np.zeros(len(there), bool)
    for start in range(0, len(there), ROWS_AT_ONCE):
        part = there[start : start + ROWS_AT_ONCE]
        stored = store.read(space, [keys[place] for place in part])
        wrong[start : start + len(part)] = _contradicting(space, vectors[part], stored)
    if wrong.any():
        others = _counted(wrong, [keys[place] for place in there])
        raise InputError(
            f"cannot import {file}: {others} have other vectors in the store, and nothing was imported. "
            f"One of the two was not made as {space.name} says: leave the file out, or delete the stored ones "
            f"(`store gc --drop {space.fingerprint[:12]}`)"
        )


def _contradicting(space: FeatureSpace, some: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which of n pairs of vectors are farther apart than engines of one space are, ``(n,)``."""
    allowed = SAME_FLOAT32 if space.precision == "float32" else SAME_LOWER
    gap = np.linalg.norm(np.subtract(some, others, dtype=np.float64), axis=1)
    return np.asarray(gap > allowed * np.linalg.norm(others.astype(np.float64), axis=1))


def _counted(wrong: NDArray[np.bool_], keys: Sequence[str]) -> str:
    """Return how many keys are wrong, and the first five."""
    found = [key[:12] for key, is_wrong in zip(keys, wrong, strict=True) if is_wrong]
    return f"{len(found)} of its keys ({', '.join(found[:5])}{', …' if len(found) > 5 else ''})"


def _space_of(file: Path, text: str | None, given: FeatureSpace | None) -> FeatureSpace:
    if text is None:
        if given is None:
            raise InputError(f"{file} does not say which feature space its vectors belong to: name one with --space")
        return given
    try:
        found = FeatureSpace.from_json(text)
    except (StoreError, ValueError, AttributeError) as error:
        raise InputError(f"{file}: its feature space cannot be read: {error}") from error
    if given is not None and given.fingerprint != found.fingerprint:
        raise InputError(f"{file} belongs to another feature space: {'; '.join(given.differences(found))}")
    return found


def _write_npz(file: Path, space: FeatureSpace, ids: list[str], keys: list[str], vectors: NDArray[np.float32]) -> None:
    with file.open("wb") as opened:
        np.savez(
            opened,
            ids=np.array(ids, dtype=str),
            keys=np.array(keys, dtype=str),
            X=vectors,
            embedonce_space=np.array(space.to_json()),
        )


def _read_npz(file: Path) -> tuple[list[str], NDArray[Any], str | None]:
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
        text = str(arrays[SPACE]) if SPACE in arrays else None
        return arrays["keys"].tolist(), arrays["X"], text


def _write_parquet(
    file: Path, space: FeatureSpace, ids: list[str], keys: list[str], vectors: NDArray[np.float32]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), space.dim)
    table = pa.table({"id": pa.array(ids, pa.string()), "key": pa.array(keys, pa.string()), "X": rows})
    pq.write_table(table.replace_schema_metadata({SPACE: space.to_json()}), file)


def _read_parquet(file: Path) -> tuple[list[str], NDArray[Any], str | None]:
    import pyarrow.parquet as pq

    table = pq.read_table(file, columns=["key", "X"])
    text = (table.schema.metadata or {}).get(SPACE.encode())
    rows = table["X"].combine_chunks()
    vectors = rows.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), -1) if len(rows) else np.zeros((0, 0))
    return table["key"].to_pylist(), vectors, text.decode() if text else None


def _write_csv(file: Path, space: FeatureSpace, ids: list[str], keys: list[str], vectors: NDArray[np.float32]) -> None:
    import pandas as pd

    table = pd.DataFrame(vectors, columns=[f"x{column}" for column in range(space.dim)])
    table.insert(0, "id", ids)
    table.insert(1, "key", keys)
    table.to_csv(file, index=False)


def _write_anndata(
    file: Path, space: FeatureSpace, ids: list[str], keys: list[str], vectors: NDArray[np.float32]
) -> None:
    """Write a .h5ad as https://anndata.readthedocs.io/en/stable/fileformat-prose.html describes it."""
    try:
        import h5py
    except ImportError as error:
        raise InputError(
            "export to anndata needs a package that is not installed: pip install 'embedonce[anndata]', "
            "or choose another --to"
        ) from error
    text = h5py.string_dtype()
    with h5py.File(file, "w") as root:
        root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        _encoded(root.create_dataset("X", data=vectors), "array", "0.2.0")
        columns = [f"x{column}" for column in range(space.dim)]
        for name, table in (("obs", {"_index": ids, "key": keys}), ("var", {"_index": columns})):
            group = _encoded(root.create_group(name), "dataframe", "0.2.0")
            group.attrs["_index"] = "_index"
            group.attrs.create("column-order", [column for column in table if column != "_index"], dtype=text)
            for column, values in table.items():
                _encoded(group.create_dataset(column, data=values, dtype=text), "string-array", "0.2.0")
        for name in ("uns", "layers", "obsm", "varm", "obsp", "varp"):
            _encoded(root.create_group(name), "dict", "0.1.0")
        _encoded(root["uns"].create_dataset(SPACE, data=space.to_json(), dtype=text), "string", "0.2.0")


def _encoded(element: Any, kind: str, version: str) -> Any:
    element.attrs.update({"encoding-type": kind, "encoding-version": version})
    return element


Writer = Callable[[Path, FeatureSpace, list[str], list[str], NDArray[np.float32]], None]
Reader = Callable[[Path], tuple[list[str], NDArray[Any], str | None]]
EXPORTS: dict[str, Writer] = {
    "npz": _write_npz,
    "parquet": _write_parquet,
    "csv": _write_csv,
    "anndata": _write_anndata,
}
ENDINGS = {".npz": "npz", ".parquet": "parquet", ".csv": "csv", ".h5ad": "anndata"}
IMPORTS: dict[str, Reader] = {"npz": _read_npz, "parquet": _read_parquet}
