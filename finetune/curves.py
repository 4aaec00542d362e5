"""One picture of a training run: loss, metrics and learning rate over the epochs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune.module import SCORE
from heads import COLOURS, make_panels

NO_METRIC = ("epoch", "train_loss", "stop_loss", SCORE, "lr", "seconds")
"""What every epoch's row has; all else in it are metrics."""
PANEL_INCHES = (4.0, 3.3)


def draw_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw what `metrics.csv` holds.

    Args:
        history: A row per epoch.
        path: A PNG file; it appears whole.
    """
    panels = panels_of(history)
    figure, places = make_panels(len(panels), PANEL_INCHES)
    for axes, (title, names) in zip(places, panels.items(), strict=True):
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


def metrics_of(row: Mapping[str, float]) -> dict[str, float]:
    """Return what an epoch's row says of the tasks."""
    return {name: value for name, value in row.items() if name not in NO_METRIC}


def panels_of(history: Sequence[Mapping[str, float]]) -> dict[str, list[str]]:
    """Return what is drawn in each panel, by its title; one of a single metric is named by it, as it has no legend."""
    metrics = list(dict.fromkeys(name for row in history for name in metrics_of(row)))
    what = f"{metrics[0]} on the stop rows" if len(metrics) == 1 else "on the stop rows"
    return {"loss": ["train_loss", "stop_loss"], what: metrics, "learning rate": ["lr"]}
