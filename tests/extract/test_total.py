from extract.outcome import Failure, SpaceReport
from extract.total import total_reports


def report(embedded, seconds, *, failed=0, engine="openvino"):
    failures = tuple(Failure(f"r{i}", "file", "x.png", "cut") for i in range(failed))
    return SpaceReport(
        name="image:bf@texture",
        fingerprint="f",
        dim=4,
        rows=embedded + failed + 3,
        embedded=embedded,
        shared=2,
        present=1,
        failed=failed,
        seconds=seconds,
        rows_per_second=embedded / seconds,
        device="cpu",
        engine=engine,
        bottleneck="decode",
        note="",
        failures=failures,
    )


def test_parts_add_up():
    parts = [[report(10, 2.0), report(5, 1.0)], [report(2, 1.0, failed=2, engine="none"), report(5, 1.0)]]
    first, second = total_reports(parts)
    assert (first.rows, first.embedded, first.shared, first.present, first.failed) == (20, 12, 4, 2, 2)
    assert (first.seconds, first.rows_per_second, first.engine) == (3.0, 4.0, "openvino")
    assert len(first.failures) == 2 and second.embedded == 10
    assert total_reports([]) == []
