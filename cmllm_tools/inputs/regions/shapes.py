"""Regions drawn with a few coordinates: box, scribble, point."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...errors import RegionError
from ...strict import several, shown
from .base import Region, Size, between_pixels, coordinates, image_size, raster_size, shift


@dataclass(frozen=True)
class Box(Region):
    """A rectangle from corner (x0, y0) to corner (x1, y1), in pixels; fractions count.

    Numbers of Python and numpy and tensors of one number are taken, and kept as Python's.

    Raises:
        RegionError: unless all four are finite and x0 < x1, y0 < y1.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        corners = coordinates((self.x0, self.y0, self.x1, self.y1), "A box needs four finite numbers x0, y0, x1, y1")
        for name, value in zip(("x0", "y0", "x1", "y1"), corners, strict=True):
            object.__setattr__(self, name, value)
        if self.x0 >= self.x1 or self.y0 >= self.y1:
            raise RegionError(
                f"A box needs x0 < x1 and y0 < y1; got x {self.x0:g}..{self.x1:g}, y {self.y0:g}..{self.y1:g}. "
                "Give the top left corner first."
            )

    def check(self, width: int, height: int) -> None:
        width, height = image_size(width, height)
        if self.x0 < 0 or self.y0 < 0 or self.x1 > width or self.y1 > height:
            raise RegionError(
                f"A box must lie within the image of {width} x {height} px; "
                f"got x {self.x0:g}..{self.x1:g}, y {self.y0:g}..{self.y1:g}."
            )

    def cover(self, width: int, height: int) -> np.ndarray:
        width, height = raster_size(width, height)
        columns = np.clip(np.minimum(self.x1, np.arange(width) + 1) - np.maximum(self.x0, np.arange(width)), 0, 1)
        rows = np.clip(np.minimum(self.y1, np.arange(height) + 1) - np.maximum(self.y0, np.arange(height)), 0, 1)
        result: np.ndarray = (rows[:, None] * columns[None, :]).astype(np.float32)
        return result

    def areas(self, xs: np.ndarray, ys: np.ndarray, size: Size) -> np.ndarray:
        return np.outer(np.clip(ys, self.y0, self.y1) - self.y0, np.clip(xs, self.x0, self.x1) - self.x0)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        return self.x0, self.y0, self.x1, self.y1

    def outline(self) -> list[list[tuple[float, float]]]:
        x0, y0, x1, y1 = self.bounds
        return [[(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]]

    def moved(self, right: float, down: float) -> "Box":
        right, down = shift(right, down)
        return Box(self.x0 + right, self.y0 + down, self.x1 + right, self.y1 + down)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "box", "corners": [float(value) for value in self.bounds]}


class _Marks(Region):
    """A region of drawn points."""

    soft: ClassVar[bool] = True

    def pixels(self, width: int, height: int) -> np.ndarray:
        """(n, 2): columns and rows of the drawn pixels, each once."""
        width, height = image_size(width, height)
        marked = np.array(self._positions(), float).reshape(-1, 2)
        result: np.ndarray = np.minimum(marked.astype(int), [width - 1, height - 1])
        return result

    def _positions(self) -> Sequence[tuple[float, float]]:
        return self.outline()[0]

    def check(self, width: int, height: int) -> None:
        width, height = image_size(width, height)
        for x, y in self._positions():
            if not (0 <= x <= width and 0 <= y <= height):
                what = "A point" if isinstance(self, Point) else "A scribble's points"
                raise RegionError(f"{what} must lie within the image of {width} x {height} px; got ({x:g}, {y:g}).")

    def cover(self, width: int, height: int) -> np.ndarray:
        width, height = raster_size(width, height)
        columns, rows = self.pixels(width, height).T
        cover = np.zeros((height, width), np.float32)
        cover[rows, columns] = 1
        return cover

    def areas(self, xs: np.ndarray, ys: np.ndarray, size: Size) -> np.ndarray:
        pixels = self.pixels(*size)

        def counts(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
            # A pixel counts from the first edge beyond it on; those beyond the last edge do not.
            column, row = (
                np.searchsorted(edges, place, side="right") for edges, place in zip((columns, rows), pixels.T, strict=True)
            )
            shape = (len(rows) + 1, len(columns) + 1)
            cells = np.bincount(row * shape[1] + column, minlength=shape[0] * shape[1]).reshape(shape)
            return cells[:-1, :-1].cumsum(0).cumsum(1)

        return between_pixels(counts, xs, ys, size)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        xs, ys = zip(*self._positions(), strict=True)
        return min(xs), min(ys), max(xs), max(ys)


@dataclass(frozen=True, init=False)
class Scribble(_Marks):
    """A freehand line through points.

    Args:
        points: (x, y) pairs in pixels, at least one; consecutive points are joined by straight lines.

    Raises:
        RegionError: for no points or points that are not pairs of finite numbers.
    """

    points: tuple[tuple[float, float], ...]

    def __init__(self, points: Iterable[Sequence[float]]):
        needs = "A scribble needs pairs of finite numbers (x, y)"
        pairs = [several(point, needs, RegionError) for point in several(points, needs, RegionError)]
        if not pairs:
            raise RegionError("A scribble needs at least one (x, y) point; got none.")
        for pair in pairs:
            if len(pair) != 2:
                raise RegionError(f"{needs}; got {shown(pair)}.")
        object.__setattr__(
            self, "points", tuple((float(x), float(y)) for x, y in (coordinates(pair, needs) for pair in pairs))
        )

    def pixels(self, width: int, height: int) -> np.ndarray:
        width, height = image_size(width, height)
        given = super().pixels(width, height)
        drawn = np.concatenate([given, _lines(given)])
        numbers = np.sort(drawn[:, 1] * width + drawn[:, 0])
        rows, columns = np.divmod(numbers[np.diff(numbers, prepend=-1) > 0], width)
        return np.stack([columns, rows], 1)

    def outline(self) -> list[list[tuple[float, float]]]:
        return [list(self.points)]

    def moved(self, right: float, down: float) -> "Scribble":
        right, down = shift(right, down)
        return Scribble([(x + right, y + down) for x, y in self.points])

    def to_json(self) -> dict[str, Any]:
        return {"kind": "scribble", "points": [list(point) for point in self.points]}


@dataclass(frozen=True)
class Point(_Marks):
    """One position (x, y) in pixels.

    Raises:
        RegionError: unless both are finite.
    """

    x: float
    y: float

    def __post_init__(self) -> None:
        x, y = coordinates((self.x, self.y), "A point needs two finite numbers x, y")
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)

    def outline(self) -> list[list[tuple[float, float]]]:
        return [[(self.x, self.y)]]

    def moved(self, right: float, down: float) -> "Point":
        right, down = shift(right, down)
        return Point(self.x + right, self.y + down)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "point", "position": [float(self.x), float(self.y)]}


def _lines(points: np.ndarray) -> np.ndarray:
    """(n, 2): pixels of the lines from each point to the next, as Bresenham has them and Pillow draws them."""
    way = np.diff(points, axis=0)
    steps, aside = abs(way).max(1), abs(way).min(1)
    line = np.repeat(np.arange(len(way)), steps + 1)
    along = np.arange(len(line)) - np.repeat(np.cumsum(steps + 1) - steps - 1, steps + 1)
    beside = (2 * aside[line] * along + steps[line]) // np.maximum(2 * steps[line], 1)
    steep = (abs(way[:, 1]) > abs(way[:, 0]))[line]
    moved = np.where(steep, [beside, along], [along, beside]).T
    result: np.ndarray = points[line] + np.sign(way)[line] * moved
    return result
