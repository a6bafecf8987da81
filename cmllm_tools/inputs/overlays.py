"""Visual prompts drawn onto the image: the eight overlays of ViP-LLaVA (Cai et al., CVPR 2024, section 3)."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..errors import RegionError

OVERLAYS = ("rectangle", "ellipse", "point", "scribble", "triangle", "mask", "mask contour", "arrow")

COLORS = {
    "red": (255, 0, 0),
    "lime": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "fuchsia": (255, 0, 255),
    "aqua": (0, 255, 255),
    "orange": (255, 165, 0),
    "purple": (128, 0, 128),
    "gold": (255, 215, 0),
}

# How text refers to what each overlay marks, of a colour.
PHRASES = {
    "rectangle": "within the {color} rectangle",
    "ellipse": "within the {color} ellipse",
    "point": "at the {color} point",
    "scribble": "with the {color} scribble",
    "triangle": "with the {color} triangle",
    "mask": "with the {color} mask",
    "mask contour": "with the {color} mask contour",
    "arrow": "pointed to by the {color} arrow",
}
# Line widths in pixels of an image whose longer side is 336.
LINE_WIDTHS = {
    "rectangle": (2, 8),
    "ellipse": (2, 8),
    "triangle": (2, 8),
    "scribble": (2, 12),
    "arrow": (1, 6),
    "mask contour": (1, 2),
}
ALPHA = (96, 255)
MASK_ALPHA = (48, 128)


def draw_overlay(
    image: Image.Image,
    mask: np.ndarray,
    kind: str,
    rng: np.random.Generator,
    *,
    color: str | None = None,
    alpha: int | None = None,
    scale: float | None = None,
    min_line: float = 1.0,
) -> Image.Image:
    """Blend one overlay that marks the object under `mask` onto a copy of `image`.

    Args:
        image: RGB image.
        mask: boolean (height, width), the object's pixels.
        kind: one of `OVERLAYS`.
        rng: draws what is left open (color, alpha, line width, free geometry).
        color: a name in `COLORS`; drawn at random when None.
        alpha: opacity in 0..255; drawn from the published range when None.
        scale: factor on the published sizes; max(width, height) / 336 when None.
        min_line: smallest line width in pixels, for images far below 336 px.

    Returns:
        An RGB image of the same size.

    Raises:
        RegionError: for an unknown overlay or color, or a mask that is empty or of another size.
    """
    if kind not in OVERLAYS:
        raise RegionError(f"An overlay must be one of {', '.join(OVERLAYS)}; got {kind!r}.")
    if color is not None and color not in COLORS:
        raise RegionError(f"An overlay's color must be one of {', '.join(COLORS)}; got {color!r}.")
    mask = np.asarray(mask, bool)
    if mask.shape != image.size[::-1] or not mask.any():
        raise RegionError(
            f"The mask must mark at least one pixel of an image of {image.width} x {image.height} px; "
            f"got shape {mask.shape} with {int(mask.sum())} pixels set."
        )
    rgb = COLORS[color or str(rng.choice(list(COLORS)))]
    if alpha is None:
        alpha = int(rng.integers(*(MASK_ALPHA if kind == "mask" else ALPHA), endpoint=True))
    scale = max(image.size) / 336 if scale is None else scale
    stencil = Image.new("L", image.size, 0)
    width = 0
    if kind in LINE_WIDTHS:
        width = round(max(min_line, rng.uniform(*LINE_WIDTHS[kind]) * scale, 1))
    _DRAW[kind](stencil, mask, width, scale, rng)
    stencil = stencil.point([value * alpha // 255 for value in range(256)])
    marked = image.convert("RGB")
    marked.paste(Image.new("RGB", image.size, rgb), mask=stencil)
    return marked


def _bounds(mask: np.ndarray) -> tuple[float, float, float, float]:
    ys, xs = np.nonzero(mask)
    return float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())


def _points_in(mask: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    ys, xs = np.nonzero(mask)
    chosen = rng.integers(0, len(xs), count)
    return np.stack([xs[chosen], ys[chosen]], axis=1).astype(float)


def _rectangle(stencil: Image.Image, mask: np.ndarray, width: int, scale: float, rng: np.random.Generator) -> None:
    x0, y0, x1, y1 = _bounds(mask)
    ImageDraw.Draw(stencil).rectangle((x0 - width, y0 - width, x1 + width, y1 + width), outline=255, width=width)


def _ellipse(stencil: Image.Image, mask: np.ndarray, width: int, scale: float, rng: np.random.Generator) -> None:
    x0, y0, x1, y1 = _bounds(mask)
    grow_x, grow_y = ((rng.uniform(1.0, 1.5) - 1) / 2 * side + width for side in (x1 - x0, y1 - y0))
    ImageDraw.Draw(stencil).ellipse((x0 - grow_x, y0 - grow_y, x1 + grow_x, y1 + grow_y), outline=255, width=width)


def _point(stencil: Image.Image, mask: np.ndarray, width: int, scale: float, rng: np.random.Generator) -> None:
    radius = max(rng.uniform(5, 20) * scale, 2)
    (x, y), *_ = _points_in(mask, 1, rng)
    ImageDraw.Draw(stencil).ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)


def _scribble(stencil: Image.Image, mask: np.ndarray, width: int, scale: float, rng: np.random.Generator) -> None:
    ImageDraw.Draw(stencil).line(
        [tuple(point) for point in bezier(_points_in(mask, 4, rng))], fill=255, width=width, joint="curve"
    )


def bezier(controls: np.ndarray, count: int = 24) -> np.ndarray:
    """Points (count, 2) along the cubic Bezier curve with `controls` (4, 2)."""
    t = np.linspace(0, 1, count)[:, None]
    weights = np.concatenate([(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3], axis=1)
    result: np.ndarray = weights @ controls
    return result


def _triangle(stencil: Image.Image, mask: np.ndarray, width: int, scale: float, rng: np.random.Generator) -> None:
    x0, y0, x1, y1 = _bounds(mask)
    low, span = np.array([x0, y0]) - width, np.array([x1 - x0, y1 - y0]) + 2 * width
    for _ in range(50):
        corners = low + rng.uniform(0, 1, (3, 2)) * span
        if _largest_angle(corners) <= 150 and _area(corners) >= 0.15 * span.prod():
            break
    else:
        corners = low + np.array([[0.5, 0.0], [0.0, 1.0], [1.0, 1.0]]) * span
    ring = [tuple(corner) for corner in (*corners, corners[0], corners[1])]
    ImageDraw.Draw(stencil).line(ring, fill=255, width=width, joint="curve")


def _area(corners: np.ndarray) -> float:
    (ax, ay), (bx, by) = corners[1] - corners[0], corners[2] - corners[0]
    return float(abs(ax * by - ay * bx) / 2)


def _largest_angle(corners: np.ndarray) -> float:
    """Largest inner angle of a triangle in degrees; 180 when it is degenerate."""
    a, b, c = (np.linalg.norm(corners[i] - corners[i - 1]) for i in range(3))
    longest, one, other = sorted((a, b, c), reverse=True)
    if one * other == 0:
        return 180.0
    return math.degrees(math.acos(np.clip((one**2 + other**2 - longest**2) / (2 * one * other), -1, 1)))


def _mask(stencil: Image.Image, mask: np.ndarray, width: int, scale: float, rng: np.random.Generator) -> None:
    stencil.paste(255, mask=Image.fromarray(mask.astype(np.uint8) * 255))


def _mask_contour(stencil: Image.Image, mask: np.ndarray, width: int, scale: float, rng: np.random.Generator) -> None:
    solid = Image.fromarray(mask.astype(np.uint8) * 255)
    grown = solid.filter(ImageFilter.MaxFilter(2 * width + 1))
    stencil.paste(255, mask=Image.fromarray(np.asarray(grown) & ~np.asarray(solid)))


def _arrow(stencil: Image.Image, mask: np.ndarray, width: int, scale: float, rng: np.random.Generator) -> None:
    (x, y), *_ = _points_in(mask, 1, rng)
    length, angle = rng.uniform(25, 50) * scale, rng.uniform(0, 2 * math.pi)
    length = max(length, 4 * width)
    head = max(rng.uniform(0.2, 0.5) * length, 2.5 * width)
    direction = np.array([math.cos(angle), math.sin(angle)])
    normal = np.array([-direction[1], direction[0]])
    tip = np.array([x, y])
    neck, tail = tip + head * direction, tip + length * direction
    draw = ImageDraw.Draw(stencil)
    draw.line([tuple(neck), tuple(tail)], fill=255, width=width)
    draw.polygon([tuple(tip), tuple(neck + 0.6 * head * normal), tuple(neck - 0.6 * head * normal)], fill=255)


_DRAW = {
    "rectangle": _rectangle,
    "ellipse": _ellipse,
    "point": _point,
    "scribble": _scribble,
    "triangle": _triangle,
    "mask": _mask,
    "mask contour": _mask_contour,
    "arrow": _arrow,
}
