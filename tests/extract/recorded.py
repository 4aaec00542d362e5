"""A small dataset, and an encoder without weights that records what it was given."""

from pathlib import Path

import numpy as np
from PIL import Image

from extract import SpaceReport, extract_features
from store import Dataset, FeatureSpace, FeatureStore, load_dataset
from tests.extract.made import WithoutNetwork

N_IMAGES = 6


def make_dataset(folder: Path, *, files: list[str] | None = None, extra: str = "", n_images: int = N_IMAGES) -> Dataset:
    """Six different images in a folder, one row each; the texts differ in length."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for index in range(n_images):
        pixels = rng.integers(0, 256, (40 + index, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
    files = files or [f"{index}.png" for index in range(n_images)]
    rows = [f"row{i},{file},{'grain ' * (n_images - i)}end,{'ab'[i % 2]}" for i, file in enumerate(files)]
    (folder / "labels.csv").write_text("\n".join(["id,file,notes,label", *rows]))
    (folder / "dataset.toml").write_text(
        'name = "x"\ntable = "labels.csv"\nroot = "images"\nid = "id"\n'
        '[images.bf]\ncolumn = "file"\nconvert = "none"\n'
        '[texts.notes]\ncolumn = "notes"\n[tasks.label]\ncolumn = "label"\n' + extra
    )
    return load_dataset(folder / "dataset.toml")


class Recorder(WithoutNetwork):
    """An encoder that says what it saw: mean grey value and number of rows of pixels."""

    def __init__(self, name: str = "recorder", *, fits: int = 10_000, stop_after: int | None = None) -> None:
        self.space = FeatureSpace("image", name, 2, "0" * 64, convert="none")
        self.batches: list[int] = []
        self.fits, self.stop_after = fits, stop_after

    def prepare(self, pixels: np.ndarray) -> tuple[float, float]:
        return float(pixels.mean()), float(len(pixels))

    def encode(self, batch: list[tuple[float, float]]) -> np.ndarray:
        if len(batch) > self.fits:
            raise MemoryError
        if self.stop_after is not None and len(self.batches) >= self.stop_after:
            raise KeyboardInterrupt
        self.batches.append(len(batch))
        return np.array(batch, dtype=np.float32)


def embed(dataset: Dataset, encoder: object, store: FeatureStore, **options: object) -> SpaceReport:
    return extract_features(dataset, {"image:bf": [encoder]}, store, **options)[0]  # type: ignore[list-item,arg-type]


def keys_of(dataset: Dataset) -> list[str]:
    return list(filter(None, dataset.images["bf"].keys()))
