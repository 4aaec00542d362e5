"""Pictures of results: scores beside the baseline, scores against disturbance, what is taken for what."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heads.leaderboard import NO_FEATURES, Entry, block_words, ranked
from heads.matrix import METADATA
from heads.metrics import METRICS
from heads.registry import PRIOR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

# Okabe and Ito 2008, "Color universal design": told apart with any kind of colour vision
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
GREY = "#999999"
MAX_NUMBERED = 20  # classes of a confusion matrix with numbers in it
MAX_BARS = 10  # per task; more than that nobody reads
PANELS_PER_ROW = 3


def draw_scores(entries: Iterable[Entry], path: Path) -> None:
    """Draw the headline metric per task and block combination with 95 % intervals, and the baseline as a line.

    Of several heads on one combination the best is drawn.

    Args:
        entries: What `Sweep.run` gave.
        path: A PNG file.
    """
    tasks: dict[str, list[Entry]] = {}
    for entry in ranked(entries):
        tasks.setdefault(entry["task"], []).append(entry)
    bars = {task: _bars(found) for task, found in tasks.items()}
    names = list(dict.fromkeys(tuple(entry["blocks"]) for found in bars.values() for entry in found))
    names.sort(key=lambda blocks: (len(blocks), blocks))
    colours = {blocks: COLOURS[i % len(COLOURS)] for i, blocks in enumerate(names[1:])} | {(): GREY}
    height = max(_places(found)[-1] for found in bars.values())
    figure, panels = make_panels(len(bars), (4.6, 1.0 + 0.42 * height))
    for axes, (task, found) in zip(panels, bars.items(), strict=True):
        _draw(axes, task, found, colours)
    figure.suptitle("Scores with 95 % intervals; dashed: without features", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def draw_robustness(found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the score against the strength of each perturbation, one line of panels per task.

    Args:
        found: What `robustness` gave; each is a line with its interval, its clean score dotted, the baseline dashed.
        path: A PNG file.
    """
    tasks = list(dict.fromkeys(one["task"] for one in found))
    kinds = list(dict.fromkeys(point["perturbation"] for one in found for point in one["points"]))
    colours = {images: COLOURS[i % len(COLOURS)] for i, images in enumerate(dict.fromkeys(map(_images, found)))}
    figure = make_figure((2.6 * len(kinds) + 1.0, 2.5 * len(tasks) + 0.5 + 0.18 * len(colours)))
    panels = figure.subplots(len(tasks), len(kinds), squeeze=False, sharey="row")
    for line, task in zip(panels, tasks, strict=True):
        here = [one for one in found if one["task"] == task]
        for axes, kind in zip(line, kinds, strict=True):
            _draw_strengths(axes, kind, here, colours)
        line[0].set_ylabel(f"{task}: {here[0]['metric']}", fontsize=8)
    lines = [panels[0, 0].plot([], [], "o-", color=colour, markersize=3)[0] for colour in colours.values()]
    figure.legend(lines, list(colours), loc="outside lower left", fontsize=7, frameon=False)
    figure.suptitle("Scores on disturbed images; dotted: clean, dashed: without features", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def draw_confusion(report: Mapping[str, Any], path: Path) -> None:
    """Draw which class was taken for which: numbers of rows, coloured by their share of the label's.

    Args:
        report: What `describe_errors` gave of a classification.
        path: A PNG file.
    """
    classes, counts = report["confusion"]["classes"], np.array(report["confusion"]["counts"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(2.2 + 0.45 * len(classes), 12.0)
    figure = make_figure((side + 0.6, side))
    axes = figure.subplots()
    bar = figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=1), ax=axes, shrink=0.8)
    bar.ax.tick_params(labelsize=8)
    bar.set_label("share of the label's rows", fontsize=8)
    if len(classes) <= MAX_NUMBERED:
        _draw_counts(axes, counts, shares)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(classes)), classes, fontsize=8)
    _name_axes(axes, "predicted", "label")
    axes.set_title(_scored_on(report), fontsize=10, loc="left")
    figure.savefig(path)


def draw_scatter(report: Mapping[str, Any], rows: "DataFrame", path: Path) -> None:
    """Draw predictions against labels, a panel per output; on the line they are equal.

    Args:
        report: What `describe_errors` gave of a regression.
        rows: Its rows.
        path: A PNG file.
    """
    outputs = report["outputs"]
    figure, panels = make_panels(len(outputs), (3.4, 3.4))
    for axes, output in zip(panels, outputs, strict=True):
        _draw_points(axes, output, rows[rows["output"] == output["output"]])
    figure.suptitle(_scored_on(report), fontsize=10)
    figure.savefig(path)


def _draw_counts(axes: "Axes", counts: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    for (label, predicted), count in np.ndenumerate(counts):
        colour = "white" if shares[label, predicted] > 0.5 else "black"
        axes.text(predicted, label, str(count), ha="center", va="center", color=colour, fontsize=8)


def _draw_points(axes: "Axes", output: Mapping[str, Any], rows: "DataFrame") -> None:
    both = rows[["label", "predicted"]].to_numpy()
    ends = [both.min(), both.max()]
    axes.plot(ends, ends, color=GREY, linewidth=1)
    axes.plot(both[:, 0], both[:, 1], ".", color=COLOURS[0], markersize=4, alpha=0.6)
    axes.set_aspect("equal", "datalim")
    unit = f" ({output['unit']})" if output["unit"] else ""
    axes.set_title(f"{output['output']}{unit}: MAE {output['metrics']['mae']['value']:.3g}", fontsize=9, loc="left")
    axes.tick_params(labelsize=8)
    _name_axes(axes, "label", "predicted")


def _name_axes(axes: "Axes", x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)


def _scored_on(report: Mapping[str, Any]) -> str:
    return f"{report['task']}, {report['split']}  (n = {report['n_rows']})"


def _images(one: Mapping[str, Any]) -> str:
    """Return the image blocks of a result: what its line is known by."""
    return " + ".join(block for block in one["blocks"] if block.startswith("image:"))


def _draw_strengths(axes: "Axes", kind: str, found: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> None:
    for one in found:
        colour = colours[_images(one)]
        points = sorted((p for p in one["points"] if p["perturbation"] == kind), key=lambda p: float(p["strength"]))
        x, scores = [point["strength"] for point in points], [point["score"] for point in points]
        ends = (_numbers(scores, "low"), _numbers(scores, "high"))
        axes.plot(x, _numbers(scores, "value"), "o-", color=colour, markersize=3)
        axes.vlines(x, *ends, color=colour, linewidth=1)
        axes.axhline(one["clean"]["value"], color=colour, linestyle=":", linewidth=1)
        axes.axhline(one["baseline"], color="black", linestyle="--", linewidth=1)
    axes.set_title(kind, fontsize=9, loc="left")
    axes.set_xticks(sorted({p["strength"] for one in found for p in one["points"] if p["perturbation"] == kind}))
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("strength", fontsize=8)


def _numbers(scores: Sequence[Mapping[str, float | None]], name: str) -> list[float]:
    """Return the values or one end of the intervals, NaN where there is none."""
    return [float("nan") if (value := score[name]) is None else value for score in scores]


def make_panels(n: int, size_inches: tuple[float, float]) -> "tuple[Figure, list[Axes]]":
    """Return a figure with n panels of this size in rows of three, and room for a title; needs no display."""
    n_columns = min(PANELS_PER_ROW, n)
    n_lines = -(-n // n_columns)
    figure = make_figure((size_inches[0] * n_columns, size_inches[1] * n_lines + 0.3))
    places = figure.subplots(n_lines, n_columns, squeeze=False).ravel()
    for axes in places[n:]:
        axes.set_axis_off()
    return figure, list(places[:n])


def make_figure(size_inches: tuple[float, float]) -> "Figure":
    """Return a figure that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size_inches, layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    return figure


def _bars(ranked_entries: Sequence[Entry]) -> list[Entry]:
    """Return the prior, then the best entry of MAX_BARS combinations and of the metadata alone, small ones first."""
    first: dict[tuple[str, ...], Entry] = {}
    for entry in ranked_entries:
        first.setdefault(tuple(entry["blocks"]), entry)
    prior = [entry for entry in first.values() if entry["head"] == PRIOR]
    others = [entry for entry in first.values() if entry["head"] != PRIOR]
    others = [entry for i, entry in enumerate(others) if i < MAX_BARS or entry["blocks"] == [METADATA]]
    return prior + sorted(others, key=lambda entry: (len(entry["blocks"]), entry["blocks"]))


def _places(entries: Sequence[Entry]) -> list[float]:
    """Return where each bar lies, in bars from the top: a label of more than two lines needs more room."""
    room = [max(2, _label(entry).count("\n") + 1) / 2 for entry in entries]
    ends = accumulate(room)
    return [end - own / 2 for end, own in zip(ends, room, strict=True)]


def _draw(axes: "Axes", task: str, entries: Sequence[Entry], colours: dict[tuple[str, ...], str]) -> None:
    metric = entries[0]["headline"]
    places = _places(entries)
    for place, entry in zip(places, entries, strict=True):
        score = entry["metrics"][metric]
        axes.barh(place, score["value"] or 0.0, color=colours[tuple(entry["blocks"])], height=0.72)
        if score["low"] is not None:
            axes.plot(
                [score["low"], score["high"]], [place, place], color="black", linewidth=1.4, solid_capstyle="butt"
            )
        axes.annotate(
            "" if score["value"] is None else f"{score['value']:.3g}",
            (score["high"] or score["value"] or 0.0, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.axvline(entries[0]["baseline"][metric] or 0.0, color="black", linestyle="--", linewidth=1)
    axes.set_yticks(places, [_label(entry) for entry in entries], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.set_xlim(0, 1.1 if entries[0]["kind"] == "classification" else None)
    axes.spines[["top", "right"]].set_visible(False)
    better = "higher is better" if METRICS[metric].is_better_higher else "lower is better"
    axes.set_xlabel(f"{metric} ({better})", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_title(f"{task}  (n = {entries[0]['n_rows']})", fontsize=10, loc="left")


def _label(entry: dict[str, Any]) -> str:
    """Return a bar's name on two short lines."""
    if entry["head"] == PRIOR:
        return f"prior\n{NO_FEATURES}"
    return block_words(entry, between="\n+ ")
