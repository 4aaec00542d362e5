from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from finetune.curves import draw_curves, panels_of
from heads import PAGE_INCHES

ROW = {"epoch": 1.0, "train_loss": 0.9, "stop_loss": 1.1, "score": 0.4, "lr": 1e-3, "seconds": 2.0}


def test_every_panel_says_what_its_curves_are() -> None:
    last = ROW | {"kind_accuracy": 0.6, "size_mae": 3.0, "state_accuracy": 0.2, "flow_mae": 0.1}
    assert panels_of([ROW | {"kind_accuracy": 0.5}, last]) == {
        "loss": ["train_loss", "stop_loss"],
        "accuracy, stop rows": ["kind_accuracy", "state_accuracy"],
        "size_mae, stop rows": ["size_mae"],
        "flow_mae, stop rows": ["flow_mae"],
        "learning rate": ["lr"],
    }
    assert list(panels_of([ROW | {"kind_accuracy": 0.5}])) == ["loss", "kind_accuracy, stop rows", "learning rate"]


@pytest.mark.parametrize("n_epochs", [1, 2, 5, 40])
def test_epochs_are_whole_and_the_best_is_marked(n_epochs: int, tmp_path: Path, drawn: list[Figure]) -> None:
    history = [ROW | {"epoch": float(i), "score": -abs(i - 2.0)} for i in range(1, n_epochs + 1)]
    draw_curves(history, tmp_path / "curves.png")
    assert drawn[0].get_figwidth() <= PAGE_INCHES
    for axes in drawn[0].axes:
        ticks = [text.get_text() for text in axes.get_xticklabels()]
        assert ticks and all(tick.isdecimal() for tick in ticks)
        assert axes.get_lines()[-1].get_xdata()[0] == min(2, n_epochs)
    assert drawn[0].axes[-1].get_ylim()[0] == 0  # a constant learning rate is no mountain


def test_the_picture_appears_whole(tmp_path: Path) -> None:
    draw_curves([ROW | {"epoch": float(i), "kind_accuracy": 0.5} for i in (1, 2)], tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > 2.5 * image.height  # three panels beside each other
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
