"""Pictures of results: scores beside the baseline, and scores against disturbance."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heads.figure import (
    FONT_PT,
    GREY,
    PAGE_INCHES,
    STYLES,
    Y_LETTERS,
    add_key,
    finish,
    in_lines,
    make_figure,
    make_panels,
    shape,
)
from heads.leaderboard import NO_FEATURES, Entry, block_words, ranked, standing
from heads.matrix import METADATA
from heads.metrics import METRICS
from heads.registry import PRIOR
from heads.versions import OWN, versions
from store import PERTURBATIONS, json_key

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

STANDINGS: dict[str, dict[str, Any]] = {
    "better": {"facecolor": "#56B4E9", "edgecolor": "#0072B2", "label": "better than without features"},
    "not told apart": {
        "facecolor": "white",
        "edgecolor": "#0072B2",
        "hatch": "////",
        "label": "not told apart",
    },
    "worse": {"facecolor": "#D55E00", "edgecolor": "#6B2F00", "hatch": "xxxx", "label": "worse"},
    "": {"facecolor": "#CCCCCC", "edgecolor": GREY, "label": "without features"},
}
"""How a bar looks by its standing to the baseline; the last is the baseline's own."""
BASELINE: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1, "label": "without features"}
CLEAN: dict[str, Any] = {"linestyle": ":", "linewidth": 1.2, "label": "clean"}
INTERVAL: dict[str, Any] = {"color": "black", "linewidth": 1.6, "label": "95 % interval"}
MAX_BARS = 10  # per task; more than that nobody reads
LABEL_LETTERS = 26  # in a line of a bar's name
LINE_BARS = 0.37  # height of such a line, in bars


def draw_scores(entries: Iterable[Entry], path: Path, *, unit_of: Callable[[str], str | None] = lambda _: None) -> None:
    """Draw the headline metric per task and block combination with 95 % intervals, and the baseline as a line.

    Of several heads on one combination the best is drawn; its bar says whether it is better than without features. A
    picture that shows just this already stays.

    Args:
        entries: What `Sweep.run` gave.
        path: A PNG file.
        unit_of: The unit of a task's numbers.
    """
    tasks: dict[str, list[Entry]] = {}
    for entry in ranked(entries):
        tasks.setdefault(entry["task"], []).append(entry)
    bars = {task: _bars(found) for task, found in tasks.items()}
    digest = _digest(bars, unit_of)
    if path.exists() and digest.encode() in path.read_bytes():
        return
    height = max(_places(found)[-1] for found in bars.values())
    figure, panels = make_panels(len(bars), (PAGE_INCHES / 2, 0.7 + 0.42 * height))
    for axes, (task, found) in zip(panels, bars.items(), strict=True):
        _draw(axes, task, found, unit_of(task))
    marks = _key_of_scores({standing(entry) for found in bars.values() for entry in found})
    add_key(figure, [*marks, _line(**BASELINE)])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    figure.savefig(partial, format="png", metadata={"Source": digest})
    partial.replace(path)


def _digest(bars: Mapping[str, Sequence[Entry]], unit_of: Callable[[str], str | None]) -> str:
    """Return a sha256 of all that a picture of scores shows, and of the version that draws it."""
    shown = ("kind", "headline", "metrics", "baseline", "difference", "n_rows")
    lines = [[_label(one), *(one[name] for name in shown)] for found in bars.values() for one in found]
    return json_key([versions()[OWN], {task: unit_of(task) for task in bars}, lines])


def draw_robustness(
    found: Sequence[Mapping[str, Any]], path: Path, *, unit_of: Callable[[str], str | None] = lambda _: None
) -> None:
    """Draw the score against the strength of each perturbation, the panels of a task below each other.

    Args:
        found: What `robustness` gave; each is a line with its interval, its clean score dotted, the baseline dashed.
        path: A PNG file.
        unit_of: The unit of a task's numbers.
    """
    tasks = list(dict.fromkeys(one["task"] for one in found))
    kinds = list(dict.fromkeys(point["perturbation"] for one in found for point in one["points"]))
    styles = dict(zip(dict.fromkeys(map(_images, found)), cycle(STYLES), strict=False))
    n_lines, n_columns = shape(len(kinds), PAGE_INCHES / 3)
    figure = make_figure((PAGE_INCHES / 3 * n_columns, 2.1 * n_lines * len(tasks)))
    panels = figure.subplots(len(tasks) * n_lines, n_columns, squeeze=False).reshape(len(tasks), -1)
    for own, task in zip(panels, tasks, strict=True):
        here = [one for one in found if one["task"] == task]
        for axes, kind in zip(own, kinds, strict=False):
            axes.sharey(own[0])
            _draw_strengths(axes, kind, here, styles)
        for axes in own[len(kinds) :]:
            axes.set_axis_off()
        for axes in own[::n_columns]:
            name = f"{task}: {_with_unit(here[0]['metric'], unit_of(task))}"
            axes.set_ylabel(in_lines(name, Y_LETTERS), fontsize=FONT_PT)
    lines = [_line(**style, markersize=4, label=images) for images, style in styles.items()]
    interval = _line(**INTERVAL | {"linestyle": "none", "marker": "|", "markersize": 9})
    add_key(figure, [*lines, interval, _line(**CLEAN), _line(**BASELINE)])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _images(one: Mapping[str, Any]) -> str:
    """Return the image blocks of a result: what its line is known by."""
    return " + ".join(block for block in one["blocks"] if block.startswith("image:"))


def _draw_strengths(
    axes: "Axes", kind: str, found: Sequence[Mapping[str, Any]], styles: Mapping[str, Mapping[str, Any]]
) -> None:
    for one in found:
        style = styles[_images(one)]
        points = sorted((p for p in one["points"] if p["perturbation"] == kind), key=lambda p: float(p["strength"]))
        x, scores = [point["strength"] for point in points], [point["score"] for point in points]
        axes.plot(x, _numbers(scores, "value"), markersize=4, **style)
        axes.vlines(x, _numbers(scores, "low"), _numbers(scores, "high"), color=style["color"], linewidth=1)
        axes.axhline(one["clean"]["value"], color=style["color"], **CLEAN)
        axes.axhline(one["baseline"], **BASELINE)
    strengths = sorted({p["strength"] for one in found for p in one["points"] if p["perturbation"] == kind})
    if len(strengths) > 1 and strengths[0] > 0:
        axes.set_xscale("log")  # grids double from step to step
    axes.set_xticks(strengths, [f"{strength:g}" for strength in strengths])
    axes.set_xticks([], minor=True)
    finish(axes, kind, PERTURBATIONS[kind].axis)


def _numbers(scores: Sequence[Mapping[str, float | None]], name: str) -> list[float]:
    """Return the values or one end of the intervals, NaN where there is none."""
    return [float("nan") if (value := score[name]) is None else value for score in scores]


def _line(**style: Any) -> "Artist":
    from matplotlib.lines import Line2D

    return Line2D([], [], **({"color": "black"} | style))


def _key_of_scores(standings: set[str]) -> list["Artist"]:
    from matplotlib.patches import Patch

    return [*(Patch(**style) for name, style in STANDINGS.items() if name in standings - {""}), _line(**INTERVAL)]


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
    """Return where each bar lies, and where the last one's room ends, in bars from the top."""
    rooms = [_room(entry) for entry in entries]
    ends = list(accumulate(rooms))
    return [*(end - own / 2 for end, own in zip(ends, rooms, strict=True)), ends[-1]]


def _room(entry: Entry) -> float:
    """Return how much room a bar needs: two lines of its label fit beside it."""
    return max(1.0, LINE_BARS * (_label(entry).count("\n") + 1))


def _draw(axes: "Axes", task: str, entries: Sequence[Entry], unit: str | None) -> None:
    metric = entries[0]["headline"]
    *places, end = _places(entries)
    for place, entry in zip(places, entries, strict=True):
        _draw_bar(axes, place, entry["metrics"][metric], STANDINGS[standing(entry)])
    axes.axvline(entries[0]["baseline"][metric] or 0.0, **BASELINE)
    axes.set_yticks(places, [_label(entry) for entry in entries])
    axes.set_ylim(end, 0)
    axes.margins(x=0.16)
    axes.set_xlim(0, 1.1 if entries[0]["kind"] == "classification" else None)
    better = "higher is better" if METRICS[metric].is_better_higher else "lower is better"
    finish(axes, f"{task}  (n = {entries[0]['n_rows']})", f"{_with_unit(metric, unit)} ({better})")


def _draw_bar(axes: "Axes", place: float, score: Mapping[str, float | None], style: Mapping[str, Any]) -> None:
    if score["value"] is None:
        return
    axes.barh(place, score["value"], height=0.72, **style)
    if score["low"] is not None and score["high"] is not None:
        axes.hlines(place, score["low"], score["high"], **INTERVAL)
    axes.annotate(
        f"{score['value']:#.3g}",
        (score["high"] or score["value"], place),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=FONT_PT,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},  # the baseline may run through it
    )


def _with_unit(metric: str, unit: str | None) -> str:
    return f"{metric} in {unit}" if unit else metric


def _label(entry: Entry) -> str:
    """Return a bar's name in short lines."""
    if entry["head"] == PRIOR:
        return f"prior\n{NO_FEATURES}"
    return in_lines(block_words(entry, between="\n+ "), LABEL_LETTERS)
