"""What became of each block in each feature space."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from extract.lane import Clock, Lane
from extract.preparation import Sources, why_unread
from store import USUAL_CONVERSION, Dataset, FeatureStore, tuned_mark


@dataclass(frozen=True)
class Failure:
    """A row without a vector.

    Attributes:
        row: Its id.
        column: The table's column that names the file or holds the text, or columns; counted from 0 where unnamed.
        file: The file, relative to the dataset's root, or several files; None for a text.
        reason: Why.
    """

    row: str
    column: str | None
    file: str | None
    reason: str


@dataclass(frozen=True)
class SpaceReport:
    """What happened to one block in one feature space; ``rows = embedded + shared + present + failed``.

    Attributes:
        name: ``image:bf@efficientnet_b0``, ``image:bf@efficientnet_b0#tuned-1f00ba12`` of a fine-tuned encoder, and
            ``image:bf@efficientnet_b0#1f00ba12`` where several spaces would have one name.
        fingerprint: The space's.
        dim: d.
        rows: Rows of the block that have a file or text.
        embedded: Vectors computed now; rows of equal content count once.
        shared: Rows whose vector was computed now for another row, of equal content.
        present: Rows whose vector was there already.
        failed: Rows without a vector.
        seconds: Its part of the wall time of the pass over the images or texts, divided among spaces by their work.
        rows_per_second: ``embedded / seconds``.
        device: ``"cpu"`` or ``"cuda"``; ``"none"`` if nothing was to be embedded.
        engine: ``"openvino"``, ``"torch"``, ``"numpy"``; ``"none"`` if no engine was needed.
        bottleneck: ``"decode"``, ``"forward"`` (the encoder's work), ``"store"``; ``"none"`` if nothing was embedded.
        note: Why another engine than the usual one ran, that a conversion or tiles had nothing to do; or "".
        failures: Each row without a vector.
    """

    name: str
    fingerprint: str
    dim: int
    rows: int
    embedded: int
    shared: int
    present: int
    failed: int
    seconds: float
    rows_per_second: float
    device: str
    engine: str
    bottleneck: str
    note: str
    failures: tuple[Failure, ...]


@dataclass
class Want:
    """One block and one encoder: what is reported."""

    block: str
    ids: Sequence[str]
    items: Sequence[Any]
    keys: Sequence[str | None]
    lane: Lane
    lacking: set[str]

    @property
    def n_embedded(self) -> int:
        """Vectors computed for this block; content that another block lacked too counts where it came first."""
        return len(self.lacking & self.lane.embedded)


@dataclass(frozen=True)
class Pass:
    """One run over the images, or over the texts.

    Attributes:
        seconds: Wall time.
        clock: Where it went.
        worked: Seconds of work of all lanes, in whatever threads.
    """

    seconds: float
    clock: Clock
    worked: float

    def seconds_of(self, want: Want) -> float:
        """Return a block's part of the wall time: as its share of the work; decoding is paid in this proportion."""
        share = want.lane.worked / self.worked if self.worked else 1.0
        return self.seconds * share * want.n_embedded / max(1, len(want.lane.embedded))


def make_report(want: Want, dataset: Dataset, store: FeatureStore, passes: Mapping[str, Pass]) -> SpaceReport:
    """Return what became of one block in one space."""
    lane, space, n_embedded = want.lane, want.lane.encoder.space, want.n_embedded
    n_served = sum(key in lane.embedded for key in want.keys)
    failures = _failures(want, dataset, store)
    n_rows = sum(item is not None for item in want.items)
    seconds = passes[space.modality].seconds_of(want)
    device, engine, note = lane.engine
    return SpaceReport(
        name=f"{want.block}@{space.encoder}{tuned_mark(space.fingerprint, lane.encoder.provenance or {})}",
        fingerprint=space.fingerprint,
        dim=space.dim,
        rows=n_rows,
        embedded=n_embedded,
        shared=n_served - n_embedded,
        present=n_rows - n_served - len(failures),
        failed=len(failures),
        seconds=round(seconds, 3),
        rows_per_second=round(n_embedded / seconds, 1) if seconds else 0.0,
        device=device,
        engine=engine,
        bottleneck=passes[space.modality].clock.bottleneck if n_embedded else "none",
        note="; ".join(filter(None, [note, _without_effect(want, n_embedded), _too_small(lane)])),
        failures=tuple(failures),
    )


def _without_effect(want: Want, n_embedded: int) -> str:
    """Say of a conversion that was asked for that there was nothing to convert; the usual one is nobody's wish."""
    convert = want.lane.encoder.space.convert
    if want.lane.is_deep or not n_embedded or convert in (None, "none", USUAL_CONVERSION):
        return ""
    return f"convert = '{convert}' changes nothing here: the images have 8 bits, and their vectors are the plain ones"


def _too_small(lane: Lane) -> str:
    """Say how many images cannot be cut as asked, and what becomes of them."""
    if not lane.n_small:
        return ""
    short = f"{lane.n_small} {'image has' if lane.n_small == 1 else 'images have'} a side shorter than tile_px"
    return f"{short} = {lane.encoder.space.tile_px}: it is not cut, and an image with two such sides is embedded whole"


def told_apart(reports: Sequence[SpaceReport]) -> list[SpaceReport]:
    """Return the reports, with the start of the fingerprint behind names that stand for several spaces."""
    spaces = Counter(name for name, _ in {(one.name, one.fingerprint) for one in reports})
    return [replace(one, name=f"{one.name}#{one.fingerprint[:8]}") if spaces[one.name] > 1 else one for one in reports]


def _failures(want: Want, dataset: Dataset, store: FeatureStore) -> list[Failure]:
    """Return every row without a vector."""
    recorded = store.failures(want.lane.encoder.space)
    column = _column(dataset, want.block)
    found = []
    for row, item, key in zip(want.ids, want.items, want.keys, strict=True):
        if item is not None and (key is None or key in recorded):
            reason = why_unread(item) if key is None else recorded[key]
            found.append(Failure(row, column, None if isinstance(item, str) else _files(item, dataset), reason))
    return found


def _column(dataset: Dataset, block: str) -> str | None:
    modality, _, name = block.partition(":")
    sections: Mapping[str, Any] = dataset.spec.images if modality == "image" else dataset.spec.texts
    if name not in sections:  # a stack that a network makes of blocks
        return None
    parts = getattr(sections[name], "stack", None) or (name,)
    columns = [sections[part].column for part in parts]
    return None if None in columns else " + ".join(map(str, dict.fromkeys(columns)))


def _files(refs: Sources, dataset: Dataset) -> str:
    """Return files as the table may name them: relative to the root, a page behind ``#``."""
    names = [ref.path.relative_to(dataset.root) if ref.path.is_relative_to(dataset.root) else ref.path for ref in refs]
    pages = ["" if ref.page is None else f"#{ref.page}" for ref in refs]
    return " + ".join(f"{name}{page}" for name, page in zip(names, pages, strict=True))
