"""Pictures of where a result errs: what is taken for what, and predictions against labels."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heads.figure import COLOURS, FONT_PT, GREY, PAGE_INCHES, add_key, add_title, finish, make_figure, make_panels
from store import broken

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

MAX_NUMBERED = 20  # classes of a confusion matrix with numbers in it
MAX_NAMED = 50  # and with names beside it
MAX_BROKEN = 8  # and with long names in several lines
ROOM_SHARE = 0.05  # of the span of the values, beside them
NAME_LETTERS = 24  # in a line of a class's name


def draw_confusion(report: Mapping[str, Any], path: Path) -> None:
    """Draw which class was taken for which: numbers of rows, coloured by their share of the label's.

    Args:
        report: What `describe_errors` gave of a classification.
        path: A PNG file.
    """
    classes, counts = report["confusion"]["classes"], np.array(report["confusion"]["counts"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(2.6 + 0.45 * len(classes), PAGE_INCHES - 0.6)
    figure = make_figure((side + 0.6, side))
    axes = figure.subplots()
    bar = figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=1), ax=axes, shrink=0.8)
    bar.ax.tick_params(labelsize=FONT_PT)
    bar.set_label("share of the label's rows", fontsize=FONT_PT)
    if len(classes) <= MAX_NUMBERED:
        _draw_counts(axes, counts, shares)
    if len(classes) <= MAX_NAMED:
        names = [_short(name, is_crowded=len(classes) > MAX_BROKEN) for name in classes]
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=FONT_PT)
        axes.set_yticks(range(len(names)), names, fontsize=FONT_PT)
    axes.set_xlabel("predicted", fontsize=FONT_PT)
    axes.set_ylabel("label", fontsize=FONT_PT)
    add_title(figure, _scored_on(report))
    figure.savefig(path)


def draw_scatter(report: Mapping[str, Any], rows: "DataFrame", path: Path) -> None:
    """Draw predictions against labels, a panel per output; on the line they are equal.

    Args:
        report: What `describe_errors` gave of a regression.
        rows: Its rows.
        path: A PNG file.
    """
    outputs = report["outputs"]
    figure, panels = make_panels(len(outputs), (PAGE_INCHES / min(max(len(outputs), 2), 3),) * 2)
    for axes, output in zip(panels, outputs, strict=True):
        _draw_points(axes, output, rows[rows["output"] == output["output"]])
    add_title(figure, _scored_on(report))
    add_key(figure, [panels[0].get_lines()[0]])
    figure.savefig(path)


def _draw_counts(axes: "Axes", counts: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    for (label, predicted), count in np.ndenumerate(counts):
        colour = "white" if shares[label, predicted] > 0.6 else "black" if count else GREY
        axes.text(predicted, label, str(count), ha="center", va="center", color=colour, fontsize=FONT_PT)


def _draw_points(axes: "Axes", output: Mapping[str, Any], rows: "DataFrame") -> None:
    both = rows[["label", "predicted"]].to_numpy()
    room = ROOM_SHARE * (both.max() - both.min() or 1.0)
    ends = (both.min() - room, both.max() + room)
    axes.plot(ends, ends, color="black", linestyle="--", linewidth=1, label="predicted = label")
    axes.plot(both[:, 0], both[:, 1], ".", color=COLOURS[0], markersize=4, alpha=0.6)
    axes.set(xlim=ends, ylim=ends, aspect="equal")
    unit = f" in {output['unit']}" if output["unit"] else ""
    title = f"{output['output']}: MAE {output['metrics']['mae']['value']:.3g}"
    finish(axes, title, f"label{unit}", f"predicted{unit}")


def _short(name: str, *, is_crowded: bool) -> str:
    """Return a class's name in lines, or where there is room for one alone its beginning."""
    first, *others = broken(name, lambda line: len(line) <= NAME_LETTERS)
    return (f"{first}…" if others else first) if is_crowded else "\n".join([first, *others])


def _scored_on(report: Mapping[str, Any]) -> str:
    return f"{report['task']}, {report['split']}  (n = {report['n_rows']})"
