"""One picture of a training run: loss, metrics and learning rate over the epochs."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.module import SCORE
from heads import FONT_PT, GREY, HEADLINE, KEY_INCHES, PAGE_INCHES, STYLES, finish, make_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NO_METRIC = ("epoch", "train_loss", "stop_loss", SCORE, "lr", "seconds")
"""What every epoch's row has; all else in it are metrics."""
PANEL_INCHES = (PAGE_INCHES / 3, 2.4)


def draw_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw what `metrics.csv` holds, and which epoch is the best so far.

    Args:
        history: A row per epoch.
        path: A PNG file; it appears whole.
    """
    panels = panels_of(history)
    height = PANEL_INCHES[1] + KEY_INCHES * (1 + max(map(len, panels.values())))
    figure, places = make_panels(len(panels), (PANEL_INCHES[0], height))
    for axes, (title, names) in zip(places, panels.items(), strict=True):
        _draw_panel(axes, history, names)
        finish(axes, title, "epoch")
    places[-1].set_ylim(bottom=0)
    partial = path.with_name(f".{path.name}")
    figure.savefig(partial, format="png")
    partial.replace(path)


def _draw_panel(axes: "Axes", history: Sequence[Mapping[str, float]], names: Sequence[str]) -> None:
    for name, style in zip(names, cycle(STYLES), strict=False):
        points = [(row["epoch"], row[name]) for row in history if name in row]
        axes.plot(*zip(*points, strict=True), label=name, markersize=4, **style)
    best = max(history, key=lambda row: row[SCORE])["epoch"]
    axes.axvline(best, color=GREY, linestyle=":", linewidth=1.2, zorder=0, label="best epoch")
    axes.set_xlim(0.5, history[-1]["epoch"] + 0.5)
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.yaxis.set_major_formatter("{x:g}")
    if len(names) > 1:
        axes.legend(fontsize=FONT_PT, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.2), borderaxespad=0)


def metrics_of(row: Mapping[str, float]) -> dict[str, float]:
    """Return what an epoch's row says of the tasks."""
    return {name: value for name, value in row.items() if name not in NO_METRIC}


def panels_of(history: Sequence[Mapping[str, float]]) -> dict[str, list[str]]:
    """Return what is drawn in each panel, by its title: accuracies in one, numbers of other units apart."""
    metrics = dict.fromkeys(name for row in history for name in metrics_of(row))
    shares = [name for name in metrics if name.endswith(f"_{HEADLINE['classification']}")]
    others = [[name] for name in metrics if name not in shares]
    found = {
        f"{HEADLINE['classification'] if len(names) > 1 else names[0]}, stop rows": names
        for names in (shares, *others)
        if names
    }
    return {"loss": ["train_loss", "stop_loss"], **found, "learning rate": ["lr"]}
