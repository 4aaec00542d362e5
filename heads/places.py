"""Where things lie, as a bundle keeps it: no folder of the machine it was made on that `predict` does not need.

What lies in the dataset's folder moves along with it, so such paths are kept relative; a bundle in ``runs/NAME`` finds
them again. What lies outside stays where it was.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from store import DatasetSpec

LOCAL = "local-dir:"  # timm's prefix for a folder
PATHS = ("name", "weights")  # of a provenance; ``source`` is for people


def portable_spec(spec: DatasetSpec, home: Path) -> DatasetSpec:
    """Return a spec whose absolute paths are relative to the dataset's folder, or only a name where none is read.

    Args:
        spec: Of a dataset.
        home: Its folder, absolute.
    """
    root = Path(spec.root)
    if root.is_absolute() and root.resolve().is_relative_to(home):
        spec = spec.model_copy(update={"root": root.resolve().relative_to(home).as_posix()})
    if spec.tables is not None:
        named = {role: plain_name(table) for role, table in spec.tables.given.items()}
        return spec.model_copy(update={"tables": spec.tables.model_copy(update=named)})
    return spec if spec.table is None or spec.has_sheets else spec.model_copy(update={"table": plain_name(spec.table)})


def portable_provenance(provenance: Mapping[str, Any], home: Path, folder: Path) -> dict[str, Any]:
    """Return where weights came from, paths inside the dataset's folder relative to the bundle's.

    Args:
        provenance: As it stands beside a space.
        home: The dataset's folder, absolute.
        folder: The bundle's.
    """
    paths = {key: provenance[key] for key in PATHS if _is_path(key, provenance.get(key))}
    found = {**provenance, **{key: _relative(path, home, folder) for key, path in paths.items()}}
    return found | ({"source": plain_name(found["source"])} if "source" in found else {})


def found_provenance(provenance: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a bundle's provenance with the paths that `portable_provenance` made relative to its folder."""
    return {key: _from(value, folder) if key in PATHS else value for key, value in provenance.items()}


def plain_name(words: str) -> str:
    """Return the last part of what is a path on this machine; other words, such as a hub's name, as they are."""
    prefix, path = _split(words)
    return prefix + Path(path).name if Path(path).is_absolute() or Path(path).exists() else words


def _is_path(key: str, words: Any) -> bool:
    """Whether a network's name is an encoder's folder; whether weights are a file or folder."""
    if not isinstance(words, str) or words in ("pretrained", "random"):
        return False
    path = Path(_split(words)[1])
    return path.exists() if key == "weights" else (path / "config.json").is_file()


def _relative(words: str, home: Path, folder: Path) -> str:
    prefix, path = _split(words)
    place = Path(path).resolve()
    return prefix + (os.path.relpath(place, folder.resolve()) if place.is_relative_to(home) else str(place))


def _from(words: str, folder: Path) -> str:
    prefix, path = _split(words)
    return prefix + os.path.normpath(folder / path) if path.startswith(os.pardir) else words


def _split(words: str) -> tuple[str, str]:
    path = words.removeprefix(LOCAL)
    return words[: len(words) - len(path)], path
