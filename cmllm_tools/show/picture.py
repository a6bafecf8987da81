"""Small pictures for static HTML, drawn here: an image, a map on it, visual tokens and regions outlined."""

import base64
from collections.abc import Iterable, Sequence
from io import BytesIO

import numpy as np
from markupsafe import Markup
from PIL import Image, ImageDraw

from ..inputs.regions import Region
from ..layout.visual_tokens import VisualTokenLayout, grid_boxes
from .palette import BLANK, DIM, LESS, LINE, MORE, OPACITY, RIM, SHADE, ramp, rgb

# Longest side of a picture, in pixels: as shown, and as drawn, so that lines stay sharp on dense screens. One of extreme
# shape is up to twice as long, or it would be a strip.
SHOWN, DRAWN = 220, 440
# Pixels of the copy of an image that a figure holds, and its longest side.
COPY_PIXELS, COPY_SIDE = 512 * 512, 1024
# A picture that is larger than this as PNG (a photograph) is stored as JPEG.
PNG_BYTES = 24_000
# Points of a line from which on it is drawn without care for each.
_MANY = 500
# Of the thin lines around visual tokens, 0..255.
_LINE_OPACITY, _RIM_OPACITY = 200, 110


def picture(
    size: tuple[int, int],
    image: Image.Image | np.ndarray | None = None,
    *,
    cells: np.ndarray | None = None,
    heat: np.ndarray | None = None,
    signed: bool = False,
    opaque: bool = False,
    boxes: np.ndarray | None = None,
    regions: Iterable[Region] = (),
    caption: str = "",
    longest: int = SHOWN,
) -> Markup:
    """A small picture as an `<img>`: the image, a map on it, boxes, regions.

    Args:
        size: (width, height) of the user's image, in whose pixels all positions are.
        image: a copy of it of any size; light grey when None.
        cells: (row, column, 4), corners of the map's cells.
        heat: (row, column) in 0..1, or -1..1 when `signed`: blue for less and vermilion for more, clear at 0; clear where
            it is not a number. The image is dimmed below it, and more where it has no cells.
        opaque: whether the heat hides the image.
        boxes: (n, 4), corners to draw thinly.
        regions: to outline.
        caption: text below, also the alternative text.
        longest: its longer side as shown, in pixels.
    """
    drawn_at = DRAWN * longest / SHOWN
    scale = min(max(max(size) / min(size) / 2, 1.0), 2.0) * drawn_at / max(size)
    drawn = (max(round(size[0] * scale), 1), max(round(size[1] * scale), 1))
    canvas = _background(image, drawn)
    if heat is not None and cells is not None:
        below = canvas if image is None else dimmed(canvas, cells[0, 0, :2] * scale, cells[-1, -1, 2:] * scale)
        layer = _heat(heat, cells * scale, drawn, signed, opaque)
        canvas = Image.alpha_composite(below.convert("RGBA"), layer).convert("RGB")
    draw = ImageDraw.Draw(canvas, "RGBA")
    thin_rim, thin_line = (*rgb(RIM), _RIM_OPACITY), (*rgb(LINE), _LINE_OPACITY)
    for x0, y0, x1, y1 in boxes * scale if boxes is not None else ():
        for offset, color in ((1, thin_rim), (0, thin_line)):
            draw.rectangle((x0 + offset, y0 + offset, max(x1, x0) + offset, max(y1, y0) + offset), outline=color)
    draw_outlines(canvas, list(regions), scale, 4)
    shown = max(round(drawn[0] * SHOWN / DRAWN), 1)
    tag = Markup('<img src="{}" width="{}" style="max-width:none" alt="{}">').format(data_uri(canvas), shown, caption)
    return tag + Markup("<br>") + caption if caption else tag


def map_picture(
    values: np.ndarray,
    layout: VisualTokenLayout,
    image: Image.Image | np.ndarray | None = None,
    *,
    top: float | None = None,
    signed: bool = False,
    boxes: np.ndarray | None = None,
    regions: Iterable[Region] = (),
    caption: str = "",
    longest: int = SHOWN,
) -> Markup:
    """A picture of a map on its image.

    Args:
        values: (row, column), as `VisualTokenLayout.raster` gives them.
        layout: where each visual token looks.
        top: the value of the last color; the map's highest when None.
        image, signed, boxes, regions, caption, longest: as in `picture`.
    """
    heat = values / max(values.max() if top is None else top, 1e-30)
    return picture(
        layout.image_size,
        image,
        cells=layout.cells,
        heat=heat,
        signed=signed,
        boxes=boxes,
        regions=regions,
        caption=caption,
        longest=longest,
    )


def grid_picture(
    values: np.ndarray, caption: str, *, top: float | None = None, regions: Iterable[Region] = (), signed: bool = False
) -> Markup:
    """A picture of (row, column) values, one cell to each; the highest, or `top`, is brightest; none where nan.

    When `signed`, what is below 0 has another colour, and the furthest from 0 is the strongest.
    """
    rows, columns = values.shape
    if top is None:
        top = float(np.nan_to_num(np.abs(values) if signed else values).max())
    return picture(
        (columns, rows),
        cells=grid_boxes((0, 0, columns, rows), values.shape).reshape(rows, columns, 4),
        heat=values / max(top, 1e-30),
        signed=signed,
        opaque=not signed,
        regions=regions,
        caption=caption,
    )


def draw_outlines(canvas: Image.Image, regions: Sequence[Region], scale: float, width: int) -> None:
    """Draw regions onto an image, as lines with a rim: seen on any image and any colour of a map.

    Args:
        canvas: RGB.
        regions: in pixels of the user's image.
        scale: the canvas's pixels to one of that image.
        width: of a line, in pixels of the canvas.
    """
    draw = ImageDraw.Draw(canvas)
    for color, rim in ((RIM, 1 + width / 4), (LINE, 0)):
        for region in regions:
            for points in region.outline():
                scaled = _apart([(x * scale, y * scale) for x, y in points])
                many = len(scaled) > _MANY
                if len(scaled) > 1:
                    draw.line(scaled, fill=color, width=round(width + 2 * rim), joint=None if many else "curve")
                # Of many dots, those that lie on one another are drawn once.
                near = 2 * width
                dots = list({(x // near, y // near): (x, y) for x, y in scaled}.values()) if many else scaled
                for x, y in dots if region.soft else ():
                    radius = 1 + 1.25 * width + rim
                    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)


def _apart(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A line's points without those less than a pixel from the one before, which a long one has in thousands."""
    kept = points[:1]
    for x, y in points[1:-1]:
        if abs(x - kept[-1][0]) >= 1 or abs(y - kept[-1][1]) >= 1:
            kept.append((x, y))
    return kept + points[1:][-1:]


def data_uri(image: Image.Image) -> str:
    """The image as a data URI: PNG where that is small, else JPEG."""
    # Of a photograph the first, quick try tells already: to compress it well takes ten times as long, in vain.
    data = _written(image, "PNG", compress_level=1)
    if len(data) <= 2 * PNG_BYTES:
        data = _written(image, "PNG")
    kind = "png"
    if len(data) > PNG_BYTES:
        data, kind = _written(image.convert("RGB"), "JPEG", quality=85), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _written(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


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


def _background(image: Image.Image | np.ndarray | None, size: tuple[int, int]) -> Image.Image:
    if image is None:
        return Image.new("RGB", size, BLANK)
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    # The draft of a large photograph is enough, and reducing first keeps the resize quick.
    return picture.convert("RGB").resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def _colors(heat: np.ndarray, signed: bool, opaque: bool) -> np.ndarray:
    """(row, column, 4) uint8 RGBA."""
    known, heat = np.isfinite(heat), np.nan_to_num(heat)
    if not signed:
        colors = ramp()[np.round(255 * np.clip(heat, 0, 1)).astype(int)]
        if opaque:
            colors[..., 3] = np.where(known, 255, 0)
        result: np.ndarray = colors
        return result
    color = np.where(heat[..., None] < 0, rgb(LESS), rgb(MORE))
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
