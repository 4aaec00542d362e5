from heads.report import audit_report, curve_report, predictions_report


def test_long_lists_of_an_audit_are_cut_and_counted() -> None:
    pair = {"a": "r1", "b": "r2", "kind": "near", "similarity": 0.99876, "crosses": ["split"], "differs": ["kind"]}
    labels = {
        "labels": [{"id": "r3", "label": 1.25, "suggested": "few"}],
        "n_confident": 1,
        "n_rows": 9,
        "confusions": [{"label": "few", "suggested": "many", "count": 3, "share": 0.25, "n_confident": 2}],
        "beats_baseline": False,
        "blocks": ["image:bf@texture", "metadata"],
        "head": "linear",
    }
    document = {"duplicates": [pair] * 30, "thresholds": {"image:bf@texture": 0.98}, "labels": {"kind": labels}}
    pairs, doubtful = audit_report(document)
    assert len(pairs.rows) == 20 and pairs.rows[0] == ["r1", "r2", "near", "0.999", "split", "kind"]
    assert pairs.lines[0].startswith(
        "  30 pairs, 30 of them across the split; near means a cosine above 0.980 in image"
    )
    assert doubtful.rows == [["r3", "1.250", "few"]]
    assert doubtful.lines[1:3] == [
        "  asked: linear on image:bf@texture + metadata",
        "  few looks like many: 3 rows (25%), 2 of them confidently",
    ]
    assert doubtful.lines[0] == "  1 of 9 labels is not what other rows suggest, 1 confidently"
    assert doubtful.lines[-1].startswith("  do not believe this list")
    assert audit_report(document | {"duplicates": [pair]})[0].lines[0].startswith("  1 pair, 1 of them across")


def test_one_row_is_one_row() -> None:
    document = {"out": "p.csv", "rows": 1, "failed": 0}
    assert predictions_report(document)[0].lines == ["p.csv: 1 row"]
    drawn = {"folder": "drawn", "images": 1, "left_out": {"r1": "no file"}}
    [section] = predictions_report(document | {"rows": 2, "failed": 1, "drawn": drawn})
    assert section.lines == [
        "p.csv: 2 rows, 1 of them without a prediction",
        "drawn: 1 image, 1 row without",
        "  row 'r1': no file",
    ]


def test_a_curve_has_a_row_per_size_and_one_for_self_training() -> None:
    points = [{"n_rows": n, "value": v, "low": v, "high": v} for n, v in ((10, 0.5), (20, 0.75))]
    curve = {"task": "kind", "blocks": ["metadata"], "metric": "accuracy", "points": points, "baseline": 0.5}
    curve |= {"words": "more labels would help", "self_training": {"score": points[0], "words": "it helps"}}
    curve |= {"label_spreading": {"score": points[0], "words": "it does not"}}
    [section] = curve_report([curve])
    assert [row[0] for row in section.rows] == ["10", "20", "20, self-trained", "20, labels spread"]
    assert section.lines == ["  more labels would help; without features 0.500", "  it helps", "  it does not", ""]
