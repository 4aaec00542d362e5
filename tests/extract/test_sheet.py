"""Pictures for people: what is drawn, and where."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from extract.decode import ImageError
from extract.sheet import FONT_PX, TILE_PX, _font, draw_rows, draw_sheet, row_picture, with_words
from store import ImageBlock, ImageRef
from tests.heads.made import classes, dataset

GREY = np.full((300, 400, 3), 128, np.uint8)
RED = np.full((40, 80, 3), (255, 0, 0), np.uint8)


def saved(folder: Path, name: str, pixels: np.ndarray) -> ImageRef:
    Image.fromarray(pixels).save(folder / name)
    return ImageRef(str(folder / name))


def test_a_row_is_shown_converted_and_cropped(tmp_path: Path) -> None:
    ramp = np.arange(100, 196, dtype=np.uint16).reshape(8, 12)
    picture = row_picture(ImageBlock("bf", (saved(tmp_path, "a.tif", ramp),), "linear", 2), 0)
    assert picture.shape == (6, 12, 3) and (picture.min(), picture.max()) == (0, 255)


def test_the_parts_of_a_stack_stand_side_by_side(tmp_path: Path) -> None:
    left = ImageBlock("bf", (saved(tmp_path, "a.png", RED),), "none")
    right = ImageBlock("fl", (saved(tmp_path, "b.png", RED[..., ::-1].copy()),), "none")
    picture = row_picture(ImageBlock("both", left.refs, None, parts=(left, right)), 0)
    assert np.array_equal(picture, np.concatenate([RED, RED[..., ::-1]], axis=1))


def test_a_row_without_an_image_says_so() -> None:
    with pytest.raises(ImageError, match="no image in this row"):
        row_picture(ImageBlock("bf", (None,), "none"), 0)


def test_words_stand_below_the_picture_and_cover_none_of_it() -> None:
    drawn = with_words(GREY, ["flat 0.81", "usable"])
    assert np.array_equal(drawn[:300], GREY) and drawn.shape[1:] == (400, 3)
    assert (drawn[300] == 0).all() and (drawn[300:] == 255).any() and (drawn[-1] == 0).all()
    assert len(with_words(GREY, ["one line"])) < len(drawn) < 300 + 60


def test_words_below_a_small_picture_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda _, place, text, **how: written.append(text))
    drawn = with_words(GREY[:64, :64], ["material_particle: many 0.91"])
    assert written == ["materi", "al_part", "icle:", "many", "0.91"]
    assert drawn.shape[1] == 64 and len(drawn) == 64 + 14 + len(written) * round(1.3 * FONT_PX)


def test_a_sheet_has_a_place_and_a_caption_for_each(tmp_path: Path) -> None:
    draw_sheet(tmp_path / "new" / "sheet.png", [RED, GREY, RED], ["one", "two\nlines", "last"], columns=2)
    sheet = np.asarray(Image.open(tmp_path / "new" / "sheet.png"))
    step = TILE_PX + 8
    assert sheet.shape[1] == 2 * step + 8
    assert (sheet[8:88, 8 : 8 + TILE_PX] == [255, 0, 0]).all()  # twice as wide as high, scaled up to fit
    assert (sheet[8:128, 8 + step : 8 + step + TILE_PX] == 128).all()
    assert (sheet[88:108, :step] < 100).any() and (sheet[128:160, step:] < 100).any()  # right below each
    second = 8 + 120 + 2 * round(1.3 * FONT_PX) + 8
    assert (sheet[second : second + 80, 8 : 8 + TILE_PX] == [255, 0, 0]).all() and (
        sheet[second - 8 : second] == 255
    ).all()
    assert sheet.shape[0] == second + 80 + round(1.3 * FONT_PX) + 8


def test_a_long_caption_is_broken_and_of_a_very_long_one_both_ends_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda _, place, text, **how: written.append(text))
    draw_sheet(tmp_path / "sheet.png", [RED], ["Train/Black/candle_light_bulb_12.png\nBlack -> TTR"])
    assert "".join(written) == "Train/Black/candle_light_bulb_12.pngBlack -> TTR" and len(written) == 3
    written.clear()
    draw_sheet(tmp_path / "sheet.png", [RED], ["folder/" * 30 + "image.png"])
    assert len(written) == 4 and written[0].startswith("folder/") and written[2:] == ["…", "image.png"]
    font = _font(FONT_PX)
    assert all(font.getlength(line) <= TILE_PX for line in written)


def test_rows_are_drawn_in_the_order_of_their_captions_and_unreadable_ones_passed_over(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no image")
    refs = (saved(tmp_path, "a.png", RED), ImageRef(str(tmp_path / "broken.png")), None, saved(tmp_path, "b.png", GREY))
    spectrum = ImageBlock("fourier", refs, None, view="fourier")
    data = dataset(classes([0, 1, 0, 1]), n=4, images={"fourier": spectrum, "bf": ImageBlock("bf", refs, "none")})
    captions = {f"r{i:03d}": "x" for i in (3, 1, 2, 0)}
    assert draw_rows(tmp_path / "sheet.png", data, captions) == tmp_path / "sheet.png"
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape[1] == 2 * (TILE_PX + 8) + 8
    assert (sheet[20, 20] == 128).all() and (sheet[20, TILE_PX + 28] == [255, 0, 0]).all()
    draw_rows(tmp_path / "one.png", data, captions, n=1)
    with Image.open(tmp_path / "one.png") as one:
        assert one.width == TILE_PX + 16


def test_without_a_readable_picture_there_is_no_sheet(tmp_path: Path) -> None:
    data = dataset(classes([0, 1]), n=2, images={"bf": ImageBlock("bf", (None, None), "none")})
    assert draw_rows(tmp_path / "sheet.png", data, {"r000": "x"}) is None and not (tmp_path / "sheet.png").exists()
