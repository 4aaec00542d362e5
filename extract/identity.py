"""What a network turned out to be, remembered: a run that lacks none of its vectors loads neither it nor its libraries.

A memory answers one question (`Asked`), of the same libraries and sources, while every file behind the answer has the
same bytes. All it decides is which vectors are missing: before anything is embedded the network itself is loaded, and
has to be what was remembered.
"""

import json
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.contract import Encoder
from extract.engine import Precision
from extract.openvino_engine import cache_folder
from extract.runner import Runner
from store import FeatureSpace, StoreError, file_key, json_key

LIBRARIES = ("huggingface-hub", "safetensors", "timm", "tokenizers", "torch", "torchvision", "transformers")
PLACES = ("HF_", "HUGGINGFACE_", "TORCH_HOME", "XDG_CACHE_HOME", "HOME")
"""How environment variables begin that say where weights lie."""


@dataclass(frozen=True)
class Asked:
    """What decides which network it is: its name and the `Options` of these names."""

    name: str
    weights: str
    seed: int
    precision: Precision

    def file(self) -> Path:
        """Return where the answer is kept, for these libraries and sources, and this machine and folder."""
        here = [platform.node(), str(Path.cwd()), {k: v for k, v in os.environ.items() if k.startswith(PLACES)}]
        sources = [file_key(path) for path in sorted(Path(__file__).parent.glob("*.py"))]
        key = json_key([1, asdict(self), here, [version(library) for library in LIBRARIES], sources])
        return cache_folder().parent / "identities" / f"{key}.json"


@dataclass(frozen=True)
class Known:
    """The space of a network's vectors, of images seen plainly, and where its weights came from."""

    space: FeatureSpace
    provenance: Mapping[str, Any]


def recall(asked: Asked) -> Known | None:
    """Return what a network turned out to be; None if that is not known, or may have changed."""
    try:
        kept = json.loads(asked.file().read_text())
        if kept["content"] == _content(kept["places"]):
            return Known(FeatureSpace.from_json(kept["space"]), kept["provenance"])
    except (OSError, ValueError, KeyError, TypeError, StoreError):
        pass
    return None


def remember(asked: Asked, known: Known, *, begun: float) -> None:
    """Keep what a network turned out to be, unless its files changed since it `begun` (Unix time) to load."""
    places = _places(asked, str(known.provenance["source"]))
    if any(file.stat().st_ctime >= begun for place in places for file in _files(Path(place))):
        return
    kept = {"space": known.space.to_json(), "provenance": dict(known.provenance)}
    text = json.dumps(kept | {"places": places, "content": _content(places)})
    with suppress(OSError):  # without a place to write, every run loads the network
        file = asked.file()
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as part:
            part.write(text)
        Path(part.name).replace(file)


class Postponed:
    """An `Encoder` whose space is remembered, and whose network is loaded when something is to be embedded."""

    def __init__(self, asked: Asked, known: Known, make: Callable[[], Encoder]) -> None:
        self.space: FeatureSpace = known.space
        self.provenance: Mapping[str, Any] | None = known.provenance
        self._asked, self._make = asked, make

    @cached_property
    def _true(self) -> Encoder:
        made = self._make()
        if found := replace(made.space, dtype=self.space.dtype).differences(self.space):
            self._asked.file().unlink(missing_ok=True)
            raise StoreError(
                f"backbone '{self._asked.name}' is not what it was remembered as: {'; '.join(found)}. That memory is "
                "deleted, and nothing was embedded: run the command again"
            )
        return made

    @property
    def n_looks(self) -> int:
        """Vectors that one item costs."""
        return self._true.n_looks

    @property
    def runner(self) -> Runner | None:
        """What runs the network."""
        return self._true.runner

    @property
    def batch_size(self) -> int:
        """Rows per batch to begin with."""
        return self._true.batch_size

    def prepare(self, item: Any) -> Any:
        """Return what one batch element is."""
        return self._true.prepare(item)

    def encode(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        """Return float32 ``(b, d)`` for b prepared items."""
        return self._true.encode(batch)


def _places(asked: Asked, source: str) -> list[str]:
    """Return the files and folders that decide what is loaded, whether they are there or not.

    A weights file in the hub's cache is named by its revision; which one counts stands in ``refs`` of its repository.
    """
    file = Path(source)
    repository = next((folder.parent for folder in file.parents if folder.name == "snapshots"), None)
    found = [Path(asked.name.removeprefix("local-dir:")), Path(asked.weights), file]
    found += [] if repository is None else [file.parent, repository / "refs"]
    return [str(place.absolute()) for place in dict.fromkeys(found)]


def _files(place: Path) -> list[Path]:
    """Return a file, or what loaders read in a folder; nothing where there is nothing."""
    found = [place] if place.is_file() else [*place.glob("*"), *place.glob("*/*.json")]
    return sorted(path for path in found if path.is_file())


def _content(places: Sequence[str]) -> str:
    return json_key([[place, [[str(path), file_key(path)] for path in _files(Path(place))]] for place in places])
