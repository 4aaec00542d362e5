from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from extract.depth import deep_blocks
from store import Dataset, ImageBlock, ImageRef, parse_spec


def test_only_blocks_with_more_than_8_bits_are_deep(tmp_path: Path) -> None:
    flat = np.arange(64, dtype=np.uint8).reshape(8, 8)
    cv2.imwrite(str(tmp_path / "8.png"), flat)
    cv2.imwrite(str(tmp_path / "16.png"), flat.astype(np.uint16) * 50)
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    refs = {name: ImageRef(str(tmp_path / f"{name}.png")) for name in ("8", "16", "torn", "absent")}
    shallow = ImageBlock("shallow", (refs["8"], None, refs["torn"], refs["absent"]), "log")
    mixed = ImageBlock("mixed", (refs["8"], refs["16"]), "log")
    blocks = [
        shallow,
        mixed,
        replace(mixed, name="ft", convert=None, view="fourier"),
        ImageBlock("both", (refs["8"], refs["8"]), None, parts=(replace(shallow, refs=mixed.refs), mixed)),
    ]
    spec = parse_spec({"name": "n", "table": "t.csv"}, "made")
    images = {block.name: block for block in blocks}
    data = Dataset(spec, tmp_path, np.array(["r0", "r1"]), None, images, {}, {}, {}, None)
    assert deep_blocks(data) == ["image:mixed", "image:both"]
