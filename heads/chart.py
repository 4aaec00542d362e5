"""One picture of a leaderboard: each task's best score per block combination, beside the baseline."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heads.leaderboard import Entry, ranked
from heads.metrics import METRICS
from heads.registry import PRIOR

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito 2008, "Color universal design": told apart with any kind of colour vision
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
GREY = "#999999"
MAX_BARS = 10  # per task; more than that nobody reads
PANELS_PER_ROW = 3


def draw_scores(entries: Iterable[Entry], path: Path) -> None:
    """Draw the headline metric per task and block combination with 95 % intervals, and the baseline as a line.

    Of several heads on one combination the best is drawn.

    Args:
        entries: What `Sweep.run` gave.
        path: A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks: dict[str, list[Entry]] = {}
    for entry in ranked(entries):
        tasks.setdefault(entry["task"], []).append(entry)
    bars = {task: _bars(found) for task, found in tasks.items()}
    names = list(dict.fromkeys(tuple(entry["blocks"]) for found in bars.values() for entry in found))
    names.sort(key=lambda blocks: (len(blocks), blocks))
    colours = {blocks: COLOURS[i % len(COLOURS)] for i, blocks in enumerate(names[1:])} | {(): GREY}
    n_columns = min(PANELS_PER_ROW, len(bars))
    n_lines = -(-len(bars) // n_columns)
    height = max(len(found) for found in bars.values())
    figure = Figure(figsize=(4.6 * n_columns, n_lines * (1.2 + 0.42 * height)), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    panels = figure.subplots(n_lines, n_columns, squeeze=False).ravel()
    for axes, (task, found) in zip(panels, bars.items(), strict=False):
        _draw(axes, task, found, colours)
    for axes in panels[len(bars) :]:
        axes.set_axis_off()
    figure.suptitle("Scores with 95 % intervals; dashed: without features", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _bars(ranked_entries: Sequence[Entry]) -> list[Entry]:
    """Return the prior, then the best entry of each combination, small combinations first."""
    first: dict[tuple[str, ...], Entry] = {}
    for entry in ranked_entries:
        first.setdefault(tuple(entry["blocks"]), entry)
    prior = [entry for entry in first.values() if entry["head"] == PRIOR]
    others = [entry for entry in first.values() if entry["head"] != PRIOR][:MAX_BARS]
    return prior + sorted(others, key=lambda entry: (len(entry["blocks"]), entry["blocks"]))


def _draw(axes: "Axes", task: str, entries: Sequence[Entry], colours: dict[tuple[str, ...], str]) -> None:
    metric = entries[0]["headline"]
    for place, entry in enumerate(entries):
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
    axes.set_yticks(range(len(entries)), [_label(entry) for entry in entries], fontsize=8)
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
        return "prior\n(no features)"
    return "\n+ ".join(entry["blocks"])
