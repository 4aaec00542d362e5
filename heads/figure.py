"""Figures that fit a page and can be read in grey: panels, keys and titles, whatever is drawn in them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from store import broken

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008, "Color universal design": told apart with any kind of colour vision
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
GREY = "#999999"
STYLES: list[dict[str, Any]] = [
    {"color": colour, "marker": marker} for colour, marker in zip(COLOURS, "os^Dv*X", strict=True)
]
"""Of lines; the marker tells them apart in grey."""
PAGE_INCHES = 8.3  # 800 px at 96 px per inch, which is how wide a README shows a picture
FONT_PT, TITLE_PT = 8, 9
LETTER_INCHES = 0.075  # about, at that size
TITLE_LETTER_INCHES = 0.085
TITLE_SHARE = 0.65  # of a panel's width: its title begins where its axis does
KEY_INCHES = 0.19  # of a line of a key
Y_LETTERS = 26  # in a line of the name of an upright axis: a panel is at least two inches high
MARK_INCHES = 0.6  # of a key, with the room beside it


def make_panels(n: int, size_inches: tuple[float, float]) -> "tuple[Figure, list[Axes]]":
    """Return a figure with n panels of this size, as many beside each other as fit a page; needs no display."""
    n_lines, n_columns = shape(n, size_inches[0])
    figure = make_figure((size_inches[0] * n_columns, size_inches[1] * n_lines + 0.3))
    places = figure.subplots(n_lines, n_columns, squeeze=False).ravel()
    for axes in places[n:]:
        axes.set_axis_off()
    return figure, list(places[:n])


def shape(n: int, width_inches: float) -> tuple[int, int]:
    """Return in how many lines and columns n panels of this width fill a page most evenly."""
    n_lines = -(-n // max(1, int(PAGE_INCHES / width_inches + 0.01)))
    return n_lines, -(-n // n_lines)


def make_figure(size_inches: tuple[float, float]) -> "Figure":
    """Return a figure that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size_inches, layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    return figure


def add_key(figure: "Figure", marks: Sequence["Artist"]) -> None:
    """Say what marks mean, by their labels, in as many columns as fit below the panels, which keep their size."""
    width = figure.get_figwidth()
    n_letters = round((width - MARK_INCHES) / LETTER_INCHES)
    words = [in_lines(str(mark.get_label()), n_letters) for mark in marks]
    column_inches = MARK_INCHES + LETTER_INCHES * max(len(line) for text in words for line in text.split("\n"))
    n_columns = max(1, min(len(marks), int(width / column_inches)))
    n_lines = -(-len(marks) // n_columns) * max(text.count("\n") + 1 for text in words)
    figure.set_figheight(figure.get_figheight() + KEY_INCHES * n_lines)
    figure.legend(
        handles=marks,
        labels=words,
        loc="outside lower left",
        fontsize=FONT_PT,
        frameon=False,
        ncols=n_columns,
    )


def add_title(figure: "Figure", text: str) -> None:
    """Write a title above all panels."""
    figure.suptitle(in_lines(text, round(figure.get_figwidth() / TITLE_LETTER_INCHES)), fontsize=TITLE_PT)


def finish(axes: "Axes", title: str, x: str, y: str = "") -> None:
    """Name a panel and its axes, and take away what says nothing."""
    figure, place = axes.get_figure(root=True), axes.get_subplotspec()
    assert figure is not None and place is not None  # it is a panel
    width = figure.get_figwidth() / place.get_gridspec().ncols
    axes.set_title(in_lines(title, round(TITLE_SHARE * width / TITLE_LETTER_INCHES)), fontsize=TITLE_PT, loc="left")
    axes.set_xlabel(in_lines(x, round(width / LETTER_INCHES)), fontsize=FONT_PT)
    axes.set_ylabel(in_lines(y, Y_LETTERS), fontsize=FONT_PT)
    axes.tick_params(labelsize=FONT_PT)
    axes.spines[["top", "right"]].set_visible(False)


def in_lines(text: str, n_letters: int) -> str:
    """Return a text in lines of at most so many letters."""
    return "\n".join(part for line in text.split("\n") for part in broken(line, lambda one: len(one) <= n_letters))
