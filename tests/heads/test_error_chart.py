"""Pictures of where a result errs."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from heads.error_chart import draw_confusion, draw_scatter
from tests.heads.test_chart import assert_readable

OF = {"task": "reflectance_of_gratings_at_ten_wavelengths", "split": "cv", "n_rows": 300}


def confusion(n_classes: int) -> dict[str, Any]:
    counts = np.eye(n_classes, dtype=int) * 9
    return OF | {
        "confusion": {"classes": [f"class_{i}_of_a_rather_long_name" for i in range(n_classes)], "counts": counts}
    }


def test_a_matrix_fits_a_page_and_its_names_a_line_each_where_there_are_many(
    drawn: list[Figure], tmp_path: Path
) -> None:
    for n_classes in (2, 3, 12, 60):
        draw_confusion(confusion(n_classes), tmp_path / "confusion.png")
        assert_readable(drawn[-1])
    two, _, twelve, sixty = (figure.axes[0] for figure in drawn)
    assert two.get_yticklabels()[0].get_text() == "class_0_of_a_rather_\nlong_name"
    assert twelve.get_xticklabels()[11].get_text() == "class_11_of_a_rather_…"
    assert [(text.get_text(), text.get_color()) for text in two.texts][:2] == [("9", "white"), ("0", "#999999")]
    assert not sixty.texts and sixty.get_xticklabels()[0].get_text() != "class_0_of_a_rather_…"


def test_predictions_stand_on_equal_axes_with_their_unit(drawn: list[Figure], tmp_path: Path) -> None:
    for n_outputs in (1, 10):
        names = [f"channel_{i}" for i in range(n_outputs)]
        outputs = [{"output": name, "unit": "nm", "metrics": {"mae": {"value": 1.234}}} for name in names]
        rows = pd.DataFrame({"output": names * 2, "label": 1.0, "predicted": [*range(n_outputs * 2)]})
        draw_scatter(OF | {"outputs": outputs}, rows, tmp_path / "scatter.png")
        assert_readable(drawn[-1])
    first = drawn[0].axes[0]
    assert (first.get_xlabel(), first.get_ylabel()) == ("label in nm", "predicted in nm")
    assert first.get_title(loc="left") == "channel_0: MAE 1.23" and first.get_xlim() == first.get_ylim() == (
        -0.05,
        1.05,
    )
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["predicted = label"]
    assert "\n" in drawn[0].get_suptitle() and "\n" not in drawn[1].get_suptitle()
