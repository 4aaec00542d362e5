"""One picture of a training run: loss, metrics and learning rate over the epochs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")  # as heads.chart
FIXED = ("epoch", "train_loss", "stop_loss", "score", "lr", "seconds")


def draw_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw what `metrics.csv` holds.

    Args:
        history: A row per epoch.
        path: A PNG file; it appears whole.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics = list(dict.fromkeys(name for row in history for name in row if name not in FIXED))
    panels = {
        "loss": ["train_loss", "stop_loss"],
        "on the stop rows": metrics,
        "learning rate": ["lr"],
    }
    figure = Figure(figsize=(12, 3.6), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    for axes, (title, names) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for name, colour in zip(names, COLOURS * len(names), strict=False):
            points = [(row["epoch"], row[name]) for row in history if name in row]
            axes.plot(*zip(*points, strict=True), label=name, color=colour, marker="o", markersize=3)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("epoch", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        if len(names) > 1:
            axes.legend(fontsize=7, frameon=False)
    partial = path.with_name(f".{path.name}")
    figure.savefig(partial, format="png")
    partial.replace(path)
