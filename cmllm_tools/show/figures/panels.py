"""Pictures side by side, in rows that fit a notebook.

A figure has no width of its own: it takes that of what it is in, so that no page scrolls, and the picture that JupyterLab
saves, which has that width, is not stretched. Its height is in pixels, for a narrow page; where there is more room, it
grows with its pictures (`set_height`), and nothing else does. Pictures keep their shape, at the left of their cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from ...layout.visual_tokens import VisualTokenLayout
from .parts import LEFT, RIGHT, place_scale
from .words import SIZE, height_of, whole, written

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# The width that heights are reckoned for: of a notebook's output in a window of 700 px.
PAGE = 640
WIDE = PAGE - LEFT - RIGHT
GAP = 20
# A picture's greatest height on such a page, unless it is of extreme shape, and on a wide one: it still fits a screen.
LARGEST, LARGEST_WIDE = 460, 680
# Least width of a tall picture, and its greatest height.
NARROWEST, TALLEST = 110, 760
# Room for a scale below all panels.
BAR = 62
# Lines of a panel's title.
LINES = 4


def columns_of(count: int, aspect: float = 1.0) -> int:
    """Panels in a row: two where they are few, so that they are large, else three, or four of tall ones."""
    if aspect > 2:
        return min(count, 4)
    return min(count, 2 if count < 5 else 3)


def picture_height(aspect: float, width: float) -> int:
    """Height of a picture in a cell of a width, for its height as a share of its width."""
    return round(min(width * aspect, max(LARGEST, min(NARROWEST * aspect, TALLEST))))


def set_height(figure: Figure, height: int, picture: int, rows: int = 1) -> None:
    """Set a figure's height, and in `layout.meta` how it follows the width, for `static.Figure`.

    Args:
        figure: of rows of pictures.
        height: on a narrow page, in pixels.
        picture: height of a picture there.
        rows: of pictures.
    """
    grown = {"page": PAGE, "slope": round(rows * picture / WIDE, 4), "most": rows * (_highest(picture, rows) - picture)}
    figure.update_layout(height=height, meta={"height": {"least": height, **grown}})


def _highest(picture: int, rows: int) -> int:
    """Height of a picture on a wide page: several rows are to be seen together."""
    return max(picture, LARGEST_WIDE if rows == 1 else LARGEST)


def aspect_of(layout: VisualTokenLayout) -> float:
    """An image's height as a share of its width."""
    width, height = layout.image_size
    return height / width


def panelled(count: int, aspect: float, static: str) -> Figure:
    """A figure of so many panels; `arrange` gives them their places."""
    from plotly.subplots import make_subplots

    from .parts import new_figure

    columns = columns_of(count, aspect)
    return make_subplots(-(-count // columns), columns, figure=new_figure(static))


def arrange(
    figure: Figure,
    titles: Sequence[str],
    aspect: float,
    *,
    top: int = 0,
    bottom: int = BAR,
    axes: tuple[int, int] = (0, 0),
    lines: int = LINES,
    marked: Literal["plain", "bold"] = "plain",
    subtitles: Sequence[str] = (),
) -> None:
    """Give each panel its place, and its title above it.

    Args:
        figure: from `panelled`; the axes' ranges are set.
        titles: of the panels, of any length.
        aspect: a panel's height as a share of its width.
        top, bottom: pixels above and below all panels.
        axes: pixels for ticks and titles of axes, left of each panel and below it.
        lines: of a title at most.
        marked: how titles are set.
        subtitles: short second lines, or first ones of bold titles.
    """
    columns = columns_of(len(titles), aspect)
    cell = (WIDE - GAP * (columns - 1)) / columns
    height = picture_height(aspect, cell - axes[0])
    bold = marked == "bold"
    heads = []
    for number, title in enumerate(titles):
        short = [written(text, cell) for text in subtitles[number : number + 1]]
        parts = [written(title, cell * 0.95, lines, bold=bold), *short]
        heads.append("<br>".join(part for part in (parts[::-1] if bold else parts) if part))
    rows = [heads[at : at + columns] for at in range(0, len(heads), columns)]
    # A line more than the text has, as pictures would touch it.
    above = [max(map(height_of, row)) + (6 if any(row) else 0) for row in rows]
    # Only pictures are to grow with the figure: titles of the first row are in the margin, the first row is at the top of
    # what grows, the last at its foot, and others halfway.
    for note in figure.layout.annotations:
        note.yshift = above[0]
    top, bottom, count = top + above[0], bottom + axes[1], len(rows)
    between = (max(above[1:], default=0) + axes[1] + GAP) * (count / (count - 1) if count > 3 else 1)
    images = axes == (0, 0)
    total, largest = round(count * height + (count - 1) * between), _highest(height, count) if images else height
    part = largest / (count * largest + (count - 1) * between)
    for number, text in enumerate(heads):
        row, column = divmod(number, columns)
        left = column * (cell + GAP) / WIDE
        place = {0: ("top", 1 - part)} if row == 0 else {count - 1: ("bottom", 0.0)}
        toward, edge = place.get(row, ("middle", 1 - (row + 0.5) / count - part / 2))
        name = "" if number == 0 else str(number + 1)
        figure.update_layout(
            {
                f"xaxis{name}": {"domain": [left + axes[0] / WIDE, min(left + cell / WIDE, 1.0)], **_fixed("left", images)},
                f"yaxis{name}": {"domain": [max(edge, 0.0), min(edge + part, 1.0)], **_fixed(toward, images)},
            }
        )
        if text:
            # At the picture's edge, wherever that is in its cell.
            edge_of = ("paper", 1) if row == 0 else (f"y{name}", 0) if images else (f"y{name} domain", 1)
            _note(figure, number, text, left, edge_of, whole(titles[number], cell * 0.95, lines, bold=bold))
    for number in range(len(titles), len(rows) * columns):
        figure.update_layout({f"xaxis{number + 1}": {"visible": False}, f"yaxis{number + 1}": {"visible": False}})
    place_scale(figure, 8 + axes[1])
    if images:
        set_height(figure, top + total + bottom, height, count)
    margin = {"t": top, "b": bottom, "l": LEFT, "r": RIGHT, "pad": 0, "autoexpand": False}
    figure.update_layout(height=top + total + bottom, margin=margin)


def _fixed(toward: str, image: bool) -> dict[str, Any]:
    return {"constrain": "range" if image else "domain", "constraintoward": toward, "automargin": False}


def _note(figure: Figure, panel: int, text: str, x: float, edge: tuple[str, float], hover: str | None) -> None:
    figure.add_annotation(
        # By which `printed` finds it.
        name=f"panel {panel}",
        text=text,
        hovertext=hover,
        showarrow=False,
        align="left",
        font={"size": SIZE},
        x=x,
        y=edge[1],
        yshift=3,
        xref="paper",
        yref=edge[0],
        xanchor="left",
        yanchor="bottom",
        borderpad=0,
    )
