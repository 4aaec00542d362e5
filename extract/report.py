"""What an extraction did, and what pictures are like, for people."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.outcome import Failure, SpaceReport
from store import Dataset, Section

SHOWN_SIZES = 2
MEASURES = {"mean": "brightness's variance", "spread": "contrast's variance"}
SHARES = {
    "of_label": "goes with the label",
    "of_label_within_groups": "within groups",
    "of_group": "goes with the group",
}
BRIGHTNESS_LINES = (
    "a large share: one number per picture tells much of the label, and a model may read the lamp alone",
)
GROUP_LINES = ("little of it left within groups: it is the groups that differ",)
SHOWN = 20  # rows without a vector; --json names them all


def spaces_report(reports: Sequence[SpaceReport]) -> list[Section]:
    """Return one row per space."""
    counts = ["rows", *_counts(reports)]
    cells = [
        [one.name, one.fingerprint[:12], str(one.dim), *(str(getattr(one, count)) for count in counts)]
        for one in reports
    ]
    return [Section("Feature spaces", ["name", "fingerprint", "dim", *counts], cells)]


def closing_lines(report: SpaceReport) -> list[str]:
    """Return the closing line of one space, and what failed in it."""
    parts = [", ".join(f"{getattr(report, count)} {count}" for count in _counts([report]))]
    if report.embedded:
        speed = f"{report.seconds:.1f} s, {report.rows_per_second:.0f} rows/s on {report.device} ({report.engine})"
        parts.append(f"{speed}, bottleneck: {report.bottleneck}")
    parts += [report.note] * bool(report.note)
    failures = [f"  {_place(one)}: {one.reason}" for one in report.failures[:SHOWN]]
    n_more = len(report.failures) - SHOWN
    more = [f"  and {n_more} more; --json names them all"] if n_more > 0 else []
    return [f"{report.name}: {'; '.join(parts)}", *failures, *more]


def _place(failure: Failure) -> str:
    """Return where to look: ``row 'a7', column 'file', file 'a/7.tif'``; a row named as its file has no column."""
    row = f"row '{failure.row}'"
    if failure.file == failure.row:
        return row
    column = f", column '{failure.column}'" if failure.column is not None else ""
    return f"{row}{column}" + (f", file '{failure.file}'" if failure.file is not None else "")


def _counts(reports: Sequence[SpaceReport]) -> list[str]:
    """Return what the rows are counted as; where no content stands in several rows, none is shared."""
    return ["embedded", *(["shared"] if any(one.shared for one in reports) else []), "present", "failed"]


def images_report(found: Mapping[str, Any]) -> list[Section]:
    """Return what the files of each image block are like, their intensity by class, and what brightness tells.

    Args:
        found: What `describe_images` gave.
    """
    if not found["images"]:
        return [Section(lines=["no images: nothing is said about pixels, and no pictures of them are drawn"])]
    failed = [f"  row '{one['id']}', image '{one['block']}': {one['reason']}" for one in found["unreadable"]]
    n_more = len(failed) - SHOWN
    failed = failed[:SHOWN] + ([f"  and {n_more} more; --json names them all"] if n_more > 0 else [])
    columns = ["image", "rows", "read", "unreadable", "size px", "depth", "values"]
    read = [one for one in found["images"] if one["n_read"]]
    lines = [*_sample_lines(found), *failed]
    files = Section("Images", columns, [_file_cells(one) for one in found["images"]], [*lines, *[""] * bool(lines)])
    return [files, *(_intensity_section(one) for one in read if one["intensity"]), *_brightness_sections(read)]


def _sample_lines(found: Mapping[str, Any]) -> list[str]:
    n_rows = max(one["n_rows"] for one in found["images"])
    words = (
        f"read: the images of {found['looked_at']} rows, drawn at random with some of each class; --rows N reads more"
    )
    return [f"{words}, check all"] if found["looked_at"] < n_rows else []


def _file_cells(one: Mapping[str, Any]) -> list[str]:
    counts = [one["block"], str(one["n_rows"]), str(one["n_read"]), str(one["n_unreadable"])]
    if not one["n_read"]:
        return [*counts, "-", "-", "-"]
    sizes = [f"{size['width_px']} x {size['height_px']}" for size in one["sizes"][:SHOWN_SIZES]]
    more = f" and {one['n_sizes'] - len(sizes)} more" if one["n_sizes"] > len(sizes) else ""
    return [*counts, ", ".join(sizes) + more, ", ".join(one["depths"]), f"{one['low']:.4g} to {one['high']:.4g}"]


def _intensity_section(one: Mapping[str, Any]) -> Section:
    """Return mean and deviation, over a class's pictures, of their brightness and their contrast."""
    cells = [
        [row["task"], row["class"], str(row["n_images"]), *(_with_deviation(row[name]) for name in ("mean", "spread"))]
        for row in one["intensity"]
    ]
    columns = ["task", "class", "images", "brightness (mean of the pixels)", "contrast (their spread)"]
    return Section(f"Intensity of {one['block']}", columns, cells)


def _brightness_sections(read: Iterable[Mapping[str, Any]]) -> list[Section]:
    shown = [(one["block"], row) for one in read for row in one["brightness"]]
    names = [name for name in SHARES if any(row[name] is not None for _, row in shown)]
    cells = [
        [block, row["task"], MEASURES[row["measure"]], *(_share(row[name]) for name in names)] for block, row in shown
    ]
    columns = ["image", "task", "share of", *(SHARES[name] for name in names)]
    lines = [*BRIGHTNESS_LINES, *(GROUP_LINES if "of_group" in names else ())]
    return [Section("What brightness alone tells", columns, cells, lines)] if names else []


def _with_deviation(value: Mapping[str, float]) -> str:
    mean, std = value["mean"], value["std"]
    return f"{mean:.4g} ± {std:.3g}" if max(mean, std) < 1000 else f"{mean:.0f} ± {std:.0f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def row_status(dataset: Dataset, reports: Iterable[SpaceReport], complete: NDArray[np.bool_]) -> list[str]:
    """Return ``ok``, or why a row lacks a vector or has a metadata cell that cannot be used, n of them.

    Args:
        dataset: n rows.
        reports: What was extracted of these rows.
        complete: Which of them have everything, ``(n,)``.
    """
    reasons = {**dataset.bad_cells, **{one.row: one.reason for report in reports for one in report.failures}}
    rows = zip(dataset.ids.tolist(), complete.tolist(), strict=True)
    return ["ok" if whole else reasons.get(row, "no image or text") for row, whole in rows]
