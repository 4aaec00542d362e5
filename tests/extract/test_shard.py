"""Parts of a dataset that share no work."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract import Shard, extract_features
from store import Dataset, FeatureSpace, FeatureStore, InputError, load_dataset
from tests.extract.made import WithoutNetwork

KEYS = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(1000)]


@pytest.mark.parametrize("total", [1, 2, 3, 7])
def test_every_key_belongs_to_one_part_and_parts_are_alike_in_size(total: int) -> None:
    parts = [{key for key in KEYS if Shard(i, total).holds(key)} for i in range(1, total + 1)]
    assert sum(map(len, parts)) == 1000 and set().union(*parts) == set(KEYS)
    assert max(map(len, parts)) < 1.25 * 1000 / total


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "-1/2", "1/2/3", "a/b", "1/0"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=rf"--shard '{text}': expected I/N with I from 1 to N, such as 2/8"):
        Shard.parse(text)


class Means(WithoutNetwork):
    """An encoder of two numbers that counts what it is given."""

    space = FeatureSpace("image", "means", 2, "0" * 64, convert="none")

    def __init__(self) -> None:
        self.seen: Counter[tuple[float, float]] = Counter()

    def prepare(self, pixels: np.ndarray) -> tuple[float, float]:
        return float(pixels.mean()), float(len(pixels))

    def encode(self, batch: list[tuple[float, float]]) -> np.ndarray:
        self.seen.update(batch)
        return np.array(batch, dtype=np.float32)


def make(folder: Path) -> Dataset:
    """60 rows: 40 different images, 18 copies, one file that is no image, one that is not there."""
    (folder / "images").mkdir()
    for i in range(58):
        Image.fromarray(np.full((4 + i % 40, 8), i % 40, np.uint8)).save(folder / "images" / f"{i}.png")
    (folder / "images" / "58.png").write_text("no image")
    lines = ["id,file,label", *(f"r{i},{i}.png,{'ab'[i % 2]}" for i in range(60))]
    (folder / "labels.csv").write_text("\n".join(lines))
    (folder / "dataset.toml").write_text(
        'name = "x"\ntable = "labels.csv"\nroot = "images"\nid = "id"\n'
        '[images.bf]\ncolumn = "file"\nconvert = "none"\n[tasks.label]\ncolumn = "label"\n'
    )
    return load_dataset(folder / "dataset.toml")


def test_the_parts_together_are_the_whole(tmp_path: Path) -> None:
    dataset, encoder = make(tmp_path), Means()
    whole, parts = FeatureStore(tmp_path / "whole.zarr"), FeatureStore(tmp_path / "parts.zarr")
    [one] = extract_features(dataset, {"image:bf": [Means()]}, whole)
    reports = [extract_features(dataset, {"image:bf": [encoder]}, parts, shard=Shard(i, 4))[0] for i in range(1, 5)]
    assert (one.rows, one.embedded, one.shared, one.present, one.failed) == (60, 40, 18, 0, 2)
    for count in ("rows", "embedded", "shared", "present", "failed"):
        assert sum(getattr(report, count) for report in reports) == getattr(one, count), count
    assert min(report.embedded for report in reports) > 0
    assert sorted(one.row for report in reports for one in report.failures) == ["r58", "r59"]
    assert set(encoder.seen.values()) == {1}, "no image was embedded in two parts"
    keys = [key for key in dataset.images["bf"].keys()[:58] if key is not None]
    np.testing.assert_array_equal(parts.read(Means.space, keys), whole.read(Means.space, keys))
    assert parts.failures(Means.space) == whole.failures(Means.space) != {}
