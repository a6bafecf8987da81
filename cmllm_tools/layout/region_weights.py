"""How much of a region each box on an image holds, exactly, and how far from it each is, on a raster of bounded size."""

import numpy as np
from scipy.ndimage import distance_transform_edt

from ..inputs.regions import Region, Size

# Distances are measured on at least this many pixels of the longer side: much finer than a visual token.
DISTANCE_PIXELS = 256
# On no more than these, where tokens are tiny.
MOST_PIXELS = 1024
# As many corners are held at once.
_CORNERS = 2**18


def overlaps(region: Region, boxes: np.ndarray, size: Size) -> np.ndarray:
    """Area of the region in each box, as far as that is on the image: (box,), in square pixels.

    Args:
        region: on the image.
        boxes: (box, 4), corners x0, y0, x1, y1 in pixels.
        size: (width, height) of the image.
    """
    boxes = clipped(boxes, size)
    xs, columns = np.unique(boxes[:, ::2], return_inverse=True)
    ys, rows = np.unique(boxes[:, 1::2], return_inverse=True)
    if len(xs) * len(ys) > _CORNERS and len(boxes) > 1:
        half = len(boxes) // 2
        return np.concatenate([overlaps(region, part, size) for part in (boxes[:half], boxes[half:])])
    areas = region.areas(xs, ys, size)
    (left, right), (upper, lower) = columns.reshape(-1, 2).T, rows.reshape(-1, 2).T
    result: np.ndarray = areas[lower, right] - areas[upper, right] - areas[lower, left] + areas[upper, left]
    return result


def shares(region: Region, boxes: np.ndarray, size: Size) -> np.ndarray:
    """Share of each box that is in the region, of what is on the image: (box,) float32 in 0..1; 0 where none is."""
    return _per_area(overlaps(region, boxes, size), clipped(boxes, size)).clip(0, 1)


def share_in(region: Region, seen: tuple[float, ...], size: Size) -> float:
    """Share of the region that lies in a box; of a scribble on a large image, to within a square of a raster.

    Args:
        region: on the image.
        seen: corners in pixels.
        size: (width, height) of the image.
    """
    boxes = np.array([(0, 0, *size), seen])
    if region.soft and max(size) > MOST_PIXELS:
        # Its lines may be longer than can be drawn pixel by pixel in no time.
        step = -(-max(size) // MOST_PIXELS)
        whole, inside = _box_sums(region.touched(step, size), boxes / step)
    else:
        whole, inside = overlaps(region, boxes, size)
    return float(inside) / float(whole)


def distances(region: Region, boxes: np.ndarray, seen: tuple[float, ...], size: Size) -> np.ndarray:
    """Mean distance of each box's pixels to the drawn ones, as a share of the largest in view: (box,) float32.

    Measured pixel by pixel on images up to twice DISTANCE_PIXELS, and on squares of pixels above, never larger than half a
    box: an image of any size costs the same.

    Args:
        region: on the image.
        boxes: (box, 4), corners in pixels.
        seen: corners of the part in view.
        size: (width, height) of the image.
    """
    boxes = clipped(boxes, size)
    step = _step(boxes, size)
    distance = distance_transform_edt(~region.touched(step, size))
    x0, y0, x1, y1 = (value / step for value in seen)
    view = distance[int(y0) : max(int(np.ceil(y1)), int(y0) + 1), int(x0) : max(int(np.ceil(x1)), int(x0) + 1)]
    return _per_area(_box_sums(distance / max(view.max(), 1e-12), boxes / step), boxes / step)


def _step(boxes: np.ndarray, size: Size) -> int:
    """Pixels to a side of a square of the raster."""
    half = np.median(boxes[:, 2:] - boxes[:, :2], axis=0).min() / 2
    return int(max(min(max(size) // DISTANCE_PIXELS, half), -(-max(size) // MOST_PIXELS)))


def clipped(boxes: np.ndarray, size: Size) -> np.ndarray:
    """The boxes' parts on an image of (width, height)."""
    result: np.ndarray = np.clip(boxes, 0, [*size] * 2)
    return result


def _per_area(sums: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    result: np.ndarray = np.divide(sums, area, out=np.zeros(len(boxes)), where=area > 0).astype(np.float32)
    return result


def _box_sums(values: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Integral of a (height, width) array, constant within each pixel, over boxes (n, 4) given in its pixels."""
    integral = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    np.cumsum(np.cumsum(values, 0, dtype=float), 1, out=integral[1:, 1:])

    def at(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        column = np.clip(np.floor(x).astype(int), 0, values.shape[1] - 1)
        row = np.clip(np.floor(y).astype(int), 0, values.shape[0] - 1)
        right, down = x - column, y - row
        upper = integral[row, column] * (1 - right) + integral[row, column + 1] * right
        lower = integral[row + 1, column] * (1 - right) + integral[row + 1, column + 1] * right
        result: np.ndarray = upper * (1 - down) + lower * down
        return result

    x0, y0, x1, y1 = boxes.T
    result: np.ndarray = at(x1, y1) - at(x0, y1) - at(x1, y0) + at(x0, y0)
    return result
