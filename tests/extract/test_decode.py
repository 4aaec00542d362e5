"""Every format, depth and layout gives the file's own values; every broken file gives one clear reason."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from extract import decode
from extract.decode import ImageError, read_image
from store.rows import IMAGE_SUFFIXES, NO_IMAGES

DATA = Path(__file__).parents[3] / "shared" / "data"
RNG = np.random.default_rng(0)
GREY = cv2.GaussianBlur(RNG.integers(0, 256, (120, 160), dtype=np.uint8), (0, 0), 2)
RGB = cv2.GaussianBlur(RNG.integers(0, 256, (120, 160, 3), dtype=np.uint8), (0, 0), 2)
DEEP = (GREY.astype(np.uint16) << 4) + RNG.integers(0, 16, GREY.shape, dtype=np.uint16)
REAL = (DEEP / 7).astype(np.float32)


def saved(folder, image, name="image", **options):
    """Write a Pillow image or an array (as TIFF) and return its path."""
    path = folder / name
    if isinstance(image, np.ndarray):
        tifffile.imwrite(path, image, **options)
    else:
        image.save(path, **options)
    return path


def written(folder, data, name="image"):
    path = folder / name
    path.write_bytes(data)
    return path


def pillow(image, mode):
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, "PNG")
    return Image.open(buffer)


def pillow_values(path):
    image = Image.open(path)
    return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))


def png(width, height, depth, colour, raw):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def tiff(width, height, bits, photometric, data):
    """The smallest TIFF of one strip, for depths that no writer here offers."""
    at = 8 + 2 + 9 * 12 + 4
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, at), (277, 1), (278, height)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*tags, (279, len(data))])
    return b"II*\0" + struct.pack("<IH", 8, 9) + entries + struct.pack("<I", 0) + data


EIGHT_BITS = {
    "png grey": (Image.fromarray(GREY), "PNG", {}),
    "png rgb": (Image.fromarray(RGB), "PNG", {}),
    "png rgba": (Image.fromarray(np.dstack([RGB, GREY])), "PNG", {}),
    "png grey and alpha": (pillow(GREY, "LA"), "PNG", {}),
    "png palette": (Image.fromarray(RGB).quantize(200), "PNG", {}),
    "png palette of 4 bits": (Image.fromarray(RGB).quantize(9), "PNG", {}),
    "png palette, one transparent": (Image.fromarray(RGB).quantize(9), "PNG", {"transparency": 3}),
    "png grey, one transparent": (Image.fromarray(GREY), "PNG", {"transparency": 5}),
    "png rgb, one transparent": (Image.fromarray(RGB), "PNG", {"transparency": (1, 2, 3)}),
    "png 1 bit": (pillow(GREY, "1"), "PNG", {}),
    "jpeg grey": (Image.fromarray(GREY), "JPEG", {}),
    "jpeg 4:2:0": (Image.fromarray(RGB), "JPEG", {}),
    "jpeg 4:2:2": (Image.fromarray(RGB), "JPEG", {"subsampling": 1}),
    "jpeg 4:4:4": (Image.fromarray(RGB), "JPEG", {"subsampling": 0}),
    "jpeg progressive": (Image.fromarray(RGB), "JPEG", {"progressive": True}),
    "jpeg restart": (Image.fromarray(RGB), "JPEG", {"restart_marker_rows": 1}),
    "jpeg stored as rgb": (Image.fromarray(RGB), "JPEG", {"keep_rgb": True}),
    "jpeg cmyk": (Image.fromarray(RGB).convert("CMYK"), "JPEG", {}),
    "bmp grey": (Image.fromarray(GREY), "BMP", {}),
    "bmp rgb": (Image.fromarray(RGB), "BMP", {}),
    "bmp rgba": (Image.fromarray(np.dstack([RGB, GREY])), "BMP", {}),
    "bmp palette": (Image.fromarray(RGB).quantize(200), "BMP", {}),
    "bmp 1 bit": (pillow(GREY, "1"), "BMP", {}),
    "tiff grey": (Image.fromarray(GREY), "TIFF", {}),
    "tiff lzw": (Image.fromarray(RGB), "TIFF", {"compression": "tiff_lzw"}),
    "tiff deflate": (Image.fromarray(RGB), "TIFF", {"compression": "tiff_adobe_deflate"}),
    "tiff packbits": (Image.fromarray(GREY), "TIFF", {"compression": "packbits"}),
    "tiff jpeg": (Image.fromarray(GREY), "TIFF", {"compression": "jpeg"}),
    "tiff rgba": (Image.fromarray(np.dstack([RGB, GREY])), "TIFF", {}),
    "tiff grey and alpha": (pillow(GREY, "LA"), "TIFF", {}),
    "tiff palette": (Image.fromarray(RGB).quantize(200), "TIFF", {}),
    "tiff 1 bit": (pillow(GREY, "1"), "TIFF", {}),
    "tiff fax": (pillow(GREY, "1"), "TIFF", {"compression": "group4"}),
}


@pytest.mark.parametrize("case", EIGHT_BITS)
def test_eight_bits_equal_pillow(tmp_path, case):
    image, file_format, options = EIGHT_BITS[case]
    path = saved(tmp_path, image, format=file_format, **options)
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous and pixels.flags.writeable
    expected = pillow_values(path)
    assert pixels.shape == expected.shape
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("kind", ["png", "tiff, black is zero", "tiff, white is zero"])
def test_fewer_than_eight_bits_fill_the_range_as_in_pillow(tmp_path, depth, kind):
    rows = [RNG.bytes(16 * depth // 8) for _ in range(4)]
    if kind == "png":
        data = png(16, 4, depth, 0, b"".join(b"\0" + row for row in rows))
    else:
        data = tiff(16, 4, depth, int("black" in kind), b"".join(rows))
    path = written(tmp_path, data)
    np.testing.assert_array_equal(read_image(path), np.asarray(Image.open(path).convert("L")))


DEEP_TIFFS = {
    "grey": (DEEP, {}, DEEP),
    "big-endian": (DEEP.astype(">u2"), {"byteorder": ">"}, DEEP),
    "bigtiff": (DEEP, {"bigtiff": True}, DEEP),
    "tiles, deflate, predictor": (DEEP, {"tile": (32, 48), "compression": "deflate", "predictor": True}, DEEP),
    "lzw": (DEEP, {"compression": "lzw"}, DEEP),
    "zstd": (DEEP, {"compression": "zstd"}, DEEP),
    "jpeg 2000": (DEEP, {"compression": "jpeg2000"}, DEEP),
    "rgb": (RGB.astype(np.uint16) * 200, {"photometric": "rgb"}, RGB.astype(np.uint16) * 200),
    "planes": (
        np.moveaxis(RGB, -1, 0).astype(np.uint16) * 200,
        {"photometric": "rgb", "planarconfig": "separate"},
        RGB.astype(np.uint16) * 200,
    ),
    "planes, 8 bits": (np.moveaxis(RGB, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}, RGB),
    "rgba": (
        np.dstack([RGB, GREY]).astype(np.uint16) * 9,
        {"photometric": "rgb", "extrasamples": ["unassalpha"]},
        RGB.astype(np.uint16) * 9,
    ),
    "white is zero": (DEEP, {"photometric": "miniswhite"}, 65535 - DEEP),
    "bool": (GREY > 128, {}, np.where(GREY > 128, 255, 0).astype(np.uint8)),
    "int8, positive": ((GREY >> 1).astype(np.int8), {}, GREY >> 1),
    "int16, positive": (DEEP.astype(np.int16), {}, DEEP),
    "int16": (DEEP.astype(np.int16) - 2000, {}, DEEP.astype(np.float32) - 2000),
    "int32": (DEEP.astype(np.int32) * -5, {}, DEEP.astype(np.float32) * -5),
    "uint32 of 16 bits": (DEEP.astype(np.uint32), {}, DEEP),
    "uint32 of 24 bits": (DEEP.astype(np.uint32) * 3000, {}, DEEP.astype(np.float32) * 3000),
    "uint64": (DEEP.astype(np.uint64), {}, DEEP),
    "float16": ((GREY / 255).astype(np.float16), {}, (GREY / 255).astype(np.float16).astype(np.float32)),
    "float32": (REAL, {}, REAL),
    "float32, predictor": (REAL, {"predictor": 3, "compression": "deflate"}, REAL),
    "float64": (DEEP / 7, {}, REAL),
    "float64 of one value": (np.full((9, 9), 0.1), {}, np.full((9, 9), 0.1, np.float32)),
}


@pytest.mark.parametrize("case", DEEP_TIFFS)
def test_deep_tiffs_keep_their_values(tmp_path, case):
    image, options, expected = DEEP_TIFFS[case]
    options = {"photometric": "minisblack"} | options
    pixels = read_image(saved(tmp_path, np.ascontiguousarray(image), **options))
    assert pixels.dtype == expected.dtype
    np.testing.assert_array_equal(pixels, expected)


def test_packed_12_bits_are_unpacked(tmp_path):
    values = RNG.integers(0, 4096, (4, 16))
    bits = "".join(f"{value:012b}" for value in values.ravel())
    path = written(tmp_path, tiff(16, 4, 12, 1, int(bits, 2).to_bytes(len(bits) // 8)))
    np.testing.assert_array_equal(read_image(path), values.astype(np.uint16))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_png_keeps_its_values(tmp_path, channels):
    values = RNG.integers(0, 65536, (30, 40, channels), dtype=np.uint16)
    data = imagecodecs.png_encode(values[..., 0] if channels == 1 else values)
    expected = values[..., 0] if channels == 1 else values[..., :3]
    np.testing.assert_array_equal(read_image(written(tmp_path, data)), expected)


def test_12_bit_jpeg_keeps_its_depth(tmp_path):
    path = written(tmp_path, imagecodecs.jpeg_encode(DEEP, level=100, bitspersample=12))
    pixels = read_image(path)
    assert pixels.dtype == np.uint16
    assert np.abs(pixels.astype(int) - DEEP).max() < 16


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, Image.fromarray(RGB), format="JPEG", exif=exif)
    assert read_image(path).shape == RGB.shape


def test_content_decides_the_format_not_the_name(tmp_path):
    path = saved(tmp_path, Image.fromarray(GREY), "image.tif", format="PNG")
    np.testing.assert_array_equal(read_image(path), GREY)


def stack(folder, n_pages=5):
    return saved(folder, np.stack([GREY + k for k in range(n_pages)]), photometric="minisblack")


def test_a_page_of_several_is_read(tmp_path):
    path = stack(tmp_path)
    for page in range(5):
        np.testing.assert_array_equal(read_image(path, page), GREY + page)


def test_a_mapped_stack_reads_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "_MMAP_BYTES", 1)
    np.testing.assert_array_equal(read_image(stack(tmp_path), 3), GREY + 3)
    np.testing.assert_array_equal(read_image(saved(tmp_path, Image.fromarray(RGB), format="PNG")), RGB)
    path = saved(tmp_path, Image.fromarray(RGB), format="JPEG")
    np.testing.assert_array_equal(read_image(path), pillow_values(path))


def test_a_thumbnail_is_no_second_page(tmp_path):
    with tifffile.TiffWriter(tmp_path / "image") as file:
        file.write(GREY, photometric="minisblack")
        file.write(GREY[::4, ::4], photometric="minisblack", subfiletype=1)
    np.testing.assert_array_equal(read_image(tmp_path / "image"), GREY)


def test_several_pages_ask_for_one(tmp_path):
    with pytest.raises(ImageError, match=r"has 5 pages; name one with page = 0 … 4, as file.tif#0 in the table"):
        read_image(stack(tmp_path))


@pytest.mark.parametrize("page", [5, -1])
def test_a_page_outside_the_file_is_refused(tmp_path, page):
    with pytest.raises(ImageError, match=rf"has 5 pages, counted from 0; page {page} is not one of them"):
        read_image(stack(tmp_path), page)


def test_formats_of_one_page_have_page_0_only(tmp_path):
    path = saved(tmp_path, Image.fromarray(GREY), format="PNG")
    np.testing.assert_array_equal(read_image(path, 0), GREY)
    with pytest.raises(ImageError, match="has 1 page, counted from 0; page 1 is not one of them"):
        read_image(path, 1)


def test_an_imagej_stack_behind_one_page_is_refused(tmp_path):
    path = saved(tmp_path, GREY, description="ImageJ=1.54f\nimages=40\nslices=40\n")
    with pytest.raises(ImageError, match="ImageJ stack of 40 images"):
        read_image(path)


CUT = {
    "png grey": 12,  # the end chunk
    "png rgb": 12,
    "jpeg grey": 2,  # the end marker
    "jpeg 4:2:0": 2,
    "jpeg progressive": 2,
    "jpeg restart": 2,
    "bmp rgb": 1,
    "bmp palette": 1,
    "tiff grey": 1,
    "tiff lzw": 1,
    "tiff deflate": 1,
    "tiff jpeg": 1,
    "tiff fax": 1,
}


@pytest.mark.parametrize("case", CUT)
def test_a_file_cut_anywhere_is_refused(tmp_path, case):
    image, file_format, options = EIGHT_BITS[case]
    data = saved(tmp_path, image, format=file_format, **options).read_bytes()
    cuts = {1, 2, 3, 8, 20, *np.linspace(1, len(data) - 1, 60, dtype=int).tolist()}
    for left in sorted({len(data) - cut for cut in cuts} | {2, 4, 8, 12}):
        with pytest.raises(ImageError):
            read_image(written(tmp_path, data[:left], "cut"))


@pytest.mark.parametrize("case", ["png rgb", "jpeg 4:2:0", "tiff lzw", "bmp rgb"])
def test_half_a_file_says_that_it_is_cut(tmp_path, case):
    image, file_format, options = EIGHT_BITS[case]
    data = saved(tmp_path, image, format=file_format, **options).read_bytes()
    with pytest.raises(ImageError, match="is cut short"):
        read_image(written(tmp_path, data[: len(data) // 2]))


def test_a_wrong_png_checksum_is_refused(tmp_path):
    data = bytearray(saved(tmp_path, Image.fromarray(GREY), format="PNG").read_bytes())
    data[-15] ^= 1  # the checksum of the last pixel chunk
    with pytest.raises(ImageError, match="checksum of PNG chunk IDAT at byte 33 is wrong"):
        read_image(written(tmp_path, bytes(data)))


def test_damage_is_never_another_error(tmp_path):
    for case in ("png rgb", "jpeg 4:2:0", "jpeg progressive", "tiff lzw", "tiff palette", "bmp palette"):
        image, file_format, options = EIGHT_BITS[case]
        data = saved(tmp_path, image, format=file_format, **options).read_bytes()
        for _ in range(60):
            damaged = bytearray(data)
            for at in RNG.integers(0, min(len(data), 400), 3):
                damaged[at] = RNG.integers(256)
            try:
                read_image(written(tmp_path, bytes(damaged), "damaged"))
            except ImageError as error:
                assert "\n" not in str(error)


def test_huge_headers_are_refused_before_anything_is_allocated(tmp_path):
    huge = {
        "png": png(70_000, 70_000, 8, 0, b"\0" * 100),
        "tiff": tiff(70_000, 70_000, 8, 1, b"\0" * 100),
        "bmp": b"BM" + struct.pack("<IIIIiiHHIIIIII", 154, 0, 54, 40, 70_000, -70_000, 1, 24, 0, 0, 0, 0, 0, 0),
        "jpeg": b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 17, 8, 65_000, 65_000, 3) + bytes(9),
    }
    for data in huge.values():
        with pytest.raises(ImageError, match=r"too large: its header says \d+ x \d+, and at most 536,870,912 pixels"):
            read_image(written(tmp_path, data))


def test_what_is_no_image_says_so(tmp_path):
    with pytest.raises(ImageError, match="is no tif, png, jpg or bmp"):
        read_image(written(tmp_path, b"sample;grade\n1;II\n", "table.tif"))
    with pytest.raises(ImageError, match=r"is empty \(0 bytes\)"):
        read_image(written(tmp_path, b"", "empty.tif"))
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "missing.tif")
    with pytest.raises(ImageError, match="is a folder, not a file"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="is not a regular file"):
        read_image(Path("/dev/null"))


def test_an_unreadable_file_says_so(tmp_path, monkeypatch):
    path = written(tmp_path, b"x")

    def refuse(*_args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match="permission denied"):
        read_image(path)


REFUSED = {
    "NaN": (np.where(GREY > 128, np.nan, GREY).astype(np.float32), {}, r"has \d+ NaN or infinite pixels"),
    "one infinite": (np.array([[0, np.inf]]), {}, "has 1 NaN or infinite pixel$"),
    "complex": (GREY.astype(np.complex64), {}, "has complex64 values"),
    "beyond float32": (np.array([[0, 1e300]]), {}, "beyond float32"),
    "close together": (np.array([[1e9, 1e9 + 1]]), {}, "too close together"),
    "long integers": (np.array([[0, 2**32 - 1]], np.uint32), {}, "float32 cannot hold exactly"),
    "white is zero, real": (GREY.astype(np.float32), {"photometric": "miniswhite"}, "stores white as zero in float32"),
    "five channels": (np.dstack([GREY] * 5), {"planarconfig": "contig"}, "has 5 channels per pixel"),
    "two channels": (np.dstack([GREY] * 2), {"planarconfig": "contig"}, "has 2 channels per pixel"),
    "CIELab": (RGB, {"photometric": "cielab"}, "TIFF colour model 8 at 8 bits"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_values_that_would_be_lost_are_refused(tmp_path, case):
    image, options, reason = REFUSED[case]
    path = saved(tmp_path, image, **({"photometric": "minisblack"} | options))
    with pytest.raises(ImageError, match=reason):
        read_image(path)


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is absent")
def test_real_files_equal_the_plain_readers():
    for path in [*sorted(DATA.glob("emps/images/*.png"))[::60], *sorted(DATA.glob("trashnet/images/*/*.jpg"))[::150]]:
        np.testing.assert_array_equal(read_image(path), pillow_values(path))
    for path in sorted(DATA.glob("ifc_cellcycle/*/*.tif"))[::1500]:
        np.testing.assert_array_equal(read_image(path), tifffile.imread(path))


def test_suffixes_that_folders_are_searched_for_are_those_that_can_be_read(tmp_path):
    image = Image.fromarray(RGB)
    for suffix in IMAGE_SUFFIXES:
        assert read_image(saved(tmp_path, image, f"a{suffix}")).shape == RGB.shape
    for suffix in (".gif", ".webp", ".jp2"):
        assert suffix in NO_IMAGES.partition("not read")[2]
        with pytest.raises(ImageError, match=r"no format that is read here; convert it to png$"):
            read_image(saved(tmp_path, image, f"a{suffix}"))
