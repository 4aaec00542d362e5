"""Pictures for people: an image as it is read, a copy of it with words below, and many on one sheet."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from extract.decode import Image8, ImageError, read_image
from extract.view import crop, join_pictures, seen_parts, whole_picture
from store import Dataset, ImageBlock, broken, view_settings

TILE_PX, MARGIN_PX, FONT_PX = 160, 8, 14
LINE_SHARE = 1.3  # height of a line of text, in sizes of its font
MAX_LINES = 4  # that a line of a caption is broken into
WORDS_SHARE = 1 / 24  # of the image's shorter side: the height of words below it


def row_picture(block: ImageBlock, row: int) -> Image8:
    """Return one row's image as its encoder is given it, before tiles and resize.

    Returns:
        uint8 ``(h, w, 3)``; of a stack the parts side by side.

    Raises:
        ImageError: The file cannot be read, or the row has none.
    """
    refs = block.sources[row]
    if refs is None:
        raise ImageError("there is no image in this row")
    parts = seen_parts(view_settings(block))
    images = [
        crop(read_image(ref.path, ref.page), part["crop_bottom_px"]) for ref, part in zip(refs, parts, strict=True)
    ]
    whole = [join_pictures([whole_picture(image, part)], [part]) for image, part in zip(images, parts, strict=True)]
    return np.concatenate([_rgb(image) for image in whole], axis=1)


def with_words(picture: Image8, lines: Sequence[str]) -> Image8:
    """Return a copy with lines of text in a dark bar below it, as a microscope writes its own; no pixel is covered.

    Args:
        picture: uint8 ``(h, w, 3)``.
        lines: From top to bottom; one that is too long is broken.

    Returns:
        uint8 ``(h + the bar's height, w, 3)``.
    """
    height, width = picture.shape[:2]
    font = _font(max(FONT_PX, round(WORDS_SHARE * min(height, width))))
    edge, line_px = round(font.size / 2), round(LINE_SHARE * font.size)
    shown = [part for line in lines for part in broken(line, lambda text: font.getlength(text) <= width - 2 * edge)]
    image = Image.new("RGB", (width, height + 2 * edge + line_px * len(shown)), "black")
    image.paste(Image.fromarray(picture))
    _write(ImageDraw.Draw(image), (edge, height + edge), shown, font, fill="white")
    return np.asarray(image)


def draw_sheet(path: Path, pictures: Sequence[Image8], captions: Sequence[str], *, columns: int = 6) -> None:
    """Write a PNG of many pictures, each scaled to fit its place, its caption right below it.

    Args:
        path: The file.
        pictures: uint8 ``(h, w, 3)`` each.
        captions: One each; lines are broken at ``\\n`` and where the place ends.
        columns: Pictures in a row of the sheet.
    """
    font = _font(FONT_PX)
    line_px = round(LINE_SHARE * FONT_PX)
    places = [(_thumbnail(one), _lines(text, font)) for one, text in zip(pictures, captions, strict=True)]
    rows = [places[start : start + columns] for start in range(0, len(places), columns)]
    heights = [max(image.height + line_px * len(lines) for image, lines in row) + MARGIN_PX for row in rows]
    n_columns = max((len(row) for row in rows), default=1)
    size = (n_columns * (TILE_PX + MARGIN_PX) + MARGIN_PX, sum(heights) + MARGIN_PX)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for row, top in zip(rows, accumulate(heights, initial=MARGIN_PX), strict=False):
        for column, (image, lines) in enumerate(row):
            left = MARGIN_PX + column * (TILE_PX + MARGIN_PX)
            sheet.paste(image, (left, top))
            _write(draw, (left, top + image.height), lines, font, fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def draw_rows(path: Path, dataset: Dataset, captions: Mapping[str, str], *, n: int = 24) -> Path | None:
    """Write a sheet of rows' images, in the order of `captions`; rows without a readable image are passed over.

    Args:
        path: A PNG file.
        dataset: Its first image block that shows a picture, not a spectrum, is drawn.
        captions: By row id.
        n: At most so many rows.

    Returns:
        The path; None where there is nothing to draw.
    """
    block = next((block for block in dataset.images.values() if block.view != "fourier"), None)
    places = {row: place for place, row in enumerate(dataset.ids.tolist())}
    found: list[tuple[Image8, str]] = []
    for row, caption in captions.items():
        if block is not None and len(found) < n:
            with suppress(ImageError):
                found.append((row_picture(block, places[row]), caption))
    if not found:
        return None
    draw_sheet(path, *zip(*found, strict=True))
    return path


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which has Greek, Cyrillic, accents and signs."""
    from matplotlib import get_data_path  # a fifth of a second, and not needed to embed

    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size_px)


def _rgb(picture: Image8) -> Image8:
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)


def _thumbnail(picture: Image8) -> Image.Image:
    scale = TILE_PX / max(picture.shape[:2])
    size = max(1, round(scale * picture.shape[1])), max(1, round(scale * picture.shape[0]))
    return Image.fromarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST))


def _lines(caption: str, font: ImageFont.FreeTypeFont) -> list[str]:
    """Return a caption in lines that fit below a picture; of a very long one the beginning and the end."""
    return [part for line in caption.split("\n") for part in _few(broken(line, lambda text: _fits(text, font)))]


def _few(lines: list[str]) -> list[str]:
    return lines if len(lines) <= MAX_LINES else [*lines[: MAX_LINES - 2], "…", lines[-1]]


def _fits(text: str, font: ImageFont.FreeTypeFont) -> bool:
    return font.getlength(text) <= TILE_PX


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], lines: Sequence[str], font: ImageFont.FreeTypeFont, *, fill: str
) -> None:
    for number, line in enumerate(lines):
        draw.text((place[0], place[1] + number * round(LINE_SHARE * font.size)), line, font=font, fill=fill)
