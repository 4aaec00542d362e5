"""Labels that look wrong: what models that have not seen a row think of its label.

Confident learning (Northcutt, Jiang, Chuang 2021, "Confident learning: estimating uncertainty in dataset labels",
10.1613/jair.1.12125): rows whose most probable class out of fold is another than their label. They are ranked by the
probability of their label; of labels flipped at random that puts more on top than the paper's own ranking by the margin
of the two probabilities (photos, micrographs, cells in flow). Doubt is confident where the probability of the other
class reaches what rows with that label have on average (equations 1 and 2); the rest is as likely the model's own
mistake. Numbers are ranked by how far the out-of-fold error lies from the usual one.
"""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.metrics import Scored
from store import Task

USUAL_MAD = 1.4826  # a standard deviation in units of the median absolute deviation, for a normal law
MAX_SCORE = 3.5  # of a modified z-score: Iglewicz and Hoaglin 1993, "How to detect and handle outliers"


def doubtful_labels(task: Task, scored: Scored, ids: NDArray[np.str_]) -> dict[str, Any]:
    """Rank the labels of one task that look wrong.

    Args:
        task: The task.
        scored: Out-of-fold predictions; ``row`` counts in the dataset.
        ids: Row ids of the dataset.

    Returns:
        JSON values: ``n_rows`` looked at; ``labels``, the most doubtful first; ``n_confident`` of them; and
        ``confusions``, pairs of classes with how many rows of the first look like the second (none for numbers).
    """
    names = ids[scored.row]
    if task.kind == "regression":
        labels = _far_off(task, scored, names)
        return {"n_rows": len(names), "labels": labels, "n_confident": len(labels), "confusions": []}
    suggested = scored.predicted.argmax(axis=1)
    rows = np.arange(len(names))
    confident = scored.predicted[rows, suggested] >= class_thresholds(scored.y, scored.predicted)[suggested]
    doubtful = np.flatnonzero(suggested != scored.y)
    doubtful = doubtful[np.argsort(scored.predicted[doubtful, scored.y[doubtful]], kind="stable")]
    labels = [
        {
            "id": str(names[row]),
            "label": task.classes[scored.y[row]],
            "suggested": task.classes[suggested[row]],
            "p_label": float(scored.predicted[row, scored.y[row]]),
            "p_suggested": float(scored.predicted[row, suggested[row]]),
            "is_confident": bool(confident[row]),
        }
        for row in doubtful
    ]
    n_confident = sum(row["is_confident"] for row in labels)
    confusions = _confusions(task, scored.y, labels)
    return {"n_rows": len(names), "labels": labels, "n_confident": n_confident, "confusions": confusions}


def class_thresholds(y: NDArray[Any], p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean probability of each class among rows with that label, ``(c,)``; inf for a class without any.

    Args:
        y: int ``(m,)``, labels as given.
        p: Out-of-fold probabilities ``(m, c)``.
    """
    own = y[:, None] == np.arange(p.shape[1])
    n = own.sum(axis=0)
    return np.where(n > 0, (p * own).sum(axis=0) / np.maximum(n, 1), np.inf)


def _confusions(task: Task, y: NDArray[Any], labels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    counts = Counter((row["label"], row["suggested"]) for row in labels)
    confident = Counter((row["label"], row["suggested"]) for row in labels if row["is_confident"])
    sizes = np.bincount(y, minlength=len(task.classes))
    n_given = dict(zip(task.classes, sizes.tolist(), strict=True))
    return [
        {
            "label": pair[0],
            "suggested": pair[1],
            "count": counts[pair],
            "n_confident": confident[pair],
            "share": counts[pair] / n_given[pair[0]],
        }
        for pair in sorted(counts, key=lambda pair: (-confident[pair], -counts[pair], pair))
    ]


def _far_off(task: Task, scored: Scored, names: NDArray[np.str_]) -> list[dict[str, Any]]:
    error = scored.predicted - scored.y
    centred = np.abs(error - np.median(error, axis=0))
    spread = USUAL_MAD * np.median(centred, axis=0)
    score = centred / np.where(spread > 0, spread, np.inf)
    worst = score.argmax(axis=1)
    order = np.argsort(-score.max(axis=1), kind="stable")
    return [
        {
            "id": str(names[row]),
            "column": task.columns[worst[row]],
            "label": float(scored.y[row, worst[row]]),
            "suggested": float(scored.predicted[row, worst[row]]),
            "score": float(score[row, worst[row]]),
        }
        for row in order[score.max(axis=1)[order] > MAX_SCORE]
    ]
