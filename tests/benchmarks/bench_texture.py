"""Speed and worth of the built-in encoders: `python tests/benchmarks/bench_texture.py`.

One JSON line per result. Speed is from file to vector, per second of processor time, so that other programs on the
machine matter little. Scores are those of a logistic regression whose strength is chosen on inner folds of the
training rows, beside the share of the commonest training class.
"""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from extract.convert import to_8bit
from extract.decode import read_image
from extract.ngrams import NgramEncoder
from extract.texture import TEXTURE_NAMES, texture_vector

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
STRENGTHS = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
N_REPEATS = 5


def main() -> None:
    cv2.setNumThreads(1)
    bench_ngrams()
    if not DATA.is_dir():
        sys.stderr.write("the image benchmarks need ../shared/data, which is absent\n")
        return
    bench_speed("emps", sorted((DATA / "emps/images").iterdir())[:150])
    bench_speed("trashnet", sorted((DATA / "trashnet/images").rglob("*.jpg"))[:150])
    bench_speed("ifc_cellcycle", sorted((DATA / "ifc_cellcycle/BF").iterdir())[:150])
    score_emps()
    score_trashnet()
    score_cells()


def bench_ngrams() -> None:
    rng, encoder = np.random.default_rng(0), NgramEncoder()
    words = ["graphene oxide", "steel", "powder", "flow", "nanotube", "aggregates", "of", "rough particles", "sheet 12"]
    texts = [" ".join(rng.choice(words, 5)) for _ in range(20_000)]

    def run() -> None:
        for start in range(0, len(texts), 1024):
            encoder.encode([encoder.prepare(text) for text in texts[start : start + 1024]])

    emit("ngrams_speed", **rate(run, len(texts), "texts"), mean_characters=sum(map(len, texts)) / len(texts))


def bench_speed(name: str, paths: Sequence[Path]) -> None:
    decode = rate(lambda: [read(path) for path in paths], len(paths), "images")
    both = rate(lambda: [texture_vector(read(path)) for path in paths], len(paths), "images")
    emit("texture_speed", data=name, **both, decode_alone=decode["images_per_core_second"])


def rate(run: Callable[[], Any], n: int, what: str) -> dict[str, float]:
    """Return the median, lowest and highest rate per second of processor time, all threads added, after one warm-up."""
    rates = []
    for _ in range(N_REPEATS + 1):
        start = time.process_time()
        run()
        rates.append(n / (time.process_time() - start))
    rates = rates[1:]
    return {
        f"{what}_per_core_second": statistics.median(rates),
        "low": min(rates),
        "high": max(rates),
        "repeats": N_REPEATS,
    }


def read(path: Path) -> NDArray[np.uint8]:
    return to_8bit(read_image(path), "percentile_clip")


def score_emps() -> None:
    table = pd.read_csv(DATA / "emps/labels.csv")
    X = vectors(DATA / "emps/images", table)
    test = (table["split_group"] == "test").to_numpy(bool)
    for task in ("count_bin", "size_bin", "shape_bin"):
        score("emps", task, X, table[task], table["doi"], [(np.flatnonzero(~test), np.flatnonzero(test))])


def score_trashnet() -> None:
    """Score five random folds; the one photo that stands under two classes is a group."""
    table = pd.read_csv(DATA / "trashnet/labels.csv")
    X = vectors(DATA / "trashnet/images", table)
    groups = pd.Series(np.unique(X, axis=0, return_inverse=True)[1].ravel())
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(X, table["label"], groups)
    score("trashnet", "label", X, table["label"], groups, list(folds))


def score_cells() -> None:
    """Score the held-out rows of the same experiments; the independent run holds one class only."""
    table = pd.read_csv(DATA / "ifc_cellcycle/labels.csv")
    X = vectors(DATA / "ifc_cellcycle/BF", table)
    train, test = table["split"].isin(["train", "val"]).to_numpy(bool), (table["split"] == "test").to_numpy(bool)
    pair = np.flatnonzero(train), np.flatnonzero(test)
    score("ifc_cellcycle", "phase4", X, table["phase4"], table["name"], [pair])


def vectors(folder: Path, table: pd.DataFrame) -> NDArray[np.float32]:
    return np.stack([texture_vector(read(folder / name)) for name in table["name"]])


def score(
    data: str, task: str, X: NDArray[np.float32], labels: pd.Series, of: pd.Series, outer: list[tuple[Any, Any]]
) -> None:
    y, groups = labels.to_numpy(str), of.to_numpy(str)
    predicted, majority, tested = y.copy(), y.copy(), np.concatenate([rows for _, rows in outer])
    for train, rows in outer:
        predicted[rows] = fitted(X[train], y[train], groups[train]).predict(X[rows])
        majority[rows] = pd.Series(y[train]).mode()[0]
    y, predicted, majority = y[tested], predicted[tested], majority[tested]
    emit(
        "texture_score",
        data=data,
        task=task,
        rows=len(tested),
        accuracy=accuracy_score(y, predicted),
        majority=accuracy_score(y, majority),
        balanced_accuracy=balanced_accuracy_score(y, predicted),
        dim=len(TEXTURE_NAMES),
    )


def fitted(X: NDArray[np.float32], y: NDArray[np.str_], groups: NDArray[np.str_]) -> GridSearchCV:
    folds = list(StratifiedGroupKFold(4, shuffle=True, random_state=1).split(X, y, groups))
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, tol=1e-3))
    search = GridSearchCV(pipeline, {"logisticregression__C": STRENGTHS}, cv=folds, scoring="neg_log_loss")
    return search.fit(X, y)


def emit(bench: str, **values: Any) -> None:
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in values.items()}
    versions = {"python": platform.python_version(), "numpy": np.__version__, "cv2": cv2.__version__}
    sys.stdout.write(json.dumps({"bench": bench} | rounded | {"device": "cpu"} | versions) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
