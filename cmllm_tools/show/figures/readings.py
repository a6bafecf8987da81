"""What states would say, as words on the image or by token; where each token of an answer looks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from ...causes.answering import AnswerTrace
from ...causes.reading import Lens
from ...inputs.regions import where_text
from ..html import card, table, text
from ..palette import LINE, RIM
from .panels import WIDE, aspect_of, picture_height, set_height
from .parts import (
    LEFT,
    RIGHT,
    STYLE,
    add_image,
    color_scale,
    graph_objects,
    must_be,
    new_figure,
    place_scale,
    scale_bar,
    slider,
)
from .words import ELLIPSIS, head, text_width, written

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Words of a token in the hover text; layers and tokens of the static version.
_HOVERED, _LISTED = 3, 8
# Bytes of all layers' texts, and of those of a token.
_TEXTS, _TEXT = 1_200_000, 110
# Sizes of words in cells, in pixels; smaller ones cannot be read.
_LARGEST, _LEAST = 12, 8
# Pixels between names of columns, and what all columns have together where it is narrow.
_APART, _NARROW = 24, 430
# Share of the scale from which on dark letters are read better.
_BRIGHT = 0.45
_SCALE, _SLIDER = 62, 66


def words_on_image(lens: Lens) -> Figure:
    """What visual tokens would say after each layer, on the image, with a slider over layers.

    The colour is the value of the likeliest word; more of a token's words are at the pointer. Of many visual tokens some of
    the layers are shown, evenly chosen, so that the figure stays below 2 MB.

    Args:
        lens: from `cm.lens` of the image or of regions.

    Raises:
        SettingsError: for another kind of thing.
        CaptureError: for a lens of other tokens; `words_by_token` shows those.

    Examples:
        >>> figure = cm.figures.words_on_image(cm.lens(mllm, prompt, "image"))
        >>> len(figure.layout.sliders[0].steps)  # what goes in, and six layers
        7
    """
    must_be(lens, Lens, "The lens of words_on_image", "from cm.lens(mllm, prompt)")
    numbers, layout, go = lens.visual, lens.prompt.layout, graph_objects()
    boxes = layout.boxes[list(numbers)]
    centres, columns = (boxes[:, :2] + boxes[:, 2:]) / 2, layout.grid[1]
    high = picture_height(aspect_of(layout), WIDE)
    cell = min(WIDE, high / aspect_of(layout)) / columns
    size = int(min(_LARGEST, cell / 3.2))
    top = max(float(lens.values[..., 0].max()), 1e-6)

    def shown(at: int) -> tuple[np.ndarray, dict[str, Any]]:
        values = np.full(len(layout), np.nan)
        values[list(numbers)] = lens.values[at, :, 0].numpy()
        words = [_short(each[0], cell * 0.95, size) if size >= _LEAST else "" for each in lens.words[at]]
        said = [_said(each, lens.values[at, token]) for token, each in enumerate(lens.words[at])]
        # The image is dark below where there is little, and the scale ends bright.
        colors = np.where(lens.values[at, :, 0].numpy() > _BRIGHT * top, RIM, LINE).tolist()
        font = {"size": max(size, _LEAST), "color": colors}
        return _raster(values, lens), {"text": words, "hovertext": said, "textfont": font}

    chosen = _layers_shown(lens)
    states = [shown(at) for at in chosen]
    layers = [lens.layers[at] for at in chosen]
    figure = new_figure(_lens_static(lens))
    add_image(figure, lens.prompt.image, layout)
    cells = layout.cells
    figure.add_trace(
        go.Heatmap(
            z=states[-1][0].astype(np.float32),
            x=[*cells[0, :, 0], cells[0, -1, 2]],
            y=[*cells[:, 0, 1], cells[-1, 0, 3]],
            zmin=0,
            zmax=top,
            colorscale=color_scale(),
            colorbar=scale_bar(_value_name(lens), ".2~g"),
            hoverinfo="skip",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=centres[:, 0],
            y=centres[:, 1],
            mode="text",
            hoverinfo="text",
            showlegend=False,
            **states[-1][1],
        )
    )
    titles = [_layer_title(lens, layer) for layer in layers]
    figure.frames = [
        go.Frame(
            name=str(layer),
            data=[{"type": "heatmap", "z": z.astype(np.float32)}, {"type": "scatter", **words}],
            traces=[0, 1],
            layout={"title": {"text": title}},
        )
        for layer, (z, words), title in zip(layers, states, titles, strict=True)
    ]
    above = max(head(figure, title) for title in titles)
    head(figure, titles[-1])
    fixed = {"constrain": "range", "automargin": False}
    figure.update_layout(
        xaxis={"constraintoward": "left", **fixed},
        yaxis={"constraintoward": "top", **fixed},
        margin={"t": above, "b": _SCALE + _SLIDER, "l": LEFT, "r": RIGHT, "pad": 0, "autoexpand": False},
        sliders=[slider([str(layer) if layer >= 0 else "input" for layer in layers], [*map(str, layers)], _SCALE + 8)],
        **STYLE,
    )
    set_height(figure, above + high + _SCALE + _SLIDER, high)
    place_scale(figure, 8)
    return figure


def words_by_token(lens: Lens) -> Figure:
    """What tokens would say after each layer: layers down, tokens across, the likeliest word in each cell.

    Raises:
        SettingsError: for another kind of thing.

    Examples:
        >>> cm.figures.words_by_token(cm.lens(mllm, prompt, "text")).data[0].z.shape
        (7, 4)
    """
    must_be(lens, Lens, "The lens of words_by_token", "from cm.lens(mllm, prompt, 'text')")
    values = lens.values[..., 0].numpy()
    names = _numbered([lens.name_of(token) for token in range(len(lens.positions))])
    cell = (WIDE - 40) / len(names)
    size = int(min(_LARGEST, cell / 3.2))
    words = [[_short(token[0], cell * 0.95, size) if size >= _LEAST else "" for token in layer] for layer in lens.words]
    said = [[_said(token, lens.values[at, n]) for n, token in enumerate(layer)] for at, layer in enumerate(lens.words)]
    rows = [str(layer) if layer >= 0 else "input" for layer in lens.layers]
    figure = new_figure(_lens_static(lens))
    title = f"Likeliest words of {lens.what} after each layer"
    return _heat(figure, values, rows, names, words, said, title, ("layer", "token"), size, _value_name(lens))


def answer_regions(trace: AnswerTrace) -> Figure:
    """Where each token of an answer looks: regions down, tokens across; the maps as small pictures in the static version.

    Without regions the row is the share of the token's attention that goes to the image.

    Args:
        trace: from `cm.trace_answer`.

    Raises:
        SettingsError: for another kind of thing.

    Examples:
        >>> cm.figures.answer_regions(cm.trace_answer(mllm, prompt, regions=box)).data[0].z.shape
        (1, 5)
    """
    must_be(trace, AnswerTrace, "The trace of answer_regions", "from cm.trace_answer(mllm, prompt)")
    values = trace.shares.T.numpy() if trace.regions else trace.on_image[None].numpy()
    count = len(trace.regions)
    rows = [f"region {number + 1}" for number in range(count)] if count > 1 else ["region" if count else "image"]
    names = _numbered(trace.words)
    cell = (WIDE - 60) / len(names)
    size = int(min(_LARGEST, cell / 3.2))
    words = [[f"{value:.0%}" if size >= _LEAST else "" for value in row] for row in values]
    what = f"share of the map {where_text(trace.regions)}" if count else f"share of {trace.of} on the image"
    said = [[f"{value:.1%}, {what}" for value in row] for row in values]
    begins = "Where each token looks" if trace.of == "attention" else f"The {trace.of} of each token"
    title = f"{begins}: {str(trace.answer)!r}"
    figure = new_figure(trace._repr_html_())
    return _heat(figure, values, rows, names, words, said, title, ("", "answer"), size, what)


def _heat(
    figure: Figure,
    values: np.ndarray,
    rows: list[str],
    columns: list[str],
    words: list[list[str]],
    said: list[list[str]],
    title: str,
    axes: tuple[str, str],
    size: int,
    what: str,
) -> Figure:
    """A heat map with words in its cells."""
    figure.add_trace(
        graph_objects().Heatmap(
            z=values.astype(np.float32),
            x=list(range(len(columns))),
            y=rows,
            text=words,
            hovertext=said,
            texttemplate="%{text}",
            textfont={"size": max(size, _LEAST)},
            zmin=0,
            zmax=max(float(values.max()), 1e-6),
            colorscale=color_scale(opaque=True),
            colorbar=scale_bar(what, ".2~g"),
            hovertemplate=f"{axes[0]} %{{y}}<br>%{{hovertext}}<extra></extra>",
            xgap=1,
            ygap=1,
        )
    )
    # As many names as do not meet in a narrow cell of a notebook.
    shown = range(0, len(columns), -(-_APART * len(columns) // _NARROW))
    figure.update_xaxes(
        title=axes[1],
        tickvals=list(shown),
        ticktext=[escape(columns[at], quote=False) for at in shown],
        tickangle=-60 if len(columns) > 6 else 0,
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(title=axes[0], type="category", dtick=1, autorange="reversed", title_standoff=4, showgrid=False)
    above = head(figure, written(title))
    longest = max(text_width(name, 12) for name in columns)
    below = 44 + (round(longest * 0.87) if len(columns) > 6 else 16)
    # Where labels leave less than 64 px, plotly takes from the margins, where the title is.
    height = min(max(len(rows) * 22, 96), 720)
    margin = {"t": above, "b": below + _SCALE, "l": LEFT + 66, "r": RIGHT, "pad": 0}
    place_scale(figure, below + 4)
    figure.update_layout(height=above + height + below + _SCALE, margin=margin, **STYLE)
    return figure


def _layers_shown(lens: Lens) -> list[int]:
    """Places of all layers, or of as many as keep the texts below _TEXTS."""
    count, most = len(lens.layers), max(int(_TEXTS / (_TEXT * len(lens.positions))), 2)
    places: list[int] = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()
    return places


def _raster(values: np.ndarray, lens: Lens) -> np.ndarray:
    """(row, column) of values by visual token, each cell as its token has it; nan where none was read."""
    layout = lens.prompt.layout
    known = layout.raster(np.isfinite(values).astype(float))
    weights = layout.raster(np.ones(len(values)))
    filled = layout.raster(np.nan_to_num(values))
    with np.errstate(divide="ignore", invalid="ignore"):
        result: np.ndarray = np.where(known > 0, filled / weights, np.nan)
    return result


def _layer_title(lens: Lens, layer: int) -> str:
    after = f"after layer {layer}" if layer >= 0 else "before layer 0"
    return written(f"Likeliest words of {lens.what} {after}")


def _value_name(lens: Lens) -> str:
    return "probability of the word" if lens.how == "logits" else "cosine with the word's embedding"


def _said(words: tuple[str, ...], values: Any) -> str:
    pairs = zip(words[:_HOVERED], values.tolist(), strict=False)
    return "<br>".join(f"{escape(word, quote=False)} {value:.1%}" for word, value in pairs)


def _short(word: str, width: float, size: float) -> str:
    """A word in a cell, escaped, cut where it is wider."""
    if text_width(word, size) > width:
        while word and text_width(word + ELLIPSIS, size) > width:
            word = word[:-1]
        word += ELLIPSIS if word else ""
    return escape(word, quote=False)


def _numbered(words: Sequence[str]) -> list[str]:
    return [word or "(space)" for word in words]


def _lens_static(lens: Lens) -> Markup:
    """Some tokens' likeliest words by layer, as a table."""
    layers = np.unique(np.linspace(0, len(lens.layers) - 1, min(len(lens.layers), _LISTED)).round().astype(int))
    tokens = np.unique(np.linspace(0, len(lens.positions) - 1, min(len(lens.positions), _LISTED)).round().astype(int))
    names = [lens.name_of(int(token)) for token in tokens]
    rows = [
        [
            str(lens.layers[layer]) if lens.layers[layer] >= 0 else "input",
            *(text(lens.words[layer][token][0]) for token in tokens),
            "",
        ]
        for layer in layers
    ]
    return card(type(lens).__name__, lens.facts(), below=table(["layer", *map(text, names), ""], rows))
