"""Files as the instruments and programs write them, by tifffile, with values known beforehand."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from store import InputError, load_dataset, prediction_dataset
from store.dataset import ImageRef
from store.scale import SOURCES, Scale, read_scale, read_scales
from store.units import nm_per

Make = Callable[..., Path]
PIXELS = np.zeros((48, 64), np.uint16)
FEI, FEI_SFEG, ZEISS = 34682, 34680, 34118


def fei(width_m: float = 8.26823e-10, height_m: float | None = None) -> str:
    return (
        "[User]\r\nDate=05/12/2019\r\n[EBeam]\r\nHFW=1.27e-06\r\n"
        f"[Scan]\r\nPixelWidth={width_m}\r\nPixelHeight={height_m or width_m}\r\nHorFieldsize=1.27e-06\r\n"
        "[Image]\r\nMagCanvasRealWidth=0.127\r\nResolutionX=64\r\n"
    )


def zeiss(size: str = "558.2 pm", magnification: str = "100.00 K X") -> str:
    return (
        "\r\n0\r\n5.0e-10\r\nAP_WIDTH\r\nWidth = 571.6 nm\r\n"
        f"AP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = {size}\r\nAP_MAG\r\nMag =   {magnification}\r\n"
    )


def tagged(path: Path, tag: int, text: str | bytes, **more: Any) -> Path:
    data = text if isinstance(text, bytes) else text.encode("cp1252")
    tifffile.imwrite(path, PIXELS, extratags=[(tag, 1, len(data), data, True)], metadata=None, **more)
    return path


def imagej(path: Path, unit: str, nm: float, **more: Any) -> Path:
    tifffile.imwrite(path, PIXELS, imagej=True, resolution=(1 / nm, 1 / nm), metadata={"unit": unit, **more})
    return path


@pytest.mark.parametrize("tag", [FEI, FEI_SFEG])
def test_fei_states_metres_per_pixel_and_the_canvas(tmp_path: Path, tag: int) -> None:
    found = read_scale(tagged(tmp_path / "a.tif", tag, fei()))
    assert found.nm_per_px == pytest.approx(0.826823, rel=1e-12)
    assert found.magnification == pytest.approx(100_000)
    assert found.source == "FEI/Thermo"


@pytest.mark.parametrize(
    ("size", "nm"), [("558.2 pm", 0.5582), ("12.5 nm", 12.5), ("1.25 µm", 1250), ("1.25 um", 1250), ("2 mm", 2e6)]
)
def test_zeiss_states_a_size_with_its_unit(tmp_path: Path, size: str, nm: float) -> None:
    found = read_scale(tagged(tmp_path / "a.tif", ZEISS, zeiss(size)))
    assert found.nm_per_px == pytest.approx(nm, rel=1e-12)
    assert found.source == "Zeiss"


@pytest.mark.parametrize(
    ("stated", "value"), [("100.00 K X", 100_000), ("500 X", 500), ("2.50 K X", 2500), ("much", None)]
)
def test_zeiss_states_its_magnification(tmp_path: Path, stated: str, value: float | None) -> None:
    assert read_scale(tagged(tmp_path / "a.tif", ZEISS, zeiss(magnification=stated))).magnification == value


def test_older_zeiss_files_state_the_width_of_the_field(tmp_path: Path) -> None:
    text = zeiss().replace("AP_IMAGE_PIXEL_SIZE", "AP_OTHER")
    assert read_scale(tagged(tmp_path / "a.tif", ZEISS, text)).nm_per_px == pytest.approx(571.6 / 64)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
@pytest.mark.parametrize("section", ["SemImageFile", "TemImageFile"])
def test_hitachi_has_a_text_file_beside_the_image(tmp_path: Path, encoding: str, section: str) -> None:
    text = f"[{section}]\r\nInstructName=S-4800\r\nMagnification=30000\r\nPixelSize=3.307292\r\n"
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    tifffile.imwrite(tmp_path / "a.tif", PIXELS)
    (tmp_path / "a.jpg").write_bytes(b"not read")
    for name in ("a.tif", "a.jpg"):
        assert read_scale(tmp_path / name) == Scale(3.307292, 30_000, "Hitachi")


def test_other_text_files_beside_an_image_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("PixelSize=3.3\n")
    tifffile.imwrite(tmp_path / "a.tif", PIXELS)
    assert read_scale(tmp_path / "a.tif") == Scale()


@pytest.mark.parametrize(
    ("unit", "nm"),
    [("nm", 1), ("um", 1e3), ("micron", 1e3), ("\\u00B5m", 1e3), ("mm", 1e6), ("m", 1e9), ("angstrom", 0.1)],
)
def test_imagej_states_pixels_per_unit(tmp_path: Path, unit: str, nm: float) -> None:
    found = read_scale(imagej(tmp_path / "a.tif", unit, 0.25))
    assert found.nm_per_px == pytest.approx(0.25 * nm, rel=1e-6)
    assert (found.magnification, found.source) == (None, "ImageJ")


@pytest.mark.parametrize("unit", ["inch", "cm", "pixel", "furlong"])
def test_inch_and_the_unknown_are_no_scale(tmp_path: Path, unit: str) -> None:
    assert read_scale(imagej(tmp_path / "a.tif", unit, 0.25)) == Scale()


@pytest.mark.parametrize("unit", ["INCH", "CENTIMETER", "NONE"])
def test_plain_resolution_tags_are_no_scale(tmp_path: Path, unit: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, resolution=(300, 300), resolutionunit=unit)
    assert read_scale(tmp_path / "a.tif") == Scale()


@pytest.mark.parametrize(
    ("unit", "nm"), [("µm", 1e3), ("nm", 1), ("Å", 0.1), ("mm", 1e6), (None, 1e3), ("pixel", None)]
)
def test_ome_states_a_size_with_its_unit(tmp_path: Path, unit: str | None, nm: float | None) -> None:
    sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    units = {} if unit is None else {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, PIXELS, ome=True, metadata={"axes": "YX", **sizes, **units})
    assert read_scale(path).nm_per_px == (None if nm is None else pytest.approx(0.25 * nm))


def test_each_ome_image_has_its_own_scale(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for n_pages, size in ((2, 1.0), (3, 2.0)):
            pixels = np.zeros((n_pages, 8, 8), np.uint8)
            file.write(pixels, photometric="minisblack", metadata={"axes": "ZYX", "PhysicalSizeX": size})
    assert [read_scale(path, page).nm_per_px for page in range(6)] == [1000, 1000, 2000, 2000, 2000, None]


def test_a_page_has_the_scale_of_its_own_tags(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(PIXELS[::2, ::2], subfiletype=1, metadata=None)  # a thumbnail
        for size in (1e-9, None, 3e-9):
            text = fei(size).encode() if size else b""
            file.write(PIXELS, extratags=[(FEI, 1, len(text), text, True)] if size else [], metadata=None)
    assert [read_scale(path, page).nm_per_px for page in range(1, 4)] == [pytest.approx(1), None, pytest.approx(3)]
    assert read_scale(path).nm_per_px == pytest.approx(1)


def test_an_imagej_stack_has_one_scale(tmp_path: Path) -> None:
    stack = np.zeros((3, 8, 8), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, resolution=(2, 2), metadata={"unit": "um"})
    assert [read_scale(tmp_path / "a.tif", page).nm_per_px for page in (0, 2)] == [500, 500]


def test_pixels_that_are_not_square_keep_their_area(tmp_path: Path) -> None:
    found = read_scale(tagged(tmp_path / "a.tif", FEI, fei(1e-9, 4e-9)))
    assert found.nm_per_px == pytest.approx(2)


def test_whoever_wrote_the_file_last_counts(tmp_path: Path) -> None:
    """ImageJ halved the image and knows the new scale; the magnification is still the instrument's."""
    path = tmp_path / "a.tif"
    data = fei().encode()
    description = "ImageJ=1.53t\nunit=nm\n"
    tags = [(FEI, 1, len(data), data, True)]
    tifffile.imwrite(path, PIXELS, description=description, resolution=(0.5, 0.5), extratags=tags, metadata=None)
    found = read_scale(path)
    assert (found.nm_per_px, found.source) == (2.0, "ImageJ, FEI/Thermo")
    assert found.magnification == pytest.approx(100_000)


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        (FEI, "[Scan]\r\nPixelWidth=\r\n"),
        (FEI, "PixelWidth=1e-9"),
        (FEI, "[Scan]\r\nPixelWidth=-1e-9"),
        (FEI, b"\x00\xff\xfe[Scan"),
        (FEI, "<xml/>"),
        (ZEISS, "AP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = nothing nm\r\nAP_MAG\r\nMag = \r\n"),
        (ZEISS, "AP_IMAGE_PIXEL_SIZE"),
        (ZEISS, b"\xff" * 40),
        (270, "ImageJ=\nunit=nm\n"),
        (270, "<OME><Image><Pixels PhysicalSizeX='1'"),
        (270, "<OME><Image><Pixels PhysicalSizeX='one'/></Image></OME>"),
        (270, "<OME/>"),
    ],
)
def test_broken_tags_state_nothing(tmp_path: Path, tag: int, text: str | bytes) -> None:
    assert read_scale(tagged(tmp_path / "a.tif", tag, text)) == Scale()


def test_files_that_cannot_be_read_state_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    whole = tagged(tmp_path / "whole.tif", FEI, fei()).read_bytes()
    for k, data in enumerate([b"", b"II*\0", b"no image", whole[:40], whole[:200], b"II*\0\xff\xff\xff\xff"]):
        (tmp_path / f"{k}.tif").write_bytes(data)
        assert read_scale(tmp_path / f"{k}.tif").nm_per_px is None, k
    assert read_scale(tmp_path / "absent.tif") == read_scale(tmp_path) == Scale()


def test_micrometres_and_angstroms_have_many_spellings() -> None:
    micro, greek = "\N{MICRO SIGN}m", "\N{GREEK SMALL LETTER MU}m"
    assert {nm_per(unit) for unit in (micro, greek, "um", " micron", "\\u00B5m", "micrometer")} == {1e3}
    assert {nm_per(unit) for unit in ("\N{ANGSTROM SIGN}", "Å", "A\N{COMBINING RING ABOVE}", "angstrom")} == {0.1}
    assert {nm_per(unit) for unit in ("inch", "in", "cm", "Mm", "px", "", None, 3)} == {None}


def test_no_image_with_a_scale_is_an_error_that_says_what_was_looked_for(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "plain.tif", PIXELS, resolution=(300, 300), resolutionunit="INCH")
    refs = [ImageRef(str(tmp_path / "plain.tif")), None]
    with pytest.raises(InputError, match=r"none of 1 images states its nm_per_px, plain\.tif for one") as caught:
        read_scales(refs, "nm_per_px")
    assert all(name in str(caught.value) for name in [*SOURCES, "Hitachi", "column or pattern"])


# --- in a dataset ---


def add_tag(spec: Path, keys: str) -> Path:
    """Give the tiny dataset's images a Zeiss tag of i + 1 nm, but the third none, and a metadata column of it."""
    images = spec.parent / "images"
    for i, path in enumerate(sorted(images.iterdir(), key=lambda path: path.stem[-2:])):
        data = zeiss(f"{i + 1} nm").encode()
        tags = [] if i == 2 else [(ZEISS, 1, len(data), data, True)]
        tifffile.imwrite(path, tifffile.imread(path), extratags=tags, metadata=None)
    spec.write_text(spec.read_text() + f"[metadata.pixel]\n{keys}\n")
    return spec


def test_metadata_comes_from_the_tags_of_an_image_block(make_dataset: Make) -> None:
    spec = add_tag(make_dataset(), 'tag = "nm_per_px"\ntransform = "log"\nimage = "bf"')
    column = load_dataset(spec).metadata["pixel"]
    assert (column.kind, column.transform) == ("numeric", "log")
    assert list(column.values[[0, 1, 3, 23]]) == [1, 2, 4, 24]
    assert np.flatnonzero(np.isnan(column.values)).tolist() == [2]


def test_metadata_from_tags_is_read_from_new_files(make_dataset: Make) -> None:
    dataset = load_dataset(add_tag(make_dataset(), 'tag = "magnification"'))
    found = prediction_dataset(dataset.spec, dataset.folder / "images").metadata["pixel"]
    assert np.nansum(found.values) == 23 * 100_000


def test_a_file_without_any_tag_is_named_with_the_block(make_dataset: Make) -> None:
    spec = make_dataset('[metadata.pixel]\ntag = "nm_per_px"\n')
    with pytest.raises(InputError, match=r"\[metadata.pixel\]: none of 24 images states its nm_per_px"):
        load_dataset(spec)


def test_an_image_block_that_fails_is_reported_once(make_dataset: Make) -> None:
    spec = make_dataset('[metadata.pixel]\ntag = "nm_per_px"\n')
    spec.write_text(spec.read_text().replace('column = "file"', 'column = "fiel"'))
    with pytest.raises(InputError) as caught:
        load_dataset(spec)
    assert str(caught.value).count("[images.bf]") == 1 and "[metadata.pixel]" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('tag = "nm_per_px"\ncolumn = "size"', "needs one of column, pattern and tag"),
        ("", "column 'pixel' is not in the table"),
        ('tag = "dpi"', "'nm_per_px' or 'magnification'"),
        ('tag = "nm_per_px"\nkind = "categorical"', "a tag is a number"),
        ('tag = "nm_per_px"\nunit = "um"', "unit is for"),
        ('column = "size"\nunit = "inch"', "unit 'inch' is not one of pm, Å, nm, um, mm, m"),
        ('column = "size"\nunit = "um"\nkind = "categorical"', "unit is for numeric metadata"),
    ],
)
def test_what_a_tag_cannot_be_is_said(make_dataset: Make, keys: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(make_dataset(f"[metadata.pixel]\n{keys}\n"))


@pytest.mark.parametrize(("unit", "nm"), [("um", 1e3), ("µm", 1e3), ("nm", 1), ("mm", 1e6)])
def test_lengths_of_a_column_become_nm(make_dataset: Make, unit: str, nm: float) -> None:
    spec = make_dataset(f'[metadata.pixel]\ncolumn = "size"\nunit = "{unit}"\n')
    assert list(load_dataset(spec).metadata["pixel"].values[:2]) == [0.5 * nm, 1.5 * nm]
