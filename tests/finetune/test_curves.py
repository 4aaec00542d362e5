from pathlib import Path

from PIL import Image

from finetune.curves import draw_curves, panels_of

ROW = {"epoch": 1.0, "train_loss": 0.9, "stop_loss": 1.1, "score": 0.4, "lr": 1e-3, "seconds": 2.0}


def test_every_panel_says_what_its_curves_are() -> None:
    several = panels_of([ROW | {"kind_accuracy": 0.5}, ROW | {"kind_accuracy": 0.6, "size_mae": 3.0}])
    assert several == {
        "loss": ["train_loss", "stop_loss"], "on the stop rows": ["kind_accuracy", "size_mae"], "learning rate": ["lr"]
    }  # fmt: skip
    assert list(panels_of([ROW | {"kind_accuracy": 0.5}])) == [
        "loss",
        "kind_accuracy on the stop rows",
        "learning rate",
    ]


def test_the_picture_appears_whole(tmp_path: Path) -> None:
    draw_curves([ROW | {"epoch": float(i), "kind_accuracy": 0.5} for i in (1, 2)], tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > 2.5 * image.height  # three panels beside each other
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
