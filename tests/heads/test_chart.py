import numpy as np
from PIL import Image

from heads.chart import _bars, _label, _places, draw_scores
from tests.heads.test_bundle import a_sweep


def test_a_picture_of_every_task_is_drawn(tmp_path):
    entries = a_sweep(["linear"]).run()
    draw_scores(entries, tmp_path / "pictures" / "scores.png")
    with Image.open(tmp_path / "pictures" / "scores.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[0] > 300 and pixels.shape[1] > 900
    found = {tuple(colour) for colour in pixels.reshape(-1, 3)[::7].tolist()}
    assert {(0x99, 0x99, 0x99), (0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00)} <= found  # the prior and two combinations


def test_a_label_of_many_lines_has_room_of_its_own():
    one, many = ({"head": "linear", "blocks": [f"image:b{i}@a" for i in range(n)]} for n in (1, 6))
    assert _places([one, one, many, one]) == [0.5, 1.5, 3.5, 5.5]


def test_metadata_alone_are_drawn_however_many_do_better():
    entries = [{"head": "linear", "blocks": [f"image:b{i}@a"]} for i in range(12)]
    prior, alone = {"head": "prior", "blocks": []}, {"head": "linear", "blocks": ["metadata"], "is_reference": True}
    names = [_label(entry) for entry in _bars([*entries, prior, alone])]
    assert names[0] == "prior\n(no features)" and len(names) == 12
    assert names[-1] == "metadata (reference)" and "image:b11@a" not in names


def test_undefined_scores_are_drawn_as_nothing(tmp_path):
    entries = a_sweep(["linear"], tasks=["kind"]).run()
    for entry in entries:
        entry["metrics"]["accuracy"] = {"value": None, "low": None, "high": None}
        entry["baseline"]["accuracy"] = None
    draw_scores(entries, tmp_path / "scores.png")
    assert (tmp_path / "scores.png").stat().st_size > 1000
