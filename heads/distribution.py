"""Pictures of a dataset before any model: its labels, and the intensities of its images by class."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heads.figure import COLOURS, FONT_PT, PAGE_INCHES, add_key, finish, in_lines, make_panels
from store import write_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_CLASSES = 12  # in one panel, the most frequent ones
PANEL_INCHES = PAGE_INCHES / 2
HATCHES = ("", "///", "...", "xxx")  # tell parts apart in grey
LINES = ("-", "--", ":", "-.")  # and classes
NAME_LETTERS = 24  # in a line of a class's name
INCHES_PER_CLASS = 0.3
LEAST_SHARE = 1e-4  # of pixels; a dark ground leaves little to what is looked at


def draw_exploration(found: Mapping[str, Any], folder: Path, *, examples: Callable[[Path], bool]) -> dict[str, str]:
    """Draw labels, intensities and examples, as far as there are any, and return the files by name.

    Args:
        found: What `draw_distributions` takes, and ``images`` as `draw_intensity` takes them.
        folder: Gets the files.
        examples: Draws pictures into a file; False where there are none.

    Raises:
        InputError: The folder cannot be written to.
        StoreError: The disk is full.
    """
    draw: dict[str, Callable[[Path], bool]] = {
        "classes": partial(draw_distributions, found),
        "intensity": partial(draw_intensity, found["images"]),
        "examples": examples,
    }
    try:
        return {name: str(folder / f"{name}.png") for name, one in draw.items() if one(folder / f"{name}.png")}
    except OSError as error:
        raise write_error(folder, error) from None


def draw_distributions(found: Mapping[str, Any], path: Path) -> bool:
    """Draw a panel per task: rows of each class by part of the split, or a histogram of each column of numbers.

    Args:
        found: What `store.distributions` gave. Folds are one part.
        path: A PNG file.

    Returns:
        False where there is no task, and no file is written.
    """
    from matplotlib.patches import Patch

    panels = [(task, one) for task in found["tasks"] for one in task.get("columns", [None])]
    if not panels:
        return False
    parts = list(dict.fromkeys(map(_part, found["parts"])))
    n_classes = max(min(MAX_CLASSES, len(task.get("classes", ()))) for task, _ in panels)
    figure, grid = make_panels(len(panels), (PANEL_INCHES, max(2.2, 0.9 + INCHES_PER_CLASS * n_classes)))
    for axes, (task, column) in zip(grid, panels, strict=True):
        if column is None:
            _draw_classes(axes, task, parts)
        else:
            _draw_numbers(axes, task, column)
    if len(parts) > 1 and any(column is None for _, column in panels):
        styles = map(_part_style, range(len(parts)))
        add_key(figure, [Patch(label=part, **style) for part, style in zip(parts, styles, strict=True)])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return True


def draw_intensity(images: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Draw the histogram of pixel values of each class: a panel per image block and task.

    Args:
        images: ``images`` of what `extract.describe_images` gave.
        path: A PNG file.

    Returns:
        False where no labelled picture was read, and no file is written.
    """
    images = [one for one in images if one.get("intensity")]
    tasks = list(dict.fromkeys(row["task"] for one in images for row in one["intensity"]))
    if not tasks:
        return False
    panels = [(one, task) for one in images for task in tasks]
    figure, grid = make_panels(len(panels), (PANEL_INCHES, 2.6))
    for axes, (one, task) in zip(grid, panels, strict=True):
        rows = [row for row in one["intensity"] if row["task"] == task]
        _draw_intensity(axes, f"{one['block']}: {task}", one["edges"], rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return True


def _part(name: str) -> str:
    return "folds" if name.startswith("fold ") else name


def _draw_classes(axes: "Axes", task: Mapping[str, Any], parts: Sequence[str]) -> None:
    shown = sorted(task["classes"], key=lambda one: -one["n_rows"])[:MAX_CLASSES]
    places, left = range(len(shown)), [0] * len(shown)
    for number, part in enumerate(parts):
        counts = [sum(n for name, n in one["parts"].items() if _part(name) == part) for one in shown]
        axes.barh(places, counts, left=left, height=0.72, **_part_style(number))
        left = [a + b for a, b in zip(left, counts, strict=True)]
    for place, one in enumerate(shown):
        words = f" {one['n_rows']} ({one['share']:.0%})"
        axes.annotate(words, (one["n_rows"], place), va="center", fontsize=FONT_PT)
    axes.set_yticks(places, [in_lines(one["class"], NAME_LETTERS) for one in shown])
    axes.invert_yaxis()
    axes.margins(x=0.25)
    more = f", {len(shown)} of {len(task['classes'])} classes" if len(shown) < len(task["classes"]) else ""
    finish(axes, f"{task['task']} (n = {task['n_rows']}{more})", "rows")


def _part_style(number: int) -> dict[str, Any]:
    """Return the look of a part of the split, its colour and, for grey, its hatch."""
    return {
        "facecolor": COLOURS[number % len(COLOURS)],
        "edgecolor": "white",
        "hatch": HATCHES[number % len(HATCHES)],
    }


def _draw_numbers(axes: "Axes", task: Mapping[str, Any], column: Mapping[str, Any]) -> None:
    if column["histogram"]:
        axes.stairs(column["histogram"]["counts"], column["histogram"]["edges"], fill=True, color=COLOURS[0])
        axes.axvline(column["quantiles"]["median"], color="black", linestyle="--", linewidth=1)
    name = task["task"] if task["task"] == column["column"] else f"{task['task']}: {column['column']}"
    finish(axes, f"{name} (n = {task['n_rows']})", "value; dashed: median", "rows")


def _draw_intensity(axes: "Axes", title: str, edges: Sequence[float], rows: Sequence[Mapping[str, Any]]) -> None:
    shown = sorted(rows, key=lambda row: -row["n_images"])[:MAX_CLASSES]
    for row, colour, line in zip(shown, cycle(COLOURS), cycle(LINES), strict=False):
        name = f"{row['class']} ({row['n_images']})"
        axes.stairs(row["histogram"], edges, baseline=None, color=colour, linestyle=line, label=name)
    axes.set_yscale("log")
    axes.set_ylim(bottom=LEAST_SHARE)
    if shown:
        axes.legend(fontsize=FONT_PT, frameon=False)
    finish(axes, title, "pixel value; what lies beyond is in the end bins", "share of pixels")
