"""What an extraction says of itself."""

from dataclasses import replace

from extract import Failure, SpaceReport, closing_lines, spaces_report
from extract.report import _with_deviation

FIRST = SpaceReport(
    name="text:name@ngrams",
    fingerprint="ab" * 32,
    dim=1024,
    rows=600,
    embedded=209,
    shared=391,
    present=0,
    failed=0,
    seconds=2.0,
    rows_per_second=104.5,
    device="cpu",
    engine="numpy",
    bottleneck="forward",
    note="",
    failures=(),
)
AGAIN = replace(FIRST, embedded=0, shared=0, present=600, seconds=0.0, rows_per_second=0.0, bottleneck="none")


def test_rows_of_equal_content_are_counted_as_shared() -> None:
    [line] = closing_lines(FIRST)
    assert line == (
        "text:name@ngrams: 209 embedded, 391 shared, 0 present, 0 failed; "
        "2.0 s, 104 rows/s on cpu (numpy), bottleneck: forward"
    )
    [table] = spaces_report([AGAIN, FIRST])
    assert table.columns == ["name", "fingerprint", "dim", "rows", "embedded", "shared", "present", "failed"]
    assert table.rows[1] == ["text:name@ngrams", "abababababab", "1024", "600", "209", "391", "0", "0"]
    assert table.rows[0][3:] == ["600", "0", "0", "600", "0"]


def test_where_nothing_is_shared_nothing_is_said_of_it() -> None:
    [table] = spaces_report([AGAIN])
    assert table.columns == ["name", "fingerprint", "dim", "rows", "embedded", "present", "failed"]


def test_where_nothing_was_embedded_there_is_no_speed() -> None:
    assert closing_lines(AGAIN) == ["text:name@ngrams: 0 embedded, 600 present, 0 failed"]
    failed = replace(
        AGAIN,
        present=575,
        failed=25,
        failures=tuple(Failure(f"r{i}", "file", f"{i}.png", "cut in half") for i in range(25)),
    )
    lines = closing_lines(failed)
    assert lines[0] == "text:name@ngrams: 0 embedded, 575 present, 25 failed"
    assert lines[1] == "  row 'r0', column 'file', file '0.png': cut in half"
    assert lines[21] == "  and 5 more; --json names them all"


def test_a_row_that_is_its_file_and_a_text_are_named_once() -> None:
    failures = (
        Failure("a.png", "0", "a.png", "is cut short"),
        Failure("r1", "notes", None, "its vector is not finite"),
    )
    _, *lines = closing_lines(replace(AGAIN, failed=2, failures=failures))
    assert lines == ["  row 'a.png': is cut short", "  row 'r1', column 'notes': its vector is not finite"]


def test_intensities_of_16_bits_have_no_exponent() -> None:
    assert _with_deviation({"mean": 54321.5, "std": 1299.6}) == "54322 ± 1300"
    assert _with_deviation({"mean": 127.456, "std": 8.04}) == "127.5 ± 8.04"
