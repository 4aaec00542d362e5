from heads.report import curve_report


def test_a_curve_has_a_row_per_size_and_one_for_self_training() -> None:
    points = [{"n_rows": n, "value": v, "low": v, "high": v} for n, v in ((10, 0.5), (20, 0.75))]
    curve = {"task": "kind", "blocks": ["metadata"], "metric": "accuracy", "points": points, "baseline": 0.5}
    curve |= {"words": "more labels would help", "self_training": {"score": points[0], "words": "it helps"}}
    curve |= {"label_spreading": {"score": points[0], "words": "it does not"}}
    [section] = curve_report([curve])
    assert [row[0] for row in section.rows] == ["10", "20", "20, self-trained", "20, labels spread"]
    assert section.lines == ["  more labels would help; without features 0.500", "  it helps", "  it does not", ""]
