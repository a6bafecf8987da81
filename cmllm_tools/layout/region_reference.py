"""How the published code of ControlMLLM and ControlMLLM++ (its commit 57e16e7) turns a region into token weights.

It marks pixels of the image, resizes that mask by nearest neighbour, and takes a sample for each token; only the pixels
that are sampled are computed here. What is rough in it is repeated: a box's corners are cut to whole pixels, of a scribble
only the given points are marked and not the lines between them, and distances are those of OpenCV's
`distanceTransform(DIST_L2, 5)`, up to 1.9 % off, in steps of 1/255.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from ..errors import RegionError
from ..inputs.regions import Mask, Point, Region, Scribble, Size
from .region_weights import overlaps

# Every mask is resized to this first, whatever the model's own resolution.
CROP = 224
# Lengths of a step to the side, along the diagonal, and of a knight's move.
_DIAGONAL, _KNIGHT = 1.4, 2.1969
Way = Literal["crop", "stretch", "touched"]

# Distances that are computed at once.
_AT_ONCE = 2**17


@dataclass(frozen=True, eq=False)
class PublishedGrid:
    """A layout that the published code knows.

    Args:
        way: "crop" (LLaVA: the shorter side to CROP, its centre), "stretch" (InstructBLIP: both sides to CROP) or "touched"
            (Qwen2.5-VL: a token that the region touches at all counts 1).
        image_size: (width, height) in pixels.
        grid: (rows, columns).
        boxes: (visual token, 4), corners in pixels.
    """

    way: Way
    image_size: Size
    grid: tuple[int, int]
    boxes: np.ndarray

    @property
    def sampled(self) -> tuple[np.ndarray, np.ndarray]:
        """Columns and rows of the image's pixels that become the grid's."""
        resized = self.image_size
        if self.way == "crop":
            short, long = sorted(self.image_size)
            other = int(CROP * long / short)
            resized = (CROP, other) if self.image_size[0] <= self.image_size[1] else (other, CROP)
        columns, rows = (
            _nearest(side, new if self.way == "crop" else CROP, count)
            for side, new, count in zip(self.image_size, resized, self.grid[::-1], strict=True)
        )
        return columns, rows


def _nearest(side: int, resized: int, count: int) -> np.ndarray:
    """Which of `side` pixels come out of a resize, a centre crop and a resize to `count`, as Pillow rounds."""
    line = Image.fromarray(np.arange(side, dtype=np.int32)[None]).resize((resized, 1), Image.Resampling.NEAREST)
    left = round((resized - CROP) / 2)
    line = line.crop((left, 0, left + CROP, 1)).resize((count, 1), Image.Resampling.NEAREST)
    result: np.ndarray = np.asarray(line)[0]
    return result


def inside(region: Region, grid: PublishedGrid) -> np.ndarray:
    """Weight of each visual token: (visual token,) float32, 0 or 1.

    Raises:
        RegionError: when no token gets any.
    """
    if grid.way == "touched":
        values = overlaps(region, grid.boxes, grid.image_size) > 1e-6
    else:
        values = _marked(region, *grid.sampled, grid.image_size).ravel()
    if not values.any():
        raise RegionError(
            f"No visual token's sample falls into {region!r} under the reference's nearest-neighbour mask. "
            "Use rule='area', which counts any overlap."
        )
    return values.astype(np.float32)


def distance(region: Region, grid: PublishedGrid) -> np.ndarray:
    """Distance of each visual token's sample to the nearest given point, over the largest on the image.

    Returns:
        (visual token,) float32 in steps of 1/255.

    Raises:
        RegionError: where the published code has no distances.
    """
    if not isinstance(region, Point | Scribble) or grid.way == "touched":
        what = "grids of the image's shape" if region.soft else "boxes and masks"
        raise RegionError(f"The published code has no distances for {what}; got {region!r}. Use rule='area'.")
    points = _given(region, grid.image_size)
    columns, rows = np.meshgrid(*grid.sampled)
    found = _to_nearest(np.stack([columns.ravel(), rows.ravel()], 1), points)
    return (np.rint(found * (255 / max(_largest(points, grid.image_size), 1e-12))) / 255).astype(np.float32)


def _marked(region: Region, columns: np.ndarray, rows: np.ndarray, size: Size) -> np.ndarray:
    """Whether the published code marks pixels: (row, column) bool."""
    if isinstance(region, Mask):
        return region.at(columns, rows)
    if isinstance(region, Point | Scribble):
        points = _given(region, size)
        return np.isin(rows[:, None] * size[0] + columns, points[:, 1] * size[0] + points[:, 0])
    x0, y0, x1, y1 = (int(value) for value in region.bounds)
    result: np.ndarray = np.logical_and.outer((rows >= y0) & (rows < y1), (columns >= x0) & (columns < x1))
    return result


def _given(region: Point | Scribble, size: Size) -> np.ndarray:
    """(n, 2): columns and rows of the pixels of a scribble's or a point's own points."""
    return np.unique(region.given(*size), axis=0)


def chamfer(across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Length of the shortest way of single, diagonal and knight's steps: OpenCV's distance with a mask of 5 x 5.

    In closed form, as between any two pixels there are no obstacles.
    """
    long, short = np.maximum(across, down), np.minimum(across, down)
    flat = long - 2 * short + _KNIGHT * short
    steep = _KNIGHT * (long - short) + _DIAGONAL * (2 * short - long)
    result: np.ndarray = np.where(2 * short <= long, flat, steep)
    return result


def _to_nearest(pixels: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(n,): distance of each pixel (n, 2) to the nearest point."""
    count = max(_AT_ONCE // len(points), 1)
    parts = [abs(pixels[at : at + count, None] - points) for at in range(0, len(pixels), count)]
    return np.concatenate([chamfer(part[..., 0], part[..., 1]).min(1) for part in parts])


def _largest(points: np.ndarray, size: Size) -> float:
    """The largest distance of any pixel of the image to its nearest point.

    Areas that cannot hold it are left out, and the others are cut into four, until they are single pixels.
    """
    low, high, best = np.array([[0, 0]]), np.array([size]) - 1, 0.0
    while len(low):
        centre = (low + high) // 2
        found = _to_nearest(centre, points)
        best = max(best, float(found.max()))
        reach = (np.maximum(centre - low, high - centre)).T
        open_ = (found + chamfer(*reach) > best + 1e-9) & (high > low).any(1)
        low, high, centre = low[open_], high[open_], centre[open_]
        quarters = [
            (np.where(far, centre + 1, low), np.where(far, high, centre))
            for far in ([False, False], [True, False], [False, True], [True, True])
        ]
        low, high = (np.concatenate(corners) for corners in zip(*quarters, strict=True))
        real = (low <= high).all(1)
        low, high = low[real], high[real]
    return best
