"""Reports of a dataset that was extracted in parts, added up."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from extract.outcome import SpaceReport


def total_reports(parts: Iterable[Sequence[SpaceReport]]) -> list[SpaceReport]:
    """Return one report per space.

    Args:
        parts: What `extract_features` gave for each part, with the same encoders.
    """
    return [_total(reports) for reports in zip(*parts, strict=True)]


def _total(reports: Sequence[SpaceReport]) -> SpaceReport:
    seconds, embedded = sum(one.seconds for one in reports), sum(one.embedded for one in reports)
    busiest = max(reports, key=lambda one: (one.embedded, one.seconds))  # says which engine ran, and what held it up
    return replace(
        busiest,
        rows=sum(one.rows for one in reports),
        embedded=embedded,
        shared=sum(one.shared for one in reports),
        present=sum(one.present for one in reports),
        failed=sum(one.failed for one in reports),
        seconds=seconds,
        rows_per_second=round(embedded / seconds, 1) if seconds else 0.0,
        failures=tuple(failure for one in reports for failure in one.failures),
    )
