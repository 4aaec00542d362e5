"""What the tests of training share: 24 small images whose brightness says the class, and quick settings."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from finetune.division import keep_some_out
from finetune.fit import Training
from finetune.settings import read_settings
from store import Dataset, load_dataset

N_ROWS = 24
QUICK = ("backbone=test_resnet", "weights=random", "input_px=32", "batch_size=8", "max_epochs=2", "lr=1e-3",
         "init=backbone")  # fmt: skip


def make_images(folder: Path, *, n_rows: int = N_ROWS, n_groups: int | None = None) -> Path:
    """`kind` is dark or light, `level` how light in percent; the last six rows are held out as test."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    group = "" if n_groups is None else 'group = "specimen"\n'
    lines = ["id,file,kind,level,specimen,part"]
    for i in range(n_rows):
        level = 70 + 110 * (i % 2) + 3 * (i % 5)
        pixels = np.clip(rng.normal(level, 25, (36, 36, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        part = "test" if i >= n_rows - 6 else "train"
        lines.append(
            f"r{i},{i}.png,{'light' if i % 2 else 'dark'},{level / 2.55:.1f},{part[:2]}{i % (n_groups or 1)},{part}"
        )
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "dataset.toml").write_text(
        f'name = "made"\ntable = "labels.csv"\nroot = "images"\nid = "id"\nsplit = "part"\n{group}'
        '[images.bf]\ncolumn = "file"\n[tasks.kind]\ncolumn = "kind"\n'
        '[tasks.level]\ncolumn = "level"\nkind = "regression"\n'
    )
    return folder / "dataset.toml"


def a_training(folder: Path, *assignments: str, dataset: Dataset | None = None, **how: Any) -> Training:
    """Fit on the first 18 rows, some of which choose the best epoch."""
    dataset = dataset or load_dataset(make_images(folder))
    settings = read_settings({}, [*QUICK, *assignments])
    train, stop = keep_some_out(dataset, np.arange(dataset.n_rows - 6), seed=0)
    return Training(dataset, settings, train, stop, folder / "run", **{"seed": 0, "device": "cpu", **how})
