"""Excel sheets whose bytes depend on their content alone: Office Open XML (ECMA-376) with no more than it asks for."""

import io
import zipfile
from collections.abc import Sequence
from html import escape
from pathlib import Path

_TYPES = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" \
ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/xl/workbook.xml" \
ContentType="application/vnd.ms-excel.sheet.macroEnabled.main+xml"/><Override PartName="/xl/worksheets/sheet1.xml" \
ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>"""
_RELATION = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" \
Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/{what}" Target="{target}"/></Relationships>"""
_WORKBOOK = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" \
xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="labels" sheetId="1" \
r:id="rId1"/></sheets></workbook>"""
_SHEET = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>{rows}</sheetData></worksheet>"""


def write_xlsm(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write a workbook of one sheet of text; an empty cell is left out.

    Args:
        path: Ends in ``.xlsm``: the format of workbooks that may have macros (this one has none).
        rows: Of the same length, the header first.
    """
    parts = {
        "[Content_Types].xml": _TYPES,
        "_rels/.rels": _RELATION.format(what="officeDocument", target="xl/workbook.xml"),
        "xl/workbook.xml": _WORKBOOK,
        "xl/_rels/workbook.xml.rels": _RELATION.format(what="worksheet", target="worksheets/sheet1.xml"),
        "xl/worksheets/sheet1.xml": _SHEET.format(rows="".join(map(_row, rows))),
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in parts.items():
            file.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)  # dated 1980, so the same every time
    part = path.with_suffix(".part")
    part.write_bytes(packed.getvalue())
    part.replace(path)


def _row(cells: Sequence[str]) -> str:
    filled = [f'<c t="inlineStr"><is><t>{escape(cell, quote=False)}</t></is></c>' if cell else "<c/>" for cell in cells]
    return f"<row>{''.join(filled)}</row>"
