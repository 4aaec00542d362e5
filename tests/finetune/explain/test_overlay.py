import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from finetune.explain.overlay import LEGEND, coloured, draw_overlays


def test_red_speaks_for_blue_against_and_nothing_is_clear():
    heat = np.zeros((10, 10), np.float32)
    heat[0], heat[1] = 1, -1
    colours = coloured(heat)
    assert colours[0, 0, 0] == 1
    assert colours[1, 0].tolist() == [0, 0, 1, 0.5]
    assert not colours[2:, :, 3].any()
    assert not coloured(np.zeros((3, 3), np.float32)).any()


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
    assert words == [LEGEND] and "red" in LEGEND and "blue" in LEGEND  # not of a picture alone
