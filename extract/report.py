"""What an extraction did, for people."""

from collections.abc import Iterable

from extract.pipeline import SpaceReport
from store import Section

SHOWN = 20  # rows without a vector; --json names them all


def spaces_report(reports: Iterable[SpaceReport]) -> list[Section]:
    """Return one row per space."""
    columns = ["name", "fingerprint", "dim", "rows", "embedded", "present", "failed"]
    cells = [
        [r.name, r.fingerprint[:12], str(r.dim), str(r.rows), str(r.embedded), str(r.present), str(r.failed)]
        for r in reports
    ]
    return [Section("Feature spaces", columns, cells)]


def closing_lines(report: SpaceReport) -> list[str]:
    """Return the closing line of one space, and what failed in it."""
    closing = (
        f"{report.name}: {report.embedded} embedded, {report.present} present, {report.failed} failed; "
        f"{report.seconds:.1f} s, {report.rows_per_second:.0f} rows/s on {report.device} ({report.engine}), "
        f"bottleneck: {report.bottleneck}" + (f"; {report.note}" if report.note else "")
    )
    failures = [f"  row '{row}': {reason}" for row, reason in report.failures[:SHOWN]]
    n_more = len(report.failures) - SHOWN
    return [closing, *failures, *([f"  and {n_more} more; --json names them all"] if n_more > 0 else [])]
