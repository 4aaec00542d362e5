from typing import Any

from heads.transfer_report import transfer_report
from tests.heads.test_score_report import entry


def part(name: str, difference: float, n_rows: int = 12, *, resampled: str = "groups") -> dict[str, Any]:
    score = {"value": 0.75, "low": 0.5, "high": 1.0}
    gap = {"value": difference, "low": difference - 0.15, "high": difference + 0.15}
    found = {"held_out": name, "n_rows": n_rows, "score": score, "baseline": 0.5, "difference": gap}
    return found | {"resampled": resampled, "verdict": f"verdict on {name}"}


def test_the_best_entry_is_shown_part_by_part() -> None:
    parts = [part("g1", 0.25, n_rows=4, resampled="rows"), part("g2", -0.25)]
    [section] = transfer_report([entry("prior", 0.95), entry(value=0.6), entry(parts=parts)])
    assert section.title == "kind: image:bf@texture + metadata, linear"
    assert section.rows[0] == ["g1", "4", "0.750 [0.500, 1.000]", "0.500", "verdict on g1"]
    alone, together, chosen, gap = section.lines
    assert alone == "  the interval of a single group is over its rows: it says nothing of other groups"
    assert together.startswith("  all together: 0.900 [0.800, 1.000]; accuracy better")
    assert chosen == "  the best of 2 entries on the same rows is flattered: --blocks and --head name one" and not gap


def test_of_many_parts_the_worst_are_shown_and_the_others_counted() -> None:
    judged = [part(f"g{i}", difference=i / 10 - 1.0) for i in range(24)]  # -1.0 to 1.3; three intervals hold 0
    small = [part(f"s{i}", -5.0, n_rows=9) for i in range(4)]
    [section] = transfer_report([entry(parts=[*small, *reversed(judged)])])
    assert [row[0] for row in section.rows] == [f"g{i}" for i in range(20)]
    assert section.lines[:3] == [
        "  of 24 parts it is better than the baseline on 12, worse on 9, not told apart on 3; above are the worst 20",
        "  4 of 28 parts have fewer than 10 rows, too few for a verdict each: s0 (9), s1 (9), s2 (9), …",
        "  --json has every part",
    ]


def test_many_small_parts_are_one_line_instead_of_a_table() -> None:
    [section] = transfer_report([entry(parts=[part(f"s{i}", 0.0, n_rows=i % 10) for i in range(300)])])
    assert not section.columns and len(section.lines) == 5
    assert section.lines[0] == "kind: image:bf@texture + metadata, linear"
    assert section.lines[1] == (
        "  all 300 parts have fewer than 10 rows, too few for a verdict each: s0 (0), s1 (1), s2 (2), …"
    )


def test_a_single_group_has_no_line_of_all_together() -> None:
    none = {"accuracy": {"value": 0.75, "low": None, "high": None}}
    [section] = transfer_report([entry(parts=[part("g1", 0.25, resampled="rows")], metrics=none)])
    assert section.lines == ["  the interval of a single group is over its rows: it says nothing of other groups", ""]
