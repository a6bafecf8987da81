"""Pixels of regions, and what can be done to an image with them: hide what is outside, cut out, set views side by side."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter
from scipy.ndimage import distance_transform_edt

from ..errors import RegionError
from .regions import Box, Mask, Point, Region, Scribble

Pixels = tuple[int, int, int, int]
# What stands for pixels that are hidden.
FILLS = ("blur", "grey", "mean", "black")
# Images of fewer pixels a side are not taken by models.
LEAST_SIDE = 4


def pixels_of(region: Region, size: tuple[int, int], reach: float = 0.01) -> np.ndarray:
    """Boolean (height, width): the region's own pixels; of a scribble or point those around its line.

    Args:
        size: (width, height) of the image.
        reach: how far around a scribble or point, as a share of the image's longer side.

    Raises:
        RegionError: for a region that marks no pixel of the image.
    """
    region.check(*size)
    cover = region.cover(*size)
    if region.soft:
        mask = distance_transform_edt(cover == 0) <= reach * max(size)
    else:
        mask = cover > 0.5 if (cover > 0.5).any() else cover > 0
    if not mask.any():
        raise RegionError(f"A region must mark a pixel of the image to be drawn; {region!r} does not.")
    return mask


def pixels_of_all(regions: Sequence[Region], size: tuple[int, int], reach: float = 0.01) -> np.ndarray:
    """Boolean (height, width): the pixels of any of them; see `pixels_of`."""
    found: np.ndarray = np.any([pixels_of(region, size, reach) for region in regions], axis=0)
    return found


def hidden(image: Image.Image, mask: np.ndarray, fill: str, radius: float = 0.0) -> Image.Image:
    """The image with the pixels of a mask hidden; the others are untouched.

    Args:
        image: RGB image.
        mask: boolean (height, width), what is hidden.
        fill: "blur" (Gaussian), "grey" (their own brightness, without colour), "mean" (the mean colour of the whole image),
            or "black".
        radius: of the blur, in pixels.
    """
    if fill == "blur":
        other = image.filter(ImageFilter.GaussianBlur(radius))
    elif fill == "grey":
        other = image.convert("L").convert("RGB")
    else:
        other = Image.new("RGB", image.size, mean_color(image) if fill == "mean" else (0, 0, 0))
    found = image.copy()
    found.paste(other, mask=Image.fromarray(mask.astype(np.uint8) * 255))
    return found


def around(mask: np.ndarray, margin: float) -> Pixels:
    """Corners x0, y0, x1, y1 of the smallest rectangle around the marked pixels, with a margin, within the image.

    Args:
        mask: boolean (height, width).
        margin: on each side, as a share of the rectangle's own width and height.
    """
    height, width = mask.shape
    ys, xs = np.nonzero(mask)
    columns = _widened(int(xs.min()), int(xs.max()) + 1, width, margin)
    rows = _widened(int(ys.min()), int(ys.max()) + 1, height, margin)
    return columns[0], rows[0], columns[1], rows[1]


def _widened(low: int, high: int, side: int, margin: float) -> tuple[int, int]:
    more = max(margin * (high - low), (LEAST_SIDE - (high - low)) / 2)
    low, high = max(round(low - more), 0), min(round(high + more), side)
    # At the edge a narrow one reaches inwards.
    if high - low < LEAST_SIDE:
        low = max(min(low, side - LEAST_SIDE), 0)
        high = min(low + LEAST_SIDE, side)
    return low, high


def placed(region: Region, corners: Pixels, scale: float, offset: tuple[int, int], size: tuple[int, int]) -> Region | None:
    """Where a region is once a part of its image was enlarged and set into another; None where it is not in that part.

    Args:
        corners: of the part, in the region's image.
        scale: how much it is enlarged.
        offset: its upper left corner in the other image.
        size: (width, height) of the other image.
    """
    x0, y0, x1, y1 = corners

    def moved(x: float, y: float) -> tuple[float, float]:
        return ((min(max(x, x0), x1) - x0) * scale + offset[0], (min(max(y, y0), y1) - y0) * scale + offset[1])

    if isinstance(region, Mask):
        part = Image.fromarray(region.pixels[y0:y1, x0:x1].astype(np.uint8))
        wide = part.resize(
            (max(round(part.width * scale), 1), max(round(part.height * scale), 1)), Image.Resampling.NEAREST
        )
        canvas = Image.new("L", size)
        canvas.paste(wide, offset)
        return Mask(np.asarray(canvas)) if canvas.getextrema()[1] else None
    left, top, right, bottom = region.bounds
    if min(right, x1) < max(left, x0) or min(bottom, y1) < max(top, y0):
        return None
    if isinstance(region, Box):
        ends = *moved(left, top), *moved(right, bottom)
        return Box(*ends) if ends[0] < ends[2] and ends[1] < ends[3] else None
    points = [moved(x, y) for x, y in region.outline()[0]]
    return Point(*points[0]) if isinstance(region, Point) else Scribble(points)


def beside(image: Image.Image, corners: Pixels, regions: Sequence[Region]) -> tuple[Image.Image, tuple[Region, ...]]:
    """An image and a part of it, enlarged, in one picture of twice its sides: beside each other, or one below the other.

    The picture has the image's own proportions, as some models see the middle of a longer one only; the rest of it has
    the image's mean colour.

    Args:
        image: RGB image.
        corners: of the part.
        regions: in pixels of the image.

    Returns:
        The picture, and the regions as they are in both views.
    """
    width, height = image.size
    part = image.crop(corners)
    scale = min(width / part.width, height / part.height)
    enlarged = part.resize(
        (max(round(part.width * scale), 1), max(round(part.height * scale), 1)), Image.Resampling.BICUBIC
    )
    canvas = Image.new("RGB", (2 * width, 2 * height), mean_color(image))
    # A tall image has room at its side, a wide one below.
    across = width <= height
    first = (0, height // 2) if across else (width // 2, 0)
    free = ((width - enlarged.width) // 2, (height - enlarged.height) // 2)
    second = (width + free[0], height // 2 + free[1]) if across else (width // 2 + free[0], height + free[1])
    canvas.paste(image, first)
    canvas.paste(enlarged, second)
    views = ((0, 0, width, height), 1.0, first), (corners, scale, second)
    found = [placed(region, *view, canvas.size) for view in views for region in regions]
    return canvas, tuple(region for region in found if region is not None)


def mean_color(image: Image.Image) -> tuple[int, ...]:
    """The mean of an RGB image's pixels, rounded."""
    return tuple(np.asarray(image).reshape(-1, 3).mean(0).round().astype(int).tolist())
