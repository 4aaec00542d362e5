"""Pictures for people: an image as it is read, a copy of it with words drawn in, and many on one sheet."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from extract.decode import Image8, ImageError, read_image
from extract.view import crop, join_pictures, seen_parts, whole_picture
from store import Dataset, ImageBlock, view_settings

TILE_PX, MARGIN_PX, FONT_PX = 160, 8, 11
WORDS_SHARE = 1 / 24  # of the image's shorter side: the height of drawn-in words


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
    """Return a copy with lines of text on a dark ground in its upper left corner.

    Args:
        picture: uint8 ``(h, w, 3)``.
        lines: From top to bottom.
    """
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    font = _font(max(FONT_PX, round(WORDS_SHARE * min(image.size))))
    text, edge = "\n".join(lines), font.size / 2
    box = draw.multiline_textbbox((edge, edge), text, font=font)
    draw.rectangle((0, 0, box[2] + edge, box[3] + edge), fill="black")
    draw.multiline_text((edge, edge), text, font=font, fill="white")
    return np.asarray(image)


def draw_sheet(path: Path, pictures: Sequence[Image8], captions: Sequence[str], *, columns: int = 6) -> None:
    """Write a PNG of many pictures, each scaled to fit its place and with its caption below.

    Args:
        path: The file.
        pictures: uint8 ``(h, w, 3)`` each.
        captions: One each; lines are broken at ``\\n`` and cut where the place ends.
        columns: Pictures in a row of the sheet.
    """
    line_px = round(FONT_PX * 1.4)
    height = TILE_PX + MARGIN_PX + line_px * max((c.count("\n") + 1 for c in captions), default=0)
    columns = min(columns, max(len(pictures), 1))
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (TILE_PX + MARGIN_PX) + MARGIN_PX, rows * height + MARGIN_PX), "white")
    draw, font = ImageDraw.Draw(sheet), _font(FONT_PX)
    for place, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = MARGIN_PX + place % columns * (TILE_PX + MARGIN_PX)
        top = MARGIN_PX + place // columns * height
        sheet.paste(_thumbnail(picture), (left, top))
        for number, line in enumerate(caption.split("\n")):
            draw.text((left, top + TILE_PX + number * line_px), _cut(line, font), font=font, fill="black")
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


def _cut(line: str, font: ImageFont.FreeTypeFont) -> str:
    if font.getlength(line) <= TILE_PX:
        return line
    while line and font.getlength(line + "…") > TILE_PX:
        line = line[:-1]
    return line + "…"
