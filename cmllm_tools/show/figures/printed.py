"""A figure as it stands on paper: the same panels drawn by matplotlib, as wide as a column, without a browser.

What is drawn is read from the plotly figure, later changes of it too; only what this package's figures are made of is
known. Titles of panels are kept, that of the whole belongs into the caption. Colours are those of the screen: their
lightness rises with the value, so that a copy in grey says the same.
"""

from __future__ import annotations

import io
import re
import textwrap
from base64 import b64decode
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from ...errors import SettingsError
from ...files import write_whole
from ...strict import flag, number, shown, whole_number
from ..palette import GREY, RULE, rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Sheet

# Inches: a column of a two-column page, and the page's width, as most journals and conferences have them.
WIDTHS = {1: 3.3, 2: 6.9}
FORMATS = ("pdf", "svg", "png")
_SIZE = 8
# Height of a panel without an image, as a share of its width; a grid's cells are at least so high, in inches.
_CURVES, _CELL = 0.62, 0.05
_DASHES = {"dash": (4, 2), "dot": (1, 1.5), "dashdot": (4, 2, 1, 2), "longdash": (8, 2), "longdashdot": (8, 2, 1, 2)}
_MARKERS = {"square": "s", "diamond": "D", "cross": "P", "triangle-up": "^", "x": "X"}
# Letters are in the file: as TrueType in a PDF, so that journals take it, as outlines in an SVG.
_RULES = {"pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "cmllm", "font.size": _SIZE}
# No date, so that the same figure gives the same file.
_UNDATED: dict[str, dict[str, None]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}


def save(figure: Any, path: Any, columns: int = 1, *, width: float | None = None, title: bool = False) -> Path:
    """Write a figure as PDF, SVG or PNG; see `static.Figure.save`."""
    suffix = Path(str(path)).suffix.lower().lstrip(".")
    if suffix not in FORMATS:
        raise SettingsError(f"A figure for a paper must be saved as .pdf, .svg or .png; got {shown(str(path))}.")
    try:
        from matplotlib import rc_context
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "A figure for a paper needs matplotlib, which is not installed here. Run: pip install 'cmllm_tools[paper]'"
        ) from error
    whole_number(columns, "columns", least=1, most=2)
    inches = WIDTHS[columns] if width is None else number(width, "The width of a figure, in inches,", above=0.5, most=40)
    with rc_context(_RULES):
        sheet = drawn(figure, inches, flag(title, "title"))

        def write(file: BinaryIO) -> None:
            sheet.savefig(file, format=suffix, dpi=300, metadata=_UNDATED[suffix])

        return write_whole(path, write)


def drawn(figure: Any, width: float, title: bool = False) -> Sheet:
    """The figure on a sheet so many inches wide."""
    from matplotlib.figure import Figure as Sheet

    panels = list(_panels(figure))
    if not panels:
        raise SettingsError("A figure that is saved for a paper must have something drawn in it; this one has nothing.")
    columns = len({round(x.domain[0] if x.domain else 0, 2) for _, x, _ in panels})
    rows = -(-len(panels) // columns)
    cell = width / columns
    sheet = Sheet(figsize=(width, 1), layout="compressed")
    axes = sheet.subplots(rows, columns, squeeze=False)
    highs = np.zeros((rows, columns))
    for at, spare in enumerate(axes.flat):
        if at >= len(panels):
            spare.set_axis_off()
            continue
        name, x, y = panels[at]
        highs[at // columns, at % columns] = cell * _panel(spare, figure, name, x, y)
        said = _title(figure, at, cell)
        highs[at // columns, at % columns] += _line_height() * (said.count("\n") + 1) if said else 0
        spare.set_title(said, loc="left", fontsize=_SIZE, parse_math=False)
    extra = _scale(sheet, figure, axes) + _legend(sheet, width)
    if title and figure.layout.title.text:
        whole = textwrap.fill(_plain(figure.layout.title.text, " "), int(width * 15))
        sheet.suptitle(whole, x=0, ha="left", fontsize=_SIZE + 1, parse_math=False)
        extra += _line_height() * (whole.count("\n") + 2)
    sheet.set_size_inches(width, float(highs.max(1).sum()) + extra)
    return sheet


def _line_height() -> float:
    return _SIZE * 1.35 / 72


def _panels(figure: Any) -> Iterator[tuple[str, Any, Any]]:
    """Each panel that something is drawn in: the number in its axes' names, and the axes."""
    for trace in figure.data:
        if trace.type not in ("heatmap", "scatter"):
            raise SettingsError(f"A figure for a paper must be of curves and heat maps; this one has a {trace.type}.")
    used = dict.fromkeys((trace.xaxis or "x")[1:] for trace in figure.data)
    for name in sorted(used, key=lambda number: int(number or 1)):
        yield name, figure.layout[f"xaxis{name}"], figure.layout[f"yaxis{name}"]


def _panel(axes: Axes, figure: Any, name: str, x: Any, y: Any) -> float:
    """Draw a panel; returns its height as a share of its width."""
    for image in figure.layout.images:
        if (image.xref or "x")[1:] == name:
            picture = Image.open(io.BytesIO(b64decode(image.source.split(",", 1)[1])))
            axes.imshow(np.asarray(picture.convert("RGB")), extent=(0, image.sizex, image.sizey, 0), aspect="equal")
            axes.set(xlim=(0, image.sizex), ylim=(image.sizey, 0), xticks=[], yticks=[], autoscale_on=False)
    over = bool(axes.images)
    for trace in figure.data:
        if (trace.xaxis or "x")[1:] == name:
            _map(axes, trace, over) if trace.type == "heatmap" else _line(axes, trace)
    for shape in figure.layout.shapes:
        _shape(axes, shape, name)
    axes.spines[:].set_visible(False)
    if over:
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        return abs(high - low) / (right - left) * 0.96
    _axis(axes, x, y)
    grids = [trace for trace in figure.data if trace.type == "heatmap" and (trace.xaxis or "x")[1:] == name]
    if not grids:
        axes.grid(color=RULE, linewidth=0.5)
        return _CURVES
    down, across = np.asarray(grids[0].z).shape
    return float(min(max(down / across, _CELL * down / 3, 0.3), 1.0)) * 0.75 + 0.1


def _shape(axes: Axes, shape: Any, name: str) -> None:
    """An outline or a rule, in the panel's units or from edge to edge of it, as of add_hline."""
    refs = [(shape.xref or "x").removesuffix(" domain"), (shape.yref or "y").removesuffix(" domain")]
    if shape.type not in ("line", "rect", None) or "paper" in refs:
        raise SettingsError(
            "Shapes of a figure for a paper must be lines and rectangles of one panel; this one has a "
            f"{shape.type} at xref={shape.xref!r}, yref={shape.yref!r}."
        )
    if refs != [f"x{name}", f"y{name}"]:
        return
    xs, ys = [shape.x0, shape.x1, shape.x1, shape.x0, shape.x0], [shape.y0, shape.y0, shape.y1, shape.y1, shape.y0]
    whole = [ref.endswith(" domain") for ref in (shape.xref or "x", shape.yref or "y")]
    units = {
        (False, False): axes.transData,
        (True, False): axes.get_yaxis_transform(),
        (False, True): axes.get_xaxis_transform(),
        (True, True): axes.transAxes,
    }
    color, width = _color(shape.line.color), 0.5 * (shape.line.width or 2)
    axes.plot(xs, ys, color=color, linewidth=width, transform=units[whole[0], whole[1]])


def _map(axes: Axes, trace: Any, over: bool) -> None:
    """A heat map: on an image in its pixels, else with a cell to each row and column."""
    values = np.ma.masked_invalid(np.asarray(trace.z, float))
    if over:
        xs, ys = np.asarray(trace.x, float), np.asarray(trace.y, float)
        axes.pcolormesh(xs, ys, values, cmap=_colors(trace), vmin=trace.zmin, vmax=trace.zmax, rasterized=True)
        return
    axes.imshow(values, cmap=_colors(trace), vmin=trace.zmin, vmax=trace.zmax, aspect="auto", interpolation="nearest")
    for which, names in (("x", trace.x), ("y", trace.y)):
        if names is not None:
            step = -(-len(names) // 8)
            ticks = list(range(0, len(names), step))
            axes.set(**{f"{which}ticks": ticks, f"{which}ticklabels": [str(names[at]) for at in ticks]})
    if trace.text is not None:
        for (row, column), text in np.ndenumerate(np.asarray(trace.text, str)):
            light = values[row, column] is not np.ma.masked and values[row, column] > (trace.zmin + 2 * trace.zmax) / 3
            color = "black" if light else "white"
            axes.text(
                column,
                row,
                _plain(str(text), " "),
                ha="center",
                va="center",
                color=color,
                fontsize=_SIZE - 2,
                parse_math=False,
            )


def _colors(trace: Any) -> Any:
    """Plotly's scale of a heat map as matplotlib's."""
    from matplotlib.colors import LinearSegmentedColormap

    stops = [(float(at), _color(color)) for at, color in trace.colorscale]
    return LinearSegmentedColormap.from_list("figure", stops)


def _line(axes: Axes, trace: Any) -> None:
    xs, ys = (np.array([np.nan if each is None else each for each in values], float) for values in (trace.x, trace.y))
    label = _plain(trace.name, " ") if trace.name and trace.showlegend is not False else "_"
    if trace.fill == "toself":
        axes.fill(xs, ys, color=_color(trace.fillcolor), linewidth=0, label=label)
        return
    mode, line, marker = trace.mode or "lines", trace.line, trace.marker
    if mode == "text":
        colors = np.broadcast_to(np.asarray(trace.textfont.color or "black"), len(xs))
        for x, y, text, color in zip(xs, ys, trace.text, colors, strict=True):
            axes.text(x, y, _plain(text, " "), ha="center", va="center", color=color, fontsize=_SIZE - 3, parse_math=False)
        return
    color = _color(line.color or marker.color)
    # Pixels of the screen, on paper.
    scale = 0.5
    (made,) = axes.plot(xs, ys, color=color, linewidth=scale * (line.width or 2), label=label)
    if "lines" not in mode:
        made.set_linestyle("none")
    elif line.dash in _DASHES:
        made.set_dashes(_DASHES[line.dash])
    if "markers" in mode:
        made.set(marker=_MARKERS.get(marker.symbol, "o"), markersize=scale * (marker.size or 6), markeredgewidth=0)
    if trace.error_y.array is not None:
        below, above = (np.asarray(side, float) for side in (trace.error_y.arrayminus, trace.error_y.array))
        axes.vlines(xs, ys - below, ys + above, color=color, linewidth=0.75)


def _axis(axes: Axes, x: Any, y: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    for which, axis in (("x", x), ("y", y)):
        if axis.type not in (None, "-", "linear", "log", "category"):
            raise SettingsError(
                f"An axis of a figure for a paper must be linear, log or of names; this one is {axis.type!r}."
            )
        log = axis.type == "log"
        axes.set(**{f"{which}scale": "log" if log else "linear", f"{which}label": _plain(axis.title.text or "", " ")})
        if axis.range is not None and not isinstance(axis.range[0], str):
            # Plotly has the ends of a log axis as exponents.
            axes.set(**{f"{which}lim": [10 ** float(end) if log else float(end) for end in axis.range]})
        if axis.tickvals is not None:
            axes.set(**{f"{which}ticks": list(axis.tickvals), f"{which}ticklabels": list(axis.ticktext)})
        if axis.rangemode == "tozero":
            axes.set(**{f"{which}lim": (0, None)})
        if (axis.tickformat or "").endswith("%"):
            getattr(axes, f"{which}axis").set_major_formatter(PercentFormatter(1, 0))
    axes.tick_params(length=2, width=0.5, color=GREY)


def _scale(sheet: Sheet, figure: Any, axes: np.ndarray) -> float:
    """The scale of heat maps below them, where they have one in common; returns its height."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import PercentFormatter

    for trace in figure.data:
        if trace.type == "heatmap" and trace.showscale is not False:
            colors = ScalarMappable(Normalize(trace.zmin, trace.zmax), _opaque(trace))
            bar = sheet.colorbar(
                colors, ax=list(axes.flat), location="bottom", aspect=40, shrink=0.6, anchor=(0, 0.5), pad=0.03
            )
            bar.outline.set_visible(False)
            bar.ax.tick_params(length=2, width=0.5)
            bar.set_label(_plain(trace.colorbar.title.text or "", " "), parse_math=False)
            if (trace.colorbar.tickformat or "").endswith("%"):
                bar.ax.xaxis.set_major_formatter(PercentFormatter(1, 0))
            return 0.42
    return 0.0


def _opaque(trace: Any) -> Any:
    """A scale's colours as they are seen on white: a bar has no image below it."""
    from matplotlib.colors import ListedColormap

    colors = _colors(trace)(np.linspace(0, 1, 256))
    return ListedColormap(colors[:, :3] * colors[:, 3:] + 1 - colors[:, 3:])


def _legend(sheet: Sheet, width: float) -> float:
    """Names of curves below them; returns their height."""
    found = {}
    for axes in sheet.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found[textwrap.shorten(label, int(width * 16), placeholder=" ...")] = handle
    if not found:
        return 0.0
    columns = max(1, min(len(found), int(width * 15 / (max(map(len, found)) + 8))))
    legend = sheet.legend(
        found.values(), found.keys(), loc="outside lower left", ncols=columns, frameon=False, fontsize=_SIZE
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return _line_height() * 1.2 * -(-len(found) // columns) + 0.1


def _title(figure: Any, panel: int, width: float) -> str:
    notes = [note for note in figure.layout.annotations if note.name == f"panel {panel}"]
    # Its whole text is at the pointer where the screen has no room for it.
    return "\n".join(textwrap.fill(line, max(int(width * 15), 12)) for note in notes for line in _lines(note))


def _lines(note: Any) -> list[str]:
    parts = [_plain(part, " ") for part in re.split(r"(?<=</b>)<br>|<br>(?=<b>)", note.text)]
    return [part for part in parts if part]


def _plain(text: str, between: str) -> str:
    """A text of plotly's without its marks."""
    return unescape(re.sub(r"<[^>]*>", "", re.sub(r"<br ?/?>", between, text))).strip()


def _color(color: str | None) -> tuple[float, float, float, float]:
    match = re.match(r"rgba\((.*)\)", color or "black")
    if match:
        red, green, blue, alpha = (float(part) for part in match[1].split(","))
        return red / 255, green / 255, blue / 255, alpha
    red, green, blue = rgb(color or "black")
    return red / 255, green / 255, blue / 255, 1.0
