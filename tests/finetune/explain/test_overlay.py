import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from finetune.explain.overlay import (
    BLUE,
    LEGEND,
    LEGEND_OF_NUMBERS,
    OPACITY,
    ORANGE,
    YELLOW,
    coloured,
    draw_overlays,
)


def test_yellow_speaks_for_blue_against_and_nothing_is_clear():
    heat = np.zeros((10, 10), np.float32)
    heat[0], heat[1], heat[2] = 1, -1, 0.5
    colours = coloured(heat)
    assert np.allclose(colours[0, 0], [*YELLOW, OPACITY]) and np.allclose(colours[2, 0], [*ORANGE, OPACITY / 2])
    assert np.allclose(colours[1, 0], [*BLUE, OPACITY])
    assert not colours[3:, :, 3].any()
    assert not coloured(np.zeros((3, 3), np.float32))[..., 3].any()


def test_what_a_value_s_colours_mean_is_said_and_a_long_title_is_broken(tmp_path, monkeypatch):
    words, titles = [], []
    monkeypatch.setattr(Figure, "supxlabel", lambda _, text, **how: words.append(text))
    monkeypatch.setattr(Figure, "suptitle", lambda _, text, **how: titles.append(text))
    heats = {"a": np.eye(20, dtype=np.float32)}
    picture = np.full((20, 20, 3), 90, np.uint8)
    draw_overlays(tmp_path / "a.png", picture, heats, f"{'folder/' * 20}1.png\nsize: 3 um", is_number=True)
    assert words == [LEGEND_OF_NUMBERS] and "greater" in LEGEND_OF_NUMBERS
    assert titles[0].replace("\n", "") == f"{'folder/' * 20}1.pngsize: 3 um"
    assert max(map(len, titles[0].split("\n"))) <= 58


def test_a_picture_is_written_with_its_heat_maps_and_what_their_colours_mean(tmp_path, monkeypatch):
    words = []
    monkeypatch.setattr(Figure, "supxlabel", lambda _, text, **how: words.append(text))
    picture = np.full((20, 20, 3), 90, np.uint8)
    for name, heats in {
        "none": {},
        "two": {"a": np.eye(20, dtype=np.float32), "b": np.eye(20, dtype=np.float32)},
    }.items():
        draw_overlays(tmp_path / "new" / f"{name}.png", picture, heats, "row\nkind: a (0.90)")
    widths = []
    for name in ("none", "two"):
        with Image.open(tmp_path / "new" / f"{name}.png") as image:
            widths.append(image.width)
    assert widths[1] == 3 * widths[0]
    assert words == [LEGEND] and "yellow" in LEGEND and "blue" in LEGEND  # not of a picture alone


def test_heat_lies_on_a_grey_copy(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(Axes, "imshow", lambda _, pixels, **how: shown.append(pixels))
    red = np.full((20, 20, 3), (240, 0, 0), np.uint8)
    draw_overlays(tmp_path / "a.png", red, {"a": np.zeros((20, 20), np.float32)}, "row")
    assert (shown[0] == red).all() and (shown[1] == 80).all() and not shown[2][..., 3].any()
