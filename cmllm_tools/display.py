"""Static HTML of results for notebooks: plain functions that take plain data and return escaped strings.

Only tables and `<img>` with their data inside are needed to read the result: GitHub strips scripts and style sheets from
notebooks, and one reopened without a kernel has nothing to ask. Each class's `_repr_html_` is a few lines over these.
"""

import base64
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw

# (label, value); a fact that explains itself has an empty label.
Fact = tuple[str, str]
# Polylines (x, y) in pixels of the image, and whether their points are to be marked.
Outline = tuple[Sequence[Sequence[tuple[float, float]]], bool]

# Viridis, from little to much: perceptually uniform, and told apart with any colour vision. Without its darkest third,
# which over a photograph is a shade and no colour.
VIRIDIS = ("31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725")
# How strongly a map is drawn. The opacity rises steeply, so that a tenth of the maximum is seen already.
OPACITY, RISE = 0.8, 0.4
# The photograph below a map of full strength loses its colour, so that green shows on green, and this much of its
# brightness; where the model does not look, this much of what is left. Widgets have the same from `picture_data`.
DIM, SHADE = 0.2, 0.6
# Okabe and Ito's blue, vermilion, green, purple and orange, told apart with any colour vision, and a grey for their black,
# which is not seen on black.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#808080"
BAR_COLOR = (0xD5, 0x5E, 0x00)
# For less than nothing.
LESS_COLOR = (0x00, 0x72, 0xB2)
BAR_WIDTH = 80
# Longest side of a picture, in pixels: as shown, and as drawn, so that lines stay sharp on dense screens. One of extreme
# shape is up to twice as long, or it would be a strip.
SHOWN, DRAWN = 220, 440
# Pixels of the copy of an image that a figure holds, and its longest side.
COPY_PIXELS, COPY_SIDE = 512 * 512, 1024
# A picture that is larger than this as PNG (a photograph) is stored as JPEG.
PNG_BYTES = 24_000
# Points of a line from which on it is drawn without care for each.
_MANY = 500
# Pictures in a row: more are wider than a notebook's output in a window of 700 px.
COLUMNS = 2
# Longer values are folded.
FOLD = 240


class Html(str):
    """Text that is HTML already. Any other string is escaped before it enters a page."""

    __slots__ = ()

    def __html__(self) -> str:
        """As templates know it."""
        return self


def html(text: object) -> Html:
    """Escape, unless it is HTML already."""
    return text if isinstance(text, Html) else Html(escape(str(text)))


def one_line(name: str, facts: Iterable[Fact]) -> str:
    """Facts as a one-line repr: `Name(value, label value)`; what `card` shows as a table."""
    return f"{name}({', '.join(f'{label} {value}'.strip() for label, value in facts)})"


def card(title: str, facts: Iterable[Fact], *pictures: Html, below: Html | None = None) -> Html:
    """A result: its title, pictures side by side, COLUMNS in a row, and a table of facts beside the first."""
    listed = "".join(_fact_row(label, value) for label, value in facts)
    rows = [list(pictures[at : at + COLUMNS]) for at in range(0, len(pictures), COLUMNS)] or [[]]
    if listed:
        rows[0].append(Html(f"<table>{listed}</table>"))
    body = "".join(f"<tr>{''.join(f'<td {_TOP}>{cell}</td>' for cell in row)}</tr>" for row in rows if row)
    beside = f"<table>{body}</table>" if body else ""
    return Html(f"<div><b>{html(title)}</b>{beside}{below or ''}</div>")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """A table with a row of headings; the last column is text, the others are numbers, or bars."""

    def row(cells: Sequence[object], tag: str) -> str:
        sides = [_LEFT if isinstance(cell, Html) else _RIGHT for cell in cells[:-1]] + [_LEFT]
        return "".join(f"<{tag} {side}>{html(cell)}</{tag}>" for cell, side in zip(cells, sides, strict=True))

    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    return Html(f"<table><thead><tr>{row(head, 'th')}</tr></thead><tbody>{body}</tbody></table>")


def bar(share: float) -> Html:
    """A bar as long as `share` (0..1) of BAR_WIDTH.

    An image, as it must be seen where styles are stripped; of its own size, as notebooks override the height asked for.
    """
    width = round(BAR_WIDTH * min(max(share, 0.0), 1.0))
    return Html(f'<img src="{_bar(width)}" alt="">' if width else "")


def picture(
    size: tuple[int, int],
    image: Image.Image | np.ndarray | None = None,
    *,
    cells: np.ndarray | None = None,
    heat: np.ndarray | None = None,
    signed: bool = False,
    opaque: bool = False,
    boxes: np.ndarray | None = None,
    outlines: Iterable[Outline] = (),
    caption: str = "",
) -> Html:
    """A small picture as an `<img>`: the image, a map on it, boxes, regions.

    Args:
        size: (width, height) of the user's image, in whose pixels all positions are.
        image: a copy of it of any size; light grey when None.
        cells: (row, column, 4), corners of the map's cells.
        heat: (row, column) in 0..1, or -1..1 when `signed`: blue for less and vermilion for more, clear at 0; clear where
            it is not a number. The image is dimmed below it, and more where it has no cells.
        opaque: whether the heat hides the image.
        boxes: (n, 4), corners to draw thinly.
        outlines: of regions.
        caption: text below, also the alternative text.
    """
    longest = min(max(max(size) / min(size) / 2, 1.0), 2.0)
    scale = longest * DRAWN / max(size)
    drawn = (max(round(size[0] * scale), 1), max(round(size[1] * scale), 1))
    canvas = _background(image, drawn)
    if heat is not None and cells is not None:
        below = canvas if image is None else dimmed(canvas, cells[0, 0, :2] * scale, cells[-1, -1, 2:] * scale)
        layer = _heat(heat, cells * scale, drawn, signed, opaque)
        canvas = Image.alpha_composite(below.convert("RGBA"), layer).convert("RGB")
    draw = ImageDraw.Draw(canvas, "RGBA")
    for x0, y0, x1, y1 in boxes * scale if boxes is not None else ():
        for offset, color in ((1, (0, 0, 0, 110)), (0, (255, 255, 255, 200))):
            draw.rectangle((x0 + offset, y0 + offset, max(x1, x0) + offset, max(y1, y0) + offset), outline=color)
    _draw_outlines(draw, list(outlines), scale)
    shown = max(round(drawn[0] * SHOWN / DRAWN), 1)
    tag = f'<img src="{data_uri(canvas)}" width="{shown}" style="max-width:none" alt="{escape(caption)}">'
    return Html(f"{tag}<br>{html(caption)}" if caption else tag)


def data_uri(image: Image.Image) -> str:
    """The image as a data URI: PNG where that is small, else JPEG."""
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=True)
    kind = "png"
    if buffer.tell() > PNG_BYTES:
        buffer, kind = BytesIO(), "jpeg"
        image.convert("RGB").save(buffer, "JPEG", quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def small(image: Image.Image) -> Image.Image:
    """An RGB copy of at most COPY_PIXELS pixels and COPY_SIDE a side: what a figure holds of a photograph."""
    width, height = image.size
    scale = min((COPY_PIXELS / (width * height)) ** 0.5, COPY_SIDE / max(width, height), 1.0)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return image.convert("RGB").resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def dimmed(image: Image.Image, low: np.ndarray, high: np.ndarray) -> Image.Image:
    """An RGB image for a map to lie on: pale, so that the map's colours are the only strong ones.

    Args:
        image: RGB.
        low, high: corners (x, y) of what the model sees, in its pixels; the rest is darker.
    """
    colors = np.asarray(image, np.float32)
    grey = colors @ np.array([0.299, 0.587, 0.114], np.float32)
    pale = ((1 - OPACITY) * colors + OPACITY * grey[..., None]) * (1 - DIM * OPACITY)
    (x0, y0), (x1, y1) = np.maximum(np.round(low), 0).astype(int), np.maximum(np.round(high), 0).astype(int)
    dark = pale * (1 - SHADE)
    dark[y0:y1, x0:x1] = pale[y0:y1, x0:x1]
    return Image.fromarray(dark.astype(np.uint8))


@cache
def palette() -> np.ndarray:
    """(256, 4) uint8 RGBA, from little to much. It starts transparent, so that the image shows where attention is low."""
    anchors = np.array([[int(color[at : at + 2], 16) for at in (0, 2, 4)] for color in VIRIDIS])
    at = np.linspace(0, 1, 256)
    channels = [np.interp(at, np.linspace(0, 1, len(anchors)), channel) for channel in anchors.T]
    return np.round(np.stack([*channels, 255 * OPACITY * at**RISE], 1)).astype(np.uint8)


_TOP = 'valign="top" align="left" style="vertical-align:top;text-align:left"'
# Beside pictures there may be little room, also for a long name.
_VALUE = 'align="left" style="text-align:left;overflow-wrap:anywhere"'
_LEFT, _RIGHT = ('align="left" style="text-align:left"', 'align="right" style="text-align:right"')


def _fact_row(label: str, value: str) -> str:
    text = html(value)
    if len(value) > FOLD:
        text = Html(f"<details><summary>{html(value[: FOLD // 2])} ...</summary>{text}</details>")
    if not label:
        return f'<tr><td colspan="2" {_LEFT}>{text}</td></tr>'
    return f"<tr><th {_LEFT}>{html(label)}</th><td {_VALUE}>{text}</td></tr>"


@cache
def _bar(width: int) -> str:
    return data_uri(Image.new("RGB", (width, 9), BAR_COLOR))


def _background(image: Image.Image | np.ndarray | None, size: tuple[int, int]) -> Image.Image:
    if image is None:
        return Image.new("RGB", size, (225, 225, 225))
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    # The draft of a large photograph is enough, and reducing first keeps the resize quick.
    return picture.convert("RGB").resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def _colors(heat: np.ndarray, signed: bool, opaque: bool) -> np.ndarray:
    """(row, column, 4) uint8 RGBA."""
    known, heat = np.isfinite(heat), np.nan_to_num(heat)
    if not signed:
        colors = palette()[np.round(255 * np.clip(heat, 0, 1)).astype(int)]
        if opaque:
            colors[..., 3] = np.where(known, 255, 0)
        result: np.ndarray = colors
        return result
    color = np.where(heat[..., None] < 0, LESS_COLOR, BAR_COLOR)
    return np.dstack([color, np.round(255 * OPACITY * np.clip(abs(heat), 0, 1))]).astype(np.uint8)


def _heat(
    heat: np.ndarray, cells: np.ndarray, size: tuple[int, int], signed: bool = False, opaque: bool = False
) -> Image.Image:
    """The map as an RGBA image: each pixel takes the colour of the cell that its centre lies in."""
    rows = _cell_of(np.append(cells[:, 0, 1], cells[-1, 0, 3]), size[1])
    columns = _cell_of(np.append(cells[0, :, 0], cells[0, -1, 2]), size[0])
    pixels = _colors(heat, signed, opaque)[np.ix_(rows, columns)]
    pixels[rows < 0] = 0
    pixels[:, columns < 0] = 0
    return Image.fromarray(pixels)


def _cell_of(edges: np.ndarray, pixels: int) -> np.ndarray:
    """Number of the cell that each pixel's centre lies in, -1 for none."""
    cell = np.searchsorted(edges, np.arange(pixels) + 0.5, side="right") - 1
    return np.where(cell < len(edges) - 1, cell, -1)


def _draw_outlines(draw: ImageDraw.ImageDraw, outlines: Sequence[Outline], scale: float) -> None:
    """White lines with a dark rim: visible on any image and any colour of the map."""
    for color, extra in (("black", 4), ("white", 0)):
        for lines, marked in outlines:
            for points in lines:
                scaled = _apart([(x * scale, y * scale) for x, y in points])
                many = len(scaled) > _MANY
                if len(scaled) > 1:
                    draw.line(scaled, fill=color, width=4 + extra, joint=None if many else "curve")
                # Of many dots, those that lie on one another are drawn once.
                dots = list({(x // 8, y // 8): (x, y) for x, y in scaled}.values()) if many else scaled
                for x, y in dots if marked else ():
                    radius = 6 + extra / 2
                    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)


def _apart(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A line's points without those less than a pixel from the one before, which a long one has in thousands."""
    kept = points[:1]
    for x, y in points[1:-1]:
        if abs(x - kept[-1][0]) >= 1 or abs(y - kept[-1][1]) >= 1:
            kept.append((x, y))
    return kept + points[1:][-1:]
