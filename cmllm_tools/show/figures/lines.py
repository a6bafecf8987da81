"""The frame of a figure of curves: names below it, one to a line where they are long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..palette import BLUE, CLEAR, GREEN, GREY, ORANGE, PURPLE, VERMILION
from .parts import LEFT, RIGHT
from .words import TEXT, height_of, text_width, written

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Height of the curves themselves, and of the axis below, in pixels.
PLOT, AXIS = 300, 56
# Height of a name's line in a legend, and the width of its sample.
_ROW, _SAMPLE = 19, 45
_COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, GREY)
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "x")


def look(number: int) -> dict[str, dict[str, object]]:
    """How a line looks: of 36, no two have the same colour and dash, nor, without colour, the same dash and marker."""
    first, turn = number % 6, number // 6 % 6
    dash = _DASHES[(first + turn) % 6]
    return {"line": {"color": _COLORS[first], "dash": dash}, "marker": {"symbol": _SYMBOLS[first], "size": 8}}


def legend_name(name: str) -> str:
    """A line's name, on one line or two."""
    return written(name, TEXT - _SAMPLE, 2, 12)


def framed(figure: Figure, names: Sequence[str], top: int, right: int = RIGHT) -> None:
    """Set heights and margins, and the legend below: in one row where names are short, else in columns that hold them."""
    widths = [text_width(name, 12) + _SAMPLE for name in names]
    row = sum(widths) <= TEXT
    columns = max(int(TEXT // max(widths, default=TEXT)), 1)
    highs = [max(_ROW, height_of(legend_name(name), 12) + 5) for name in names]
    high = _ROW if row else sum(max(highs[at : at + columns]) for at in range(0, len(names), columns))
    bottom = AXIS + high + 8 if len(names) else AXIS
    figure.update_layout(
        height=top + PLOT + bottom,
        margin={"t": top, "b": bottom, "l": LEFT + 58, "r": right, "pad": 0, "autoexpand": False},
        legend={
            # One column is of rows of one: beside a legend that is "v", plotly draws the axis' title into the plot.
            "orientation": "h",
            **({} if row else {"entrywidth": 0.99 / columns if columns > 1 else 1, "entrywidthmode": "fraction"}),
            "x": 0,
            "y": 0,
            "xref": "container",
            "yref": "container",
            "xanchor": "left",
            "yanchor": "bottom",
            "bgcolor": CLEAR,
            "font": {"size": 12},
        },
    )
    figure.update_xaxes(title_standoff=6, automargin=False)
    figure.update_yaxes(automargin=False)
