"""Charts of labels and intensities: what is drawn where, and when there is nothing to draw."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from heads.distribution import MAX_CLASSES, draw_distributions, draw_intensity

PARTS = {"fold 0": 4, "fold 1": 4, "test": 2}


def label(name: str, *counts: int) -> dict[str, Any]:
    parts = dict(zip(PARTS, counts, strict=True))
    return {"class": name, "n_rows": sum(counts), "share": sum(counts) / 10, "n_groups": None, "parts": parts}


TASKS = [
    {"task": "kind", "n_rows": 10, "classes": [label("rare", 1, 0, 1), label("common", 3, 4, 1)]},
    {
        "task": "size",
        "n_rows": 10,
        "columns": [
            {"column": "w", "quantiles": {"median": 3}, "histogram": {"edges": [0, 2, 4], "counts": [4, 6]}},
            {"column": "h", "quantiles": None, "histogram": None},
        ],
    },
]


def test_bars_are_stacked_by_part_with_the_folds_as_one(drawn: list[Figure], tmp_path: Path) -> None:
    assert draw_distributions({"tasks": TASKS, "parts": PARTS}, tmp_path / "new" / "classes.png")
    kind, width, height, *_ = drawn[0].axes
    assert [bar.get_width() for bar in kind.patches] == [7, 1, 1, 1]  # folds, then test; the most frequent class first
    assert [bar.get_x() for bar in kind.patches] == [0, 0, 7, 1]
    assert [text.get_text() for text in kind.texts] == [" 8 (80%)", " 2 (20%)"]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["folds", "test"]
    assert [axes.get_title(loc="left") for axes in (kind, width, height)] == [
        "kind (n = 10)",
        "size: w (n = 10)",
        "size: h (n = 10)",
    ]
    assert (tmp_path / "new" / "classes.png").stat().st_size > 5000


def test_of_many_classes_the_most_frequent_are_drawn(drawn: list[Figure], tmp_path: Path) -> None:
    classes = [label(f"c{i}", i, 0, 0) for i in range(20)]
    task = {"task": "kind", "n_rows": 190, "classes": classes}
    draw_distributions({"tasks": [task], "parts": PARTS}, tmp_path / "classes.png")
    [axes] = drawn[0].axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [f"c{19 - i}" for i in range(MAX_CLASSES)]
    assert axes.get_title(loc="left") == "kind (n = 190, 12 of 20 classes)"


def test_intensities_have_a_panel_per_block_and_task(drawn: list[Figure], tmp_path: Path) -> None:
    rows = [
        {"task": task, "class": name, "n_images": 5, "histogram": [0.25, 0.75]}
        for task in ("kind", "state")
        for name in ("a", "b")
    ]
    blocks = [{"block": name, "edges": [0, 1, 2], "intensity": rows} for name in ("bf", "fl")]
    assert draw_intensity([*blocks, {"block": "unread", "n_read": 0}], tmp_path / "intensity.png")
    titles = [axes.get_title(loc="left") for axes in drawn[0].axes]
    assert titles == ["bf: kind", "bf: state", "fl: kind", "fl: state"]
    first = drawn[0].axes[0]
    assert [patch.get_data().values.tolist() for patch in first.patches] == [[0.25, 0.75]] * 2
    assert np.array_equal(first.patches[0].get_data().edges, [0, 1, 2])
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["a (5)", "b (5)"]


def test_without_tasks_or_pictures_nothing_is_drawn(tmp_path: Path) -> None:
    assert not draw_distributions({"tasks": [], "parts": PARTS}, tmp_path / "classes.png")
    assert not draw_intensity([{"block": "bf", "n_read": 0}], tmp_path / "intensity.png")
    assert not draw_intensity([], tmp_path / "intensity.png")
    assert not list(tmp_path.iterdir())
