"""Which images have more than 8 bits: the others are the same under every conversion."""

from concurrent.futures import ThreadPoolExecutor

from extract.decode import ImageError, read_image
from store import Dataset, ImageBlock, ImageRef


def deep_blocks(dataset: Dataset) -> list[str]:
    """Return the image blocks that a conversion changes (``image:bf``): some file has more than 8 bits.

    Files are decoded until the first such one; a spectrum takes no conversion, and unreadable files do not count.
    """
    return [f"image:{name}" for name, block in dataset.images.items() if _has_deep_file(block)]


def _has_deep_file(block: ImageBlock) -> bool:
    if block.convert is None and not block.parts:
        return False
    files = dict.fromkeys(ref for row in block.sources for ref in row or ())
    with ThreadPoolExecutor() as pool:
        try:
            return any(pool.map(_is_deep, files))
        finally:
            pool.shutdown(cancel_futures=True)


def _is_deep(ref: ImageRef) -> bool:
    try:
        return read_image(ref.path, ref.page).dtype != "uint8"
    except ImageError:
        return False
