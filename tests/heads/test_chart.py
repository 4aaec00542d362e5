"""Pictures of results: what is drawn, and that it can be read in a page."""

import json
from pathlib import Path
from typing import Any

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from heads.chart import LABEL_LETTERS, STANDINGS, _bars, _label, _places, draw_robustness, draw_scores
from heads.figure import COLOURS, PAGE_INCHES
from store import PERTURBATIONS
from tests.heads.test_bundle import a_sweep

LONG = "image:sem.percentile_clip+gamma+clahe@local-dir:/data/networks/mobilenetv2_100"


def entry(blocks: list[str], value: float, difference: float, task: str = "size") -> dict[str, Any]:
    """Return a result of a regression, whose baseline is 4."""
    return {
        "task": task,
        "kind": "regression",
        "headline": "mae",
        "blocks": blocks,
        "head": "linear" if blocks else "prior",
        "n_rows": 60,
        "split": "cv",
        "metrics": {"mae": {"value": value, "low": value - 0.5, "high": value + 0.5}},
        "baseline": {"mae": 4.0},
        "difference": {"value": difference, "low": difference - 0.1, "high": difference + 0.1},
    }


def point(view: str, strength: float) -> dict[str, Any]:
    return {"perturbation": view, "strength": strength, "score": {"value": 0.5, "low": 0.4, "high": 0.6}}


def robust(task: str, images: str, views: list[str]) -> dict[str, Any]:
    points = [point(view, strength) for view in views for strength in PERTURBATIONS[view].grid]
    clean = {"value": 0.9, "low": 0.8, "high": 1.0}
    return {"task": task, "blocks": [images], "metric": "mae", "clean": clean, "baseline": 0.3, "points": points}


def assert_readable(figure: Figure) -> None:
    """Fail where a figure is wider than a page, or a text in it is small or cut."""
    assert figure.get_figwidth() <= PAGE_INCHES + 0.01
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    assert len(texts) > 5 and all(text.get_fontsize() >= 8 for text in texts)
    drawn, canvas = figure.get_tightbbox(), figure.bbox_inches
    assert drawn.x0 >= 0 and drawn.y0 >= 0 and drawn.x1 <= canvas.x1 and drawn.y1 <= canvas.y1


def luminance(colour: str) -> float:
    """Return how bright a colour is in grey: WCAG 2.1, relative luminance."""
    parts = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_a_picture_of_every_task_is_drawn(tmp_path: Path) -> None:
    entries = a_sweep(["linear"]).run()
    draw_scores(entries, tmp_path / "pictures" / "scores.png")
    with Image.open(tmp_path / "pictures" / "scores.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[0] > 300 and pixels.shape[1] == int(150 * PAGE_INCHES)
    found = {tuple(colour) for colour in pixels.reshape(-1, 3)[::7].tolist()}
    assert {(0xCC, 0xCC, 0xCC), (0x56, 0xB4, 0xE9)} <= found  # the prior, and what is better


def test_bars_say_how_they_stand_to_the_baseline(drawn: list[Figure], tmp_path: Path) -> None:
    entries = [entry([], 4.0, 0.0), entry(["a"], 2.0, 2.0), entry(["b"], 3.9, 0.05), entry(["c"], 5.0, -1.0)]
    draw_scores(entries, tmp_path / "scores.png", unit_of={"size": "um"}.get)
    [axes] = drawn[0].axes
    looks = [(bar.get_width(), bar.get_hatch()) for bar in axes.patches]
    assert looks == [(4.0, None), (2.0, None), (3.9, "////"), (5.0, "xxxx")]
    assert [text.get_text() for text in axes.texts] == ["4.00", "2.00", "3.90", "5.00"]
    assert axes.get_xlabel() == "mae in um (lower is better)"
    words = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert words == ["better than without features", "not told apart", "worse", "95 % interval", "without features"]
    assert_readable(drawn[0])


def test_standings_are_told_apart_in_grey() -> None:
    looks = [(style.get("hatch"), luminance(style["facecolor"])) for style in STANDINGS.values()]
    plain = [bright for hatch, bright in looks if hatch is None]
    assert len({hatch for hatch, _ in looks if hatch}) == 2 and abs(plain[0] - plain[1]) > 0.15


def test_long_names_and_many_tasks_fit_a_page(drawn: list[Figure], tmp_path: Path) -> None:
    blocks = [LONG, "image:sem@efficientnet_b0", "metadata", f"{LONG}_small"]
    for n_tasks in (1, 2, 5):
        entries = [
            entry(names, 3.0, 1.0, f"{LONG} {i}")
            for i in range(n_tasks)
            for names in ([], *([name] for name in blocks), blocks)
        ]
        draw_scores(entries, tmp_path / "scores.png")
        assert_readable(drawn[-1])
    places = {axes.get_position().x0 for axes in drawn[-1].axes}
    assert len(places) == 2  # panels in a line


def test_a_label_has_short_lines_and_room_for_them() -> None:
    one, many = ({"head": "linear", "blocks": [f"image:b{i}@a" for i in range(n)]} for n in (1, 10))
    assert _places([one, one, many, one]) == pytest.approx([0.5, 1.5, 3.85, 6.2, 6.7])
    assert _label(entry(["image:sem@efficientnet_b0", LONG], 1, 1)).split("\n") == [
        "image:sem@efficientnet_b0",
        "+ image:sem.percentile_",
        "clip+gamma+clahe",
        "@local-dir:/data/networks/",
        "mobilenetv2_100",
    ]
    assert all(len(line) <= LABEL_LETTERS + 2 for line in _label(entry([LONG], 1, 1)).split("\n"))


def test_metadata_alone_are_drawn_however_many_do_better() -> None:
    entries = [{"head": "linear", "blocks": [f"image:b{i}@a"]} for i in range(12)]
    prior, alone = {"head": "prior", "blocks": []}, {"head": "linear", "blocks": ["metadata"], "is_reference": True}
    names = [_label(entry) for entry in _bars([*entries, prior, alone])]
    assert names[0] == "prior\n(no features)" and len(names) == 12
    assert names[-1] == "metadata (reference)" and "image:b11@a" not in names


def test_undefined_scores_are_drawn_as_nothing(tmp_path: Path) -> None:
    entries = a_sweep(["linear"], tasks=["kind"]).run()
    for one in entries:
        one["metrics"]["accuracy"] = {"value": None, "low": None, "high": None}
        one["baseline"]["accuracy"] = None
    draw_scores(entries, tmp_path / "scores.png")
    assert (tmp_path / "scores.png").stat().st_size > 1000


def test_perturbations_stand_in_lines_of_three_for_each_task(drawn: list[Figure], tmp_path: Path) -> None:
    views = list(PERTURBATIONS)
    found = [robust(task, images, views) for task in ("a", "b") for images in ("image:bf@x", "image:bf@y")]
    draw_robustness(found, tmp_path / "runs" / "robustness.png", unit_of={"a": "um"}.get)
    [figure] = drawn
    assert [axes.get_title(loc="left") for axes in figure.axes] == views * 2
    assert [axes.get_ylabel() for axes in figure.axes] == [*(["a: mae in um", "", ""] * 2), *(["b: mae", "", ""] * 2)]
    assert [axes.get_xlabel() for axes in figure.axes[:6]] == [PERTURBATIONS[view].axis for view in views]
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["0.02", "0.05", "0.1", "0.2"]
    lines = figure.axes[0].get_lines()
    assert [(line.get_color(), line.get_marker()) for line in lines[::3]] == [(COLOURS[0], "o"), (COLOURS[1], "s")]
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["image:bf@x", "image:bf@y", "95 % interval", "clean", "without features"]
    assert_readable(figure)


def test_few_perturbations_leave_no_gap(drawn: list[Figure], tmp_path: Path) -> None:
    draw_robustness([robust("angle_of_repose_after_an_hour_of_drying", "image:bf@x", ["blur"])], tmp_path / "one.png")
    draw_robustness([robust("a", "image:bf@x", ["blur", "gamma", "jpeg", "png"])], tmp_path / "four.png")
    assert [len(figure.axes) for figure in drawn] == [1, 4]
    assert drawn[0].get_figwidth() < PAGE_INCHES / 2 < drawn[1].get_figwidth()
    assert all(axes.axison for axes in drawn[1].axes)
    assert drawn[0].axes[0].get_ylabel() == "angle_of_repose_after_an_\nhour_of_drying: mae"
    assert_readable(drawn[0])


def test_a_picture_stays_until_it_would_show_something_else(tmp_path):
    path, entries = tmp_path / "scores.png", a_sweep(["linear"], tasks=["kind"]).run()
    draw_scores(entries, path)
    first = path.stat().st_mtime_ns
    draw_scores(json.loads(json.dumps(entries)), path)
    assert path.stat().st_mtime_ns == first
    entries[-1]["metrics"]["accuracy"]["value"] += 0.01
    draw_scores(entries, path)
    assert path.stat().st_mtime_ns > first and list(tmp_path.iterdir()) == [path]
